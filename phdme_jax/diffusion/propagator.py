"""A learned time step, repeated: the conditional mean of a trajectory given its initial state.

    x_{k+1} = x_k + A u_k + MLP(u_k),   u_k = the states within `radius` grid points of each point
    gated layers of the MLP:  h_{l+1} = silu(W_l h_l) * (V_l u_k)

The same small network acts at every point and every frame, which is how waves behave; one linear part A carries the
linear part of the dynamics. Past the ends of the grid the fields are continued by their parity. A grid without axes is
a single point: the network acts on the whole state.
Source of the gates: Shazeer (2020), arXiv 2002.05202.
"""

import dataclasses
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float, PRNGKeyArray

from phdme_jax.diffusion.networks import Linear, init_step, repeat_step
from phdme_jax.numerics.parity import Parity, inside, neighbourhood


@dataclasses.dataclass(frozen=True)
class Propagator:
    """Sizes of the propagator, and its functions through `init_propagator` and `propagate`.

    Attributes:
      parity: per field and grid axis, -1 (odd about the ends, zero there) or +1 (even).
      radius: reach of one step in grid points; waves must not travel farther between two frames.
      width: hidden units at each point.
      depth: hidden layers.
      gated: whether hidden layers are multiplied by linear functions of the states, as products of fields ask for.
    """

    parity: Parity
    radius: int = 6
    width: int = 64
    depth: int = 2
    gated: bool = False


class _Step(nn.Module):
    config: Propagator
    param_dtype: Any

    @nn.compact
    def __call__(self, state: Float[Array, "*grid field"]) -> Float[Array, "*grid field"]:
        around = neighbourhood(state, self.config.parity, self.config.radius)
        hidden = around
        for _ in range(self.config.depth):
            hidden = nn.silu(Linear(self.config.width, self.param_dtype)(hidden))
            if self.config.gated:
                hidden = hidden * Linear(self.config.width, self.param_dtype)(around)
        num_fields = state.shape[-1]
        change = Linear(num_fields, self.param_dtype, zero=True, use_bias=False)(around)
        change = change + Linear(num_fields, self.param_dtype, zero=True)(hidden)
        return (state + change) * inside(state, self.config.parity)


def init_propagator(config: Propagator, state: Float[Array, "*grid field"], key: PRNGKeyArray) -> Any:
    """Parameters of the propagator, which starts as the identity.

    Args:
      config: sizes.
      state: a state, for shape and type.
      key: random key.
    Returns:
      parameters.
    """
    return init_step(_Step(config, state.dtype), state, key)


def propagate(
    config: Propagator, params: Any, initial: Float[Array, "*grid field"], num_frames: int
) -> Float[Array, "time *grid field"]:
    """Repeat the learned step from an initial state.

    Args:
      config: sizes.
      params: parameters.
      initial: initial state, normalised units.
      num_frames: frames of the trajectory, the initial one included, evenly spaced in time.
    Returns:
      trajectory, the initial state first.
    """
    return repeat_step(_Step(config, initial.dtype), params, initial, num_frames)
