"""The decoder of neural relational inference, told the true graph: an interaction network from frame to frame.

    m_ij = MLP_k(x_i, x_j),  k the type of the pair,   x_i(t + 1) = x_i(t) + MLP(x_i(t), sum_{j != i} m_ij)

A state x_i is a particle's position and velocity. Where a coupling is given, pairs are of two types, by whether it is
positive: springs that are there or not, charges that repel or attract; where none is, of one.
Source: Kipf et al. (2018), arXiv 1802.04687, equations 15 and 16 and section 3.3 (several steps in training), the
variant "NRI (true graph)"; the Gaussian's variance is fixed there, so that its mean alone is learned.
"""

from functools import lru_cache

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PRNGKeyArray, PyTree

from phdme_jax.methods.base import Fitted, Host, Options, Task
from phdme_jax.methods.baselines.neural_dynamics import FieldFactory, field_factory
from phdme_jax.methods.particles.steps import Stepper, fit_step
from phdme_jax.systems.particles.base import Advance, Motion, fields_of, motion_of


class InteractionNetwork(eqx.Module):
    """One frame on.

    Attributes:
      messages: a perceptron of two states for each type of pair.
      output: a perceptron of a state and the sum of its messages.
      scale: of each field, positions before velocities.
    """

    messages: tuple[eqx.nn.MLP, ...]
    output: eqx.nn.MLP
    scale: Float[Array, "field"]

    def __init__(self, scale: Array, width: int, types: int, key: PRNGKeyArray) -> None:
        size, (first, *keys) = scale.shape[0], jax.random.split(key, 1 + types)
        relu, dtype = jax.nn.relu, scale.dtype
        self.messages = tuple(eqx.nn.MLP(2 * size, width, width, 1, relu, relu, key=one, dtype=dtype) for one in keys)
        self.output = eqx.nn.MLP(size + width, size, width, 2, relu, key=first, dtype=dtype)
        self.scale = scale

    def __call__(self, motion: Motion, coupling: Float[Array, "particle particle"]) -> Motion:
        """The next frame."""
        scale = jax.lax.stop_gradient(self.scale)
        state = fields_of(motion) / scale
        count = len(state)
        shape = (count, count, state.shape[-1])
        pairs = jnp.concatenate([jnp.broadcast_to(part, shape) for part in (state[:, None], state[None])], axis=-1)
        positive = (coupling > 0).astype(state.dtype)
        types = (positive, 1 - positive) if len(self.messages) > 1 else (jnp.ones_like(positive),)
        others = 1 - jnp.eye(count, dtype=state.dtype)
        received = sum(
            jnp.einsum("ij,ijw->iw", others * chosen, jax.vmap(jax.vmap(message))(pairs))
            for chosen, message in zip(types, self.messages, strict=True)
        )
        change = jax.vmap(self.output)(jnp.concatenate([state, received], axis=-1))
        return motion_of(scale * (state + change))


@lru_cache
def _factory(num_fields: int, width: int, types: int) -> FieldFactory:
    return field_factory(lambda scale, key: InteractionNetwork(scale, width, types, key), num_fields)


def fit_interaction(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """Train on windows, from the true first frame of each.

    Args:
      task: of particles, first frames given.
      options: the group `baselines`: `nri` (width), its stages.
      host: trains.
      teacher: none.
      key: random key.
    Returns:
      the method, without a distribution.
    """
    del teacher
    problem = task.problem
    coupled = len(problem.conditions) > len(problem.fields) + 1
    factory = _factory(len(problem.fields), **options["baselines"]["nri"], types=2 if coupled else 1)

    def advance_of(params: PyTree) -> Advance:
        return lambda coupling: lambda motion: factory.field(params)(motion, coupling)

    return fit_step(Stepper("nri", factory.init, advance_of, 1), task, options, host, key)
