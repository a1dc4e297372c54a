"""Answers of a one-step student whose noise is searched for (PIDDM); nothing is trained."""

from jaxtyping import Array, Key

from phdme_jax.methods.base import Fitted, Host, Options, Task
from phdme_jax.methods.distilled.student import make_student, refine
from phdme_jax.methods.equations.network import Params, Sampling, network_of
from phdme_jax.methods.equations.residual_size import with_residual_scale
from phdme_jax.methods.sampling.answering import Asked, answering, answering_options, misfit


def fit_student_search(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """The noise of a student searched for, from a random one, by what its example misses of observations and equations.

    Args:
      task: gives the network its shape, and the equations.
      options: groups `data`, `network` and `answers`, of which `student_searches` are steps of Adam at `student_rate`.
      host: unused.
      teacher: a student of one call.
      key: of the residual's size.
    Returns:
      what answers.
    Source: Zhang, Wang, Zou (2026), arXiv 2505.22391, algorithm 3.
    """
    del host
    assert teacher is not None
    chosen, net = answering_options(options), network_of(task, options)
    student_of = make_student(net)
    steps = Sampling(refinements=chosen.student_searches, refinement_rate=chosen.student_rate)
    teacher = teacher._replace(params=with_residual_scale(net, teacher.params, task, key))

    def draw(params: Params, asked: Asked, latent: Array, key: Array) -> Array:
        del key
        potential = misfit(net, params, asked, chosen.residual_weight)
        student = student_of(params.network, asked.prepared)
        return student(refine(lambda noise: potential(student(noise)), latent, steps))

    return answering(net, teacher, draw, chosen.student_searches + 1, chosen.student_searches)
