"""U-Net over the axes of a trajectory: time and however many axes of space there are."""

import dataclasses
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from phdme_jax.diffusion.convolution import convolve
from phdme_jax.diffusion.networks import (
    Condition,
    Linear,
    Modulation,
    Network,
    NoiseEmbedding,
    frames_as_channels,
    from_module,
)
from phdme_jax.numerics.bound import Bound

PADDINGS = {"zero": "constant", "circular": "wrap", "periodic": "wrap", "reflect": "reflect", "edge": "edge"}


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """Sizes of the U-Net.

    Attributes:
      channels: channels at the finest level, a multiple of `groups`.
      multipliers: channels of each level in units of `channels`; their number is that of the levels, each half as fine
        as the one before.
      num_blocks: residual blocks at each level, on the way down and on the way up.
      embedding_size: size of the embedding of noise level and initial state.
      heads: attention heads at the coarsest level; 0 leaves attention out.
      groups: groups of the group normalisation.
      padding: "zero", "circular", "periodic", "reflect" or "edge", one for all axes or one for each. Circular axes wrap
        and their places are all alike; periodic ones wrap too, and each place knows where it is.
      embed_initial: whether the initial state also enters as an embedding.
      flat_time: whether frames are channels, so that the axes are those of the grid alone, see `frames_as_channels`.
      patch: places along each axis that enter and leave as channels of one; the finest level is as much coarser.
      matmul_dtype: type of the convolutions but the last ("bfloat16"), or None for that of the inputs. On a CPU
        bfloat16 makes convolutions slower, unlike plain matrix products.
    """

    channels: int = 32
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    num_blocks: int = 1
    embedding_size: int = 128
    heads: int = 4
    groups: int = 8
    padding: str | tuple[str, ...] = "zero"
    embed_initial: bool = True
    flat_time: bool = False
    patch: int = 1
    matmul_dtype: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "multipliers", tuple(self.multipliers))
        modes = (self.padding,) if isinstance(self.padding, str) else tuple(self.padding)
        object.__setattr__(self, "padding", self.padding if isinstance(self.padding, str) else modes)
        if not set(modes) <= set(PADDINGS):
            raise ValueError(f"expected paddings among {tuple(PADDINGS)}, got {self.padding!r}")
        if self.channels % self.groups or self.embedding_size % 2 or not self.multipliers:
            raise ValueError(
                f"expected channels in multiples of groups, an even embedding_size and a level, got {self}"
            )
        if self.patch < 1:
            raise ValueError(f"expected a patch of one place or more, got {self.patch}")
        if self.heads and self.channels * self.multipliers[-1] % self.heads:
            raise ValueError(f"expected channels of the coarsest level in multiples of heads, got {self}")

    def modes(self, num_axes: int) -> tuple[str, ...]:
        """Padding of each axis."""
        return modes_of(self.padding, num_axes)


class UNetFeatures(NamedTuple):
    """What the condition contributes: itself, as channels, and an embedding of the initial state."""

    condition: Condition
    embedding: Array | None


def make_unet(**sizes: Any) -> Network:
    """U-Net over time and space, with group normalisation, FiLM, and attention at the coarsest level.

    The initial state enters as channels repeated over time and as an embedding beside that of the noise level; rollout
    and scale enter as channels; axes that are not circular add their coordinate, see `input_channels`. Axes whose size
    the levels do not divide are continued at their end and cut again. The last layer, and the last of every block,
    start at zero.

    Args:
      **sizes: fields of `UNetConfig`.

    Returns:
      the network; its `apply` raises ValueError for an axis that wraps and whose size the levels do not divide.

    Source: Ho et al. (2020), appendix B (architecture); modulation as in Dhariwal and Nichol (2021), section 3.1.
    """
    config = UNetConfig(**sizes)
    network = from_module(Bound(_UNet, config))
    return frames_as_channels(network) if config.flat_time else network


class _UNet(nn.Module):
    config: UNetConfig
    param_dtype: Any

    def setup(self) -> None:
        self.encoder = _Encoder(self.config, self.param_dtype)
        self.trunk = _Trunk(self.config, self.param_dtype)

    def encode(self, condition: Condition) -> UNetFeatures:
        return UNetFeatures(condition, self.encoder(condition))

    def __call__(self, noisy: Array, noise_level: Array, features: UNetFeatures) -> Array:
        return self.trunk(noisy, noise_level, features)


class _Encoder(nn.Module):
    config: UNetConfig
    param_dtype: Any

    @nn.compact
    def __call__(self, condition: Condition) -> Array | None:
        if condition.initial is None or not self.config.embed_initial:
            return None
        size = self.config.embedding_size
        hidden = nn.silu(Linear(2 * size, self.param_dtype)(jnp.ravel(condition.initial)))
        return Linear(size, self.param_dtype)(hidden)


