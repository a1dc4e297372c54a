"""Plane elasticity on a mesh of unit squares with four nodes each, one stiffness a square; the matrix is never formed.

    f = K(E) u,   K(E) = sum_e E_e G_e^T K_0 G_e,   G_e the eight displacements at the corners of square e

Plane stress, unit thickness. Arrays over nodes have axes (x, y), one more entry than those over squares.
Source: Hughes (2000), The Finite Element Method, sections 2.7 and 3.2 (four-node quadrilateral, 2 x 2 Gauss points).
"""

from functools import partial
from itertools import product

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


def _bands(stiffness: Float[Array, "ex ey"], free: Float[Array, "x y 2"], dx: int) -> Float[Array, "x row 7"]:
    """Entries of K between the free displacements of each row of nodes (y, component) and those of the row x + dx."""
    shape, matrix = free.shape, element_stiffness()
    around, beyond = jnp.pad(stiffness, 1), jnp.pad(free, ((1, 1), (1, 1), (0, 0)))
    bands = [[jnp.zeros(shape[:2], stiffness.dtype)] * 7 for _ in range(2)]
    for (i, (a, b)), (j, (c, d)) in product(enumerate(CORNERS), repeat=2):
        if c - a == dx:
            squares = around[1 - a : 1 - a + shape[0], 1 - b : 1 - b + shape[1]]  # of which each node is corner i
            others = beyond[1 + dx : 1 + dx + shape[0], 1 + d - b : 1 + d - b + shape[1]]
            for row, column in product(range(2), repeat=2):
                entry = squares * free[..., row] * others[..., column] * float(matrix[2 * i + row, 2 * j + column])
                # from one component of a node to another of the node y + d - b is as many places
                bands[row][2 * (d - b) + column - row + 3] += entry
    return jnp.stack([jnp.stack(part, axis=-1) for part in bands], axis=-2).reshape(shape[0], 2 * shape[1], 7)


def solve_equilibrium(
    stiffness: Float[Array, "ex ey"], load: Float[Array, "x y 2"], fixed: Float[Array, "x y 2"]
) -> Float[Array, "x y 2"]:
    """Displacement at equilibrium, by elimination row of nodes by row of nodes, with one step of refinement.

    Args:
      stiffness: E of each square, positive.
      load: f at the nodes.
      fixed: one where a displacement is held at zero; enough of them that the body cannot move as a whole.
    Returns:
      u at the nodes, zero where fixed; not finite where the body can move.
    """
    free = (fixed < 0.5).astype(stiffness.dtype)
    own, below = (_bands(stiffness, free, dx) for dx in (0, -1))
    factor = block_tridiagonal.eliminate(own.at[..., 3].add((1.0 - free).reshape(own.shape[:2])), below)

    def solved(force: Array) -> Array:
        return block_tridiagonal.solve_eliminated(factor, (free * force).reshape(own.shape[:2])).reshape(load.shape)

    displacement = solved(load)
    return displacement + solved(load - internal_force(displacement, stiffness))


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
