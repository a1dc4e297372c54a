"""The seam behind which every network lives, and the layers that several of them share.

    init(key, noisy, condition) -> params
    encode(params, condition) -> features                    once for each sample
    apply(params, noisy, noise_level, features) -> array     once for each call, of the shape and type of `noisy`

All per example. A network made with `init(key, noisy, condition, num_levels)` takes a vector of levels, such as a time
and a duration. What only depends on the condition belongs in `encode`, however expensive it is.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from phdme_jax.numerics.bound import Bound


class Condition(NamedTuple):
    """What is known of the trajectory to be generated, normalised units; what is not known stays None.

    Attributes:
      initial: initial state, shape (*grid, field).
      rollout: a first guess of the trajectory, shape (time, *grid, field).
      rollout_scale: how far the guess may be off, broadcast against it and given to the network as it is; bring it to
        order one (its logarithm, say).
    """

    initial: Float[Array, "*grid field"] | None = None
    rollout: Float[Array, "time *grid field"] | None = None
    rollout_scale: Float[Array, "..."] | None = None


@dataclasses.dataclass(frozen=True)
class Network:
    """The three functions of the seam; a denoiser is one too, whose noise level is the diffusion time."""

    init: Callable[..., Any]
    encode: Callable[[Any, Condition], Any]
    apply: Callable[[Any, Array, Array, Any], Array]


def from_module(make_module: Callable[[Any], nn.Module]) -> Network:
    """Network from a linen module with the methods `encode(condition)` and `__call__(noisy, noise_level, features)`.

    The parameters take the type of `noisy`. They are drawn by `draw_params`, without compiling the module.

    Args:
      make_module: gives the module for a type of its parameters.

    Returns:
      the network; its `init` may be jitted and mapped over keys.
    """
    return Network(*(Bound(function, make_module) for function in (_init, _encode, _apply)))


MakeModule = Callable[[Any], Any]


def _whole(module: Any, noisy: Array, noise_level: Array, condition: Condition) -> Array:
    return module(noisy, noise_level, module.encode(condition))


def _init(make_module: MakeModule, key: PRNGKeyArray, noisy: Array, condition: Condition, num_levels: int = 1) -> Any:
    module, level = make_module(noisy.dtype), jnp.zeros((num_levels,) if num_levels > 1 else (), noisy.dtype)
    shapes = jax.eval_shape(lambda: module.init(key, noisy, level, condition, method=_whole)["params"])
    return jax.jit(lambda key: draw_params(shapes, key))(key)


def _encode(make_module: MakeModule, params: Any, condition: Condition) -> Any:
    dtype = jax.tree.leaves(params)[0].dtype
    return make_module(dtype).apply({"params": params}, condition, method="encode")


def _apply(make_module: MakeModule, params: Any, noisy: Array, noise_level: Array, features: Any) -> Array:
    features = jax.tree.map(lambda leaf: leaf.astype(noisy.dtype), features)
    noise_level = jnp.asarray(noise_level, noisy.dtype)
    answer = make_module(noisy.dtype).apply({"params": params}, noisy, noise_level, features)
    return jnp.asarray(answer, noisy.dtype)


def frames_as_channels(network: Network) -> Network:
    """The network on trajectories whose frames are laid side by side as channels of each grid point.

    A network over the grid alone costs far less than one over time and grid, in two dimensions above all.

    Args:
      network: over the axes of the grid, (*grid, time field) in and out.

    Returns:
      a network of trajectories (time, *grid, field); the condition's rollout and scale are laid out alike.
    """
    return Network(*(Bound(function, network) for function in (_init_flat, _encode_flat, _apply_flat)))


def _fold(trajectory: Array) -> Array:
    flat = jnp.moveaxis(trajectory, 0, -2)
    return flat.reshape(*flat.shape[:-2], -1)


def _folded(condition: Condition) -> Condition:
    rollout, scale = condition.rollout, condition.rollout_scale
    if rollout is not None and scale is not None:
        scale = _fold(jnp.broadcast_to(scale, rollout.shape))
    return Condition(condition.initial, None if rollout is None else _fold(rollout), scale)


def _init_flat(network: Network, key: PRNGKeyArray, noisy: Array, condition: Condition, *num_levels: int) -> Any:
    return network.init(key, _fold(noisy), _folded(condition), *num_levels)


def _encode_flat(network: Network, params: Any, condition: Condition) -> Any:
    return network.encode(params, _folded(condition))


def _apply_flat(network: Network, params: Any, noisy: Array, noise_level: Array, features: Any) -> Array:
    flat = network.apply(params, _fold(noisy), noise_level, features)
    return jnp.moveaxis(flat.reshape(*noisy.shape[1:-1], noisy.shape[0], noisy.shape[-1]), -2, 0)


def draw_params(shapes: Any, key: PRNGKeyArray) -> Any:
    """Parameters of the given shapes: kernels normal with variance 1/fan_in, scales one, biases zero.

    Kernels of layers named "zero" are zero. All kernels are cut from one draw: linen's initialisers, one program for
    each shape, take longer to compile than a step of training.

    Args:
      shapes: nested dicts of shapes and types whose innermost names are "kernel", "scale" or "bias".
      key: random key.

    Returns:
      parameters, arrays in the same nested dicts.

    Raises:
      ValueError: another innermost name.

    Source: LeCun et al. (1998), Efficient backprop, section 4.6 (variance).
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(shapes)
    names = [[entry.key for entry in path] for path, _ in leaves]
    dtype = leaves[0][1].dtype
    drawn = [name[-1] == "kernel" and "zero" not in name for name in names]
    pool = jax.random.normal(
        key, (sum(leaf.size for (_, leaf), fill in zip(leaves, drawn, strict=True) if fill),), dtype
    )
    params, used = [], 0
    for name, (_, leaf), fill in zip(names, leaves, drawn, strict=True):
        if fill:
            fan_in = leaf.size // leaf.shape[-1]
            params.append(pool[used : used + leaf.size].reshape(leaf.shape) / fan_in**0.5)
            used += leaf.size
        elif name[-1] in ("kernel", "scale", "bias"):
            params.append(jnp.full(leaf.shape, float(name[-1] == "scale"), leaf.dtype))
        else:
            raise ValueError(f'expected parameters named "kernel", "scale" or "bias", got {"/".join(name)}')
    return jax.tree.unflatten(tree, params)


