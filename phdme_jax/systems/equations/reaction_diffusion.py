"""Reaction and diffusion between ends that let something in: u_t = nu u_xx + rho u (1 - u) on [0, 1] x [0, T].

    u' = u + dt (A u + A u') / 2 + dt (r(u) + r(u')) / 2 + dt (a e_first - b e_last) / dx
    u(x, 0): random waves, see `periodic`, n = 1, 2, 3, scaled to [0, 1];  flux a in at the left on [0, 0.05], flux b on
    [-0.05, 0] at the right, so that both ends let in; both even, nu = 0.005, rho = 0.01

Finite volumes: A is the second difference without flux through the ends, times nu; one step of the trapezoidal rule
between frames. The residual is that of the scheme and vanishes to rounding, as does the balance of the mean with source
and fluxes. No field holds the fluxes, which change from example to example and not in time: residual and balance take
the ones that fit best, the mean over the steps of what the first and the last cell miss.
Source: Utkarsh et al. (2025), arXiv 2506.04171, for the family and the numbers of its waves.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phdme_jax.numerics.arrays import cached_arrays
from phdme_jax.numerics.bound import Bound
from phdme_jax.numerics.grid import Grid
from phdme_jax.numerics.quadrature import integrate, interval_rule
from phdme_jax.systems.equations.base import Equations, Residuals, Sample, unconditional, uniform_unless
from phdme_jax.systems.equations.heat import curvature
from phdme_jax.systems.equations.periodic import random_waves

DIFFUSIVITY, RATE = 0.005, 0.01
LEFT, RIGHT = (0.0, 0.05), (-0.05, 0.0)
HIGHEST_WAVE = 3
ITERATIONS = 6  # of the implicit reaction; each leaves a share of RATE dt / 2
NODES = 8


class Fluxes(NamedTuple):
    """Towards larger x through the left and the right end."""

    left: Float[Array, ""]
    right: Float[Array, ""]


def _reaction(values: Array) -> Array:
    return RATE * values * (1.0 - values)


@cached_arrays
def _diffusion(num_points: int) -> np.ndarray:
    """Second difference without flux through the ends, times nu."""
    faces = np.diff(np.eye(num_points), axis=0)
    return -DIFFUSIVITY * num_points**2 * faces.T @ faces


@cached_arrays
def _stepper(num_points: int, dt: float) -> np.ndarray:
    return np.linalg.inv(np.eye(num_points) - 0.5 * dt * _diffusion(num_points))


def _times(matrix: np.ndarray, values: Float[Array, "x ..."]) -> Float[Array, "x ..."]:
    return jnp.tensordot(jnp.asarray(matrix, values.dtype), values, axes=1, precision="highest")


def solve_reaction_diffusion(
    initial: Float[Array, "x"], fluxes: Fluxes, num_frames: int, duration: float
) -> Float[Array, "x time"]:
    """Frames of the scheme, one step between them.

    Args:
      initial: means of the cells at the first frame.
      fluxes: through the ends.
      num_frames: frames on [0, duration], both ends included.
      duration: T.
    Returns:
      means of the cells at all frames.
    """
    count, dt = len(initial), duration / (num_frames - 1)
    stepper, diffusion = _stepper(count, dt), _diffusion(count)
    came_in = jnp.zeros_like(initial).at[0].set(fluxes.left * count).at[-1].set(-fluxes.right * count)

    def step(values: Array, _: None) -> tuple[Array, Array]:
        known = values + dt * (0.5 * _times(diffusion, values) + 0.5 * _reaction(values) + came_in)
        ahead = values
        for _iteration in range(ITERATIONS):
            ahead = _times(stepper, known + 0.5 * dt * _reaction(ahead))
        return ahead, ahead

    _, later = jax.lax.scan(step, initial, None, length=num_frames - 1)
    return jnp.concatenate([initial[None], later]).T


def _missed(duration: float, values: Float[Array, "x time"]) -> tuple[Float[Array, "x step"], Fluxes]:
    """What each step misses without fluxes through the ends, and the fluxes that explain most of it."""
    rate = _times(_diffusion(len(values)), values) + _reaction(values)
    dt = duration / (values.shape[1] - 1)
    missed = jnp.diff(values, axis=1) / dt - 0.5 * (rate[:, 1:] + rate[:, :-1])
    return missed, Fluxes(jnp.mean(missed[0]) / len(values), -jnp.mean(missed[-1]) / len(values))


def _residual(duration: float, fields: Float[Array, "x time 1"], condition: Array) -> Residuals:
    """Of each step at the frame where it ends, zero at the first."""
    del condition
    missed, fluxes = _missed(duration, fields[..., 0])
    count = len(missed)
    missed = missed.at[0].add(-fluxes.left * count).at[-1].add(fluxes.right * count)
    return {"balance": jnp.pad(missed, ((0, 0), (1, 0)))}


def _unseen_residual(duration: float, fields: Float[Array, "x time 1"], condition: Array) -> Residuals:
    """High order: through the nine nearest cells and the eight nearest frames; not of the cells at both ends."""
    del condition
    values = fields[..., 0]
    num_frames = values.shape[1]
    rate = DIFFUSIVITY * curvature(values, 1.0 / len(values)) + _reaction(values)
    integral = integrate(interval_rule(np.linspace(0.0, duration, num_frames), NODES), rate.T).T
    missed = (num_frames - 1) / duration * (jnp.diff(values, axis=1) - integral)
    return {"balance": jnp.pad(missed[1:-1], ((1, 1), (1, 0)))}


def _conserved(duration: float, fields: Float[Array, "x time 1"], condition: Array) -> Float[Array, "later"]:
    """Mean of each later frame less that of the first, the source, and what the fluxes brought."""
    del condition
    values = fields[..., 0]
    _, fluxes = _missed(duration, values)
    dt = duration / (values.shape[1] - 1)
    mean, source = jnp.mean(values, axis=0), jnp.mean(_reaction(values), axis=0)
    gained = 0.5 * (source[1:] + source[:-1]) + fluxes.left - fluxes.right
    return mean[1:] - mean[0] - dt * jnp.cumsum(gained)


def _resolve(duration: float, fields: Array, condition: Array) -> Array:
    del condition
    values = fields[..., 0]
    _, fluxes = _missed(duration, values)
    return solve_reaction_diffusion(values[:, 0], fluxes, values.shape[1], duration)[..., None]


def _initial(num_points: int, key: Array) -> Float[Array, "x"]:
    values = random_waves(num_points, HIGHEST_WAVE, key)
    lowest = jnp.min(values)
    return (values - lowest) / (jnp.max(values) - lowest)


def _draw(
    num_points: int,
    num_frames: int,
    duration: float,
    initial: int | None,
    left: float | None,
    right: float | None,
    key: Array,
) -> Sample:
    first, second, third = jax.random.split(key, 3)
    start = _initial(num_points, first if initial is None else jax.random.key(initial))
    fluxes = Fluxes(uniform_unless(left, LEFT, second), uniform_unless(right, RIGHT, third))
    return unconditional(solve_reaction_diffusion(start, fluxes, num_frames, duration)[..., None])


def make_reaction_diffusion(
    num_points: int = 64,
    num_frames: int = 64,
    duration: float = 1.0,
    initial: int | None = None,
    left_flux: float | None = None,
    right_flux: float | None = None,
) -> Equations:
    """Reaction and diffusion as one field over space and time, from random waves and with random fluxes at both ends.

    Args:
      num_points: cells on [0, 1].
      num_frames: times on [0, duration], both ends included.
      duration: T.
      initial: seed of the first frame, the same for all examples; None draws it.
      left_flux: towards larger x; None draws it.
      right_flux: towards larger x; None draws it.
    Returns:
      the equations; the field density on (x, t). `resolve` solves from the field's own first frame with the fluxes that
      fit the field best.
    Raises:
      ValueError: few places or frames, or no duration.
    """
    if num_points < 12 or num_frames < 4 or not duration > 0:
        raise ValueError(
            f"expected at least 12 points, 4 frames and a positive duration, got {num_points}, {num_frames} and "
            f"{duration}; try 64, 64 and 1.0"
        )
    return Equations(
        name="reaction_diffusion",
        grid=Grid((num_points, num_frames), (1.0 - 1.0 / num_points, duration)),
        fields=("density",),
        units=("1",),
        residual=Bound(_residual, duration),
        draw=Bound(_draw, num_points, num_frames, duration, initial, left_flux, right_flux),
        resolve=Bound(_resolve, duration),
        unseen=Bound(_unseen_residual, duration),
        conserved=Bound(_conserved, duration),
        time_axis=1,
    )
