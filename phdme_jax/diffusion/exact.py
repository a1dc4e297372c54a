"""Worlds whose every answer is known: mixtures of Gaussians, with their denoiser, velocity and posterior.

    x0 ~ sum_k w_k N(m_k, C_k),   y = x0 + r noise
    E[x0 | y] = sum_k p(k | y) (m_k + C_k (C_k + r^2)^-1 (y - m_k)),   p(k | y) ~ w_k N(y; m_k, C_k + r^2)

Of one component it is a Gaussian. `make_exact_network` stands for a trained network, so that what samples with one can
be compared with a closed form. `make_empirical_network` is the ideal denoiser of a training set, a mixture of points:
what remains wrong with it is the sampler's. Examples are flat here.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from phdme_jax.diffusion.networks import Condition, Network


class Mixture(NamedTuple):
    """A mixture of Gaussians; arrays only.

    Attributes:
      log_weights: of the components, normalised or not.
      means: of each.
      variances: of each along its principal axes.
      axes: principal axes, the columns.
    """

    log_weights: Float[Array, "component"]
    means: Float[Array, "component number"]
    variances: Float[Array, "component number"]
    axes: Float[Array, "component number number"]

    @property
    def covariances(self) -> Float[Array, "component number number"]:
        """Of each component."""
        return jnp.einsum("kij,kj,klj->kil", self.axes, self.variances, self.axes)

    @property
    def weights(self) -> Float[Array, "component"]:
        """Of the components, normalised."""
        return jax.nn.softmax(self.log_weights)


def make_mixture(
    weights: Float[Array, "component"],
    means: Float[Array, "component number"],
    covariances: Float[Array, "component number number"],
) -> Mixture:
    """A mixture of its weights, means and covariances; variances below zero are rounding."""
    variances, axes = jnp.linalg.eigh(covariances)
    return Mixture(jnp.log(weights), means, jnp.maximum(variances, 0.0), axes)


def moments(mixture: Mixture) -> tuple[Float[Array, "number"], Float[Array, "number number"]]:
    """Mean and covariance of all components together."""
    weights = mixture.weights
    mean = weights @ mixture.means
    apart = mixture.means - mean
    spread = jnp.einsum("k,ki,kj->ij", weights, apart, apart)
    return mean, jnp.einsum("k,kij->ij", weights, mixture.covariances) + spread


def draw_from(mixture: Mixture, key: PRNGKeyArray) -> Float[Array, "number"]:
    """One example."""
    component_key, noise_key = jax.random.split(key)
    index = jax.random.categorical(component_key, mixture.log_weights)
    noise = jax.random.normal(noise_key, mixture.means.shape[1:], mixture.means.dtype)
    return mixture.means[index] + mixture.axes[index] @ (jnp.sqrt(mixture.variances[index]) * noise)


def rescaled(mixture: Mixture, shift: Float[Array, "number"], scale: Float[Array, "number"]) -> Mixture:
    """The mixture of (x - shift) / scale."""
    covariances = mixture.covariances / (scale[:, None] * scale)
    return make_mixture(mixture.weights, (mixture.means - shift) / scale, covariances)


def observed_mixture(
    mixture: Mixture,
    operator: Float[Array, "observation number"],
    values: Float[Array, "observation"],
    noise_variance: Float[Array, "#observation"] | Float[Array, ""] | float,
) -> Mixture:
    """The mixture given values = operator x0 + noise: each component's posterior, weighed by its evidence.

    Args:
      mixture: before.
      operator: what is observed.
      values: what was observed.
      noise_variance: of each observation, or of all; zero for exact ones that are not redundant.
    Returns:
      the mixture after.
    """
    noise = jnp.diag(jnp.broadcast_to(jnp.asarray(noise_variance, values.dtype), values.shape))

    def component(mean: Array, covariance: Array) -> tuple[Array, Array, Array]:
        factor = jnp.linalg.cholesky(operator @ covariance @ operator.T + noise)
        white = jax.scipy.linalg.solve_triangular(factor, operator @ covariance, lower=True)
        missed = jax.scipy.linalg.solve_triangular(factor, values - operator @ mean, lower=True)
        evidence = -0.5 * jnp.sum(missed**2) - jnp.sum(jnp.log(jnp.diagonal(factor)))
        return evidence, mean + white.T @ missed, covariance - white.T @ white

    evidence, means, covariances = jax.vmap(component)(mixture.means, mixture.covariances)
    after = make_mixture(mixture.weights, means, covariances)
    return after._replace(log_weights=jax.nn.log_softmax(mixture.log_weights + evidence))


def denoised(mixture: Mixture, noisy: Float[Array, "number"], ratio: Float[Array, ""]) -> Float[Array, "number"]:
    """E[x0 | x0 + ratio noise = noisy]."""
    offset = jnp.einsum("kij,ki->kj", mixture.axes, noisy - mixture.means)
    total = mixture.variances + ratio**2
    log_density = -0.5 * jnp.sum(offset**2 / total + jnp.log(total), axis=-1)
    share = jax.nn.softmax(mixture.log_weights + log_density)
    answers = mixture.means + jnp.einsum("kij,kj->ki", mixture.axes, mixture.variances / total * offset)
    return share @ answers


class ExactParams(NamedTuple):
    """What the exact network answers with.

    Attributes:
      plain: the world.
      told: the world where the last channel of what the network is told is one.
    """

    plain: Mixture
    told: Mixture


def make_exact_network() -> Network:
    """The network that a perfect training would leave, behind the seam of all others; its parameters are the world.

    It answers in the units of mode "edm" with a data_std of one, of denoisers and of flows alike:

        F = sqrt(1 + r^2) / r (E[x0 | y] - y / (1 + r^2)),   its input y / sqrt(1 + r^2), its level log(r) / 4

    Untrained parameters are a world of white noise; put an `ExactParams` of the normalised world in their place.
    """
    return Network(_init, _encode, _apply)


def _init(key: PRNGKeyArray, noisy: Array, condition: Condition) -> ExactParams:
    del key, condition
    size, dtype = noisy.size, noisy.dtype
    white = make_mixture(jnp.ones(1, dtype), jnp.zeros((1, size), dtype), jnp.eye(size, dtype=dtype)[None])
    return ExactParams(white, white)


def _encode(params: ExactParams, condition: Condition) -> Array:
    told = condition.rollout
    return jnp.zeros((), params.plain.means.dtype) if told is None else jnp.mean(told[..., -1])


def _apply(params: ExactParams, noisy: Array, noise_level: Array, features: Array) -> Array:
    def answer(point: Array, ratio: Array) -> Array:
        plain, told = (denoised(mixture, point, ratio) for mixture in params)
        return jnp.where(features > 0.5, told, plain)

    return _in_units(answer, noisy, noise_level)


def _in_units(answer: Callable[[Array, Array], Array], noisy: Array, noise_level: Array) -> Array:
    """What a network says in mode "edm" of a denoiser, (y, r) -> E[x0 | y]."""
    ratio = jnp.exp(4.0 * noise_level)
    total = jnp.sqrt(1.0 + ratio**2)
    point = jnp.ravel(total * noisy)
    return jnp.reshape(total / ratio * (answer(point, ratio) - point / total**2), noisy.shape).astype(noisy.dtype)


class EmpiricalParams(NamedTuple):
    """Normalised examples, flattened."""

    examples: Float[Array, "example number"]


def make_empirical_network() -> Network:
    """The ideal denoiser of a training set, in closed form; its parameters are the examples.

        E[x0 | y] = sum_k p(k | y) e_k,   p(k | y) ~ exp(-|y - e_k|^2 / (2 r^2))

    in the units of `make_exact_network`. No network has a lower denoising loss on these examples; what it samples are
    the examples again. Untrained it knows one, the first it is shown; put all of them in its place.

    Source: Karras et al. (2022), arXiv 2206.00364, appendix B.3.
    """
    return Network(_init_empirical, lambda params, condition: None, _apply_empirical)


def _init_empirical(key: PRNGKeyArray, noisy: Array, condition: Condition) -> EmpiricalParams:
    del key, condition
    return EmpiricalParams(jnp.ravel(noisy)[None])


def _apply_empirical(params: EmpiricalParams, noisy: Array, noise_level: Array, features: None) -> Array:
    del features
    examples = params.examples

    def answer(point: Array, ratio: Array) -> Array:
        nearness = examples @ point - 0.5 * jnp.sum(examples**2, axis=-1)
        return jax.nn.softmax(nearness / ratio**2) @ examples

    return _in_units(answer, noisy, noise_level)
