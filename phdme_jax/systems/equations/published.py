"""Residuals as the code of DiffusionPDE computes them, faults included: for comparisons alone.

Differences leave out the spacing, and fields count as zero beyond the grid. Of Darcy's data, div(a grad u) is too small
by the square of the spacing, so that the residual is one nearly everywhere. In Burgers' equation the first differences
have the sign of the other direction, the second difference, taken twice, has not: the viscosity counts as negative.
Source: the functions of the losses in the code of Huang et al. (2024), arXiv 2406.17763.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from phdme_jax.systems.equations.base import Residuals


def _half_difference(values: Float[Array, "x y"], axis: int) -> Float[Array, "x y"]:
    """Half of the value after less the one before, zero beyond the ends."""
    turned = jnp.moveaxis(jnp.pad(values, [(1, 1) if other == axis else (0, 0) for other in (0, 1)]), axis, 0)
    return jnp.moveaxis(0.5 * (turned[2:] - turned[:-2]), 0, axis)


def darcy_residual(fields: Float[Array, "x y 2"], condition: Array) -> Residuals:
    """div(a grad u) + 1 by differences of differences without a spacing; the edge is not asked for."""
    del condition
    solution, coefficient = fields[..., 0], fields[..., 1]
    total = jnp.ones_like(solution)
    for axis in (0, 1):
        total = total + _half_difference(coefficient * _half_difference(solution, axis), axis)
    return {"balance": total}


def burgers_residual(viscosity: float, fields: Float[Array, "x time 1"], condition: Array) -> Residuals:
    """-(u_t + u u_x) - nu u_xx by differences without a spacing."""
    del condition
    values = fields[..., 0]
    slope = -_half_difference(values, 0)
    curvature = -_half_difference(slope, 0)
    return {"balance": -_half_difference(values, 1) + values * slope - viscosity * curvature}
