"""The recipe of DiffusionPDE, with the right equations: a diffusion model pushed down observations and residual."""

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array, Key

from phdme_jax.diffusion.samplers import sample_pushed
from phdme_jax.methods.base import Fitted, Host, Options, Task
from phdme_jax.methods.equations.diffusion import teacher_schedule
from phdme_jax.methods.equations.encoding import decode
from phdme_jax.methods.equations.network import Params, Prepared, Sampling, network_of
from phdme_jax.methods.equations.residual_size import with_residual_scale
from phdme_jax.methods.sampling.answering import TINY, answering, answering_options, broken, missed

Misfit = Callable[[Array], Array]


def fit_diffusion_pde(
    task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""], asks: bool = True
) -> Fitted:
    """Heun's method pushed down what is missed of the observations and, at the end, down the residual.

        x <- x - zeta_obs grad |y - H x0_hat|                                          in the first four fifths
        x <- x - zeta_obs / 10 grad |y - H x0_hat| - zeta_pde grad |r(x0_hat)| / n     after that

    with x0_hat that of the second call of a step and gradients through both calls. The equation is that of the problem;
    that of the published code, see `systems.equations.published`, where `answers.published_residual` asks for it.
    Residuals r are in units of their size at mixed examples, n is the root of the number of places.

    Args:
      task: its problem is `Equations`.
      options: groups `data`, `network`, `informed`, `sampling` and `answers`.
      host: unused.
      teacher: a diffusion model.
      key: of the size of the residual.
      asks: whether it answers questions; else it samples as the teacher does, pushed down the residual alone.
    Returns:
      what answers or samples.
    Source: Huang et al. (2024), DiffusionPDE, arXiv 2406.17763, algorithm 1.
    """
    del host
    assert teacher is not None and teacher.model.denoise is not None
    plain, chosen, net = teacher.model.denoise, answering_options(options), network_of(task, options)
    schedule, num_steps = teacher_schedule(options), chosen.pushed_steps or Sampling(**options["sampling"]).num_steps
    published = task.problem.published
    if chosen.published_residual and published is not None:
        net = replace(net, equations=replace(task.problem, residual=published))
    teacher = teacher._replace(params=with_residual_scale(net, teacher.params, task, key))

    def draw(params: Params, prepared: Prepared, latent: Array, of_values: Misfit) -> Array:
        of_equations = broken(net, params, prepared)

        def potential(x0_hat: Array, late: Array) -> Array:
            early = chosen.observation_push * jnp.sqrt(of_values(x0_hat) + TINY)
            ending = 0.1 * early + chosen.residual_push * jnp.sqrt(of_equations(x0_hat) + TINY)
            return jnp.where(late, ending, early)

        return sample_pushed(plain(params, prepared), schedule, latent, potential, num_steps)

    calls = 2 * num_steps - 1
    if asks:
        return answering(
            net,
            teacher,
            lambda params, asked, latent, key: draw(params, asked.prepared, latent, missed(asked)),
            calls,
            calls - 1,
        )

    def draw_fields(params: Params, prepared: Prepared, latent: Array, key: Array) -> Array:
        del key
        return decode(params.fields, net.kinds, draw(params, prepared, latent, lambda fields: jnp.zeros(())))

    model = replace(teacher.model, draw=draw_fields, denoise=None, sample=None, num_calls=calls, num_backward=calls - 1)
    return teacher._replace(model=model)
