"""Residual perceptron on the flattened trajectory: nearly all of its work is in large matrix products."""

import dataclasses
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from phdme_jax.diffusion.networks import Condition, Linear, Modulation, Network, NoiseEmbedding, from_module
from phdme_jax.numerics.bound import Bound


@dataclasses.dataclass(frozen=True)
class MlpConfig:
    """Sizes of the residual perceptron.

    Attributes:
      shape: shape of one trajectory.
      width: width of the hidden layers.
      num_blocks: number of residual blocks.
      embedding_size: size of the embedding of noise level and condition.
      matmul_dtype: type of the large matrix products ("bfloat16"), or None for that of the inputs.
    """

    shape: tuple[int, ...]
    width: int = 1024
    num_blocks: int = 4
    embedding_size: int = 256
    matmul_dtype: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if min(self.shape, default=0) < 1 or self.embedding_size % 2:
            raise ValueError(f"expected a shape without empty axes and an even embedding_size, got {self}")


class MlpFeatures(NamedTuple):
    """What the condition contributes: to the first layer, to the modulation, and straight to the output."""

    hidden: Array
    embedding: Array
    linear: Array


def make_mlp(**sizes: Any) -> Network:
    """Residual perceptron on the flattened trajectory, modulated by noise level and condition.

        F = (1 + gain(noise_level)) L initial + W_out silu(norm(blocks(W_in noisy + W_c condition)))
        block(h) = h + W_2 silu(W_1 film(norm(h)))

    L, W_out, every W_2 and the gain start at zero. L is the linear path from the initial state to the whole trajectory,
    which is all that linear dynamics need in mode "x0".

    Args:
      **sizes: fields of `MlpConfig`; `shape`, that of one trajectory, is required.

    Returns:
      the network; its `apply` raises ValueError for a trajectory of another shape.
    """
    config = MlpConfig(**sizes)
    return from_module(Bound(_Mlp, config))


class _Mlp(nn.Module):
    config: MlpConfig
    param_dtype: Any

    def setup(self) -> None:
        self.encoder = _Encoder(self.config, self.param_dtype)
        self.trunk = _Trunk(self.config, self.param_dtype)

    def encode(self, condition: Condition) -> MlpFeatures | None:
        return self.encoder(condition)

    def __call__(self, noisy: Array, noise_level: Array, features: MlpFeatures | None) -> Array:
        return self.trunk(noisy, noise_level, features)


class _Encoder(nn.Module):
    config: MlpConfig
    param_dtype: Any

    @nn.compact
    def __call__(self, condition: Condition) -> MlpFeatures | None:
        initial, rollout, scale = condition
        if rollout is not None and scale is not None:
            scale = jnp.broadcast_to(scale, rollout.shape)
        known = [jnp.ravel(part) for part in (initial, rollout, scale) if part is not None]
        if not known:
            return None
        inputs, types = jnp.concatenate(known), (self.param_dtype, self.config.matmul_dtype)
        hidden = Linear(self.config.width, *types)(inputs)
        embedding = Linear(self.config.embedding_size, self.param_dtype)(nn.silu(hidden))
        if initial is None:
            return MlpFeatures(hidden, embedding, jnp.zeros_like(inputs[:1]))
        linear = Linear(math.prod(self.config.shape), self.param_dtype, zero=True, use_bias=False, name="linear_path")
        return MlpFeatures(hidden, embedding, linear(jnp.ravel(initial)))


class _Trunk(nn.Module):
    config: MlpConfig
    param_dtype: Any

    @nn.compact
    def __call__(self, noisy: Float[Array, "*shape"], noise_level: Array, features: MlpFeatures | None) -> Array:
        config, types = self.config, (self.param_dtype, self.config.matmul_dtype)
        if noisy.shape != config.shape:
            raise ValueError(
                f"expected a trajectory of shape {config.shape}, got {noisy.shape}; make the network for this shape"
            )
        embedding = NoiseEmbedding(config.embedding_size, self.param_dtype)(noise_level)
        gain = 1.0 + Linear(1, self.param_dtype, zero=True)(nn.silu(embedding))
        hidden = Linear(config.width, *types)(jnp.ravel(noisy))
        if features is not None:
            hidden, embedding = hidden + features.hidden, embedding + features.embedding
        for _ in range(config.num_blocks):
            inner = nn.LayerNorm(param_dtype=self.param_dtype)(hidden)
            inner = Modulation(self.param_dtype)(inner, embedding)
            inner = nn.silu(Linear(config.width, *types)(inner))
            hidden = hidden + Linear(config.width, *types, zero=True)(inner)
        hidden = nn.silu(nn.LayerNorm(param_dtype=self.param_dtype)(hidden))
        output = Linear(math.prod(config.shape), *types, zero=True)(hidden)
        if features is not None:
            output = output + gain * features.linear
        return output.reshape(config.shape)
