"""Darcy flow through two materials, u = 0 on the edge of the unit square: -div(a grad u) = 1, a of two values.

Fluxes through the faces between the nodes balance around each node, in the data and in the residual, which of the data
is one of rounding. `unseen` is the equation by central differences of central differences, as in published code, here
divided by the spacing; between the materials its error grows with the grid.
Source: Huang et al. (2024), DiffusionPDE, arXiv 2406.17763. There the coefficient lives in cells, the solution is
interpolated to the nodes, and the residual is taken with h = 1: that of the data is about one.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from phdme_jax.numerics import block_tridiagonal
from phdme_jax.numerics.bound import Bound
from phdme_jax.numerics.grid import Grid
from phdme_jax.numerics.stencils import mirror_derivative
from phdme_jax.systems.equations.base import Equations, Residuals, Sample, unconditional
from phdme_jax.systems.equations.darcy import outflow
from phdme_jax.systems.equations.elliptic import draw_smooth_field, split_at_edge
from phdme_jax.systems.equations.published import darcy_residual

LOW, HIGH = 3.0, 12.0  # the two permeabilities


def _flux_residual(fields: Float[Array, "x y 2"], condition: Array) -> Residuals:
    """Outflow of the cell around each node by its area, less the source, which is one."""
    del condition
    solution = fields[..., 0]
    return split_at_edge(outflow(solution, fields[..., 1]) - 1.0, solution)


def _product_residual(fields: Float[Array, "x y 2"], condition: Array) -> Residuals:
    del condition
    solution, coefficient = fields[..., 0], fields[..., 1]
    spacing, balance = 1.0 / (len(solution) - 1), -jnp.ones_like(solution)
    for turn in (jnp.asarray, jnp.transpose):
        flux = -turn(coefficient) * mirror_derivative(turn(solution), spacing, 2, -1)
        balance = balance + turn(mirror_derivative(flux, spacing, 2, 1))
    return split_at_edge(balance, solution)


def solve_flux(coefficient: Float[Array, "x y"]) -> Float[Array, "x y"]:
    """Solution of the balance of fluxes with a source of one and u = 0 on the edge.

    Its slopes are solutions with the same factor, see `darcy.solve_nodal`.

    Args:
      coefficient: a at the nodes, positive.
    Returns:
      u, shape of a.
    """
    square = (len(coefficient) - 1.0) ** 2
    across = 0.5 * square * (coefficient[1:, 1:-1] + coefficient[:-1, 1:-1])
    along = 0.5 * square * (coefficient[1:-1, 1:] + coefficient[1:-1, :-1])
    # between the nodes inside and their neighbours; those on the edge are known to be zero
    above, under, before, after = across[:-1], across[1:], along[:, :-1], along[:, 1:]
    own = jnp.stack([-before, above + under + before + after, -after], axis=-1)
    own = own.at[:, 0, 0].set(0.0).at[:, -1, 2].set(0.0)
    factor = block_tridiagonal.eliminate(own, -above[..., None])

    def product(inside: Array) -> Array:
        return outflow(jnp.pad(inside, 1), coefficient)[1:-1, 1:-1]

    def solve(_: Any, right: Array) -> Array:
        return block_tridiagonal.solve_eliminated(factor, right)

    return jnp.pad(jax.lax.custom_linear_solve(product, jnp.ones_like(above), solve, symmetric=True), 1)


def _with_solution(coefficient: Array) -> Array:
    return jnp.stack([solve_flux(coefficient), coefficient], axis=-1)


def _resolve(fields: Array, condition: Array) -> Array:
    del condition
    return _with_solution(fields[..., 1])


def _draw(num_points: int, key: Array) -> Sample:
    return unconditional(_with_solution(jnp.where(draw_smooth_field(num_points, key) >= 0, HIGH, LOW)))


def make_darcy_binary(num_points: int = 64) -> Equations:
    """Darcy flow -div(a grad u) = 1, u = 0 on the edge, a = 12 where a smooth random field is positive, 3 elsewhere.

    Args:
      num_points: nodes along each side, ends included.
    Returns:
      the equations; fields pressure and permeability.
    Raises:
      ValueError: too few points.
    """
    if num_points < 5:
        raise ValueError(f"expected at least 5 points, got {num_points}; try 32")
    return Equations(
        name="darcy_binary",
        grid=Grid((num_points, num_points), (1.0, 1.0)),
        fields=("pressure", "permeability"),
        units=("1", "1"),
        residual=_flux_residual,
        draw=Bound(_draw, num_points),
        resolve=_resolve,
        unseen=_product_residual,
        published=darcy_residual,
    )
