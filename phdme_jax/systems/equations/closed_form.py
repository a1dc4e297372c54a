"""Small problems whose answers are known: points on the unit circle, and Poisson's equation on a line."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phdme_jax.numerics.arrays import cached_arrays
from phdme_jax.numerics.bound import Bound
from phdme_jax.numerics.grid import Grid
from phdme_jax.numerics.stencils import mirror_second_derivative
from phdme_jax.systems.equations.base import Equations, Residuals, Sample, unconditional


def _circle_residual(fields: Float[Array, "2"], condition: Array) -> Residuals:
    del condition
    return {"radius": jnp.sum(fields**2) - 1.0}


def _draw_on_circle(key: Array) -> Sample:
    angle = jax.random.uniform(key, maxval=2.0 * np.pi)
    return unconditional(jnp.stack([jnp.cos(angle), jnp.sin(angle)]))


def _onto_circle(fields: Array, condition: Array) -> Array:
    del condition
    return fields / jnp.linalg.norm(fields)


def make_circle() -> Equations:
    """Points of the plane with x^2 + y^2 = 1, uniform in their angle.

    Returns:
      the equations; `resolve` goes to the nearest point of the circle.
    Source: Bastek, Sun, Kochmann (2024), arXiv 2403.14404, section 3.3.
    """
    return Equations(
        name="circle",
        grid=Grid((), ()),
        fields=("x", "y"),
        units=("1", "1"),
        residual=_circle_residual,
        draw=_draw_on_circle,
        resolve=_onto_circle,
        num_solution=2,
    )


@cached_arrays
def sine_matrix(num_points: int) -> np.ndarray:
    """Sines of k = 1 ... points - 2 half waves at the points of [0, 1], shape (points, wave)."""
    return np.sin(np.pi * np.outer(np.linspace(0.0, 1.0, num_points), np.arange(1, num_points - 1)))


def poisson_solution(source: Float[Array, "x"]) -> Float[Array, "x"]:
    """Exact solution of -u'' = f, u(0) = u(1) = 0 for the sine series through the values of f inside.

        u = sum_k a_k sin(k pi x) / (k pi)^2,   f = sum_k a_k sin(k pi x) at the points inside

    Args:
      source: f at evenly spaced points, ends included, whose values do not matter.
    Returns:
      u, shape of f.
    """
    num_points = source.shape[0]
    sines = sine_matrix(num_points)
    waves = np.pi * np.arange(1, num_points - 1)
    # the sines are orthogonal over the points, each of square (points - 1) / 2
    matrix = (sines / waves**2) @ sines.T * (2.0 / (num_points - 1))
    return jnp.matmul(jnp.asarray(matrix, source.dtype), source, precision="highest")


def make_poisson(num_points: int = 64, num_waves: int = 8, order: int = 8) -> Equations:
    """Poisson's equation -u'' = f on [0, 1] with u = 0 at both ends, f of a few random sines.

        f = sum_k a_k sin(k pi x),   a_k standard normal,   u = sum_k a_k sin(k pi x) / (k pi)^2

    Args:
      num_points: points, ends included.
      num_waves: sines in the source.
      order: of the second derivative in the residual; the solution is exact, so that data have its truncation error.
    Returns:
      the equations; fields solution and source.
    Raises:
      ValueError: more sines than the points resolve.
    """
    if not 1 <= num_waves <= num_points - 2:
        raise ValueError(f"expected between 1 and {num_points - 2} sines on {num_points} points, got {num_waves}")
    return Equations(
        name="poisson_1d",
        grid=Grid((num_points,), (1.0,)),
        fields=("solution", "source"),
        units=("1", "1"),
        residual=Bound(_poisson_residual, order),
        draw=Bound(_draw_poisson, num_points, num_waves),
        resolve=_resolve_poisson,
    )


def _poisson_residual(order: int, fields: Array, condition: Array) -> Residuals:
    del condition
    solution, source = fields[:, 0], fields[:, 1]
    balance = -mirror_second_derivative(solution, 1.0 / (len(solution) - 1), order, -1) - source
    ends = jnp.zeros_like(solution).at[jnp.array([0, -1])].set(solution[jnp.array([0, -1])])
    inside = jnp.ones_like(balance).at[jnp.array([0, -1])].set(0.0)
    return {"balance": inside * balance, "ends": ends}


def _resolve_poisson(fields: Array, condition: Array) -> Array:
    del condition
    return jnp.stack([poisson_solution(fields[:, 1]), fields[:, 1]], axis=-1)


def _draw_poisson(num_points: int, num_waves: int, key: Array) -> Sample:
    sines = jnp.asarray(sine_matrix(num_points)[:, :num_waves])
    source = sines @ jax.random.normal(key, (num_waves,), sines.dtype)
    return unconditional(jnp.stack([poisson_solution(source), source], axis=-1))
