"""What a few sensors read of the first frames of a motion, from a plain `.npz` or from arrays, checked on the way in.

Every defect is an `InputError` of one sentence: what came, what was expected, what to try.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from phdme_jax.files import InputError
from phdme_jax.forecasting.archives import read_arrays
from phdme_jax.forecasting.inputs import EVEN_TOLERANCE, Observed

_AXES = "(time, sensor, field), or (time, sensor) and the field of each sensor as field (sensor,)"


@dataclasses.dataclass(frozen=True, eq=False)
class Sensors:
    """Readings as a user has them, physical units.

    Attributes:
      readings: (time, sensor, field) where each sensor reads all fields, (time, sensor) where it reads one.
      time: of the readings, (time,), each that of a frame of the fit.
      noise: their standard deviation, one number for each entry of the last axis of `readings`; above zero.
      position: of each sensor, (sensor,), on the grid; or else
      index: of its grid point, (sensor,), counted from zero.
      field: that each sensor reads, (sensor,), counted from zero; None where all are.
    """

    readings: ArrayLike
    time: ArrayLike
    noise: ArrayLike
    position: ArrayLike | None = None
    index: ArrayLike | None = None
    field: ArrayLike | None = None

    def named(self) -> dict[str, ArrayLike | None]:
        """The arrays under the keys of a file."""
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}


# a path, arrays under the names they have in a file, or a record
SensorSource = Path | str | Mapping[str, ArrayLike | None] | Sensors


@dataclasses.dataclass(frozen=True, eq=False)
class Readings:
    """Checked readings, float64, physical units; a column is what one sensor reads of one field.

    Attributes:
      values: the readings.
      frames: index of the frame of each row.
      points: index of the grid point of each column.
      fields: index of the field of each column.
      noise: standard deviation of each column.
    """

    values: Float[np.ndarray, "row column"]
    frames: Int[np.ndarray, " row"]
    points: Int[np.ndarray, " column"]
    fields: Int[np.ndarray, " column"]
    noise: Float[np.ndarray, " column"]


def read_sensors(source: SensorSource, observed: Observed, fields: tuple[str, ...]) -> Readings:
    """Read and check what sensors have read.

    Args:
      source: file, arrays or record.
      observed: the frames and the grid of the fit.
      fields: names of the fields.
    Returns:
      the readings.
    Raises:
      InputError: any defect, in one sentence.
    """
    given = source.named() if isinstance(source, Sensors) else source
    where, arrays = read_arrays(given, "sensors", ("readings", "time", "noise"), ("position", "index", "field"))
    for key, values in arrays.items():
        if not np.isfinite(values).all():
            first = tuple(map(int, np.unravel_index(int(np.argmin(np.isfinite(values))), values.shape)))
            raise InputError(
                f"{where}: {key} holds {values[first]} at {first}; expected finite numbers, leave that sensor or that "
                "time out"
            )
    readings = arrays["readings"]
    if readings.size == 0:
        raise InputError(f"{where}: readings of shape {readings.shape} are none; a forecast needs at least one reading")
    _check_shape(where, arrays, fields)
    points = _points(where, arrays, observed.grid, readings.shape[1])
    frames = _frames(where, arrays["time"], observed.time, readings.shape[0])
    noise = _noise(where, arrays["noise"], readings)
    if readings.ndim == 3:
        columns = readings.reshape(len(readings), -1)
        which = np.tile(np.arange(len(fields)), readings.shape[1])
        found = Readings(columns, frames, np.repeat(points, len(fields)), which, np.tile(noise, readings.shape[1]))
    else:
        found = Readings(readings, frames, points, arrays["field"].astype(int), noise)
    _check_one_each(where, found, observed.grid, fields)
    return found


def _check_shape(where: str, arrays: dict[str, np.ndarray], fields: tuple[str, ...]) -> None:
    readings, field = arrays["readings"], arrays.get("field")
    names = ", ".join(fields)
    if readings.ndim != (3 if field is None else 2):
        told = "no field" if field is None else "a field for each sensor"
        raise InputError(f"{where}: readings have shape {readings.shape} and there is {told}; expected {_AXES}")
    if field is None:
        if readings.shape[2] != len(fields):
            raise InputError(
                f"{where}: readings of shape {readings.shape} have {readings.shape[2]} fields; expected {len(fields)} "
                f"({names}), or {_AXES.partition(', or ')[2]}"
            )
        return
    known = np.isin(field, np.arange(len(fields)))
    if field.shape != readings.shape[1:] or not known.all():
        raise InputError(
            f"{where}: field is {field.tolist()}; expected for each of {readings.shape[1]} sensors a number from 0 to "
            f"{len(fields) - 1} ({names})"
        )


def _points(where: str, arrays: dict[str, np.ndarray], grid: np.ndarray, count: int) -> np.ndarray:
    """Indices of the grid points of the sensors."""
    given = [key for key in ("position", "index") if key in arrays]
    if len(given) != 1:
        raise InputError(
            f"{where}: expected the places of the sensors as position or as index, got {' and '.join(given) or 'none'}"
        )
    (key,) = given
    places = arrays[key]
    if places.shape != (count,):
        raise InputError(f"{where}: {key} has shape {places.shape}; expected ({count},), one for each sensor")
    last = grid.size - 1
    points = np.arange(grid.size) if key == "index" else grid
    nearest = np.abs(points - places[:, None]).argmin(axis=1)
    tolerance = 0.0 if key == "index" else EVEN_TOLERANCE * (grid[-1] - grid[0]) / last
    off = np.flatnonzero(np.abs(points[nearest] - places) > tolerance)
    if off.size:
        sensor = int(off[0])
        near = int(nearest[sensor])
        hint = (
            f"whole numbers from 0 to {last}"
            if key == "index"
            else f"places of the grid, the nearest is {grid[near]:.6g}"
        )
        raise InputError(f"{where}: {key} of sensor {sensor} is {places[sensor]:.6g}; expected {hint}")
    return nearest


def _frames(where: str, time: np.ndarray, frames: np.ndarray, count: int) -> np.ndarray:
    """Indices of the frames in which was read."""
    if time.shape != (count,):
        raise InputError(f"{where}: time has shape {time.shape}; expected ({count},), one for each row of readings")
    if (np.diff(time) <= 0).any():
        raise InputError(f"{where}: time does not increase strictly; sort the readings by time, one row for each time")
    nearest = np.abs(frames - time[:, None]).argmin(axis=1)
    off = np.flatnonzero(np.abs(frames[nearest] - time) > EVEN_TOLERANCE * np.min(np.diff(frames)))
    if off.size:
        at = float(time[off[0]])
        if not frames[0] <= at <= frames[-1]:
            raise InputError(
                f"{where}: time {at:.6g} lies outside of the fit, {frames[0]:g} to {frames[-1]:g}; count it from the "
                f"frame that the forecast begins in, whose time is {frames[0]:g}"
            )
        raise InputError(
            f"{where}: time {at:.6g} is that of no frame of the fit, the nearest is {frames[nearest[off[0]]]:.6g}; "
            "read at frames, or interpolate the readings to them"
        )
    if (np.diff(nearest) <= 0).any():
        raise InputError(f"{where}: two times are those of one frame of the fit; expected one row of readings for each")
    return nearest


def _noise(where: str, noise: np.ndarray, readings: np.ndarray) -> np.ndarray:
    last = readings.shape[-1]
    axis = "field" if readings.ndim == 3 else "sensor"
    if noise.shape != (last,) and not (noise.ndim == 0 and last == 1):
        raise InputError(
            f"{where}: noise has shape {noise.shape}; expected ({last},), the standard deviation of the readings of "
            f"each {axis} in its units"
        )
    if not (noise > 0).all():
        raise InputError(
            f"{where}: noise is {noise.tolist()}; expected standard deviations above zero, try a thousandth of the "
            "field for readings that are all but exact"
        )
    return np.broadcast_to(noise, (last,))


def _check_one_each(where: str, found: Readings, grid: np.ndarray, fields: tuple[str, ...]) -> None:
    """Refuses two readings of one field at one place and time: which of them it was is not for a forecast to say."""
    seen: set[tuple[int, int]] = set()
    for entry in zip(found.points.tolist(), found.fields.tolist(), strict=True):
        if entry in seen:
            point, field = entry
            raise InputError(
                f"{where}: two sensors read {fields[field]} at {grid[point]:.6g}; expected one, try their mean and its "
                "noise"
            )
        seen.add(entry)
