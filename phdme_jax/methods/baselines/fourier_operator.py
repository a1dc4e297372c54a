"""A Fourier neural operator as a learned time step: the regression forecaster of the comparisons.

    x_{k+1} = x_k + Q v_L,   v_0 = P x_k,   v_{l+1} = gelu(W v_l + F^-1[R_l F v_l])

F is the Fourier transform of the state continued by parity to one whole period, of which the lowest `modes` along each
axis are multiplied by a matrix of their own; P, W and Q act at each point. On a ring the state is its own period.
Source: Li et al. (2021), arXiv 2010.08895, equations 2 to 4.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from phdme_jax.diffusion.networks import Linear, draw_params, init_step, repeat_step
from phdme_jax.numerics.parity import Parity, inside, periodic


@dataclasses.dataclass(frozen=True)
class FourierOperator:
    """Sizes of the operator; on a grid that has fewer modes along an axis it takes all there are.

    Attributes:
      parity: per field and grid axis, -1 or +1, or 0 where the axis is a ring.
      modes: lowest Fourier modes along each axis, the mean included.
      width: channels.
      depth: Fourier layers.
    """

    parity: Parity
    modes: int = 24
    width: int = 32
    depth: int = 3


class _SpectralLayer(nn.Module):
    width: int
    modes: int
    param_dtype: Any

    @nn.compact
    def __call__(self, channels: Float[Array, "*grid width"]) -> Float[Array, "*grid width"]:
        axes = tuple(range(channels.ndim - 1))
        spectrum = jnp.fft.rfftn(channels, axes=axes)
        kept = []
        for axis, size in enumerate(spectrum.shape[:-1]):
            # the last axis of a real transform has no negative frequencies
            frequencies = np.arange(size) if axis == len(axes) - 1 else np.abs(np.fft.fftfreq(size, 1 / size))
            kept.append(np.nonzero(frequencies < self.modes)[0])
        index = np.ix_(*kept)
        low = spectrum[index]
        matrix = _SpectralWeights(math.prod(low.shape[:-1]), self.width, self.param_dtype, name="spectral")()
        flat = jnp.reshape(low, (-1, self.width))
        product = jnp.reshape(jnp.einsum("kc,kcd->kd", flat, matrix), low.shape)
        filtered = jnp.zeros_like(spectrum).at[index].set(product)
        return jnp.fft.irfftn(filtered, s=channels.shape[:-1], axes=axes)


class _SpectralWeights(nn.Module):
    """One complex matrix for each mode, kept as real and imaginary parts; it keeps the size of the channels."""

    modes: int
    width: int
    param_dtype: Any

    @nn.compact
    def __call__(self) -> Array:
        shape = (2, self.modes, self.width, self.width)
        # drawn with variance 1 / (2 modes width), see `draw_params`
        parts = self.modes**0.5 * self.param("kernel", nn.initializers.zeros, shape, self.param_dtype)
        return parts[0] + 1j * parts[1]


class _Step(nn.Module):
    config: FourierOperator
    param_dtype: Any

    @nn.compact
    def __call__(
        self, state: Float[Array, "*grid field"], fraction: Float[Array, ""] | None = None
    ) -> Float[Array, "*grid field"]:
        config, types = self.config, self.param_dtype
        seen = periodic(state, config.parity)
        if fraction is not None:
            seen = jnp.concatenate([seen, jnp.broadcast_to(fraction, (*seen.shape[:-1], 1))], axis=-1)
        hidden = Linear(config.width, types)(seen)
        for index in range(config.depth):
            mixed = _SpectralLayer(config.width, config.modes, types, name=f"layer_{index}")(hidden)
            hidden = nn.gelu(mixed + Linear(config.width, types)(hidden))
        hidden = hidden[tuple(slice(size) for size in state.shape[:-1])]
        hidden = nn.gelu(Linear(2 * config.width, types)(hidden))
        change = Linear(state.shape[-1], types, zero=True)(hidden)
        if fraction is not None:
            change = fraction * change
        return (state + change) * inside(state, config.parity)


def init_operator(config: FourierOperator, state: Float[Array, "*grid field"], key: PRNGKeyArray) -> Any:
    """Parameters of the operator, which starts as the identity.

    Args:
      config: sizes.
      state: a state, for shape and type.
      key: random key.
    Returns:
      parameters.
    """
    return init_step(_Step(config, state.dtype), state, key)


def init_flow(config: FourierOperator, state: Float[Array, "*grid field"], key: PRNGKeyArray) -> Any:
    """Parameters of an operator that is told the fraction of its step, see `flow`; arguments as of `init_operator`."""
    module = _Step(config, state.dtype)
    shapes = jax.eval_shape(lambda: module.init(key, state, jnp.ones((), state.dtype))["params"])
    return draw_params(shapes, key)


def flow(
    config: FourierOperator, params: Any, state: Float[Array, "*grid field"], fraction: Float[Array, ""]
) -> Float[Array, "*grid field"]:
    """The state a fraction s of a step later, x_k + s Q v_L, where P also sees s.

    Args:
      config: sizes.
      params: from `init_flow`.
      state: a state, normalised units.
      fraction: s, from zero, where nothing has changed, to one, the next frame.
    Returns:
      the later state.
    """
    return _Step(config, state.dtype).apply({"params": params}, state, fraction)  # type: ignore[return-value]


def operate(
    config: FourierOperator, params: Any, initial: Float[Array, "*grid field"], num_frames: int
) -> Float[Array, "time *grid field"]:
    """Repeat the operator's step from an initial state.

    Args:
      config: sizes.
      params: parameters.
      initial: initial state, normalised units.
      num_frames: frames of the trajectory, the initial one included, evenly spaced in time.
    Returns:
      trajectory, the initial state first.
    """
    return repeat_step(_Step(config, initial.dtype), params, initial, num_frames)
