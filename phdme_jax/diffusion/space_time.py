"""A network of trajectories of particles: messages between particles, attention and convolution over time.

Scalars and vectors run side by side, as channels of each particle in each frame. A rotation turns the vectors and
leaves the scalars, as scalars only see lengths and inner products, and vectors are only scaled by scalars, added and
mixed; an order of the particles is nothing that a layer knows. The same network is made without either: coordinates
are then channels like others, and each particle has a name.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from phdme_jax.diffusion.networks import Condition, Linear, Modulation, Network, NoiseEmbedding, from_module
from phdme_jax.numerics.bound import Bound

EPSILON = 1e-6  # added to squared lengths, whose roots have slopes then


@dataclasses.dataclass(frozen=True)
class SpaceTimeConfig:
    """Sizes of the network.

    Attributes:
      dimension: components of a vector.
      vectors: how many vectors the first fields are, component after component; fields after them are scalars.
      width: scalar channels.
      vector_channels: vector channels, a multiple of `heads`.
      layers: of messages, attention and mixing each.
      heads: of the attention over time.
      reach: frames to each side that the convolution over time sees.
      embedding_size: of noise level and frame.
      equivariant: whether it commutes with rotations, reflections and orders of the particles.
      given_vectors: vectors among the condition's channels, after the coupling, and one scalar after them.
    """

    dimension: int = 2
    vectors: int = 2
    width: int = 32
    vector_channels: int = 16
    layers: int = 3
    heads: int = 4
    reach: int = 2
    embedding_size: int = 32
    equivariant: bool = True
    given_vectors: int = 0

    def __post_init__(self) -> None:
        if self.width % self.heads or self.vector_channels % self.heads or self.embedding_size % 2:
            raise ValueError(
                f"expected width and vector_channels in multiples of heads and an even embedding_size, got {self}"
            )
        if min(self.dimension, self.vectors, self.layers, self.width, self.vector_channels) < 1 or self.reach < 0:
            raise ValueError(f"expected sizes of one or more, got {self}")


def make_space_time(**sizes: Any) -> Network:
    """Network of trajectories (time, particle, field), told the coupling of each pair as the condition's channels.

    After these may come vectors, such as those of frames that are given, and a scalar that says where they are.

        pair:    p_ij = silu(A h_i + B h_j + C |u_i - u_j| + D coupling_ij)
                 h_i += E mean_j p_ij,   u_i += mean_j (F p_ij) (u_i - u_j)
        time:    h_t += G sum_s a_ts v_s,   u_t += gate (sum_s a_ts u_s + sum_k K_k u_t+k)
        mixing:  h += mlp(h, |u|, <L u, M u>),   u += gate N u
        out:     vectors sum_c w_c(h) u_c, scalars W h

    Each line reads vectors in units of their root mean square over the example. The last layer and the last of every
    block of scalars start at zero. Positions must be centred where translations
    are to be without effect.

    Args:
      **sizes: fields of `SpaceTimeConfig`.
    Returns:
      the network; its `apply` raises ValueError for fewer fields than the vectors have components.
    Source: Han et al. (2024), arXiv 2410.13027, for attention over time between messages; Schütt et al. (2021), arXiv
      2102.03150, for vectors beside scalars.
    """
    return from_module(Bound(_SpaceTime, SpaceTimeConfig(**sizes)))


def _sizes(vectors: Float[Array, "... axis channel"], equivariant: bool) -> Float[Array, "... channel"]:
    """What scalars may know of vectors: lengths; of numbers by themselves, the numbers."""
    return jnp.sqrt(jnp.sum(vectors**2, axis=-2) + EPSILON) if equivariant else vectors[..., 0, :]


def _normalised(vectors: Float[Array, "time particle axis channel"]) -> Float[Array, "time particle axis channel"]:
    """Vectors in units of their size over frames, particles and channels: how they stand to each other is kept."""
    return vectors * jax.lax.rsqrt(jnp.mean(vectors**2) + EPSILON)


def _waves(values: Float[Array, "..."], size: int) -> Float[Array, "... size"]:
    octaves = 2.0 ** jnp.linspace(-1.0, 4.0, size // 2, dtype=values.dtype)
    angles = values[..., None] * octaves
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class _SpaceTime(nn.Module):
    config: SpaceTimeConfig
    param_dtype: Any

    def encode(self, condition: Condition) -> Condition:
        return condition

    @nn.compact
    def __call__(
        self, noisy: Float[Array, "time particle field"], noise_level: Array, condition: Condition
    ) -> Float[Array, "time particle field"]:
        config, kind = self.config, (self.config, self.param_dtype)
        split = config.vectors * config.dimension
        if noisy.shape[-1] < split:
            raise ValueError(f"expected at least {split} fields, {config.vectors} vectors, got {noisy.shape[-1]}")
        axes = config.dimension if config.equivariant else 1
        given = _as_vectors(noisy[..., :split], axes)
        coupling, told, marks = self._parts(condition.rollout, axes)
        channels = config.vector_channels * config.dimension // axes
        count = given.shape[-1]
        if told is not None:
            given = jnp.concatenate([given, told], axis=-1)
        vectors = _mix(channels, self.param_dtype)(given)
        embedding = NoiseEmbedding(config.embedding_size, self.param_dtype)(noise_level)
        scalars = jnp.concatenate([noisy[..., split:], *([] if marks is None else [marks])], axis=-1)
        hidden = Linear(config.width, self.param_dtype)(self._scalars(scalars, given))
        for _ in range(config.layers):
            hidden, vectors = _Pairs(*kind)(hidden, vectors, coupling, embedding)
            hidden, vectors = _Frames(*kind)(hidden, vectors, embedding)
            hidden, vectors = _Mixing(*kind)(hidden, vectors, embedding)
        hidden = nn.silu(_Norm(self.param_dtype)(hidden))
        weights = Linear(count * channels, self.param_dtype, zero=True)(hidden)
        weights = weights.reshape(*weights.shape[:2], count, channels)
        drawn = jnp.einsum("tnvc,tnac->tnva", weights, _normalised(vectors))
        rest = Linear(noisy.shape[-1] - split, self.param_dtype, zero=True)(hidden) if noisy.shape[-1] > split else None
        drawn = drawn.reshape(*drawn.shape[:2], split)
        return drawn if rest is None else jnp.concatenate([drawn, rest], axis=-1)

    def _parts(self, channels: Array | None, axes: int) -> tuple[Array | None, Array | None, Array | None]:
        """Of what is told: the coupling of each pair, vectors, and the scalar that comes with them."""
        size = self.config.given_vectors * self.config.dimension
        if not size or channels is None:
            return channels, None, None
        coupling, told, marks = jnp.split(channels, [channels.shape[-1] - size - 1, channels.shape[-1] - 1], axis=-1)
        return coupling if coupling.shape[-1] else None, _as_vectors(told, axes), marks

    def _scalars(self, given: Array, vectors: Array) -> Array:
        """Scalar fields, what is known of vectors, the frame, and the particle's name where it has one."""
        frames, count = given.shape[:2]
        time = _waves(jnp.linspace(-1.0, 1.0, frames, dtype=given.dtype), self.config.embedding_size)
        named = jnp.broadcast_to(time[:, None], (frames, count, time.shape[-1]))
        known = [given, _sizes(vectors, self.config.equivariant), named]
        if not self.config.equivariant:
            known.append(jnp.broadcast_to(jnp.eye(count, dtype=given.dtype), (frames, count, count)))
        return jnp.concatenate(known, axis=-1)


