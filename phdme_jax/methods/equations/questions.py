"""Questions: what was observed of one example, and all the rest is asked for.

A `Question` is the condition of every method that answers questions, whatever was observed: the cause (forward), the
effect (inverse), or a few places of both (reconstruction).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phdme_jax.files import InputError
from phdme_jax.methods.equations.encoding import Encoding, encode
from phdme_jax.systems.equations.base import Equations, without_padding

LEAST_NOISE = 1e-3  # of observations, in units of a field's standard deviation, for methods that divide by it


class Question(NamedTuple):
    """What was observed of one example; leaves may have a leading axis.

    Attributes:
      condition: what is given besides, as of methods that answer no questions.
      mask: one where a field was observed, zero elsewhere.
      values: what was observed, physical units; zero elsewhere.
      noise: standard deviation of the observations of each field, of their logarithm where a field is encoded so; zero
        for exact ones.
    """

    condition: Float[Array, "*grid channel"]
    mask: Float[Array, "*grid field"]
    values: Float[Array, "*grid field"]
    noise: Float[Array, "field"]


def of_condition(finish: Callable[[Array, Array], Array], fields: Array, question: Question) -> Array:
    """What finishes fields of a condition, see `Model.finish`, for a question about them."""
    return finish(fields, question.condition)


class Observed(NamedTuple):
    """The same in normalised units, of the type of the network; no noise is below `LEAST_NOISE`."""

    mask: Float[Array, "*grid field"]
    values: Float[Array, "*grid field"]
    noise: Float[Array, "field"]

    def misfit(self, fields: Float[Array, "*grid field"]) -> Float[Array, "*grid field"]:
        """What normalised fields miss of the observations, in units of the noise; zero where nothing was observed."""
        return self.mask * (fields - self.values) / self.noise

    def written_over(self, fields: Float[Array, "*grid field"]) -> Float[Array, "*grid field"]:
        """Normalised fields with the observations in their places."""
        return jnp.where(self.mask > 0, self.values, fields)


def observed(question: Question, encoding: Encoding, kinds: tuple[str, ...]) -> Observed:
    """A question as networks see it."""
    # a one stands for what was not observed: zeros have no logarithm
    safe = jnp.where(question.mask > 0, question.values, 1.0)
    values = jnp.where(question.mask > 0, encode(encoding, kinds, safe), 0.0)
    dtype = encoding.scale.dtype
    noise = jnp.maximum(question.noise / encoding.scale, LEAST_NOISE)
    return Observed(question.mask.astype(dtype), values.astype(dtype), noise.astype(dtype))


def ask(
    equations: Equations,
    mask: np.ndarray,
    values: np.ndarray,
    noise: Sequence[float] | None = None,
    condition: np.ndarray | None = None,
) -> Question:
    """A question about fields of some equations.

    Args:
      equations: whose fields.
      mask: true or one where a field was observed, shape (*grid, field).
      values: what was observed, physical units, shape (*grid, field); not read elsewhere.
      noise: standard deviation of each field's observations; exact where None.
      condition: what is given besides, if the equations have conditions, shape (*grid, channel).
    Returns:
      the question.
    Raises:
      InputError: a mask of another grid, nothing observed or in the padding of cells, observations that are not finite,
        a negative noise, conditions that are missing or not finite.
    """
    shape = (*equations.grid.points, len(equations.fields))
    mask, values = np.asarray(mask), np.asarray(values, float)
    for name, array in (("mask", mask), ("values", values)):
        if array.shape != shape:
            raise InputError(
                f"expected {name} of shape {shape}, grid and fields of {equations.name}, got {array.shape}; "
                "observe on the grid that the model was trained on"
            )
    if not np.isin(mask, (0, 1)).all():
        raise InputError("expected a mask of ones and zeros, got other numbers; noise is told by field")
    seen = mask > 0
    if not seen.any():
        raise InputError("expected at least one observation, got an empty mask; sample without a question instead")
    for name in equations.cell_fields:
        index = equations.fields.index(name)
        if without_padding(equations, seen[None], name).sum() < seen[..., index].sum():
            raise InputError(f"expected {name} in the cells between the nodes, got it in the last row, which is none")
    if not np.isfinite(values[seen]).all():
        bad = int((~np.isfinite(values[seen])).sum())
        raise InputError(f"expected finite observations, got {bad} that are not; leave them out of the mask")
    noises = np.zeros(shape[-1]) if noise is None else np.asarray(noise, float)
    if noises.shape != shape[-1:] or not (np.isfinite(noises) & (noises >= 0)).all():
        raise InputError(f"expected one noise of at least zero for each of {equations.fields}, got {noise}")
    if condition is None and equations.conditions:
        raise InputError(f"expected the conditions {', '.join(equations.conditions)} of {equations.name}, got none")
    given = np.zeros((*shape[:-1], 0)) if condition is None else np.asarray(condition, float)
    if given.shape != (*shape[:-1], len(equations.conditions)):
        raise InputError(f"expected conditions {equations.conditions} on the grid, got shape {given.shape}")
    if not np.isfinite(given).all():
        raise InputError(f"expected finite conditions {equations.conditions}, got some that are not")
    return Question(*map(jnp.asarray, (given, seen.astype(float), np.where(seen, values, 0.0), noises)))


def ask_sensors(
    equations: Equations,
    places: Sequence[tuple[int, ...]],
    fields: Sequence[str],
    readings: Sequence[float],
    noise: Sequence[float] | None = None,
    condition: np.ndarray | None = None,
) -> Question:
    """A question by sensors, one reading each.

    Args:
      equations: whose fields.
      places: index of a grid point for each sensor.
      fields: name of the field that it reads.
      readings: physical units.
      noise: see `ask`.
      condition: see `ask`.
    Returns:
      the question.
    Raises:
      InputError: see `ask`; another number of places than of readings, a place off the grid, an unknown field, and
        readings of one field at one place that differ.
    """
    if not len(places) == len(fields) == len(readings):
        raise InputError(
            f"expected one place, field and reading a sensor, got {len(places)}, {len(fields)} and {len(readings)}"
        )
    shape = (*equations.grid.points, len(equations.fields))
    found: dict[tuple[int, ...], float] = {}
    for place, name, reading in zip(places, fields, readings, strict=True):
        if name not in equations.fields:
            raise InputError(f"expected a field of {equations.name} among {equations.fields}, got {name!r}")
        index = tuple(int(axis) for axis in place)
        if len(index) != len(equations.grid.points) or not all(
            0 <= axis < count for axis, count in zip(index, equations.grid.points, strict=True)
        ):
            raise InputError(f"expected a place on the grid of {equations.grid.points} points, got {index}")
        other = found.setdefault((*index, equations.fields.index(name)), float(reading))
        if other != float(reading) and np.isfinite([other, reading]).all():
            raise InputError(
                f"expected one reading of a field at a place, got {other:.4g} and {float(reading):.4g} of {name} at "
                f"{index}; give their mean, and its noise"
            )
    mask, values = np.zeros(shape), np.zeros(shape)
    for entry, reading in found.items():
        mask[entry], values[entry] = 1.0, reading
    return ask(equations, mask, values, noise, condition)
