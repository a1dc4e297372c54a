"""Answers of a diffusion model that is guided by observations while it samples; nothing is trained.

    dps             x' <- x' - zeta grad_x |y - H x0_hat(x)|
    sda             x0_hat <- x0_hat + sigma^2/alpha grad_x log N(y; H x0_hat(x), noise^2 + gamma r^2 b / (b + r^2))
    moment_matched  the same with the covariance of an example given x that the denoiser's Jacobian says

y are the observations, H takes them of an example, x is noisy and x' the next, r = sigma / alpha. All in normalised
units. The published covariance of `sda`, gamma r^2, there with gamma = 0.01, is that of data without a bound, b
infinite; b = 1 is that of white data of unit variance. Smooth fields have modes of far larger variance, on which b = 1
pushes too far where many places are seen.

Where data are not Gaussian (of `sda`: not white), the last two are right at the last levels alone. Langevin
corrections, published for `sda`, draw each level anew: with enough of them what is drawn in the end owes little to the
levels before, where scores are wrong.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from phdme_jax.diffusion.guidance import moment_matched, residual_guidance
from phdme_jax.diffusion.preconditioning import Denoise
from phdme_jax.diffusion.samplers import num_function_evaluations
from phdme_jax.methods.base import Fitted, Host, Options, Task
from phdme_jax.methods.equations.diffusion import sample_as, teacher_schedule
from phdme_jax.methods.equations.network import Params, Sampling, network_of
from phdme_jax.methods.equations.questions import Observed
from phdme_jax.methods.sampling.answering import TINY, Answering, Asked, answering, answering_options, corrected, missed

RULES = ("dps", "sda", "moment_matched")


def fit_guided(
    task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""], rule: str = "dps"
) -> Fitted:
    """A diffusion model guided by observations.

    Args:
      task: gives the network its shape.
      options: groups `data`, `network`, `informed`, `sampling` and `answers`.
      host: unused.
      teacher: a diffusion model.
      key: unused.
      rule: one of `RULES`.
    Returns:
      what answers.
    Raises:
      ValueError: unknown rule.
    Source: Chung et al. (2023), arXiv 2209.14687, algorithm 1; Rozet and Louppe (2023), arXiv 2306.10574, section 3.2;
    Rozet et al. (2024), arXiv 2405.13712.
    """
    del host, key
    if rule not in RULES:
        raise ValueError(f"expected a rule among {RULES}, got {rule!r}")
    assert teacher is not None and teacher.model.denoise is not None
    plain, chosen, sampling = teacher.model.denoise, answering_options(options), Sampling(**options["sampling"])
    corrections = 0 if rule == "dps" else chosen.langevin_corrections
    if chosen.pushed_steps and (rule == "dps" or (rule == "sda" and corrections)):
        sampling = sampling._replace(num_steps=chosen.pushed_steps)
    sampling, more = corrected(sampling, corrections, chosen.langevin_step)
    schedule = teacher_schedule(options)

    def draw(params: Params, asked: Asked, latent: Array, key: Array) -> Array:
        denoise, seen, of_values = plain(params, asked.prepared), asked.observed, missed(asked)
        push, guided = None, denoise
        if rule == "dps":

            def push(noisy: Array, t: Array) -> tuple[Array, Array]:
                def distance(point: Array) -> tuple[Array, Array]:
                    answer = denoise(point, t)
                    return jnp.sqrt(of_values(answer) + TINY), answer

                slope, answer = jax.grad(distance, has_aux=True)(noisy)
                return answer, chosen.push * slope

        elif rule == "sda":
            guided = _spread_guidance(denoise, schedule, seen, chosen)
        else:
            variance = jnp.broadcast_to(seen.noise**2, seen.mask.shape)
            guided = moment_matched(
                denoise, schedule, lambda fields: seen.mask * fields, seen.values, variance, chosen.iterations
            )
        return sample_as(sampling, guided, schedule, latent, key, push=push, **more)

    calls = num_function_evaluations(sampling.sampler, sampling.num_steps, corrections)
    backward = calls * (chosen.iterations if rule == "moment_matched" else 1)
    return answering(network_of(task, options), teacher, draw, calls, backward)


def _spread_guidance(denoise: Denoise, schedule: Any, seen: Observed, chosen: Answering) -> Denoise:
    """That of `sda`, see the module's docstring."""

    def guided(noisy: Array, t: Array) -> Array:
        square = schedule.noise_ratio(jnp.asarray(t, noisy.dtype)) ** 2
        bounded = square / (1.0 + square / chosen.variance_bound) if chosen.variance_bound else square
        scale = jnp.sqrt(seen.noise**2 / (seen.noise**2 + chosen.gamma * bounded))
        return residual_guidance(denoise, schedule, lambda fields: scale * seen.misfit(fields), 1.0)(noisy, t)

    return guided
