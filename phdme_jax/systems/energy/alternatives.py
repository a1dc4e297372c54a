"""Structures beside a given one, to ask observed data whether it is the right one."""

import math
from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array

from phdme_jax.numerics.bound import Bound
from phdme_jax.systems.energy.base import Parameters, Structure, zero_parameters


def without_dissipation(structure: Structure) -> Structure:
    """The structure with R = 0."""
    return replace(structure, flow=Bound(_conservative, structure), parameters=())


def _conservative(structure: Structure, efforts: Array, parameters: Parameters) -> Array:
    del parameters
    return structure.flow(efforts, zero_parameters(structure, efforts.dtype))


def with_dissipation(structure: Structure, field: int) -> Structure:
    """The structure with c e_i taken from the rate of field i, where c is one more parameter.

    Args:
      structure: operators.
      field: index i.
    Returns:
      the structure; the new parameter is the last.
    Raises:
      ValueError: there is no such field.
    """
    name = f"{_field(structure, field)}_dissipation"
    return replace(
        structure, flow=Bound(_dissipating, structure, field, name), parameters=(*structure.parameters, name)
    )


def _dissipating(structure: Structure, field: int, name: str, efforts: Array, parameters: Parameters) -> Array:
    own = {key: parameters[key] for key in structure.parameters}
    return structure.flow(efforts, own).at[..., field].add(-parameters[name] * efforts[..., field])


def with_opposite_sign(structure: Structure, field: int | None = None) -> Structure:
    """The structure with the sign of J changed, in the row of one field or in all.

    In one row alone J is no longer skew.

    Args:
      structure: operators.
      field: index of the row; None for all.
    Returns:
      the structure.
    Raises:
      ValueError: there is no such field.
    """
    if field is not None:
        _field(structure, field)
    return replace(structure, flow=Bound(_opposing, structure, field))


def _opposing(structure: Structure, field: int | None, efforts: Array, parameters: Parameters) -> Array:
    rows = slice(None) if field is None else slice(field, field + 1)
    conservative = structure.flow(efforts, zero_parameters(structure, efforts.dtype))
    return structure.flow(efforts, parameters).at[..., rows].add(-2.0 * conservative[..., rows])


def _field(structure: Structure, field: int) -> str:
    if not 0 <= field < len(structure.fields):
        raise ValueError(f"expected a field from 0 to {len(structure.fields) - 1}, got {field}")
    return structure.fields[field]


def is_skew(structure: Structure, dtype: str = "float64", tolerance: float = 1e-9) -> bool:
    """Whether J is skew in the structure's quadrature, <a, J b> = -<J a, b>, for two fixed states.

    Args:
      structure: operators.
      dtype: type of the arithmetic.
      tolerance: of the products, relative to their size.
    Returns:
      the answer.
    """
    shape = (*structure.grid.points, len(structure.fields))
    numbers = jnp.arange(math.prod(shape), dtype=dtype).reshape(shape)
    first = structure.constrain(jnp.cos(1.0 + 0.7 * numbers))
    second = structure.constrain(jnp.sin(2.0 + 1.3 * numbers))
    zero = zero_parameters(structure, dtype)
    weights = jnp.asarray(structure.weights(), dtype)[..., None]
    one = jnp.sum(weights * first * structure.flow(second, zero))
    other = jnp.sum(weights * second * structure.flow(first, zero))
    size = jnp.sum(jnp.abs(weights * first * structure.flow(second, zero)))
    return bool(jnp.abs(one + other) <= tolerance * size)
