"""Answers of a flow whose end is projected on observations and conservation, in the metric of what is uncertain in it.

    x1_hat <- x1_hat - V J^T (S + J V J^T)^-1 h(x1_hat),   V = Cov[x1 | x],   J = dh / dx1

with S the variances of the observations' noise. ECI and PCFM take the identity for V: what is imposed moves the places
where it is imposed, and no others. With V from the Jacobian of the velocity a value that is seen moves all that depends
on it. At last Gauss-Newton steps take off what is left of h, but where observations have noise. Nothing is trained.
Source: the guidance of Rozet et al. (2024), arXiv 2405.13712, on the constraints of Utkarsh et al. (2025), arXiv
2506.04171.
"""

import jax.numpy as jnp
from jaxtyping import Array, Key

from phdme_jax.diffusion.flow import LEVELS, as_denoiser
from phdme_jax.diffusion.guidance import moment_matched
from phdme_jax.diffusion.samplers import sample
from phdme_jax.methods.base import Fitted, Host, Options, Task
from phdme_jax.methods.equations.flow import make_velocity
from phdme_jax.methods.equations.network import Params, Sampling, network_of
from phdme_jax.methods.equations.questions import LEAST_NOISE
from phdme_jax.methods.sampling.answering import Asked, answering, answering_options
from phdme_jax.methods.sampling.constrained_flow import (
    able_to_impose,
    effort_for,
    first_steps,
    imposed,
    settled,
    together,
)


def fit_matched_flow(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """A flow guided by the covariance of its own Jacobian, its end projected.

    Args:
      task: gives the network its shape, and what is conserved.
      options: groups `data`, `network`, `sampling`, whose `flow_steps` are the calls, and `answers`, whose `iterations`
        are those of the guidance.
      host: unused.
      teacher: a flow.
      key: unused.
    Returns:
      what answers; observations without noise, and what is conserved, hold to rounding.
    """
    del host
    assert teacher is not None
    chosen, net = answering_options(options), network_of(task, options)
    teacher = able_to_impose(net, chosen, teacher, task, key)
    velocity_of, num_calls = make_velocity(net), Sampling(**options["sampling"]).flow_steps

    def draw(params: Params, asked: Asked, latent: Array, key: Array) -> Array:
        balance, seen = imposed(net, chosen, params, asked), asked.observed
        steps = first_steps(net, chosen, params, asked)
        constraint, effort = together(seen, balance, steps), effort_for(net, balance, steps)
        missed = constraint(latent)
        noise = jnp.broadcast_to(seen.noise, seen.mask.shape).ravel()
        noises = jnp.full_like(missed, LEAST_NOISE).at[: noise.size].set(noise)
        guided = moment_matched(
            as_denoiser(velocity_of(params.network, asked.prepared), LEVELS),
            LEVELS,
            constraint,
            jnp.zeros_like(missed),
            noises**2,
            chosen.iterations,
        )
        fields = sample(guided, LEVELS, latent, key, sampler="dpm", num_steps=num_calls, spacing="log_snr")
        exact = seen._replace(mask=seen.mask * (seen.noise <= LEAST_NOISE))
        return settled(exact, effort, balance, steps)(fields)

    return answering(net, teacher, draw, num_calls, num_calls * chosen.iterations)
