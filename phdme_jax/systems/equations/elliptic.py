"""Poisson's and Helmholtz' equation on the unit square with u = 0 on its edge, driven by smooth random fields.

    poisson_2d   lap u = f,          helmholtz_2d   lap u + k^2 u = f,   five-point Laplacian

Data and residual share their stencils at the nodes, so that data have a residual of rounding. `unseen` is the same
equation by stencils of fourth order, which no method is shown. Of the data it has the error of both stencils, which
does not fall with the grid next to the edge, where the solution bends.
Source: Huang et al. (2024), DiffusionPDE, arXiv 2406.17763, for equations and random fields.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phdme_jax.numerics.bound import Bound
from phdme_jax.numerics.grid import Grid
from phdme_jax.numerics.stencils import mirror_second_derivative
from phdme_jax.systems.equations.base import Equations, Residuals, Sample, unconditional
from phdme_jax.systems.equations.closed_form import sine_matrix


def draw_smooth_field(
    num_points: int, key: Array, smoothness: float = 2.0, inverse_length: float = 3.0
) -> Float[Array, "x y"]:
    """A Gaussian field with zero mean and slopes that vanish on the edge.

        g = sum_k tau^(alpha - 1) (pi^2 |k|^2 + tau^2)^(-alpha / 2) xi_k n cos(k_1 pi x) cos(k_2 pi y),   k != 0

    with orthonormal cosines on the n^2 cells of the square, xi_k standard normal.

    Args:
      num_points: values along each side, n.
      key: random key.
      smoothness: alpha.
      inverse_length: tau.
    Returns:
      the field, float64 where that is enabled.
    """
    noise = jax.random.normal(key, (num_points, num_points))
    wave = np.pi * np.arange(num_points)
    size = inverse_length ** (smoothness - 1) * (wave[:, None] ** 2 + wave**2 + inverse_length**2) ** (-smoothness / 2)
    size[0, 0] = 0.0
    return jax.scipy.fft.idctn(jnp.asarray(num_points * size, noise.dtype) * noise, norm="ortho")


def on_edge(num_points: int) -> np.ndarray:
    """One at the nodes of the edge, zero inside, shape (points, points)."""
    edge = np.ones((num_points, num_points))
    edge[1:-1, 1:-1] = 0.0
    return edge


def split_at_edge(balance: Array, solution: Array) -> Residuals:
    """The balance inside, and the solution on the edge, where it is to vanish."""
    edge = jnp.asarray(on_edge(len(solution)), solution.dtype)
    return {"balance": (1 - edge) * balance, "edge": edge * solution}


# ---- Poisson's and Helmholtz' equation


def _laplacian_residual(square: float, order: int, fields: Float[Array, "x y 2"], condition: Array) -> Residuals:
    del condition
    solution, source = fields[..., 0], fields[..., 1]
    spacing = 1.0 / (len(solution) - 1)
    curved = [mirror_second_derivative(turned, spacing, order, -1) for turned in (solution, solution.T)]
    return split_at_edge(curved[0] + curved[1].T + square * solution - source, solution)


def solve_helmholtz(source: Float[Array, "x y"], square: float = 0.0) -> Float[Array, "x y"]:
    """Solution of the five-point equation lap u + k^2 u = f with u = 0 on the edge, by sines along both axes.

        u_pq = f_pq / (k^2 - lambda_p - lambda_q),   lambda_p = (2 - 2 cos(p pi h)) / h^2

    Args:
      source: f at the nodes; values on the edge do not matter.
      square: k^2, zero for Poisson's equation.
    Returns:
      u, shape of f.
    """
    num_points = len(source)
    sines = jnp.asarray(sine_matrix(num_points) * np.sqrt(2.0 / (num_points - 1)), source.dtype)
    waves = (2 - 2 * np.cos(np.pi * np.arange(1, num_points - 1) / (num_points - 1))) * (num_points - 1) ** 2
    factor = jnp.asarray(1.0 / (square - waves[:, None] - waves), source.dtype)
    with jax.default_matmul_precision("highest"):
        inside = source * jnp.asarray(1 - on_edge(num_points), source.dtype)
        solution = sines @ (factor * (sines.T @ inside @ sines)) @ sines.T
    return _inside(solution)


def _inside(solution: Array) -> Array:
    """The solution with what rounding left on the edge taken off."""
    return jnp.pad(solution[1:-1, 1:-1], 1)


def _resolve_helmholtz(square: float, fields: Array, condition: Array) -> Array:
    del condition
    return jnp.stack([solve_helmholtz(fields[..., 1], square), fields[..., 1]], axis=-1)


def _draw_helmholtz(
    num_points: int, square: float, cut: bool, key: Array, smoothness: float = 2.0, inverse_length: float = 3.0
) -> Sample:
    source = draw_smooth_field(num_points, key, smoothness, inverse_length)
    if cut:
        source = _inside(source)
    return unconditional(jnp.stack([solve_helmholtz(source, square), source], axis=-1))


def _make_laplacian(name: str, num_points: int, square: float, **source: float) -> Equations:
    if num_points < 9:
        raise ValueError(f"expected at least 9 points, got {num_points}; try 32")
    return Equations(
        name=name,
        grid=Grid((num_points, num_points), (1.0, 1.0)),
        fields=("solution", "source"),
        units=("1", "1"),
        residual=Bound(_laplacian_residual, square, 2),
        draw=Bound(_draw_helmholtz, num_points, square, name == "helmholtz_2d", **source),
        resolve=Bound(_resolve_helmholtz, square),
        unseen=Bound(_laplacian_residual, square, 4),
    )


def make_poisson_2d(num_points: int = 64, smoothness: float = 2.0, inverse_length: float = 3.0) -> Equations:
    """Poisson's equation lap u = f, u = 0 on the edge, f a smooth random field.

    Args:
      num_points: nodes along each side, ends included.
      smoothness: of f, see `draw_smooth_field`.
      inverse_length: of f, larger for shorter waves.
    Returns:
      the equations; fields solution and source.
    Raises:
      ValueError: too few points, or a source whose variance would grow with the grid.
    """
    if smoothness <= 1 or inverse_length <= 0:
        raise ValueError(
            f"expected a smoothness above 1 and a positive inverse length, got {smoothness} and {inverse_length}; "
            "try 2 and 3"
        )
    return _make_laplacian("poisson_2d", num_points, 0.0, smoothness=smoothness, inverse_length=inverse_length)


def make_helmholtz_2d(num_points: int = 64, wave_number: float = 1.0) -> Equations:
    """Helmholtz' equation lap u + k^2 u = f, u = 0 on the edge, f a smooth random field, zero at the nodes of the edge.

    Args:
      num_points: nodes along each side, ends included.
      wave_number: k, below that of the first resonance, sqrt(2) pi.
    Returns:
      the equations; fields solution and source.
    Raises:
      ValueError: a wave number at which the sign of the operator is not settled.
    """
    if not 0 <= wave_number < 4.4:
        raise ValueError(f"expected a wave number from 0 to 4.4, below the first resonance, got {wave_number}")
    return _make_laplacian("helmholtz_2d", num_points, float(wave_number) ** 2)