class _Trunk(nn.Module):
    config: UNetConfig
    param_dtype: Any

    @nn.compact
    def __call__(self, noisy: Float[Array, "*shape field"], noise_level: Array, features: UNetFeatures) -> Array:
        config, kind = self.config, (self.config, self.param_dtype)
        embedding = NoiseEmbedding(config.embedding_size, self.param_dtype)(noise_level)
        if features.embedding is not None:
            embedding = embedding + features.embedding
        patches = (config.patch,) * (noisy.ndim - 1)
        hidden = to_channels(_whole_blocks(noisy, features.condition, config), patches)
        hidden = _Convolution(config.channels, *kind)(hidden)
        skips = []
        for level, multiplier in enumerate(config.multipliers):
            if level:
                hidden = _Halve(config.channels * multiplier, *kind)(hidden)
            for _ in range(config.num_blocks):
                hidden = _Block(config.channels * multiplier, *kind)(hidden, embedding)
                skips.append(hidden)
        hidden = _Block(hidden.shape[-1], *kind)(hidden, embedding)
        if config.heads:
            hidden = _Attention(*kind)(hidden)
        for level, multiplier in reversed(list(enumerate(config.multipliers))):
            for _ in range(config.num_blocks):
                hidden = jnp.concatenate([hidden, skips.pop()], axis=-1)
                hidden = _Block(config.channels * multiplier, *kind)(hidden, embedding)
            if level:
                hidden = _double(hidden)
        hidden = nn.silu(_Norm(*kind)(hidden))
        count = noisy.shape[-1] * math.prod(patches)
        hidden = from_channels(_Convolution(count, *kind, zero=True, exact=True)(hidden), patches)
        return hidden[tuple(slice(size) for size in noisy.shape[:-1])]


def input_channels(noisy: Array, condition: Condition, modes: tuple[str, ...]) -> Array:
    """Noisy trajectory, condition and coordinates side by side.

    Args:
      noisy: normalised fields, (*axes, field).
      condition: what is given.
      modes: padding of each axis. Circular ones add nothing, periodic ones sine and cosine of the place on the circle,
        others a coordinate from -1 to 1.
    Returns:
      the channels, (*axes, channel).
    """
    axes = noisy.shape[:-1]
    channels = [noisy]
    if condition.initial is not None:
        channels.append(jnp.broadcast_to(condition.initial, (*axes, condition.initial.shape[-1])))
    if condition.rollout is not None:
        channels.append(condition.rollout)
        if condition.rollout_scale is not None:
            channels.append(jnp.broadcast_to(condition.rollout_scale, condition.rollout.shape))
    for axis, (size, mode) in enumerate(zip(axes, modes, strict=True)):
        for line in _coordinates(size, mode):
            column = line.reshape([size if other == axis else 1 for other in range(len(axes))] + [1])
            channels.append(jnp.broadcast_to(column.astype(noisy.dtype), (*axes, 1)))
    return jnp.concatenate(channels, axis=-1)


def _coordinates(size: int, mode: str) -> tuple[Array, ...]:
    """What tells the places of an axis apart."""
    if mode == "circular":
        return ()
    if mode == "periodic":
        angles = jnp.linspace(0.0, 2.0 * jnp.pi, size, endpoint=False)
        return jnp.sin(angles), jnp.cos(angles)
    return (jnp.linspace(-1.0, 1.0, size),)


def _whole_blocks(noisy: Array, condition: Condition, config: UNetConfig) -> Array:
    """Input channels, continued to sizes that the levels divide."""
    axes = noisy.shape[:-1]
    modes = config.modes(len(axes))
    multiple = config.patch * 2 ** (len(config.multipliers) - 1)
    missing = [-size % multiple for size in axes]
    if any(gap and PADDINGS[mode] == "wrap" for gap, mode in zip(missing, modes, strict=True)):
        raise ValueError(
            f"expected axes that wrap in multiples of {multiple}, got sizes {axes}; try fewer levels or another grid"
        )
    return jnp.pad(input_channels(noisy, condition, modes), [*((0, gap) for gap in missing), (0, 0)], mode="edge")


