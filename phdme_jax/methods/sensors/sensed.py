"""What a few sensors saw of the first frames of a trajectory: the condition of every method that forecasts from them.

y_j(t) = x_j(t) + noise   at the places j where there is a sensor, at the frames t of a short window
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from phdme_jax.files import InputError
from phdme_jax.methods.base import Normaliser, Options, Task
from phdme_jax.systems.energy.base import Structure


class Sensed(NamedTuple):
    """Readings of one trajectory, physical units; leaves may have a leading axis.

    Attributes:
      values: readings at the frames of the window, zero where there is no sensor.
      mask: one where there is a sensor of the field, zero elsewhere; (window, *grid, field) where some frames are not
        read, which searches take and networks do not.
    """

    values: Float[Array, "window *grid field"]
    mask: Float[Array, "*grid field"]


@dataclass(frozen=True)
class SensorOptions:
    """The group `sensors` of the options.

    Attributes:
      window: frames that are read, the first one included.
      noise: standard deviation of the readings, in units of each field's root mean square.
      counts: places with sensors that a generator is trained for, each reads all fields.
      num_examples: windows with readings that it is trained on, each rollout with several layouts.
      directions: that a state is searched in, at the most.
      steps: of Gauss-Newton before the network is asked.
      mlp: sizes of its network, see `make_mlp`.
      stage: (steps, batch, rate) of its diffusion model.
      student_stage: the same of its one-call student.
      num_calls: of the network, a state; 1 is the student, 0 leaves Laplace's approximation as it is.
      pair_calls: of the diffusion model, a pair of the student.
      members: of ensembles.
      assimilations: of the readings by an ensemble smoother, each with a share of them.
      iterations: Gauss-Newton steps of a variational search.
    """

    window: int = 8
    noise: float = 0.05
    counts: tuple[int, ...] = (2, 4, 8)
    num_examples: int = 16384
    directions: int = 16
    steps: int = 3
    mlp: Mapping[str, Any] = field(default_factory=dict)
    stage: tuple[int, int, float] = (2000, 128, 1e-3)
    student_stage: tuple[int, int, float] = (2000, 128, 1e-3)
    num_calls: int = 4
    pair_calls: int = 16
    members: int = 256
    assimilations: int = 4
    iterations: int = 8


def sensor_options(options: Options, num_frames: int) -> SensorOptions:
    """The group `sensors`, for trajectories of so many frames.

    Raises:
      InputError: a window longer than the trajectory, or no noise, by which every method divides.
    """
    chosen = SensorOptions(**options["sensors"])
    if not 1 <= chosen.window <= num_frames:
        raise InputError(f"expected sensors.window from 1 to {num_frames} frames, got {chosen.window}")
    if not chosen.noise > 0:
        raise InputError(f"expected sensors.noise above zero, got {chosen.noise}; try 0.001 for all but exact readings")
    return chosen


def require_all_moving(task: Task) -> None:
    """Raises InputError where fields never change or ports drive: readings alone do not tell their values."""
    if task.companions or task.problem.structure.ports:
        raise InputError("forecasts from sensors are of systems without ports whose fields all move, got others")


def draw_places(structure: Structure, count: Int[Array, ""] | int, key: Key[Array, ""]) -> Float[Array, "*grid field"]:
    """Mask of sensors of all fields at `count` places of the grid, all layouts equally likely."""
    shape = structure.grid.points
    order = jnp.argsort(jax.random.uniform(key, (int(np.prod(shape)),)))
    ranks = jnp.argsort(order)
    chosen = (ranks < count).astype(jnp.float32).reshape(*shape, 1)
    return jnp.broadcast_to(chosen, (*shape, len(structure.fields)))


def read_window(
    window: Float[Array, "window *grid field"],
    mask: Float[Array, "*grid field"],
    deviation: Float[Array, "field"],
    key: Key[Array, ""],
) -> Sensed:
    """Noisy readings of the first frames of a trajectory."""
    noise = deviation * jax.random.normal(key, window.shape, window.dtype)
    return Sensed(mask * (window + noise), mask)


def normalised(sensed: Sensed, units: Normaliser) -> Sensed:
    """Readings in units of the fields, of the type of these units; zero where there is none."""
    mask = sensed.mask.astype(units.scale.dtype)
    return Sensed(mask * units.normalised(sensed.values.astype(mask.dtype)), mask)


def sense(
    structure: Structure, num_frames: int, places: Sequence[tuple[int, ...]], fields: Sequence[str], readings: Any
) -> Sensed:
    """Readings of sensors as forecasts from them take it.

    Args:
      structure: of the system.
      num_frames: of the window that the forecaster was trained for.
      places: index of a grid point for each sensor.
      fields: name of the field that each reads.
      readings: of each sensor at the frames of the window, (sensor, window), physical units.
    Returns:
      what is sensed.
    Raises:
      InputError: no sensor, readings of another shape or not finite, a place off the grid, an unknown field, two
        sensors of one field at one place.
    """
    readings, grid = np.asarray(readings, float), structure.grid.points
    if not len(places):
        raise InputError("expected at least one sensor, got none; a forecast needs a reading")
    if len(fields) != len(places) or readings.shape != (len(places), num_frames):
        raise InputError(
            f"expected one field and {num_frames} readings for each of {len(places)} sensors, got {len(fields)} fields "
            f"and readings of shape {readings.shape}"
        )
    mask = np.zeros((*grid, len(structure.fields)))
    values: Any = np.zeros((num_frames, *mask.shape))
    for place, name, series in zip(places, fields, readings, strict=True):
        if len(place) != len(grid) or not all(0 <= index < size for index, size in zip(place, grid, strict=True)):
            raise InputError(f"expected places on a grid of {grid} points, counted from zero, got {tuple(place)}")
        if name not in structure.fields:
            raise InputError(f"expected a field among {structure.fields}, got {name!r}")
        if not np.isfinite(series).all():
            raise InputError(f"expected finite readings, got others of {name} at {tuple(place)}; leave that sensor out")
        entry: tuple[int, ...] = (*place, structure.fields.index(name))
        if mask[entry]:
            raise InputError(
                f"expected one sensor of a field at a place, got two of {name} at {tuple(place)}; try their mean"
            )
        mask[entry] = 1.0
        values[:, *entry] = series
    return Sensed(jnp.asarray(values), jnp.asarray(mask))
