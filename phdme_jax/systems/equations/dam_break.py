"""A round column of water that collapses, in shallow water on [-2.5, 2.5]^2, where gravity is one.

    h_t + m_x + n_y = 0,   m_t + (m u + h^2 / 2)_x + (m v)_y = 0,   n_t + (n u)_x + (n v + h^2 / 2)_y = 0
    m = h u, n = h v;   at first at rest, h = 2 within the radius r, 1 outside, r uniform on [0.3, 0.7]

A few evenly spaced frames are channels: of each later frame depth, momentum x and momentum y, in the order of time, and
the depth of the first frame last: it is the cause, and its momenta are none. Values are means of cells, of the first
frame the part of a cell that the column covers. Solved on these cells, see `finite_volume`. Walls stand around the box,
where PDEBench lets waves out: until T = 1 none has arrived, and both are the same; later, waves are thrown back, and
the mean of the depth stays what it was. On 32 cells an axis fronts are a few cells wide: where r is 0.5, fields differ
from those of 256 cells by 0.018 in the root mean square, while the depth deviates from rest by 0.12.

The residual is that of each interval between frames, at the middles of cells: conservative, central in space, the mean
of the fluxes of both frames; the other one is Preissmann's box between four cells. Both are of second order where the
flow is smooth. It is not: a front passes two cells in an interval of the default, and more frames help more than more
cells. In the root mean square, of mass and of one momentum, and of the same data with noise of 1 % and of 10 % of each
channel's size:

    6 frames:    central 0.150, 0.150, 0.172 and 0.093, 0.093, 0.117;   box 0.092, 0.092, 0.112 and 0.095, 0.095, 0.111
    11 frames:   central 0.122, 0.123, 0.197 and 0.072, 0.074, 0.147;   box 0.054, 0.055, 0.105 and 0.067, 0.067, 0.102
    21 frames:   central 0.117, 0.120, 0.322 and 0.072, 0.076, 0.259;   box 0.057, 0.059, 0.164 and 0.066, 0.067, 0.144

Of six frames even noise of 10 % is hidden beneath what the scheme misses.

The balance of mass is linear; in that of momentum one factor of each product is taken from a clean example, each in
turn, and the mean is taken: u_0 m, h_0 h / 2, (u_0 n + v_0 m) / 2.

The square's turns and mirror images leave the law as it is. They move each true example to itself, but not what is
generated.
Source: Takamoto et al. (2022), arXiv 2210.07182, for the family; Zhou, Wang, Yu (2025), arXiv 2409.00730, for factors
of a clean example.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from phdme_jax.numerics.arrays import cached_arrays
from phdme_jax.numerics.bound import Bound
from phdme_jax.numerics.grid import Grid
from phdme_jax.systems.equations.base import Equations, Residuals, Sample, unconditional
from phdme_jax.systems.equations.finite_volume import ACROSS_X, ACROSS_Y, solve_shallow_water, turned, velocities
from phdme_jax.systems.priors import Feasibility, Priors, Symmetry

LENGTH, RADII = 5.0, (0.3, 0.7)
QUANTITIES = ("depth", "momentum x", "momentum y")
PARTS = 8  # of a cell along each axis, to measure how much of it is covered
Frames = Float[Array, "time x y 3"]
Intervals = Float[Array, "interval x y 3"]


def frames_of(fields: Float[Array, "x y field"]) -> Frames:
    """Depth and momenta in the order of time, the first frame at rest."""
    later = fields[..., :-1].reshape(*fields.shape[:2], -1, 3)
    first = jnp.pad(fields[..., -1:], ((0, 0), (0, 0), (0, 2)))
    return jnp.concatenate([first[None], jnp.moveaxis(later, 2, 0)])


def fields_of(frames: Frames) -> Float[Array, "x y field"]:
    """The channels that hold frames; momenta of the first are left out."""
    later = jnp.moveaxis(frames[1:], 0, 2)
    return jnp.concatenate([later.reshape(*later.shape[:2], -1), frames[0, ..., :1]], axis=-1)


@cached_arrays
def _distances(num_points: int) -> np.ndarray:
    """From the middle, of the parts of cells."""
    count = num_points * PARTS
    place = LENGTH / count * (np.arange(count) - 0.5 * (count - 1))
    return np.hypot(place[:, None], place)


def column(num_points: int, radius: Float[Array, ""]) -> Float[Array, "x y"]:
    """Depth of a column of water, by the part of each cell that it covers."""
    distance = jnp.asarray(_distances(num_points), radius.dtype)
    covered = jnp.clip((radius - distance) * (num_points * PARTS / LENGTH) + 0.5, 0.0, 1.0)
    return 1.0 + jnp.mean(covered.reshape(num_points, PARTS, num_points, PARTS), axis=(1, 3))


def _fluxes(carrier: Frames, frames: Frames) -> tuple[Frames, Frames]:
    """Along x and along y, one factor of each product the carrier's: each in turn, and the mean."""
    u, v = jnp.moveaxis(velocities(carrier), -1, 0)
    h, m, n = jnp.moveaxis(frames, -1, 0)
    pressure, cross = 0.5 * carrier[..., 0] * h, 0.5 * (u * n + v * m)
    return jnp.stack([m, u * m + pressure, cross], axis=-1), jnp.stack([n, cross, v * n + pressure], axis=-1)