class _Norm(nn.Module):
    param_dtype: Any

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        return nn.LayerNorm(dtype=inputs.dtype, param_dtype=self.param_dtype, name="norm")(inputs)


def _mix(features: int, param_dtype: Any) -> Linear:
    """Vector channels mixed, (..., axis, channel) to (..., axis, features), without a shift."""
    return Linear(features, param_dtype, use_bias=False)


def _as_vectors(fields: Float[Array, "time particle field"], axes: int) -> Float[Array, "time particle axis channel"]:
    """Fields, component after component of each vector, as vectors of so many components."""
    return jnp.swapaxes(fields.reshape(*fields.shape[:2], -1, axes), -1, -2)


class _Pairs(nn.Module):
    config: SpaceTimeConfig
    param_dtype: Any

    @nn.compact
    def __call__(self, hidden: Array, vectors: Array, coupling: Array | None, embedding: Array) -> tuple[Array, Array]:
        width, dtype = self.config.width, self.param_dtype
        seen = Modulation(dtype)(_Norm(dtype)(hidden), embedding)
        even = _normalised(vectors)
        between = even[:, :, None] - even[:, None]
        own, other = jnp.split(Linear(2 * width, dtype)(seen), 2, axis=-1)
        told = _sizes(between, self.config.equivariant)
        if coupling is not None:
            told = jnp.concatenate([told, coupling[..., None]], axis=-1)
        pairs = nn.silu(own[:, :, None] + other[:, None] + Linear(width, dtype)(told))
        count = hidden.shape[1]
        others = (1.0 - jnp.eye(count, dtype=hidden.dtype)) / (count - 1)
        weights = Linear(vectors.shape[-1], dtype)(pairs) * others[..., None]
        moved = jnp.sum(weights[..., None, :] * between, axis=2)
        message = jnp.sum(pairs * others[..., None], axis=2)
        return hidden + Linear(width, dtype, zero=True)(message), vectors + moved


