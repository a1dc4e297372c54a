"""Equations whose first frames are given: what is generated continues them.

The grid stays that of the whole trajectory. The condition has, after the channels of the equations themselves, the
given frames, continued along the straight line through the last two, and a channel that is one where a frame is given.
A single given frame is held.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from phdme_jax.numerics.bound import Bound
from phdme_jax.systems.equations.base import Equations, Sample
from phdme_jax.systems.priors import Symmetry


def with_given_frames(equations: Equations, count: int) -> Equations:
    """The same equations, told their first frames.

    Args:
      equations: on a grid with an axis of time.
      count: frames that are given.
    Returns:
      the equations. Where a symmetry takes out translations, the whole is moved so that the given frames are centred:
      of the frame of reference that they are told in nothing is left open. `resolve` continues the given frames.
    Raises:
      ValueError: no frame, or no frame left to generate; no axis of time, or fields of cells between nodes.
    """
    axis, channels = equations.time_axis, len(equations.conditions)
    if axis is None or equations.cell_fields or equations.given_frames:
        raise ValueError(f"expected equations with an axis of time and no frame given before, got {equations.name}")
    if not 0 < count < equations.grid.points[axis]:
        last = equations.grid.points[axis] - 1
        raise ValueError(f"expected from 1 to {last} given frames of {equations.name}, got {count}")
    priors = equations.priors
    found: dict[str, Any] = {
        name: Bound(_of_fields, function, channels)
        for name in ("unseen", "published", "conserved", "inequality", "objective", "solved_objective")
        if (function := getattr(equations, name)) is not None
    }
    return dataclasses.replace(
        equations,
        **found,
        conditions=(*equations.conditions, *(f"given {name}" for name in equations.fields), "given"),
        residual=Bound(_of_fields, equations.residual, channels),
        draw=Bound(_draw, equations, count, axis),
        resolve=None if equations.resolve is None else Bound(_resolve, equations.resolve, channels),
        given_frames=count,
        priors=dataclasses.replace(
            priors,
            symmetry=None if priors.symmetry is None else _symmetry(priors.symmetry, channels, len(equations.fields)),
            feasibilities=tuple(
                dataclasses.replace(one, terms=Bound(_terms, one.terms, channels)) for one in priors.feasibilities
            ),
            invariants=tuple((name, Bound(_of_fields, of, channels)) for name, of in priors.invariants),
            project=None if priors.project is None else Bound(_of_fields, priors.project, channels),
        ),
    )


def given_condition(
    fields: Float[Array, "*grid field"], condition: Float[Array, "*grid channel"], count: int, axis: int
) -> Float[Array, "*grid told"]:
    """The condition with the first frames of a trajectory in it, and the straight line that continues them.

    Args:
      fields: of which the first `count` frames are read.
      condition: channels of the equations themselves.
      count: frames that are given.
      axis: of time.
    Returns:
      condition, given frames and where they are.
    """
    number = jnp.arange(fields.shape[axis]).reshape([-1 if index == axis else 1 for index in range(fields.ndim)])
    held = jnp.take(fields, jnp.minimum(number.ravel(), count - 1), axis=axis)
    last, before = (jax.lax.slice_in_dim(fields, at, at + 1, axis=axis) for at in (count - 1, max(count - 2, 0)))
    told = held + jnp.maximum(number - (count - 1), 0).astype(fields.dtype) * (last - before)
    known = jnp.broadcast_to(number < count, (*fields.shape[:-1], 1))
    return jnp.concatenate([condition, told, known.astype(fields.dtype)], axis=-1)


def told_frames(condition: Float[Array, "*grid told"], count: int) -> tuple[Array, Array]:
    """Given frames and the line that continues them (*grid, count), and one where a frame is given (*grid, 1).

    Args:
      condition: see `given_condition`.
      count: of the fields.
    """
    return condition[..., -1 - count : -1], condition[..., -1:]


def imposed(fields: Float[Array, "*grid field"], condition: Float[Array, "*grid told"]) -> Float[Array, "*grid field"]:
    """Fields with the given frames of a condition, see `given_condition`, in the place of their own."""
    told, known = told_frames(condition, fields.shape[-1])
    return jnp.where(known > 0, told.astype(fields.dtype), fields)


def _of_fields(function: Callable[[Array, Array], Any], channels: int, fields: Array, condition: Array) -> Any:
    return function(fields, condition[..., :channels])


def _terms(terms: Any, channels: int, predicted: Array, clean: Array, condition: Array) -> Array:
    return terms(predicted, clean, condition[..., :channels])


def _resolve(resolve: Any, channels: int, fields: Array, condition: Array) -> Array:
    return resolve(imposed(fields, condition), condition[..., :channels])


def _draw(equations: Equations, count: int, axis: int, key: Array) -> Sample:
    sample, symmetry = equations.draw(key), equations.priors.symmetry
    fields = sample.fields
    if symmetry is not None and symmetry.centre is not None:
        given = jax.lax.slice_in_dim(fields, 0, count, axis=axis)
        shift = jax.lax.slice_in_dim(given - symmetry.centre(given), 0, 1, axis=axis)
        fields = fields - shift
    return Sample(fields, given_condition(fields, sample.condition, count, axis), sample.ok)


def _symmetry(symmetry: Symmetry, channels: int, num_fields: int) -> Symmetry:
    """The same group, which moves the given frames as it moves the rest; translations are none of it."""
    told = tuple(tuple(channels + index for index in group) for group in symmetry.mixed)
    return dataclasses.replace(
        symmetry,
        act=Bound(_act, symmetry.act, channels),
        centre=None,
        mixed_conditions=(*symmetry.mixed_conditions, *told),
    )


def _act(act: Any, channels: int, element: Any, fields: Array, condition: Array) -> tuple[Array, Array]:
    own = condition[..., :channels]
    moved, others = act(element, fields, own)
    told, _ = act(element, condition[..., channels:-1], own)
    return moved, jnp.concatenate([others, told, condition[..., -1:]], axis=-1)
