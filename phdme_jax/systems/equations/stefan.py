"""Melting from a wall, a front with a jump: u_t = (k(u) u_x)_x, k = 1 where u >= u*, else 0, on [0, 1] x [0, T].

    u = 1 - c erf(x / (2 sqrt(t))) up to the front at 2 z sqrt(t), where it is u*, and 0 beyond;   u(x, 0) = 0
    sqrt(pi) u* z exp(z^2) erf(z) = 1 - u*,   c = (1 - u*) / erf(z),   u* even on [0.55, 0.7]

The field holds means over cells, so that the sum over them knows where the front is inside of one: it is the integral
of u to rounding, and grows by what comes in at the wall, 2 c sqrt(t / pi). No field holds u*, which changes from
example to example: the balance takes the c that fits the cells beside the wall best, where erf is known and any front
is far, so that it is affine in the field. Sums of values at points, as published, miss up to u* / 2 of a spacing
whenever the front jumps from one to the next: 5e-3 of 0.27 where there are 64.

Means obey the heat equation as values do. The residual is that of each step, of fourth order in both directions, the
field continued behind the wall as an odd function about one. The front of a frame is where as many cells as are above
0.25 end: the residual is that of u_t = u_xx four cells before the fronts of all frames that the step reads, u_t = 0 one
cell after, and zero between, on 8 % of 64 by 64 places: that the front travels as fast as it melts is said by the
balance alone. Of the data of that grid the residual is 0.03 at most, at first, 6e-4 in the root mean square and 3e-6
beside the wall in later frames; the other one, of second order, 0.09, 2e-3 and 5e-4. Finer grids see earlier times,
when all is steeper: the largest grows.
Source: Hansen et al. (2023), arXiv 2302.11002, and Cheng et al. (2025), arXiv 2412.01786, for the family, there of
values at points; Carslaw and Jaeger (1959), Conduction of Heat in Solids, section 11.2, for the front.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf
from jaxtyping import Array, Bool, Float

from phdme_jax.numerics.arrays import cached_arrays
from phdme_jax.numerics.bound import Bound
from phdme_jax.numerics.grid import Grid
from phdme_jax.numerics.quadrature import integrate, interval_rule
from phdme_jax.systems.equations.base import Equations, Residuals, Sample, unconditional, uniform_unless
from phdme_jax.systems.equations.heat import curvature

THRESHOLDS, ALLOWED = (0.55, 0.7), (0.5, 0.8)
WET = 0.25  # between zero and the least value behind a front
WIDTH, NODES = 5, 4
LONGEST = 0.5  # until then every front is inside
ITERATIONS = 12  # of Newton's method, which converges in eight


class Melting(NamedTuple):
    """What a solution depends on.

    Attributes:
      amplitude: c; c / sqrt(pi t) comes in at the wall.
      front: z; the front is at 2 z sqrt(t).
    """

    amplitude: Float[Array, ""]
    front: Float[Array, ""]


def melting_at(threshold: Float[Array, ""]) -> Melting:
    """The solution whose value at the front is u*."""
    z, wanted = jnp.ones_like(threshold), (1.0 / threshold - 1.0) / math.sqrt(math.pi)
    for _ in range(ITERATIONS):
        growth = jnp.exp(z**2)
        slope = 2 * z / math.sqrt(math.pi) + growth * erf(z) * (1 + 2 * z**2)
        z = z - (z * growth * erf(z) - wanted) / slope
    return Melting((1.0 - threshold) / erf(z), z)


def melting_with(amplitude: Float[Array, ""]) -> Melting:
    """The solution in which so much comes in: sqrt(pi) z (1 - c erf(z)) = c exp(-z^2), concave in z."""
    z = jnp.zeros_like(amplitude)
    for _ in range(ITERATIONS):
        value = 1.0 - amplitude * erf(z)
        z = z - (z - amplitude * jnp.exp(-(z**2)) / (math.sqrt(math.pi) * value))
    return Melting(amplitude, z)


def _bound(threshold: float) -> tuple[float, float]:
    """c and z at a bound of the family, as numbers."""
    low, high = 0.0, 3.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        missing = math.sqrt(math.pi) * threshold * middle * math.exp(middle**2) * math.erf(middle) < 1.0 - threshold
        low, high = (middle, high) if missing else (low, middle)
    return (1.0 - threshold) / math.erf(low), low


def _integral_of_erf(values: Float[Array, "..."]) -> Float[Array, "..."]:
    return values * erf(values) + (jnp.exp(-(values**2)) - 1.0) / math.sqrt(math.pi)


def cell_means(melting: Melting, num_points: int, times: np.ndarray) -> Float[Array, "x time"]:
    """Means of the solution over the cells of [0, 1]."""
    dtype = melting.front.dtype
    width = jnp.asarray(np.where(times > 0, 2 * np.sqrt(times), 1.0), dtype)
    front = melting.front * jnp.asarray(2 * np.sqrt(times), dtype)
    faces = jnp.minimum(jnp.linspace(0.0, 1.0, num_points + 1, dtype=dtype)[:, None], front)
    integral = faces - melting.amplitude * width * _integral_of_erf(faces / width)
    return num_points * jnp.diff(integral, axis=0)


@cached_arrays
def _beside_wall(num_points: int, num_frames: int, duration: float) -> np.ndarray:
    """Means of erf(x / (2 sqrt(t))) over the cells that any front has passed, zero elsewhere."""
    times, faces = np.linspace(0.0, duration, num_frames), np.linspace(0.0, 1.0, num_points + 1)
    scaled = faces[:, None] / (2 * np.sqrt(np.where(times > 0, times, 1.0)))
    integral = scaled * np.vectorize(math.erf)(scaled) + np.exp(-(scaled**2)) / math.sqrt(math.pi)
    means = num_points * 2 * np.sqrt(times) * np.diff(integral, axis=0)
    return np.where(scaled[1:] <= _bound(ALLOWED[1])[1], means, 0.0) * (times > 0)


def fitted_amplitude(duration: float, values: Float[Array, "x time"]) -> Float[Array, ""]:
    """The c for which 1 - c erf(x / (2 sqrt(t))) fits the cells beside the wall best, affine in the field."""
    num_points, num_frames = values.shape
    means = _beside_wall(num_points, num_frames, duration)
    return jnp.sum((1.0 - values) * jnp.asarray(means / np.sum(means**2), values.dtype))


def _sides(values: Float[Array, "x time"], nodes: np.ndarray) -> tuple[Bool[Array, "x step"], Bool[Array, "x step"]]:
    """Cells wholly before the fronts of all frames that a step reads, with all that its stencil reads, and after."""
    fronts = jnp.sum(values > WET, axis=0)[nodes]
    cell, reach = np.arange(len(values))[:, None], WIDTH // 2 + 2
    before, after = jnp.min(fronts, axis=1) - reach, jnp.max(fronts, axis=1)
    return before >= cell, after < cell


def _residual(duration: float, width: int, nodes: int, fields: Float[Array, "x time 1"], condition: Array) -> Residuals:
    """Mean of u_t - u_xx, or u_t, over each step, at the frame where it ends; zero beside the front and at first."""
    del condition
    values = fields[..., 0]
    num_frames, dt = values.shape[1], duration / (values.shape[1] - 1)
    ghosts = width // 2
    behind_wall = 2.0 - values[ghosts - 1 :: -1]
    second = curvature(jnp.concatenate([behind_wall, values]), 1.0 / len(values), width)[ghosts:]
    integral = integrate(interval_rule(np.linspace(0.0, duration, num_frames), nodes), second.T).T
    change = jnp.diff(values, axis=1)
    # the widest stencil says where, for all
    before, after = _sides(values, interval_rule(np.arange(num_frames), NODES).nodes)
    missed = jnp.where(before, change - integral, jnp.where(after, change, 0.0)) / dt
    return {"balance": jnp.pad(missed, ((0, 0), (1, 0)))}


def _conserved(duration: float, fields: Float[Array, "x time 1"], condition: Array) -> Float[Array, "later"]:
    """Mean of each later frame less that of the first and what came in at the wall."""
    del condition
    values = fields[..., 0]
    came_in = 2 * np.sqrt(np.linspace(0.0, duration, values.shape[1])[1:] / np.pi)
    mean = jnp.mean(values, axis=0)
    return mean[1:] - mean[0] - fitted_amplitude(duration, values) * jnp.asarray(came_in, values.dtype)


def _resolve(duration: float, fields: Array, condition: Array) -> Array:
    del condition
    values = fields[..., 0]
    high, low = (_bound(threshold)[0] for threshold in ALLOWED)
    melting = melting_with(jnp.clip(fitted_amplitude(duration, values), low, high))
    return cell_means(melting, len(values), np.linspace(0.0, duration, values.shape[1]))[..., None]


def _draw(num_points: int, num_frames: int, duration: float, threshold: float | None, key: Array) -> Sample:
    melting = melting_at(uniform_unless(threshold, THRESHOLDS, key))
    return unconditional(cell_means(melting, num_points, np.linspace(0.0, duration, num_frames))[..., None])


def make_stefan(
    num_points: int = 64, num_frames: int = 64, duration: float = 0.1, threshold: float | None = None
) -> Equations:
    """Melting from a wall as one field over space and time, all cold at first.

    Args:
      num_points: cells on [0, 1].
      num_frames: times on [0, duration], both ends included.
      duration: T.
      threshold: u*; None draws it. The first frame is zero whatever it is.
    Returns:
      the equations; the field temperature on (x, t). `resolve` gives the solution of the family that fits the cells
      beside the wall best.
    Raises:
      ValueError: few cells or frames, a duration after which fronts leave, or u* beyond what cells beside the wall
        are chosen for.
    """
    if num_points < 12 or num_frames < 8 or not 0 < duration <= LONGEST:
        raise ValueError(
            f"expected at least 12 points, 8 frames and a duration up to {LONGEST}, got {num_points}, {num_frames} and "
            f"{duration}; try 64, 64 and 0.1"
        )
    if threshold is not None and not ALLOWED[0] <= threshold <= ALLOWED[1]:
        raise ValueError(f"expected a threshold on {ALLOWED}, got {threshold}; try 0.6")
    return Equations(
        name="stefan",
        grid=Grid((num_points, num_frames), (1.0 - 1.0 / num_points, duration)),
        fields=("temperature",),
        units=("1",),
        residual=Bound(_residual, duration, WIDTH, NODES),
        draw=Bound(_draw, num_points, num_frames, duration, threshold),
        resolve=Bound(_resolve, duration),
        unseen=Bound(_residual, duration, 3, 2),
        conserved=Bound(_conserved, duration),
        affine_conserved=True,
        time_axis=1,
    )
