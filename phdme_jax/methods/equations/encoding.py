"""Between fields in physical units and what networks see: each channel shifted and scaled, some by their logarithm.

z = (g(x) - shift) / scale,   g the identity, the logarithm of a positive field, or the identity on [0, 1]
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

KINDS = ("linear", "log", "unit")


class Encoding(NamedTuple):
    """Shift and scale of each channel; arrays only."""

    shift: Float[Array, "field"]
    scale: Float[Array, "field"]


def check_kinds(kinds: tuple[str, ...], num_fields: int) -> None:
    """Refuse encodings that cannot be.

    Raises:
      ValueError: unknown kind, or another number of them than of fields.
    """
    if len(kinds) != num_fields or not set(kinds) <= set(KINDS):
        raise ValueError(f"expected {num_fields} encodings among {KINDS}, got {kinds}")


def _transformed(fields: Array, kinds: tuple[str, ...]) -> Array:
    if not kinds:
        return fields
    channels = jnp.moveaxis(fields, -1, 0)
    return jnp.stack([jnp.log(x) if kind == "log" else x for x, kind in zip(channels, kinds, strict=True)], -1)


def fit_encoding(fields: Float[Array, "sample *grid field"], kinds: tuple[str, ...]) -> Encoding:
    """Mean and standard deviation of each channel over examples and places, after the logarithm where there is one.

    Raises:
      ValueError: kinds that cannot be, see `check_kinds`.
    """
    check_kinds(kinds, fields.shape[-1])
    values = _transformed(fields, kinds)
    others = tuple(range(values.ndim - 1))
    return Encoding(jnp.mean(values, axis=others), jnp.std(values, axis=others))


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
    inverse: dict[str, Any] = {
        "linear": lambda x: x,
        "log": jnp.exp,
        "unit": lambda x: jnp.clip(x, 0.0, 1.0),
    }
    channels = jnp.moveaxis(normalised * encoding.scale + encoding.shift, -1, 0)
    return jnp.stack([inverse[kind](x) for x, kind in zip(channels, kinds, strict=True)], -1)