class _Frames(nn.Module):
    config: SpaceTimeConfig
    param_dtype: Any

    @nn.compact
    def __call__(self, hidden: Array, vectors: Array, embedding: Array) -> tuple[Array, Array]:
        config, dtype = self.config, self.param_dtype
        width, heads, frames = config.width, config.heads, hidden.shape[0]
        seen = Modulation(dtype)(_Norm(dtype)(hidden), embedding)
        parts = Linear(3 * width, dtype)(seen).reshape(*hidden.shape[:2], 3, heads, width // heads)
        queries, keys, values = jnp.moveaxis(parts, 2, 0)
        apart = jnp.arange(frames, dtype=hidden.dtype) / frames
        bias = Linear(heads, dtype)(_waves(apart[:, None] - apart[None], config.embedding_size))
        scores = jnp.einsum("tnhc,snhc->nhts", queries, keys) / math.sqrt(width // heads)
        weights = jax.nn.softmax(scores + jnp.moveaxis(bias, -1, 0))
        mixed = jnp.einsum("nhts,snhc->tnhc", weights, values).reshape(hidden.shape)
        even = _normalised(vectors)
        split = even.reshape(*vectors.shape[:3], heads, -1)
        attended = jnp.einsum("nhts,snahc->tnahc", weights, split).reshape(vectors.shape)
        gates = Linear(2 * vectors.shape[-1], dtype)(nn.silu(seen))
        first, second = (gate[..., None, :] for gate in jnp.split(gates, 2, axis=-1))
        vectors = vectors + first * attended + second * self._convolved(even)
        return hidden + Linear(width, dtype, zero=True)(mixed), vectors

    def _convolved(self, vectors: Array) -> Array:
        """Vectors of neighbouring frames mixed; beyond the ends there are none."""
        reach, frames = self.config.reach, vectors.shape[0]
        padded = jnp.pad(vectors, ((reach, reach), *((0, 0),) * 3))
        near = jnp.concatenate([padded[shift : shift + frames] for shift in range(2 * reach + 1)], axis=-1)
        return _mix(vectors.shape[-1], self.param_dtype)(near)


class _Mixing(nn.Module):
    config: SpaceTimeConfig
    param_dtype: Any

    @nn.compact
    def __call__(self, hidden: Array, vectors: Array, embedding: Array) -> tuple[Array, Array]:
        config, dtype, channels = self.config, self.param_dtype, vectors.shape[-1]
        seen = Modulation(dtype)(_Norm(dtype)(hidden), embedding)
        even = _normalised(vectors)
        left, right, ahead = jnp.split(_mix(3 * channels, dtype)(even), 3, axis=-1)
        products = jnp.sum(left * right, axis=-2) / math.sqrt(vectors.shape[-2])
        known = jnp.concatenate([seen, _sizes(even, config.equivariant), products], axis=-1)
        inner = nn.silu(Linear(2 * config.width, dtype)(known))
        gates = Linear(channels, dtype)(inner)
        return hidden + Linear(config.width, dtype, zero=True)(inner), vectors + gates[..., None, :] * ahead
