"""Answers of a flow, or its student of one call, whose noise is searched for (D-Flow, PIDDM); nothing is trained."""

from functools import partial

import jax
from jaxtyping import Array, Key

from phdme_jax.diffusion import constrained
from phdme_jax.diffusion.flow import carry_noise
from phdme_jax.methods.base import Fitted, Host, Options, Task
from phdme_jax.methods.distilled.student import make_student, refine
from phdme_jax.methods.equations.flow import make_velocity
from phdme_jax.methods.equations.network import Params, Sampling, network_of
from phdme_jax.methods.equations.residual_size import with_residual_scale
from phdme_jax.methods.sampling.answering import Asked, answering, answering_options, misfit


def fit_d_flow(
    task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""], student: bool = False
) -> Fitted:
    """The noise searched for, from a random one, by what is made of it misses of observations and equations.

    Args:
      task: gives the network its shape, and the equations.
      options: groups `data`, `network` and `answers`.
      host: unused.
      teacher: a flow or its student.
      key: of the residual's size.
      student: whether the teacher makes its example in one call; it is then searched by Adam, else by L-BFGS.
    Returns:
      what answers; forwards that gradients repeat to save memory are not counted as calls.
    Source: Ben-Hamu et al. (2024), arXiv 2402.14017, algorithm 1; Zhang, Wang, Zou (2026), arXiv 2505.22391,
    algorithm 3.
    """
    del host
    assert teacher is not None
    chosen, net = answering_options(options), network_of(task, options)
    velocity_of, student_of = make_velocity(net), make_student(net)
    steps = Sampling(refinements=chosen.student_searches, refinement_rate=chosen.student_rate)
    teacher = teacher._replace(params=with_residual_scale(net, teacher.params, task, key))

    def draw(params: Params, asked: Asked, latent: Array, key: Array) -> Array:
        del key
        params, asked = jax.lax.stop_gradient((params, asked))  # a search has no slopes
        potential = misfit(net, params, asked, chosen.residual_weight)
        if student:
            make = student_of(params.network, asked.prepared)
            return make(refine(lambda noise: potential(make(noise)), latent, steps))
        velocity = velocity_of(params.network, asked.prepared)
        carry = partial(carry_noise, velocity, num_calls=chosen.flow_steps)
        return constrained.sample_d_flow(carry, latent, potential, chosen.searches)

    if student:
        return answering(net, teacher, draw, chosen.student_searches + 1, chosen.student_searches)
    # gradients at the start and after each step, and the end once more; a line search may need more
    calls = chosen.flow_steps * (chosen.searches + 2)
    return answering(net, teacher, draw, calls, calls - chosen.flow_steps)
