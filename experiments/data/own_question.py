"""A user's own question about fields of known equations: what was read, from a file, and the same of other examples."""

from pathlib import Path

import numpy as np
from jaxtyping import Array, Key

from experiments.data.questions import as_read
from phdme_jax.files import InputError
from phdme_jax.forecasting.archives import read_arrays
from phdme_jax.methods.base import Examples
from phdme_jax.methods.equations.questions import Question, ask, ask_sensors
from phdme_jax.systems.equations.base import Equations

NEAR = 1e-6  # of the distance between points: places this near to one are on it
SENSORS = ("readings", "field", "position", "index")
FIELDS = ("mask", "values")
RANGES = {"log": (0.0, np.inf, "numbers above zero"), "unit": (0.0, 1.0, "numbers from 0 to 1")}


def read_question(path: Path, equations: Equations) -> Question:
    """Reads a question from an `.npz`, checked.

    Either sensors,

        readings (sensor,), field (sensor,) counted from zero, and position (sensor, axis) on the grid or
        index (sensor, axis) of its points counted from zero

    or whole fields, mask and values (*grid, field). Both may have noise (field,), the standard deviation of the
    readings of each field, of their logarithm where it is learned so, zero without; and condition (*grid, channel) of
    equations that have one.

    Args:
      path: of the file.
      equations: that it is about.
    Returns:
      the question.
    Raises:
      InputError: any defect, in one sentence.
    """
    where, arrays = read_arrays(path, "question", (), (*SENSORS, *FIELDS, "noise", "condition"))
    if not arrays:
        raise InputError(f"{where}: has none of the keys of a question; expected {', '.join((*SENSORS, *FIELDS))}")
    by_sensors, by_fields = ([key for key in keys if key in arrays] for keys in (SENSORS, FIELDS))
    if by_sensors and by_fields:
        raise InputError(f"{where}: has {', '.join(by_sensors)} and {', '.join(by_fields)}; expected one kind of them")
    if len(by_fields) < 2 and not {"readings", "field"} <= set(by_sensors):
        raise InputError(
            f"{where}: has {', '.join(arrays)}; expected readings, field and position of sensors, or mask "
            "and values of whole fields"
        )
    noise, condition = arrays.get("noise"), arrays.get("condition")
    told = None if noise is None else np.atleast_1d(noise).tolist()
    try:
        if by_fields:
            found = ask(equations, arrays["mask"], arrays["values"], told, condition)
        else:
            names, places = _names(where, arrays, equations), _places(where, arrays, equations)
            found = ask_sensors(equations, places, names, arrays["readings"].tolist(), told, condition)
    except InputError as error:
        raise error if str(error).startswith(where) else InputError(f"{where}: {error}") from None
    if np.asarray(found.mask).all():
        raise InputError(f"{where}: reads all fields everywhere; a question leaves something open")
    return found


def refuse_values(path: Path, question: Question, equations: Equations, kinds: tuple[str, ...]) -> None:
    """Refuses readings that a field cannot have.

    Args:
      path: of the question's file.
      question: what was read.
      equations: that it is about.
      kinds: encoding of each field; one with a logarithm is above zero.
    Raises:
      InputError: such a reading.
    """
    for index, kind in enumerate(kinds):
        seen = np.asarray(question.values)[..., index][np.asarray(question.mask)[..., index] > 0]
        if kind in RANGES and seen.size:
            least, most, words = RANGES[kind]
            if seen.min() < least or seen.max() > most or (kind == "log" and seen.min() == 0):
                found = f"{float(seen.min()):.6g} to {float(seen.max()):.6g}"
                raise InputError(f"{path}: readings of {equations.fields[index]} are {found}; expected {words}")


def far_readings(question: Question, examples: Examples, fields: tuple[str, ...]) -> list[str]:
    """Names of the fields of which something was read that is beyond all examples."""
    far = []
    for index, name in enumerate(fields):
        seen = np.asarray(question.values)[..., index][np.asarray(question.mask)[..., index] > 0]
        known = examples.fields[..., index]
        if seen.size and (seen.min() < known.min() or seen.max() > known.max()):
            far.append(name)
    return far


def _names(where: str, arrays: dict[str, np.ndarray], equations: Equations) -> list[str]:
    """Name of the field that each sensor reads."""
    readings, field = arrays["readings"], arrays["field"]
    if readings.ndim != 1 or field.shape != readings.shape:
        raise InputError(
            f"{where}: readings have shape {readings.shape} and field {field.shape}; expected one of each a sensor"
        )
    if not np.isin(field, np.arange(len(equations.fields))).all():
        raise InputError(
            f"{where}: field is {field.tolist()}; expected numbers from 0 to {len(equations.fields) - 1} "
            f"({', '.join(equations.fields)})"
        )
    return [equations.fields[int(number)] for number in field]


def _places(where: str, arrays: dict[str, np.ndarray], equations: Equations) -> list[tuple[int, ...]]:
    """Index of the grid point of each sensor."""
    given = [key for key in ("position", "index") if key in arrays]
    if len(given) != 1:
        raise InputError(
            f"{where}: expected the places of the sensors as position or as index, got {' and '.join(given) or 'none'}"
        )
    (key,), grid, count = given, equations.grid, len(arrays["readings"])
    places = arrays[key]
    if places.shape != (count, len(grid.points)):
        raise InputError(
            f"{where}: {key} has shape {places.shape}; expected {(count, len(grid.points))}, a place of "
            f"{len(grid.points)} coordinates for each sensor"
        )
    steps = np.nan_to_num(places if key == "index" else places / np.asarray(grid.spacing), posinf=-1.0, nan=-1.0)
    nearest, most = np.round(steps), np.asarray(grid.points) - 1
    off = (np.abs(steps - nearest) > NEAR) | (nearest < 0) | (nearest > most)
    if off.any():
        sensor = int(np.flatnonzero(off.any(axis=1))[0])
        near = np.clip(nearest[sensor], 0, most)
        hint = "whole numbers" if key == "index" else "a place of the grid"
        best = near if key == "index" else near * np.asarray(grid.spacing)
        raise InputError(
            f"{where}: {key} of sensor {sensor} is {places[sensor].tolist()}; expected {hint}, the nearest is "
            f"{[float(f'{value:.6g}') for value in best]}"
        )
    return [tuple(map(int, place)) for place in nearest]


def same_question(question: Question, examples: Examples, kinds: tuple[str, ...], key: Key[Array, ""]) -> Question:
    """The same places of other examples, with the same noise.

    Args:
      question: of one example.
      examples: others, leaves with a leading axis.
      kinds: encoding of each field; of a field with a logarithm noise is that of it.
      key: of the noise.
    Returns:
      one question of each, on the host.
    """
    seen = as_read(examples.fields, kinds, question.noise, key)
    count = len(examples.fields)
    mask, noise = (np.broadcast_to(part, (count, *np.shape(part))) for part in (question.mask, question.noise))
    return Question(*map(np.asarray, (examples.condition, mask, mask * seen, noise)))  # type: ignore[arg-type]
