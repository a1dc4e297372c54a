"""A user's measurements, from plain `.npz` files or from arrays, checked on the way in.

Every defect is an `InputError` of one sentence: what came, what was expected, what to try.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from phdme_jax.files import InputError
from phdme_jax.forecasting.archives import read_arrays

GRID_TOLERANCE = 1e-6
GRID_KEYS: dict[int, tuple[str, ...]] = {0: (), 1: ("grid",), 2: ("grid_x", "grid_y")}


@dataclasses.dataclass(frozen=True)
class FileLayout:
    """What a structure expects of its files.

    Attributes:
      structure: name of the structure, for messages.
      fields: names of the state's fields, in order.
      num_grid_axes: 0 for finite-dimensional systems, 1 or 2 for fields.
      num_ports: columns of `input`; None accepts any number.
      min_grid_points: fewest points an axis may have.
    """

    structure: str
    fields: tuple[str, ...]
    num_grid_axes: int = 1
    num_ports: int | None = None
    min_grid_points: int = 3

    @property
    def grid_keys(self) -> tuple[str, ...]:
        """Names of the grid arrays in a file."""
        return GRID_KEYS[self.num_grid_axes]


@dataclasses.dataclass(frozen=True)
class Trajectories:
    """Observed trajectories, float64, physical units. `grid` holds one array per grid axis."""

    state: Float[np.ndarray, "sample time *grid field"]
    time: Float[np.ndarray, " time"]
    grid: tuple[Float[np.ndarray, " _"], ...]
    input: Float[np.ndarray, "sample time port"] | None = None

    def named(self, layout: "FileLayout") -> dict[str, ArrayLike | None]:
        """The arrays under the keys of a file."""
        grid = dict(zip(layout.grid_keys, self.grid, strict=True))
        return {"state": self.state, "time": self.time, **grid, "input": self.input}


@dataclasses.dataclass(frozen=True)
class InitialState:
    """A state to forecast from, float64, physical units; `time` holds the times wanted, if the file has any."""

    state: Float[np.ndarray, "*grid field"]
    grid: tuple[Float[np.ndarray, " _"], ...]
    time: Float[np.ndarray, " time"] | None = None

    def named(self, layout: "FileLayout") -> dict[str, ArrayLike | None]:
        """The arrays under the keys of a file."""
        grid = dict(zip(layout.grid_keys, self.grid, strict=True))
        return {"state": self.state, **grid, "time": self.time}


# a path, arrays under the names they have in a file, or a record
TrajectorySource = Path | str | Mapping[str, ArrayLike | None] | Trajectories
StateSource = Path | str | Mapping[str, ArrayLike | None] | InitialState


def read_trajectories(source: TrajectorySource, layout: FileLayout, name: str = "trajectories") -> Trajectories:
    """Reads trajectories: `state` (sample, time, grid..., field), `time`, the grid, optional `input`.

    Args:
      source: a file, arrays or a record.
      layout: what the structure expects.
      name: what arrays are called in messages.

    Returns:
      The trajectories, checked: finite, times strictly increasing, grid increasing and even to 1e-6 of its length.

    Raises:
      InputError: any defect, in one sentence.
    """
    given = source.named(layout) if isinstance(source, Trajectories) else source
    path, arrays = read_arrays(given, name, ("state", "time", *layout.grid_keys), ("input",))
    state, time = arrays["state"], arrays["time"]
    _check_state(path, state, layout, leading=("sample", "time"))
    if state.shape[0] == 0:
        raise InputError(f"{path}: state holds no trajectories (shape {state.shape}); expected at least one sample")
    if state.shape[1] < 2:
        raise InputError(f"{path}: expected at least two frames a trajectory, got state of shape {state.shape}")
    _check_time(path, time)
    if time.size != state.shape[1]:
        raise InputError(
            f"{path}: time has {time.size} entries but state has {state.shape[1]} frames (shape {state.shape}); "
            "expected one time for each frame"
        )
    grid = _check_grid(path, arrays, layout, state.shape[2:-1])
    _check_finite(path, "state", state, ("sample", "time index", *_grid_words(layout), "field"), layout.fields)
    ports = arrays.get("input")
    if ports is not None:
        _check_input(path, ports, state.shape[:2], layout)
    return Trajectories(state, time, grid, ports)


def read_state(
    source: StateSource, layout: FileLayout, expected_grid: Sequence[np.ndarray] | None = None
) -> InitialState:
    """Reads an initial state: `state` (grid..., field), the grid, optional `time` (the times wanted).

    Args:
      source: a file, arrays or a record.
      layout: what the structure expects.
      expected_grid: the grid the forecaster was fitted on; None accepts any.

    Returns:
      The state, checked as by `read_trajectories`.

    Raises:
      InputError: any defect, in one sentence.
    """
    given = source.named(layout) if isinstance(source, InitialState) else source
    path, arrays = read_arrays(given, "state", ("state", *layout.grid_keys), ("time",))
    state, time = arrays["state"], arrays.get("time")
    _check_state(path, state, layout, leading=())
    grid = _check_grid(path, arrays, layout, state.shape[:-1])
    _check_finite(path, "state", state, (*_grid_words(layout), "field"), layout.fields)
    if time is not None:
        _check_wanted(path, time)
    for key, points, expected in zip(layout.grid_keys, grid, expected_grid or (), strict=False):
        length = abs(expected[-1] - expected[0])
        if points.size != expected.size or np.max(np.abs(points - expected)) > GRID_TOLERANCE * length:
            raise InputError(
                f"{path}: {key} is not the grid of the fitted forecaster; expected {_describe(expected)}, "
                f"got {_describe(points)}; interpolate the state onto that grid"
            )
    return InitialState(state, grid, time)


def read_times(times: ArrayLike) -> Float[np.ndarray, " time"]:
    """Times wanted of a forecast, checked: finite, strictly increasing, at least one.

    Raises:
      InputError: any defect, in one sentence.
    """
    name, arrays = read_arrays({"time": times}, "times", ("time",))
    _check_wanted(name, arrays["time"])
    return arrays["time"]


def _check_wanted(path: Path | str, time: np.ndarray) -> None:
    _check_time(path, time)
    if time.size == 0:
        raise InputError(f"{path}: time is empty; expected the times wanted, or no time at all")


def _check_state(path: Path | str, state: np.ndarray, layout: FileLayout, leading: tuple[str, ...]) -> None:
    axes = (*leading, *("grid" if layout.num_grid_axes == 1 else key for key in layout.grid_keys), "field")
    expected = f"({', '.join(axes)}{',' if len(axes) == 1 else ''}) for {layout.structure}"
    if state.ndim != len(axes):
        hint = "; try state[None] for a single trajectory" if leading and state.ndim == len(axes) - 1 else ""
        raise InputError(
            f"{path}: state has {state.ndim} axes (shape {state.shape}); expected {len(axes)}, {expected}{hint}"
        )
    if state.shape[-1] != len(layout.fields):
        raise InputError(
            f"{path}: state has {state.shape[-1]} fields on its last axis (shape {state.shape}); "
            f"expected {len(layout.fields)} ({', '.join(layout.fields)}) in {expected}"
        )


def _check_time(path: Path | str, time: np.ndarray) -> None:
    if time.ndim != 1:
        raise InputError(f"{path}: time has shape {time.shape}; expected one axis (time,), shared by all samples")
    _check_finite(path, "time", time, ("time index",))
    _check_increasing(path, "time", time)


def _check_increasing(path: Path | str, key: str, values: np.ndarray) -> None:
    wrong = np.flatnonzero(np.diff(values) <= 0)
    if wrong.size:
        first = int(wrong[0])
        raise InputError(
            f"{path}: {key} does not increase strictly ({values[first]:g} at index {first} is followed by "
            f"{values[first + 1]:g}); sort the data by {key} and drop repeated values"
        )


def _check_grid(
    path: Path | str, arrays: dict[str, np.ndarray], layout: FileLayout, shape: tuple[int, ...]
) -> tuple[np.ndarray, ...]:
    for key, size in zip(layout.grid_keys, shape, strict=True):
        points = arrays[key]
        if points.ndim != 1 or points.size != size:
            raise InputError(f"{path}: {key} has shape {points.shape}; expected ({size},), as the state has")
        if size < layout.min_grid_points:
            raise InputError(f"{path}: {key} has {size} points; expected at least {layout.min_grid_points}")
        _check_finite(path, key, points, ("index",))
        _check_increasing(path, key, points)
        even = np.linspace(points[0], points[-1], size)
        # Relative to the length and not to the spacing, so that an even grid stored in float32 passes.
        if np.max(np.abs(points - even)) > GRID_TOLERANCE * (points[-1] - points[0]):
            steps = np.diff(points)
            raise InputError(
                f"{path}: {key} is not evenly spaced (steps from {steps.min():g} to {steps.max():g}); "
                "interpolate the state onto an even grid"
            )
    return tuple(arrays[key] for key in layout.grid_keys)


def _check_input(path: Path | str, ports: np.ndarray, leading: tuple[int, ...], layout: FileLayout) -> None:
    expected = (*leading, "port" if layout.num_ports is None else layout.num_ports)
    fits = ports.ndim == 3 and ports.shape[:2] == leading and ports.shape[2] > 0
    if not fits or layout.num_ports not in (None, ports.shape[2]):
        advice = "; leave input out" if layout.num_ports == 0 else ""
        raise InputError(
            f"{path}: input has shape {ports.shape}; expected (sample, time, port) = "
            f"({', '.join(map(str, expected))}) for {layout.structure}{advice}"
        )
    _check_finite(path, "input", ports, ("sample", "time index", "port"))


def _check_finite(
    path: Path | str, key: str, array: np.ndarray, axes: tuple[str, ...], fields: tuple[str, ...] = ()
) -> None:
    finite: Bool[np.ndarray, "..."] = np.isfinite(array)
    if finite.all():
        return
    first = np.unravel_index(int(np.argmin(finite)), array.shape)
    words = [f"{axis} {fields[index] if axis == 'field' else index}" for axis, index in zip(axes, first, strict=True)]
    raise InputError(
        f"{path}: {key} holds {array[first]} at {', '.join(words)} ({np.sum(~finite)} of {array.size} not finite); "
        "expected finite numbers, remove or interpolate them"
    )


def _grid_words(layout: FileLayout) -> tuple[str, ...]:
    return tuple(f"{key} index" for key in layout.grid_keys)


def _describe(points: np.ndarray) -> str:
    return f"{points.size} points from {points[0]:g} to {points[-1]:g}"