def init_step(module: nn.Module, state: Float[Array, "*grid field"], key: PRNGKeyArray) -> Any:
    """Parameters of a module that maps a state to the next, see `draw_params`."""
    shapes = jax.eval_shape(lambda: module.init(key, state)["params"])
    return draw_params(shapes, key)


def repeat_step(
    module: nn.Module, params: Any, initial: Float[Array, "*grid field"], num_frames: int
) -> Float[Array, "time *grid field"]:
    """Trajectory of `num_frames` states, the initial one first, by a module that maps a state to the next."""
    return repeated(lambda state: module.apply({"params": params}, state), initial, num_frames)


def repeated(
    step: Callable[[Array], Any], initial: Float[Array, "*grid field"], num_frames: int
) -> Float[Array, "time *grid field"]:
    """Trajectory of `num_frames` states, the initial one first, by a function that maps a state to the next."""

    def frame(state: Array, _: None) -> tuple[Array, Array]:
        new = step(state)
        return new, new

    _, later = jax.lax.scan(frame, initial, None, length=num_frames - 1)
    return jnp.concatenate([initial[None], later])


class Linear(nn.Module):
    """Dense layer whose product may run in a narrower type than the rest."""

    features: int
    param_dtype: Any
    matmul_dtype: Any = None
    zero: bool = False
    use_bias: bool = True

    @nn.compact
    def __call__(self, inputs: Float[Array, "*axes channel"]) -> Float[Array, "*axes out"]:
        """Product with the kernel, in the type of the inputs."""
        layer = nn.Dense(
            self.features,
            use_bias=self.use_bias,
            dtype=self.matmul_dtype,
            param_dtype=self.param_dtype,
            name="zero" if self.zero else "dense",
        )
        return layer(inputs).astype(inputs.dtype)


class NoiseEmbedding(nn.Module):
    """Embedding of the noise level, or of several: sines and cosines over octaves, then two dense layers."""

    size: int
    param_dtype: Any

    @nn.compact
    def __call__(self, noise_level: Float[Array, "*level"]) -> Float[Array, " channel"]:
        """One embedding; levels are log(sigma/alpha)/4, or what else is of order one."""
        octaves = jnp.linspace(-1.0, 6.0, self.size // 2, dtype=noise_level.dtype)
        angles = noise_level[..., None] * 2.0**octaves
        waves = jnp.ravel(jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1))
        hidden = nn.silu(Linear(self.size, self.param_dtype)(waves))
        return Linear(self.size, self.param_dtype)(hidden)


class Modulation(nn.Module):
    """Feature-wise linear modulation: normalised channels scaled and shifted as an embedding says.

    Source: Perez et al. (2018), FiLM.
    """

    param_dtype: Any

    @nn.compact
    def __call__(
        self, channels: Float[Array, "*axes channel"], embedding: Float[Array, " size"]
    ) -> Float[Array, "*axes channel"]:
        """(1 + scale) channels + shift, scale and shift linear in the embedding's activation."""
        change = Linear(2 * channels.shape[-1], self.param_dtype)(nn.silu(embedding))
        scale, shift = jnp.split(change, 2)
        return channels * (1.0 + scale) + shift