def to_channels(inputs: Array, patches: tuple[int, ...]) -> Array:
    """Blocks of as many places along each axis as channels."""
    num_axes = len(patches)
    sizes = zip(inputs.shape[:-1], patches, strict=True)
    split = inputs.reshape(*(part for size, patch in sizes for part in (size // patch, patch)), -1)
    order = (*range(0, 2 * num_axes, 2), *range(1, 2 * num_axes, 2), 2 * num_axes)
    return split.transpose(order).reshape(*split.shape[0 : 2 * num_axes : 2], -1)


def from_channels(inputs: Array, patches: tuple[int, ...]) -> Array:
    """The inverse of `to_channels`."""
    *axes, width = inputs.shape
    num_axes = len(axes)
    split = inputs.reshape(*axes, *patches, width // math.prod(patches))
    order = (*(part for axis in range(num_axes) for part in (axis, num_axes + axis)), 2 * num_axes)
    return split.transpose(order).reshape(*(patch * size for patch, size in zip(patches, axes, strict=True)), -1)


def modes_of(padding: str | tuple[str, ...], num_axes: int) -> tuple[str, ...]:
    """Padding of each axis.

    Raises:
      ValueError: another number of them than of axes.
    """
    modes = (padding,) * num_axes if isinstance(padding, str) else padding
    if len(modes) != num_axes:
        raise ValueError(f"expected one padding for each of {num_axes} axes, got {modes}")
    return modes


class _Convolution(nn.Module):
    """Inside, the rounded factors that accelerators are fast with do; what leaves is `exact`."""

    features: int
    config: UNetConfig
    param_dtype: Any
    zero: bool = False
    exact: bool = False

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        num_axes = inputs.ndim - 1
        modes, padding = self.config.modes(num_axes), "SAME"
        dtype = None if self.exact else self.config.matmul_dtype
        narrow = inputs if dtype is None else inputs.astype(dtype)
        if set(modes) != {"zero"}:
            padding = "VALID"
            for axis, mode in enumerate(modes):
                widths = [(int(axis == other), int(axis == other)) for other in range(inputs.ndim)]
                narrow = jnp.pad(narrow, widths, mode=PADDINGS[mode])
        layer = nn.Conv(
            self.features,
            (3,) * num_axes,
            padding=padding,
            dtype=dtype,
            param_dtype=self.param_dtype,
            precision=jax.lax.Precision.HIGHEST if self.exact else jax.lax.Precision.DEFAULT,
            conv_general_dilated=convolve,
            name="zero" if self.zero else "convolution",
        )
        return layer(narrow).astype(inputs.dtype)


class _Halve(nn.Module):
    features: int
    config: UNetConfig
    param_dtype: Any

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        two = (2,) * (inputs.ndim - 1)
        layer = nn.Conv(
            self.features,
            two,
            two,
            padding="VALID",
            dtype=self.config.matmul_dtype,
            param_dtype=self.param_dtype,
            precision=jax.lax.Precision.DEFAULT,
            conv_general_dilated=convolve,
        )
        return layer(inputs).astype(inputs.dtype)


def _double(inputs: Array) -> Array:
    """Every entry twice along every axis but the last."""
    for axis in range(inputs.ndim - 1):
        inputs = jnp.repeat(inputs, 2, axis=axis)
    return inputs


class _Norm(nn.Module):
    config: UNetConfig
    param_dtype: Any

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        return GroupNorm(self.config.groups, self.param_dtype, name="GroupNorm_0")(inputs)


class GroupNorm(nn.Module):
    """Group normalisation of one example: of all places and of the channels of each group.

    Equal to that of linen, but averages places before channels, which is up to six times as fast on a CPU.
    """

    groups: int
    param_dtype: Any
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, inputs: Float[Array, "*axes channel"]) -> Float[Array, "*axes channel"]:
        """Channels of mean zero and variance one by group, then scaled and shifted."""
        width, axes = inputs.shape[-1], tuple(range(inputs.ndim - 1))
        scale = self.param("scale", nn.initializers.ones, (width,), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (width,), self.param_dtype)

        def of_group(values: Array) -> Array:
            return jnp.repeat(jnp.mean(values.reshape(self.groups, -1), axis=1), width // self.groups)

        mean, square = (of_group(jnp.mean(values, axis=axes)) for values in (inputs, inputs**2))
        gain = scale * jax.lax.rsqrt(jnp.maximum(square - mean**2, 0.0) + self.epsilon)
        return inputs * gain + (bias - mean * gain)


class _Block(nn.Module):
    features: int
    config: UNetConfig
    param_dtype: Any

    @nn.compact
    def __call__(self, inputs: Array, embedding: Array) -> Array:
        kind = (self.config, self.param_dtype)
        hidden = _Convolution(self.features, *kind)(nn.silu(_Norm(*kind)(inputs)))
        hidden = Modulation(self.param_dtype)(_Norm(*kind)(hidden), embedding)
        hidden = _Convolution(self.features, *kind, zero=True)(nn.silu(hidden))
        if inputs.shape[-1] != self.features:
            inputs = Linear(self.features, self.param_dtype, self.config.matmul_dtype)(inputs)
        return inputs + hidden


class _Attention(nn.Module):
    config: UNetConfig
    param_dtype: Any

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        width, heads, types = inputs.shape[-1], self.config.heads, (self.param_dtype, self.config.matmul_dtype)
        tokens = _Norm(self.config, self.param_dtype)(inputs).reshape(-1, width)
        queries, keys, values = jnp.moveaxis(
            Linear(3 * width, *types)(tokens).reshape(-1, 3, heads, width // heads), 1, 0
        )
        scores = jnp.einsum("qhc,khc->hqk", queries, keys) / math.sqrt(width // heads)
        mixed = jnp.einsum("hqk,khc->qhc", jax.nn.softmax(scores), values)
        return inputs + Linear(width, *types, zero=True)(mixed.reshape(-1, width)).reshape(inputs.shape)
