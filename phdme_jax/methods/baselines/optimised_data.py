"""Answers without a network or a prior: fields that obey observations and equations, searched for from noise."""

import jax
from jaxtyping import Array, Key

from phdme_jax.methods.base import Fitted, Host, Options, Task
from phdme_jax.methods.equations.network import Params
from phdme_jax.methods.equations.residual_size import with_residual_scale
from phdme_jax.methods.sampling.answering import Asked, answering, answering_options, misfit, without_network
from phdme_jax.numerics.minimise import descend


def fit_optimised_data(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """The fields themselves searched for by what they miss of observations and equations: no network, no prior."""
    del host, teacher
    (net, plain), chosen = without_network(task, options), answering_options(options)
    plain = plain._replace(params=with_residual_scale(net, plain.params, task, key))

    def draw(params: Params, asked: Asked, latent: Array, key: Array) -> Array:
        del key
        params, asked = jax.lax.stop_gradient((params, asked))  # a search has no slopes
        potential = misfit(net, params, asked, chosen.residual_weight)
        return descend(potential, asked.observed.written_over(latent), chosen.descents)

    return answering(net, plain, draw)
