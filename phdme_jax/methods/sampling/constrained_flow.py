"""Answers of a flow whose end is made to obey the observations at each time (ECI, PCFM); nothing is trained."""

from jaxtyping import Array, Key

from phdme_jax.diffusion import constrained
from phdme_jax.methods.base import Fitted, Host, Options, Task
from phdme_jax.methods.equations.flow import make_velocity
from phdme_jax.methods.equations.network import Params, network_of
from phdme_jax.methods.sampling.answering import Asked, answering, answering_options


def fit_constrained(
    task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""], rule: str = "eci"
) -> Fitted:
    """A flow whose end is written over with the observations, or projected on them, at each time.

    Args:
      task: gives the network its shape.
      options: groups `data`, `network` and `answers`.
      host: unused.
      teacher: a flow.
      key: unused.
      rule: "eci" or "pcfm".
    Returns:
      what answers; observations hold to rounding, their noise is not read.
    Source: Cheng et al. (2025), arXiv 2412.01786; Utkarsh et al. (2025), arXiv 2506.04171.
    """
    del host, key
    assert teacher is not None
    chosen, net = answering_options(options), network_of(task, options)
    velocity_of = make_velocity(net)

    def draw(params: Params, asked: Asked, latent: Array, key: Array) -> Array:
        velocity, seen = velocity_of(params.network, asked.prepared), asked.observed
        if rule == "eci":
            return constrained.sample_eci(
                velocity,
                latent,
                key,
                seen.written_over,
                chosen.times,
                num_mixes=chosen.mixes,
                resample_every=chosen.resample_every,
                anchored=chosen.anchored,
            )
        return constrained.sample_pcfm(
            velocity,
            latent,
            lambda fields: seen.mask * (fields - seen.values),
            chosen.times,
            iterations=2,
            final_steps=2,
            anchored=chosen.anchored,
        )

    return answering(net, teacher, draw, chosen.times * (chosen.mixes if rule == "eci" else 1))
