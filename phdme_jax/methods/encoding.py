"""Between fields in physical units and what networks see: channels shifted and scaled, or their principal components.

    z = (g(x) - shift) / scale,   g the identity, the logarithm of a positive field, or the identity on [0, 1]
    z = V^T (g(x) - mean) / scale,   V the principal components of a channel over its grid

Components have variance one, each: the same relative error in all of them leaves a smooth field smooth, where the same
error at all places is multiplied by the square of the number of points in a second derivative.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

KINDS = ("linear", "log", "unit", "modes", "log_modes")
_WITH_MODES = ("modes", "log_modes")
LEAST = 1e-5  # of the largest standard deviation: components below it are left out


class Encoding(NamedTuple):
    """Shift and scale; arrays only.

    Attributes:
      shift: of each channel, shape (field,); of kinds with modes the mean field, (*grid, field).
      scale: of each channel, or of each component, those of all channels one after the other.
      modes: principal components of each channel, (place, component); nothing for other kinds.
    """

    shift: Float[Array, "*grid field"]
    scale: Float[Array, " code"]
    modes: tuple[Float[Array, "place _"], ...] = ()


def check_kinds(kinds: tuple[str, ...], num_fields: int) -> None:
    """Refuse encodings that cannot be.

    Raises:
      ValueError: unknown kind, another number of them than of fields, or modes for some channels and not for others.
    """
    if len(kinds) != num_fields or not set(kinds) <= set(KINDS):
        raise ValueError(f"expected {num_fields} encodings among {KINDS}, got {kinds}")
    if has_modes(kinds) and not set(kinds) <= set(_WITH_MODES):
        raise ValueError(f"expected modes for all channels or for none, got {kinds}; try {_WITH_MODES[0]} for each")


def has_modes(kinds: tuple[str, ...]) -> bool:
    """Whether codes are components, without a grid."""
    return bool(set(kinds) & set(_WITH_MODES))


def _transformed(fields: Array, kinds: tuple[str, ...]) -> Array:
    if not kinds:
        return fields
    channels = jnp.moveaxis(fields, -1, 0)
    return jnp.stack([jnp.log(x) if "log" in kind else x for x, kind in zip(channels, kinds, strict=True)], -1)


def _restored(values: Array, kinds: tuple[str, ...]) -> Array:
    inverse: dict[str, Any] = {"log": jnp.exp, "log_modes": jnp.exp, "unit": lambda x: jnp.clip(x, 0.0, 1.0)}
    channels = jnp.moveaxis(values, -1, 0)
    return jnp.stack([inverse.get(kind, lambda x: x)(x) for kind, x in zip(kinds, channels, strict=True)], -1)


def fit_encoding(fields: Float[Array, "sample *grid field"], kinds: tuple[str, ...]) -> Encoding:
    """Means and standard deviations, after the logarithm where there is one, over examples and places or of components.

    Raises:
      ValueError: kinds that cannot be, see `check_kinds`.
    """
    check_kinds(kinds, fields.shape[-1])
    values = _transformed(fields, kinds)
    if not has_modes(kinds):
        others = tuple(range(values.ndim - 1))
        return Encoding(jnp.mean(values, axis=others), jnp.std(values, axis=others))
    mean = jnp.mean(values, axis=0)
    scales, modes = [], []
    for channel in range(len(kinds)):
        apart = np.asarray(values[..., channel] - mean[..., channel], np.float64).reshape(len(values), -1)
        variance, vectors = np.linalg.eigh(apart.T @ apart / len(apart))
        deviation = np.sqrt(np.maximum(variance[::-1], 0.0))
        kept = deviation > LEAST * deviation[0]
        scales.append(deviation[kept])
        modes.append(jnp.asarray(vectors[:, ::-1][:, kept], values.dtype))
    return Encoding(mean, jnp.asarray(np.concatenate(scales), values.dtype), tuple(modes))


def encode(encoding: Encoding, kinds: tuple[str, ...], fields: Float[Array, "*shape field"]) -> Float[Array, "*code"]:
    """Normalised channels of fields in physical units, shape of the fields; or components, (*sample, component)."""
    apart = _transformed(fields, kinds) - encoding.shift
    if not encoding.modes:
        return apart / encoding.scale
    samples = apart.shape[: apart.ndim - encoding.shift.ndim]
    channels = [apart[..., index].reshape(*samples, -1) @ modes for index, modes in enumerate(encoding.modes)]
    return jnp.concatenate(channels, axis=-1) / encoding.scale


def decode(encoding: Encoding, kinds: tuple[str, ...], code: Float[Array, "*code"]) -> Float[Array, "*shape field"]:
    """Fields in physical units of normalised channels or components; channels of kind "unit" are cut off at 0 and 1."""
    if not kinds:
        return code
    if not encoding.modes:
        return _restored(code * encoding.scale + encoding.shift, kinds)
    ends = np.cumsum([modes.shape[1] for modes in encoding.modes])[:-1].tolist()
    parts = jnp.split(code * encoding.scale, ends, axis=-1)
    shape = (*code.shape[:-1], *encoding.shift.shape[:-1])
    channels = [(part @ modes.T).reshape(shape) for part, modes in zip(parts, encoding.modes, strict=True)]
    return _restored(jnp.stack(channels, axis=-1) + encoding.shift, kinds)
