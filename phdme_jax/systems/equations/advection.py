"""Advection at a constant speed, periodic in space: u_t + c u_x = 0 on [0, 1] x [0, T].

    u(x_i, t) = p(x_i - c t),   p the trigonometric polynomial through the values of the first frame

Initial states are those of `periodic`, at the places themselves. Some have kinks or edges, which no wave that the grid
holds follows: between its places p swings about them by up to a tenth of the edge. In exchange the later frames depend
on the first alone, and mean and energy, the mean of u^2 / 2, are kept to rounding. Of the highest wave, which changes
places with nothing when it moves, the first frames are freed; of smooth states it is none.

The residual is Preissmann's box, of second order between two places and two frames, and the other one is central.
Neither vanishes on the data: a wave of number n has 1 + (1 - C^2) (2 pi n h)^2 / 12 times its speed by the box, where C
is the part of a distance h that is passed between frames, and 1 - (2 + C^2) (2 pi n h)^2 / 12 by central differences.
In the root mean square, of rates of 1.69, and of the same data with noise of 1 % and of 10 % of their size:

    box 0.116, 0.216, 1.83;   central 0.220, 0.336, 2.55

Frames stand 0.03 apart, every third of PDEBench's, at C = 0.19: the box would have no error at C = 1, where frames are
each other's copies moved by one place.
Source: Takamoto et al. (2022), arXiv 2210.07182, for the family; Preissmann (1961), Propagation des intumescences dans
les canaux et rivieres, for the box.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phdme_jax.numerics.arrays import root
from phdme_jax.numerics.bound import Bound
from phdme_jax.numerics.grid import Grid
from phdme_jax.systems.equations.base import Equations, Residuals, Sample, unconditional
from phdme_jax.systems.equations.periodic import (
    frame_means,
    mean_changes,
    random_waves,
    translations,
)
from phdme_jax.systems.priors import Feasibility, Priors


def solve_advection(initial: Float[Array, "x"], num_frames: int, path: float) -> Float[Array, "x time"]:
    """Evenly spaced frames of the trigonometric polynomial through the initial values, on its way.

    Args:
      initial: values on [0, 1), period one.
      num_frames: frames, both ends included.
      path: c T, how far it goes.
    Returns:
      u at the places of the initial values.
    """
    count = len(initial)
    spectrum = jnp.fft.rfft(initial)
    shifts = np.linspace(0.0, path, num_frames)
    turned = np.exp(-2j * np.pi * np.arange(count // 2 + 1)[:, None] * shifts)
    return jnp.fft.irfft(spectrum[:, None] * jnp.asarray(turned, spectrum.dtype), count, axis=0)


def without_highest_wave(values: Float[Array, "x"]) -> Float[Array, "x"]:
    """The values without the wave of which neighbours have opposite signs; an odd number of places holds none."""
    if len(values) % 2:
        return values
    alternating = jnp.asarray(np.tile([1.0, -1.0], len(values) // 2), values.dtype)
    return values - jnp.mean(values * alternating) * alternating


def _interval(duration: float, values: Float[Array, "x time"]) -> float:
    return duration / (values.shape[1] - 1)


def _box_residual(speed: float, duration: float, fields: Float[Array, "x time 1"], condition: Array) -> Residuals:
    """Between each place and the next one, over each step, at the frame where it ends; zero at the first frame."""
    del condition
    values = fields[..., 0]
    after = jnp.roll(values, -1, axis=0)
    slope = len(values) * (after - values)
    change = jnp.diff(after + values, axis=1) / (2 * _interval(duration, values))
    return {"balance": jnp.pad(change + 0.5 * speed * (slope[:, 1:] + slope[:, :-1]), ((0, 0), (1, 0)))}


def _central_residual(speed: float, duration: float, fields: Float[Array, "x time 1"], condition: Array) -> Residuals:
    """At each place, in the middle of each step."""
    del condition
    values = fields[..., 0]
    middle = 0.5 * (values[:, 1:] + values[:, :-1])
    slope = 0.5 * len(values) * (jnp.roll(middle, -1, axis=0) - jnp.roll(middle, 1, axis=0))
    change = jnp.diff(values, axis=1) / _interval(duration, values)
    return {"balance": jnp.pad(change + speed * slope, ((0, 0), (1, 0)))}


def _predicted_residual(speed: float, duration: float, predicted: Array, clean: Array, condition: Array) -> Array:
    del clean
    return _box_residual(speed, duration, predicted, condition)["balance"]


def frame_energies(fields: Float[Array, "x time 1"], condition: Array) -> Float[Array, "time"]:
    """Mean of u^2 / 2 in each frame."""
    del condition
    return 0.5 * jnp.mean(fields[..., 0] ** 2, axis=0)


def with_one_mean_and_energy(fields: Float[Array, "x time 1"], condition: Array) -> Float[Array, "x time 1"]:
    """Fields whose frames have one mean and one energy: deviations from the mean are scaled to the average of theirs.

    A frame that is constant stays so.
    """
    mean = frame_means(fields, condition)
    deviation = fields - mean[:, None]
    size = jnp.mean(deviation[..., 0] ** 2, axis=0)
    scale = root(jnp.mean(size) / jnp.where(size > 0, size, 1.0))
    return jnp.mean(mean) + scale[:, None] * deviation


def travelling(path: float, fields: Float[Array, "x time 1"]) -> Float[Array, "x time 1"]:
    """The nearest fields that travel: frames moved back to the first, their mean moved along; linear in the fields."""
    count, frames = fields.shape[:2]
    shifts = np.linspace(0.0, path, frames)
    turned = np.exp(2j * np.pi * np.arange(count // 2 + 1)[:, None] * shifts)
    spectrum = jnp.fft.rfft(fields[..., 0], axis=0)
    first = jnp.fft.irfft(jnp.mean(spectrum * jnp.asarray(turned, spectrum.dtype), axis=1), count)
    return solve_advection(without_highest_wave(first), frames, path)[..., None]


def _resolve(path: float, fields: Array, condition: Array) -> Array:
    del condition
    return solve_advection(fields[:, 0, 0], fields.shape[1], path)[..., None]


def _draw(num_points: int, num_frames: int, path: float, highest_wave: int, key: Array) -> Sample:
    initial = without_highest_wave(random_waves(num_points, highest_wave, key))
    return unconditional(solve_advection(initial, num_frames, path)[..., None])


def make_advection(
    num_points: int = 64, num_frames: int = 64, duration: float = 1.89, speed: float = 0.1, highest_wave: int = 8
) -> Equations:
    """Advection as one field over space and time, from two random waves.

    Args:
      num_points: places on [0, 1).
      num_frames: times on [0, duration], both ends included.
      duration: T.
      speed: c.
      highest_wave: largest number of a wave; places that hold no more than half as many hold fewer.
    Returns:
      the equations; the field concentration on (x, t). `resolve` solves from the field's own first frame.
    Raises:
      ValueError: few places or frames, no duration, or no wave.
    """
    if num_points < 4 or num_frames < 2 or not duration > 0 or highest_wave < 1:
        raise ValueError(
            "expected at least 4 points, 2 frames, a positive duration and a wave, got "
            f"{num_points}, {num_frames}, {duration} and {highest_wave}; try 64, 64, 1.89 and 8"
        )
    waves = min(highest_wave, (num_points - 1) // 2)
    return Equations(
        name="advection",
        grid=Grid((num_points, num_frames), (1.0 - 1.0 / num_points, duration)),
        fields=("concentration",),
        units=("1",),
        residual=Bound(_box_residual, speed, duration),
        draw=Bound(_draw, num_points, num_frames, speed * duration, waves),
        resolve=Bound(_resolve, speed * duration),
        unseen=Bound(_central_residual, speed, duration),
        conserved=mean_changes,
        affine_conserved=True,
        priors=Priors(
            symmetry=translations(num_points),
            feasibilities=(
                Feasibility(
                    "balance",
                    "linear",
                    Bound(_predicted_residual, speed, duration),
                    Bound(travelling, speed * duration),
                ),
            ),
            invariants=(("mass", frame_means), ("energy", frame_energies)),
            project=with_one_mean_and_energy,
        ),
        time_axis=1,
        periodic_axes=(0,),
    )
