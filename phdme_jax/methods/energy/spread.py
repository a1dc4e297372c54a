"""How much a conditional mean leaves of a trajectory, told from the mean: a scale for each frame and field.

    s_kf = b_kf exp(g(z_k)_f),   z_k = logarithms of the size and the largest value of each field in frame k and at the
                                 start, and the time

g is a small network, b the root mean square over all training trajectories. Large waves are known less well than small
ones; divided by its own scale, what the mean leaves looks alike in all of them, which is what a diffusion model learns
easily. Fitted by the likelihood of a normal distribution of the remainder's size.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from phdme_jax.methods.energy.losses import Example

# the scale stays within a factor of about a hundred of the overall one
LIMIT = 5.0


class _Spread(nn.Module):
    width: int
    num_fields: int

    @nn.compact
    def __call__(self, features: Float[Array, "time feature"]) -> Float[Array, "time field"]:
        hidden = nn.silu(nn.Dense(self.width)(features))
        hidden = nn.silu(nn.Dense(self.width)(hidden))
        raw = nn.Dense(self.num_fields, kernel_init=nn.initializers.zeros)(hidden)
        return LIMIT * jnp.tanh(raw / LIMIT)


def _features(mean: Float[Array, "time *grid field"]) -> Float[Array, "time feature"]:
    """Sizes of the fields frame by frame and at the start, and the time, each of order one."""
    flat = jnp.reshape(mean, (mean.shape[0], -1, mean.shape[-1]))
    sizes = jnp.concatenate([jnp.sqrt(jnp.mean(flat**2, axis=1)), jnp.max(jnp.abs(flat), axis=1)], axis=-1)
    logs = jnp.log(sizes + 1e-3)
    time = jnp.linspace(-1.0, 1.0, mean.shape[0], dtype=mean.dtype)[:, None]
    return jnp.concatenate([logs, jnp.broadcast_to(logs[:1], logs.shape), time], axis=-1)


def init_spread(mean: Float[Array, "time *grid field"], key: PRNGKeyArray, width: int = 32) -> Any:
    """Parameters of g, which starts at zero: the overall scale."""
    return _Spread(width, mean.shape[-1]).init(key, _features(mean))


def predicted_scale(
    params: Any, base: Float[Array, "time *one field"], mean: Float[Array, "time *grid field"], width: int = 32
) -> Float[Array, "time *one field"]:
    """The scale of what a mean leaves.

    Args:
      params: of g.
      base: overall root mean square b, broadcast against the trajectory.
      mean: conditional mean, normalised units.
      width: hidden units of g.
    Returns:
      s, of the shape of the base.
    """
    exponent = _Spread(width, mean.shape[-1]).apply(params, _features(mean))
    assert isinstance(exponent, jax.Array)
    return base * jnp.reshape(jnp.exp(exponent), base.shape)


def spread_loss(
    base: Float[Array, "time *one field"], width: int = 32
) -> Callable[[Any, Example, Array], tuple[Array, dict[str, Array]]]:
    """Negative log likelihood log s + e^2 / (2 s^2) of the remainder, in units of b, the known first frame left out.

    Args:
      base: overall root mean square b.
      width: hidden units of g.
    Returns:
      example_loss(params, example, key) -> (loss, metrics).
    """

    def loss(params: Any, example: Example, key: Array) -> tuple[Array, dict[str, Array]]:
        del key
        error = ((example.state - example.mean) / base)[1:]
        square = jnp.mean(jnp.reshape(error**2, (error.shape[0], -1, error.shape[-1])), axis=1)
        ones = jnp.ones((base.shape[0], base.shape[-1]), base.dtype)
        exponent = jnp.log(predicted_scale(params, ones, example.mean, width))[1:]
        value = jnp.mean(exponent + 0.5 * square * jnp.exp(-2 * exponent))
        return value, {"negative_log_likelihood": value}

    return loss
