"""Correction of a finished field by steps down the square of its residual, the coefficient left as it is.

    p <- p - step d(sum r^2)/dp

Three rules for the step: the published one, a constant over the largest entry of the Jacobian of r; the exact minimum
along the gradient, closed form where r is linear in p; and halving until the sum decreases enough.
Source: Jacobsen, Zhuang, Duraisamy (2025), CoCoGen, SIAM J. Sci. Comput. 47 (C399), section 3.
"""

from collections.abc import Callable
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

STEPS = ("published", "exact", "backtracking")
PUBLISHED_STEP = 1e-6

Residual = Callable[[Array], Array]


def largest_slope(residual: Residual, solution: Float[Array, "*grid"], reach: int = 3) -> Float[Array, ""]:
    """Largest entry of the Jacobian of a residual that is local on a grid, signed, without forming it.

    Places further apart than the stencil reaches are probed together, (2 reach + 1)^axes products in all.

    Args:
      residual: solution -> residuals (*grid, equation) at each place.
      solution: where the Jacobian is taken.
      reach: how far, along each axis, an equation looks.
    Returns:
      the largest entry.
    """
    period = 2 * reach + 1
    probes = np.zeros((period**solution.ndim, *solution.shape))
    for probe, offsets in zip(probes, product(range(period), repeat=solution.ndim), strict=True):
        probe[tuple(slice(offset, None, period) for offset in offsets)] = 1.0

    def largest(probe: Array) -> Array:
        return jnp.max(jax.jvp(residual, (solution,), (probe,))[1])

    return jnp.max(jax.lax.map(largest, jnp.asarray(probes, solution.dtype)))


def correct_once(residual: Residual, solution: Float[Array, "*grid"], rule: str = "exact") -> Float[Array, "*grid"]:
    """One step down the square of the residual.

    Args:
      residual: solution -> residuals, of any shape.
      solution: field to be corrected, physical units.
      rule: "published", "exact" or "backtracking".
    Returns:
      the corrected field.
    Raises:
      ValueError: unknown rule.
    """
    if rule not in STEPS:
        raise ValueError(f"expected a rule among {STEPS}, got {rule!r}")
    found, pull_back = jax.vjp(residual, solution)
    (gradient,) = pull_back(2.0 * found)
    if rule == "published":
        return solution - PUBLISHED_STEP / largest_slope(residual, solution) * gradient
    along = jax.jvp(residual, (solution,), (gradient,))[1]
    square = jnp.sum(along**2)
    exact = jnp.sum(found * along) / jnp.where(square > 0.0, square, 1.0)
    if rule == "exact":
        return solution - exact * gradient
    return solution - _backtracked(residual, solution, found, gradient, 2.0 * exact) * gradient


def _backtracked(residual: Residual, solution: Array, found: Array, gradient: Array, first: Array) -> Array:
    """Armijo's rule: half the step until the sum of squares falls by a ten-thousandth of what its slope says."""
    value, slope = jnp.sum(found**2), jnp.sum(gradient**2)

    def too_long(state: tuple[Array, Array]) -> Array:
        step, count = state
        new = jnp.sum(residual(solution - step * gradient) ** 2)
        return ~(new <= value - 1e-4 * step * slope) & (count < 30)

    step, count = jax.lax.while_loop(too_long, lambda state: (0.5 * state[0], state[1] + 1), (first, jnp.asarray(0)))
    return jnp.where(count < 30, step, 0.0)


def correct(
    residual: Residual, solution: Float[Array, "*grid"], num_steps: int, rule: str = "exact"
) -> Float[Array, "*grid"]:
    """Several steps, see `correct_once`."""
    step = partial(correct_once, residual, rule=rule)
    corrected, _ = jax.lax.scan(lambda p, _: (step(p), None), solution, None, length=num_steps)
    return corrected