def _central(flux: Intervals, axis: int, signs: tuple[float, ...], spacing: float) -> Intervals:
    """Central difference between cells, with mirror images at both ends; a flux has the signs of what it carries, less
    that of the axis."""
    mirror = -jnp.asarray(signs, flux.dtype)
    cells = jnp.moveaxis(flux, axis, 0)
    cells = jnp.concatenate([mirror * cells[:1], cells, mirror * cells[-1:]])
    return jnp.moveaxis((cells[2:] - cells[:-2]) / (2 * spacing), 0, axis)


def balances(carrier: Frames, frames: Frames, duration: float) -> Intervals:
    """Balances of mass and momenta over each interval between frames, linear in the frames.

    Args:
      carrier: frames that one factor of each product is taken from; with the frames themselves it is the equations'.
      frames: depth and momenta.
      duration: time of the last frame.
    Returns:
      what is missed in each cell, one for each interval.
    """
    spacing, rate = LENGTH / frames.shape[1], (len(frames) - 1) / duration
    along_x, along_y = (0.5 * (flux[1:] + flux[:-1]) for flux in _fluxes(carrier, frames))
    gained = _central(along_x, 1, ACROSS_X, spacing) + _central(along_y, 2, ACROSS_Y, spacing)
    return rate * jnp.diff(frames, axis=0) + gained


def box_balances(frames: Frames, duration: float) -> Float[Array, "interval corner_x corner_y 3"]:
    """The same between each four cells, by means and differences of neighbours along all axes.

    Args:
      frames: depth and momenta.
      duration: time of the last frame.
    Returns:
      what is missed at each inner corner of cells, one for each interval.
    """
    spacing, rate = LENGTH / frames.shape[1], (len(frames) - 1) / duration

    def mean(values: Array, *axes: int) -> Array:
        for axis in axes:
            count = values.shape[axis]
            before = jax.lax.slice_in_dim(values, 0, count - 1, axis=axis)
            values = 0.5 * (before + jax.lax.slice_in_dim(values, 1, count, axis=axis))
        return values

    along_x, along_y = _fluxes(frames, frames)
    gained = jnp.diff(mean(along_x, 0, 2), axis=1) + jnp.diff(mean(along_y, 0, 1), axis=2)
    return rate * jnp.diff(mean(frames, 1, 2), axis=0) + gained / spacing


def _named(missed: Intervals) -> Residuals:
    names = ("mass", *QUANTITIES[1:])
    return {
        f"{name} {number + 1}": interval[..., place]
        for number, interval in enumerate(missed)
        for place, name in enumerate(names)
    }


def _residual(duration: float, fields: Float[Array, "x y field"], condition: Array) -> Residuals:
    del condition
    frames = frames_of(fields)
    return _named(balances(frames, frames, duration))


def _box_residual(duration: float, fields: Float[Array, "x y field"], condition: Array) -> Residuals:
    """At the cell before each corner along both axes; zero in the last cells."""
    del condition
    return _named(jnp.pad(box_balances(frames_of(fields), duration), ((0, 0), (0, 1), (0, 1), (0, 0))))


def _mass_terms(duration: float, predicted: Array, clean: Array, condition: Array) -> Array:
    del condition
    return balances(frames_of(clean), frames_of(predicted), duration)[..., 0]


def _momentum_terms(duration: float, predicted: Array, clean: Array, condition: Array) -> Array:
    del condition
    return balances(frames_of(clean), frames_of(predicted), duration)[..., 1:]


