"""Plane elasticity on a mesh of unit squares with four nodes each, one stiffness a square; the matrix is never formed.

    f = K(E) u,   K(E) = sum_e E_e G_e^T K_0 G_e,   G_e the eight displacements at the corners of square e

Plane stress, unit thickness. Arrays over nodes have axes (x, y), one more entry than those over squares.
Source: Hughes (2000), The Finite Element Method, sections 2.7 and 3.2 (four-node quadrilateral, 2 x 2 Gauss points).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from phdme_jax.numerics import block_tridiagonal
from phdme_jax.numerics.arrays import cached_arrays

POISSON_RATIO = 0.3
CORNERS = ((0, 0), (1, 0), (1, 1), (0, 1))
# forces balance to all digits or not at all: not the rounded products that accelerators offer by default
_exact = partial(jnp.matmul, precision="highest")


@cached_arrays
def constitutive_matrix(poisson_ratio: float = POISSON_RATIO) -> np.ndarray:
    """Stress (xx, yy, xy) of a strain (xx, yy, twice xy) in plane stress at unit stiffness, shape (3, 3)."""
    nu = poisson_ratio
    return np.array([[1.0, nu, 0.0], [nu, 1.0, 0.0], [0.0, 0.0, 0.5 * (1.0 - nu)]]) / (1.0 - nu**2)


def strain_matrix(at: tuple[float, float]) -> np.ndarray:
    """Strain (xx, yy, twice xy) at a point of the unit square from its eight corner displacements, shape (3, 8)."""
    matrix = np.zeros((3, 8))
    for index, corner in enumerate(CORNERS):
        shape = [at[axis] if corner[axis] else 1.0 - at[axis] for axis in (0, 1)]
        slope = [(1.0 if corner[axis] else -1.0) * shape[1 - axis] for axis in (0, 1)]
        matrix[0, 2 * index] = matrix[2, 2 * index + 1] = slope[0]
        matrix[1, 2 * index + 1] = matrix[2, 2 * index] = slope[1]
    return matrix


@cached_arrays
def element_stiffness(poisson_ratio: float = POISSON_RATIO) -> np.ndarray:
    """Stiffness K_0 of a unit square of unit stiffness, shape (8, 8): corners in the order of `CORNERS`, x before y."""
    points = 0.5 + np.array([-0.5, 0.5]) / np.sqrt(3.0)
    stiffness = np.zeros((8, 8))
    for x in points:
        for y in points:
            strain = strain_matrix((x, y))
            stiffness += 0.25 * strain.T @ constitutive_matrix(poisson_ratio) @ strain
    return stiffness


def corner_values(nodal: Float[Array, "x y component"]) -> Float[Array, "ex ey corner component"]:
    """Values at the four corners of each square."""
    nx, ny = nodal.shape[0] - 1, nodal.shape[1] - 1
    return jnp.stack([nodal[a : a + nx, b : b + ny] for a, b in CORNERS], axis=2)


def internal_force(displacement: Float[Array, "x y 2"], stiffness: Float[Array, "ex ey"]) -> Float[Array, "x y 2"]:
    """Force K(E) u that the material exerts at the nodes.

    Args:
      displacement: u at the nodes [side of a square].
      stiffness: E of each square.
    Returns:
      forces, shape of the displacement.
    """
    corners = corner_values(displacement)
    matrix = jnp.asarray(element_stiffness(), displacement.dtype)
    local = stiffness[..., None] * _exact(corners.reshape(*stiffness.shape, 8), matrix)
    local = local.reshape(corners.shape)
    total = jnp.zeros_like(displacement)
    for index, (a, b) in enumerate(CORNERS):
        total = total + jnp.pad(local[:, :, index], ((a, 1 - a), (b, 1 - b), (0, 0)))
    return total


def equilibrium_residual(
    displacement: Float[Array, "x y 2"],
    stiffness: Float[Array, "ex ey"],
    load: Float[Array, "x y 2"],
    fixed: Float[Array, "x y 2"],
) -> Float[Array, "x y 2"]:
    """Force out of balance K(E) u - f at free displacements, and the displacement itself where it is fixed.

    Args:
      displacement: u at the nodes.
      stiffness: E of each square.
      load: f at the nodes.
      fixed: one where a displacement is held at zero, zero elsewhere.
    Returns:
      residual, shape of the displacement.
    """
    return jnp.where(fixed > 0.5, displacement, internal_force(displacement, stiffness) - load)


def strain_energy(
    displacement: Float[Array, "x y 2"], stiffness: Float[Array, "ex ey"] | float = 1.0
) -> Float[Array, "ex ey"]:
    """Energy E u_e^T K_0 u_e / 2 of each square."""
    corners = corner_values(displacement)
    local = corners.reshape(*corners.shape[:2], 8)
    matrix = jnp.asarray(element_stiffness(), displacement.dtype)
    return 0.5 * stiffness * jnp.sum(local * _exact(local, matrix), axis=-1)


def compliance(displacement: Float[Array, "x y 2"], stiffness: Float[Array, "ex ey"]) -> Float[Array, ""]:
    """u^T K(E) u, twice the strain energy; at equilibrium the work f . u of the loads."""
    return 2.0 * jnp.sum(strain_energy(displacement, stiffness))


def von_mises(
    displacement: Float[Array, "x y 2"], stiffness: Float[Array, "ex ey"] | float = 1.0
) -> Float[Array, "ex ey"]:
    """Von Mises stress at the middle of each square, sqrt(xx^2 + yy^2 - xx yy + 3 xy^2)."""
    corners = corner_values(displacement)
    at_middle = constitutive_matrix() @ strain_matrix((0.5, 0.5))
    stress = _exact(corners.reshape(*corners.shape[:2], 8), jnp.asarray(at_middle.T, displacement.dtype))
    xx, yy, xy = jnp.moveaxis(stress, -1, 0)
    # the square root has no slope at zero
    return stiffness * jnp.sqrt(jnp.maximum(xx**2 + yy**2 - xx * yy + 3.0 * xy**2, 1e-30))


@cached_arrays
def _row_patterns(num_squares: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each square of a row adds to the blocks of its two rows of nodes: own, own of the next, next by own.

    Each of shape (square, 2 nodes, 2 nodes).
    """
    width = 2 * (num_squares + 1)
    matrix = element_stiffness()
    patterns = np.zeros((3, num_squares, width, width))
    for square in range(num_squares):
        for i, (a, b) in enumerate(CORNERS):
            for j, (c, d) in enumerate(CORNERS):
                part = {(0, 0): 0, (1, 1): 1, (1, 0): 2}.get((a, c))
                if part is not None:
                    row, column = 2 * (square + b), 2 * (square + d)
                    values = matrix[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                    patterns[part, square, row : row + 2, column : column + 2] += values
    return patterns[0], patterns[1], patterns[2]


def solve_equilibrium(
    stiffness: Float[Array, "ex ey"], load: Float[Array, "x y 2"], fixed: Float[Array, "x y 2"]
) -> Float[Array, "x y 2"]:
    """Displacement at equilibrium, by a Cholesky factorisation row of nodes by row of nodes.

    Args:
      stiffness: E of each square, positive.
      load: f at the nodes.
      fixed: one where a displacement is held at zero; enough of them that the body cannot move as a whole.
    Returns:
      u at the nodes, zero where fixed; not finite where the body can move.
    """
    nx, ny = stiffness.shape
    own, following, between = (
        jnp.tensordot(stiffness, jnp.asarray(pattern, stiffness.dtype), axes=1, precision="highest")
        for pattern in _row_patterns(ny)
    )
    diagonal = jnp.pad(own, ((0, 1), (0, 0), (0, 0))) + jnp.pad(following, ((1, 0), (0, 0), (0, 0)))
    below = jnp.pad(between, ((1, 0), (0, 0), (0, 0)))
    free = (fixed < 0.5).astype(stiffness.dtype).reshape(nx + 1, 2 * (ny + 1))
    diagonal = diagonal * free[:, :, None] * free[:, None] + jax.vmap(jnp.diag)(1.0 - free)
    before = jnp.concatenate([jnp.ones_like(free[:1]), free[:-1]])
    below = below * free[:, :, None] * before[:, None]
    factor = block_tridiagonal.factorise((diagonal, below))
    solved = block_tridiagonal.solve(factor, free * load.reshape(free.shape))
    return solved.reshape(load.shape)


def is_supported(fixed: Bool[Array, "x y 2"]) -> Bool[Array, ""]:
    """Whether the fixed displacements keep a body from moving and turning as a whole."""
    x, y = jnp.meshgrid(*(jnp.arange(size, dtype=float) for size in fixed.shape[:2]), indexing="ij")
    one, zero = jnp.ones_like(x), jnp.zeros_like(x)
    motions = jnp.stack([jnp.stack([one, zero], -1), jnp.stack([zero, one], -1), jnp.stack([-y, x], -1)])
    held = jnp.where(fixed, motions, 0.0).reshape(3, -1)
    scale = jnp.max(jnp.abs(held), axis=1, keepdims=True)
    held = held / jnp.where(scale > 0, scale, 1.0)
    gram = held @ held.T
    return jnp.linalg.eigvalsh(gram)[0] > 1e-6 * gram.trace()
