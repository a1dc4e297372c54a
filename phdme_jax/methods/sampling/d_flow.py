"""Answers of a flow whose noise is searched for (D-Flow); nothing is trained."""

from functools import partial

import jax
from jaxtyping import Array, Key

from phdme_jax.diffusion import constrained
from phdme_jax.diffusion.flow import carry_noise
from phdme_jax.methods.base import Fitted, Host, Options, Task
from phdme_jax.methods.equations.flow import make_velocity
from phdme_jax.methods.equations.network import Params, network_of
from phdme_jax.methods.equations.residual_size import with_residual_scale
from phdme_jax.methods.sampling.answering import Asked, answering, answering_options, misfit


def fit_d_flow(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """The noise of a flow searched for, from a random one, by what its end misses of observations and equations.

    Source: Ben-Hamu et al. (2024), arXiv 2402.14017.
    """
    del host
    assert teacher is not None
    chosen, net = answering_options(options), network_of(task, options)
    velocity_of = make_velocity(net)
    teacher = teacher._replace(params=with_residual_scale(net, teacher.params, task, key))

    def draw(params: Params, asked: Asked, latent: Array, key: Array) -> Array:
        del key
        params, asked = jax.lax.stop_gradient((params, asked))  # a search has no slopes
        potential = misfit(net, params, asked, chosen.residual_weight)
        velocity = velocity_of(params.network, asked.prepared)
        carry = partial(carry_noise, velocity, num_calls=chosen.flow_steps)
        return constrained.sample_d_flow(carry, latent, potential, chosen.searches)

    # gradients at the start and after each step, and the end once more; a line search may need more
    calls = chosen.flow_steps * (chosen.searches + 2)
    return answering(net, teacher, draw, calls, calls - chosen.flow_steps)