def _mean_depths(fields: Float[Array, "x y field"], condition: Array) -> Float[Array, "time"]:
    """Of each frame, in the order of time."""
    del condition
    return jnp.mean(frames_of(fields)[..., 0], axis=(1, 2))


def _conserved(fields: Float[Array, "x y field"], condition: Array) -> Float[Array, "later"]:
    """Mean depth of each later frame less that of the first."""
    mean = _mean_depths(fields, condition)
    return mean[1:] - mean[0]


def _with_one_mean_depth(fields: Float[Array, "x y field"], condition: Array) -> Float[Array, "x y field"]:
    """The nearest fields of which all frames have one mean depth, that of all of them."""
    mean = _mean_depths(fields, condition)
    return fields_of(frames_of(fields).at[..., 0].add((jnp.mean(mean) - mean)[:, None, None]))


def _draw_move(key: Array) -> Int[Array, ""]:
    return jax.random.randint(key, (), 0, 8)


def _move(element: Int[Array, ""], fields: Array, condition: Array) -> tuple[Array, Array]:
    """Exchanges x and y, then mirrors across x, then across y, as the three binary digits of the element say."""
    frames = frames_of(fields)
    frames = jnp.where(element % 2 == 1, turned(frames), frames)
    frames = jnp.where(element // 2 % 2 == 1, jnp.asarray(ACROSS_X, frames.dtype) * frames[:, ::-1], frames)
    frames = jnp.where(element // 4 == 1, jnp.asarray(ACROSS_Y, frames.dtype) * frames[:, :, ::-1], frames)
    return fields_of(frames), condition  # which has no channels


def _solve(duration: float, num_frames: int, depth: Float[Array, "x y"]) -> Float[Array, "x y field"]:
    initial = jnp.pad(depth[..., None], ((0, 0), (0, 0), (0, 2)))
    return fields_of(solve_shallow_water(initial, num_frames, duration, LENGTH / len(depth)))


def _resolve(duration: float, num_frames: int, fields: Array, condition: Array) -> Array:
    del condition
    return _solve(duration, num_frames, fields[..., -1])


def _draw(num_points: int, num_frames: int, duration: float, key: Array) -> Sample:
    radius = jax.random.uniform(key, (), minval=RADII[0], maxval=RADII[1])
    return unconditional(_solve(duration, num_frames, column(num_points, radius)))


def make_dam_break(num_points: int = 32, num_frames: int = 6, duration: float = 1.0) -> Equations:
    """A round column of water that collapses, as a few frames of depth and momenta.

    Args:
      num_points: cells along both axes of [-2.5, 2.5]^2.
      num_frames: times on [0, duration], both ends included.
      duration: T.
    Returns:
      the equations; the fields on the middles of cells are depth, momentum x and momentum y of all later frames in
      their order, and the depth of the first frame, see `frames_of`. `resolve` solves from that, at rest.
    Raises:
      ValueError: few cells, one frame, or no duration.
    """
    if num_points < 4 or num_frames < 2 or not duration > 0:
        raise ValueError(
            "expected at least 4 points, 2 frames and a positive duration, got "
            f"{num_points}, {num_frames} and {duration}; try 32, 6 and 1.0"
        )
    later = tuple(f"{name} {number}" for number in range(1, num_frames) for name in QUANTITIES)
    return Equations(
        name="dam_break",
        grid=Grid((num_points, num_points), (LENGTH * (1.0 - 1.0 / num_points),) * 2),
        fields=(*later, "depth 0"),
        units=("1",) * (len(later) + 1),
        residual=Bound(_residual, duration),
        draw=Bound(_draw, num_points, num_frames, duration),
        resolve=Bound(_resolve, duration, num_frames),
        num_solution=len(later),
        unseen=Bound(_box_residual, duration),
        conserved=_conserved,
        affine_conserved=True,
        priors=Priors(
            symmetry=Symmetry(
                "turns and mirror images of the square",
                _draw_move,
                _move,
                mixed=tuple((3 * number + 1, 3 * number + 2) for number in range(num_frames - 1)),
            ),
            feasibilities=(
                Feasibility("mass balance", "linear", Bound(_mass_terms, duration)),
                Feasibility("momentum balance", "multilinear", Bound(_momentum_terms, duration)),
            ),
            invariants=(("mass", _mean_depths),),
            project=_with_one_mean_depth,
        ),
    )
