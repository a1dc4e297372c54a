"""A network of dilated convolutions, which commutes with every translation along axes that are circular."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from phdme_jax.diffusion.convolution import convolve
from phdme_jax.diffusion.networks import Condition, Linear, Modulation, Network, NoiseEmbedding, from_module
from phdme_jax.diffusion.unet import PADDINGS, GroupNorm, from_channels, input_channels, modes_of, to_channels
from phdme_jax.numerics.bound import Bound


@dataclasses.dataclass(frozen=True)
class DilatedConfig:
    """Sizes of the network.

    Attributes:
      channels: of each block, a multiple of `groups`.
      dilations: of the convolution of each block, along axes that are not patched; the first and the last layer have
        none.
      embedding_size: of the noise level.
      groups: of the group normalisation.
      padding: of all axes or of each, see `UNetConfig`.
      patch: places along an axis that enter and leave as channels of one, one for all axes or one for each; one along
        axes that wrap.
    """

    channels: int = 32
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 4, 1)
    embedding_size: int = 64
    groups: int = 8
    padding: str | tuple[str, ...] = "circular"
    patch: int | tuple[int, ...] = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "dilations", tuple(self.dilations))
        for name in ("padding", "patch"):
            value = getattr(self, name)
            object.__setattr__(self, name, value if isinstance(value, str | int) else tuple(value))
        modes = (self.padding,) if isinstance(self.padding, str) else self.padding
        patches = (self.patch,) if isinstance(self.patch, int) else self.patch
        if not set(modes) <= set(PADDINGS):
            raise ValueError(f"expected paddings among {tuple(PADDINGS)}, got {self.padding!r}")
        if self.channels % self.groups or self.embedding_size % 2 or min(self.dilations, default=0) < 1:
            raise ValueError(
                "expected channels in multiples of groups, an even embedding_size and dilations of one or more, "
                f"got {self}"
            )
        if min(patches) < 1:
            raise ValueError(f"expected patches of one place or more, got {self.patch}")

    def patches(self, num_axes: int) -> tuple[int, ...]:
        """Places along each axis that are one.

        Raises:
          ValueError: another number of them than of axes, or several along an axis that wraps.
        """
        patches = (self.patch,) * num_axes if isinstance(self.patch, int) else self.patch
        if len(patches) != num_axes:
            raise ValueError(f"expected one patch for each of {num_axes} axes, got {patches}")
        modes = modes_of(self.padding, num_axes)
        if any(patch > 1 and PADDINGS[mode] == "wrap" for patch, mode in zip(patches, modes, strict=True)):
            raise ValueError(
                f"expected patches of one along axes that wrap, got {patches} and {modes}; try one patch for each axis"
            )
        return patches


def make_dilated(**sizes: Any) -> Network:
    """Residual blocks of one dilated convolution each, without levels: no place of a circular axis is another's.

        hidden += W silu(film(norm(D silu(norm(hidden)))))

    D is a convolution of three places an axis, W a product at each place, film as the noise level says. A translation
    along a circular axis by any number of places translates the answer. The condition's rollout enters as channels,
    and axes that are not circular add their coordinate; those whose size the patch does not divide are
    continued at their end and cut again. The last layer, and the last of every block, start at zero.

    Args:
      **sizes: fields of `DilatedConfig`.
    Returns:
      the network; its `apply` raises ValueError for a patch along an axis that wraps.
    Source: Yu and Koltun (2016), arXiv 1511.07122, for dilations that double; van den Oord et al. (2016), arXiv
      1609.03499, for products at each place between them.
    """
    return from_module(Bound(_Dilated, DilatedConfig(**sizes)))


class _Dilated(nn.Module):
    config: DilatedConfig
    param_dtype: Any

    def encode(self, condition: Condition) -> Condition:
        return condition

    @nn.compact
    def __call__(
        self, noisy: Float[Array, "*axes field"], noise_level: Array, condition: Condition
    ) -> Float[Array, "*axes field"]:
        config, axes, kind = self.config, noisy.shape[:-1], (self.config, self.param_dtype)
        patches, modes = config.patches(len(axes)), modes_of(config.padding, len(axes))
        embedding = NoiseEmbedding(config.embedding_size, self.param_dtype)(noise_level)
        missing = [(0, -size % patch) for size, patch in zip(axes, patches, strict=True)]
        whole = jnp.pad(input_channels(noisy, condition, modes), [*missing, (0, 0)], mode="edge")
        hidden = _Convolution(config.channels, *kind)(to_channels(whole, patches))
        for dilation in config.dilations:
            hidden = _Block(dilation, *kind)(hidden, embedding)
        hidden = nn.silu(_norm(*kind)(hidden))
        count = noisy.shape[-1] * math.prod(patches)
        hidden = from_channels(_Convolution(count, *kind, last=True)(hidden), patches)
        return hidden[tuple(slice(size) for size in axes)]


def _norm(config: DilatedConfig, param_dtype: Any) -> GroupNorm:
    return GroupNorm(config.groups, param_dtype)


class _Block(nn.Module):
    dilation: int
    config: DilatedConfig
    param_dtype: Any

    @nn.compact
    def __call__(self, inputs: Array, embedding: Array) -> Array:
        kind, width = (self.config, self.param_dtype), self.config.channels
        hidden = _Convolution(width, *kind, dilation=self.dilation)(nn.silu(_norm(*kind)(inputs)))
        hidden = nn.silu(Modulation(self.param_dtype)(_norm(*kind)(hidden), embedding))
        return inputs + Linear(width, self.param_dtype, zero=True)(hidden)


class _Convolution(nn.Module):
    """Three places along each axis; inside, rounded factors do, what leaves is exact and starts at zero."""

    features: int
    config: DilatedConfig
    param_dtype: Any
    dilation: int = 1
    last: bool = False

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        num_axes = inputs.ndim - 1
        modes, patches = modes_of(self.config.padding, num_axes), self.config.patches(num_axes)
        steps = tuple(self.dilation if patch == 1 else 1 for patch in patches)
        for axis, (mode, step) in enumerate(zip(modes, steps, strict=True)):
            widths = [(step * int(axis == other),) * 2 for other in range(inputs.ndim)]
            inputs = jnp.pad(inputs, widths, mode=PADDINGS[mode])
        layer = nn.Conv(
            self.features,
            (3,) * num_axes,
            padding="VALID",
            kernel_dilation=steps,
            param_dtype=self.param_dtype,
            precision=jax.lax.Precision.HIGHEST if self.last else jax.lax.Precision.DEFAULT,
            conv_general_dilated=convolve,
            name="zero" if self.last else "convolution",
        )
        return layer(inputs)
