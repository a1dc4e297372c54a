"""Between fields in physical units and what networks see: each channel shifted and scaled, some by their logarithm.

z = (g(x) - shift) / scale,   g the identity, the logarithm of a positive field, or the identity on [0, 1]
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

KINDS = ("linear", "log", "unit")


class Encoding(NamedTuple):
    """Shift and scale of each channel; arrays only."""

    shift: Float[Array, "field"]
    scale: Float[Array, "field"]


def _transformed(fields: Array, kinds: tuple[str, ...]) -> Array:
    if not kinds:
        return fields
    channels = jnp.moveaxis(fields, -1, 0)
    return jnp.stack([jnp.log(x) if kind == "log" else x for x, kind in zip(channels, kinds, strict=True)], -1)


def fit_encoding(fields: Float[Array, "sample *grid field"], kinds: tuple[str, ...]) -> Encoding:
    """Mean and standard deviation of each channel over examples and places, after the logarithm where there is one.

    Raises:
      ValueError: unknown kind, or another number of them than of fields.
    """
    if len(kinds) != fields.shape[-1] or not set(kinds) <= set(KINDS):
        raise ValueError(f"expected {fields.shape[-1]} encodings among {KINDS}, got {kinds}")
    values = _transformed(fields, kinds)
    others = tuple(range(values.ndim - 1))
    return Encoding(jnp.mean(values, axis=others), jnp.std(values, axis=others))


def isotropic(encoding: Encoding, mixed: tuple[tuple[int, ...], ...]) -> Encoding:
    """The encoding with one scale and no shift for the channels of each group, such as the components of a vector.

    Args:
      encoding: of each channel by itself.
      mixed: numbers of the channels of each group.
    Returns:
      the encoding; the scale of a group is its channels' root mean square.
    """
    shift, scale = encoding
    for group in mixed:
        index = jnp.asarray(group)
        size = jnp.sqrt(jnp.mean(encoding.shift[index] ** 2 + encoding.scale[index] ** 2))
        shift, scale = shift.at[index].set(0.0), scale.at[index].set(size)
    return Encoding(shift, scale)


def encode(
    encoding: Encoding, kinds: tuple[str, ...], fields: Float[Array, "*grid field"]
) -> Float[Array, "*grid field"]:
    """Normalised channels of fields in physical units."""
    return (_transformed(fields, kinds) - encoding.shift) / encoding.scale


def decode(
    encoding: Encoding, kinds: tuple[str, ...], normalised: Float[Array, "*grid field"]
) -> Float[Array, "*grid field"]:
    """Fields in physical units of normalised channels; channels of kind "unit" are cut off at 0 and 1."""
    if not kinds:
        return normalised
    inverse: dict[str, Callable[[Array], Array]] = {
        "linear": lambda x: x,
        "log": jnp.exp,
        "unit": lambda x: jnp.clip(x, 0.0, 1.0),
    }
    channels = jnp.moveaxis(normalised * encoding.scale + encoding.shift, -1, 0)
    return jnp.stack([inverse[kind](x) for x, kind in zip(channels, kinds, strict=True)], -1)
