"""Gaussian-process interpolation of observations with the moments of the data (kriging); no network."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from phdme_jax.methods.base import Fitted, Host, Options, Task
from phdme_jax.methods.equations.network import Params, encode_examples
from phdme_jax.methods.sampling.answering import Asked, answering, without_network


class Moments(NamedTuple):
    """Mean and root of the covariance of flattened normalised fields."""

    mean: Float[Array, "number"]
    root: Float[Array, "number number"]


def fit_kriging(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """The Gaussian with the mean and covariance of the training examples, given the observations: exact samples.

    Normalised fields, all channels together, 1e-6 of their mean variance added; of Gaussian data it is the posterior,
    but for the error of the moments.
    """
    del host, teacher, key
    net, plain = without_network(task, options)
    fields = encode_examples(net, plain.params, task.train()).fields
    flat = jnp.reshape(fields, (len(fields), -1))
    mean = jnp.mean(flat, axis=0)
    centred = flat - mean
    covariance = centred.T @ centred / (len(flat) - 1)
    covariance = covariance + 1e-6 * jnp.mean(jnp.diagonal(covariance)) * jnp.eye(len(mean))
    root = jnp.linalg.cholesky(covariance)
    plain = plain._replace(params=plain.params._replace(network=Moments(mean, root)))

    def draw(params: Params, asked: Asked, latent: Array, key: Array) -> Array:
        """A prior sample, moved by what it misses of noisy observations of it (Matheron's rule)."""
        seen, (mean, root) = asked.observed, params.network
        prior = mean + root @ jnp.ravel(latent)
        mask = jnp.ravel(seen.mask)
        noise = jnp.broadcast_to(seen.noise, seen.mask.shape).ravel()
        fresh = noise * jax.random.normal(key, mask.shape, mask.dtype)
        # rows that were not observed have a one on the diagonal
        rows = mask[:, None] * root
        innovation = rows @ rows.T + jnp.diag(jnp.where(mask > 0, noise**2, 1.0))
        missed = mask * (jnp.ravel(seen.values) - prior - fresh)
        weights = jax.scipy.linalg.solve(innovation, missed, assume_a="pos")
        return jnp.reshape(prior + root @ (rows.T @ weights), seen.mask.shape)

    return answering(net, plain, draw)
