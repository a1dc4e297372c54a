"""Examples from files of PDEBench, in the layout of the equations that they obey.

Files of advection and Burgers' equation hold `tensor` (sample, time, x), `x-coordinate` and `t-coordinate`, which has
one time more than there are frames; files of the radial dam break a group for each sample, with `data` (time, x, y, 1),
the depth alone, and `grid/x`, `grid/y`, `grid/t`. h5py reads them: `pip install 'phdme_jax[io]'`.
Source: Takamoto et al. (2022), arXiv 2210.07182; doi 10.18419/darus-2986.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from phdme_jax.files import InputError, input_file, require_memory
from phdme_jax.systems.equations.base import Equations

TOLERANCE = 1e-3  # part of a distance by which distances in files may be off: their coordinates are rounded


def read_series(
    path: Path | str, equations: Equations, num_examples: int | None = None
) -> Float[np.ndarray, "sample x time 1"]:
    """Fields over space and time from a file of advection or Burgers' equation.

    Each cell is the mean of the file's cells that it is made of, so that their sum is kept; times are the file's at
    equal strides, from the first. The first cell begins at zero here and is around zero in the equations, which do not
    see the difference: they are periodic and know no place.

    Args:
      path: the file.
      equations: of one field on (x, time), periodic in x.
      num_examples: how many, the first ones; None takes all.
    Returns:
      the fields, in double precision.
    Raises:
      InputError: the file is missing, holds something else, fewer examples, or other places or times than a stride
        gives, or values that are not finite.
    """
    with _opened(path) as file:
        tensor, places, times = (_found(path, file, name) for name in ("tensor", "x-coordinate", "t-coordinate"))
        if tensor.ndim != 3 or tensor.shape[2] != len(places) or tensor.shape[1] not in (len(times), len(times) - 1):
            raise InputError(
                f"{path}: expected a tensor of samples, {len(times)} times or one fewer and {len(places)} places, got "
                f"the shape {tensor.shape}"
            )
        (num_points, num_frames), (spacing, interval) = equations.grid.points, equations.grid.spacing
        across = _stride(path, "places", np.asarray(places), spacing)
        ahead = _stride(path, "times", np.asarray(times)[: tensor.shape[1]], interval)
        _require_count(path, "places", tensor.shape[2], num_points * across, exact=True)
        _require_count(path, "times", tensor.shape[1], (num_frames - 1) * ahead + 1)
        count = _count(path, len(tensor), num_examples)
        require_memory(f"{count} examples", 8.0 * count * num_points * num_frames, "take fewer examples")
        later = slice(0, (num_frames - 1) * ahead + 1, ahead)
        values = np.stack([_means(np.asarray(tensor[row, later], float), 1, across) for row in range(count)])
    return _finite(path, np.swapaxes(values, 1, 2)[..., None])


def read_depths(
    path: Path | str, equations: Equations, duration: float, num_examples: int | None = None
) -> Float[np.ndarray, "sample x y frame"]:
    """Depths from a file of the radial dam break, which holds no momenta.

    Each cell is the mean of the file's cells that it is made of: a stride would move it aside, and mirror images would
    differ. Times are the file's at equal strides.

    Args:
      path: the file.
      equations: of frames on (x, y), whose depths are named "depth" and their frame's number.
      duration: time of their last frame.
      num_examples: how many, the first ones; None takes all.
    Returns:
      depths, in the order of the channels of that name, in double precision.
    Raises:
      InputError: the file is missing, holds something else, fewer examples, or other places or times than a stride
        gives, or values that are not finite.
    """
    order = [int(name.split()[1]) for name in equations.fields if name.split()[0] == "depth"]
    with _opened(path) as file:
        names = sorted(file)
        count = _count(path, len(names), num_examples)
        size = 8.0 * count * np.prod(equations.grid.points) * len(order)
        require_memory(f"{count} examples", float(size), "take fewer examples")
        found = [_depths_of(path, file, name, equations, duration, len(order)) for name in names[:count]]
    return _finite(path, np.stack([np.moveaxis(frames, 0, -1)[..., order] for frames in found]))


def _depths_of(
    path: Path | str, file: Any, name: str, equations: Equations, duration: float, num_frames: int
) -> Float[np.ndarray, "time x y"]:
    """Depths of one sample at the times and in the cells that are asked for."""
    data, *coordinates = (_found(path, file, f"{name}/{part}") for part in ("data", "grid/t", "grid/x", "grid/y"))
    times, *places = (np.asarray(one) for one in coordinates)
    expected = (len(times), *(len(one) for one in places), 1)
    if data.shape != expected:
        raise InputError(f"{path}: expected {name}/data of the shape {expected}, as its grid says, got {data.shape}")
    ahead = _stride(path, "times", times, duration / (num_frames - 1))
    _require_count(path, "times", len(times), (num_frames - 1) * ahead + 1)
    frames = np.asarray(data[: (num_frames - 1) * ahead + 1 : ahead, :, :, 0], float)
    for axis, (points, spacing, place) in enumerate(
        zip(equations.grid.points, equations.grid.spacing, places, strict=True), start=1
    ):
        across = _stride(path, "places", place, spacing)
        _require_count(path, "places", len(place), points * across, exact=True)
        frames = _means(frames, axis, across)
    return frames


def _means(values: np.ndarray, axis: int, count: int) -> np.ndarray:
    """Means of so many neighbours along an axis."""
    shape = values.shape
    return values.reshape(*shape[:axis], -1, count, *shape[axis + 1 :]).mean(axis=axis + 1)


@contextlib.contextmanager
def _opened(path: Path | str) -> Iterator[Any]:
    try:
        import h5py
    except ImportError:
        raise InputError(f"{path}: reading it needs h5py; pip install 'phdme_jax[io]'") from None
    try:
        file = h5py.File(input_file(path, "a file of PDEBench"), "r")
    except OSError as error:
        raise InputError(f"{path}: is no HDF5 file that can be read ({error})") from None
    with file:
        yield file


def _found(path: Path | str, file: Any, name: str) -> Any:
    """A data set of a file."""
    found = file.get(name)
    if not hasattr(found, "shape"):
        raise InputError(f"{path}: expected arrays named {name!r}, got {sorted(file)[:5]}; is it the right file?")
    return found


def _stride(path: Path | str, what: str, coordinates: np.ndarray, wanted: float) -> int:
    """How many of a file's distances make one that is wanted."""
    steps = np.diff(coordinates.astype(float))
    distance = float(np.mean(steps)) if len(steps) else 0.0
    if not distance > 0 or np.abs(steps - distance).max() > 10 * TOLERANCE * distance:
        raise InputError(f"{path}: expected {what} that increase evenly")
    stride = round(wanted / distance)
    if stride < 1 or abs(stride * distance - wanted) > TOLERANCE * wanted:
        raise InputError(
            f"{path}: has {what} {distance:.4g} apart, of which no whole number makes {wanted:.4g}; choose a grid of "
            f"the equations that has a multiple"
        )
    return stride


def _require_count(path: Path | str, what: str, count: int, needed: int, exact: bool = False) -> None:
    if count < needed or (exact and count != needed):
        raise InputError(f"{path}: expected {'' if exact else 'at least '}{needed} {what}, got {count}")


def _count(path: Path | str, held: int, wanted: int | None) -> int:
    count = held if wanted is None else wanted
    if not 1 <= count <= held:
        raise InputError(f"{path}: holds {held} examples, {count} were asked for")
    return count


def _finite(path: Path | str, values: np.ndarray) -> np.ndarray:
    wrong = np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
    if len(wrong):
        raise InputError(f"{path}: example {wrong[0]} has values that are not finite, as have {len(wrong) - 1} others")
    return values
