"""Gauss-Newton search for the state behind some readings, and Laplace's approximation of its posterior.

    J(z) = |z|^2 / 2 + sum |H phi(z) - y|^2 / (2 s^2),   A = I + sum (H phi')^T H phi' / s^2
    z <- A^-1 (H phi')^T (y - H phi + H phi' z) / s^2,   posterior ~ N(z, A^-1)

phi makes the window of coordinates z that are standard normal before any reading.
Source: Nocedal and Wright (2006), section 10.3; Bell (1994), SIAM J. Optim. 4, 626 (as iterated smoother).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from phdme_jax.methods.sensors.sensed import Sensed

FURTHEST = 6.0  # from the background, in its standard deviations, that a coordinate may be


class Laplace(NamedTuple):
    """A Gaussian over coordinates, N(mode, root root^T).

    Attributes:
      mode: the best coordinates found.
      root: upper triangular root of the covariance.
      inverse: of the root.
      misfit: mean square of what is missed of the readings, in units of their noise.
    """

    mode: Float[Array, "direction"]
    root: Float[Array, "direction direction"]
    inverse: Float[Array, "direction direction"]
    misfit: Float[Array, ""]

    def coordinates(self, xi: Float[Array, "direction"]) -> Float[Array, "direction"]:
        """Coordinates that standard normal numbers stand for."""
        return self.mode + self.root @ xi

    def whitened(self, z: Float[Array, "direction"]) -> Float[Array, "direction"]:
        """Numbers that coordinates are made of."""
        return self.inverse @ (z - self.mode)


def gauss_newton(
    phi: Callable[[Array], Array],
    sensed: Sensed,
    noise: Float[Array, "*grid field"],
    begin: Float[Array, "direction"],
    steps: int,
    centre: Float[Array, "direction"] | None = None,
    furthest: float = FURTHEST,
) -> tuple[Float[Array, "direction"], Float[Array, "reading"], Float[Array, "reading direction"]]:
    """The best coordinates of a few Gauss-Newton steps.

    Args:
      phi: coordinates -> window.
      sensed: readings, in the units of the window.
      noise: their standard deviation, of each field or of each field at each place.
      begin: where the search begins.
      steps: of it; after one that makes J larger, which is not taken, the next is three tenths as long.
      centre: of the background, zero where None.
      furthest: from zero that a coordinate may be.
    Returns:
      the coordinates, what they miss of the readings in units of the noise, and the slope of that.
    """
    weight = jnp.broadcast_to(sensed.mask / noise, sensed.values.shape)
    middle = jnp.zeros_like(begin) if centre is None else centre

    def missed(z: Array) -> Array:
        return jnp.ravel(weight * (phi(z) - sensed.values))

    def at(z: Array) -> tuple[Array, Array, Array]:
        error, away = missed(z), z - middle
        return error, jax.jacfwd(missed)(z), 0.5 * (away @ away + error @ error)

    # phi is differentiated at one place of the program, which takes half the time to compile
    def step(carry: Any, _: None) -> tuple[Any, None]:
        trial, first, *known, length = carry
        there = at(trial)
        better = first | (there[2] < known[3])
        kept = [jnp.where(better, new, old) for new, old in zip((trial, *there), known, strict=True)]
        best, error, slope = kept[:3]
        length = jnp.where(better, 1.0, 0.3 * length)
        normal = jnp.eye(len(best), dtype=best.dtype) + slope.T @ slope
        full = jnp.linalg.solve(normal, -(best - middle + slope.T @ error))
        trial = jnp.clip(best + length * full, -furthest, furthest)
        return (trial, jnp.asarray(False), *kept, length), None

    begin = jnp.clip(begin, -furthest, furthest)
    unknown = [jnp.zeros(leaf.shape, leaf.dtype) for leaf in jax.eval_shape(at, begin)]
    carry = (begin, jnp.asarray(True), begin, *unknown, jnp.ones((), begin.dtype))
    (_, _, mode, error, slope, *_), _ = jax.lax.scan(step, carry, None, length=steps + 1)
    return mode, error, slope


def laplace(
    phi: Callable[[Array], Array],
    sensed: Sensed,
    noise: Float[Array, "*grid field"],
    begin: Array,
    steps: int,
    furthest: float = FURTHEST,
) -> Laplace:
    """The approximation at the best coordinates found; arguments as of `gauss_newton`."""
    mode, error, slope = gauss_newton(phi, sensed, noise, begin, steps, furthest=furthest)
    lower = jnp.linalg.cholesky(jnp.eye(len(mode), dtype=mode.dtype) + slope.T @ slope)
    root = solve_triangular(lower, jnp.eye(len(mode), dtype=mode.dtype), lower=True).T
    count = jnp.maximum(jnp.sum(jnp.broadcast_to(sensed.mask, sensed.values.shape)), 1.0)
    misfit = jnp.maximum(error @ error / count, 1e-6)
    return Laplace(mode, root, lower.T, misfit)
