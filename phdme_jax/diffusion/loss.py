"""The denoising loss of one example, and the weights a method needs to add physics to it.

A method on the floor above writes

    loss = diffusion + lambda_phys snr_weight(t) mean(residual_weights(variance) residual^2) + lambda_bc boundary

where the residual and the boundary terms are evaluated on the `x0_hat` that `denoising_loss` hands back.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from phdme_jax.diffusion.preconditioning import Denoise
from phdme_jax.diffusion.schedule import Schedule, time_from_uniform

WEIGHTINGS = ("min_snr", "edm", "uniform")


class DenoisingTerms(NamedTuple):
    """What the denoising loss of one example leaves for further terms; arrays only."""

    loss: Float[Array, ""]
    x0_hat: Float[Array, "*shape"]
    noisy: Float[Array, "*shape"]
    time: Float[Array, ""]
    weight: Float[Array, ""]


def loss_weight(
    schedule: Schedule, t: Float[Array, "*level"], weighting: str = "min_snr", gamma: float = 5.0, data_std: float = 1.0
) -> Float[Array, "*level"]:
    """Weight of the squared error of x0_hat at diffusion time t.

        min_snr: min(SNR, gamma)      edm: 1/r^2 + 1/s^2, r = sigma/alpha      uniform: 1

    Args:
      schedule: the noise schedule.
      t: diffusion times.
      weighting: "min_snr", "edm" or "uniform".
      gamma: where "min_snr" is cut off.
      data_std: standard deviation s of the clean data, used by "edm".

    Returns:
      weights, of the shape of `t`.

    Raises:
      ValueError: unknown weighting.

    Source: Hang et al. (2023), eq. 8 (x0-prediction); Karras et al. (2022), table 1 (lambda(sigma)).
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"expected a weighting among {WEIGHTINGS}, got {weighting!r}")
    snr = jnp.exp(schedule.log_snr(t))
    if weighting == "min_snr":
        return jnp.minimum(snr, gamma)
    if weighting == "edm":
        return snr + 1.0 / data_std**2
    return jnp.ones_like(snr)


def denoising_loss(
    denoise: Denoise,
    schedule: Schedule,
    example: Float[Array, "*shape"],
    key: PRNGKeyArray,
    *,
    time: Float[Array, ""] | None = None,
    weighting: str = "min_snr",
    gamma: float = 5.0,
    data_std: float = 1.0,
) -> DenoisingTerms:
    """Weighted squared error of one denoised example.

        noisy = alpha x0 + sigma noise,    loss = weight(t) mean((denoise(noisy, t) - x0)^2)

    Args:
      denoise: maps (noisy, t) to x0_hat; over parameters and condition it is `preconditioning.bind`.
      schedule: the noise schedule.
      example: clean example x0, any shape, normalised units.
      key: random key of this example and step.
      time: diffusion time; None draws it uniformly. For other distributions, or a batch stratified over its times, map
        `stratified_uniform` through `time_from_uniform` and pass each example its own.
      weighting: "min_snr", "edm" or "uniform"; see `loss_weight`.
      gamma: where "min_snr" is cut off.
      data_std: standard deviation of the clean data, used by "edm".

    Returns:
      loss, x0_hat, noisy, time, weight; scalars and arrays of the example's type.

    Raises:
      ValueError: unknown weighting.

    Source: Ho et al. (2020), eq. 14, on x0 instead of the noise.
    """
    time_key, noise_key = jax.random.split(key)
    if time is None:
        time = time_from_uniform(schedule, jax.random.uniform(time_key, (), example.dtype))
    time = jnp.asarray(time, example.dtype)
    alpha, sigma = schedule.alpha_sigma(time)
    noisy = alpha * example + sigma * jax.random.normal(noise_key, example.shape, example.dtype)
    x0_hat = denoise(noisy, time)
    weight = loss_weight(schedule, time, weighting, gamma, data_std)
    return DenoisingTerms(weight * jnp.mean((x0_hat - example) ** 2), x0_hat, noisy, time, weight)


def snr_weight(schedule: Schedule, t: Float[Array, "*level"], gamma: float = 5.0) -> Float[Array, "*level"]:
    """Trust in x0_hat at diffusion time t: min(SNR, gamma) / gamma, between 0 (pure noise) and 1 (clean)."""
    return loss_weight(schedule, t, "min_snr", gamma) / gamma


def residual_weights(
    variance: Float[Array, "*shape"], floor: Float[Array, ""] | float, clip: tuple[float, float] = (0.05, 20.0)
) -> Float[Array, "*shape"]:
    """Weights of a squared residual by the inverse of its predicted variance.

        W = clip(w / mean(w)),   w = 1 / (variance + floor)

    No gradient flows through them; else a network could lower its loss by moving to where the variance is large. The
    mean is taken before clipping and over all the entries given: pass one example for weights that compare its sites
    only, a batch for weights that compare its examples too.

    Args:
      variance: predicted variance of the residual, non-negative, any shape, squared units of the residual.
      floor: variance that is always there (noise, discretisation), in the same units; positive.
      clip: smallest and largest weight.

    Returns:
      weights, of the shape of `variance`, without units.
    """
    weights = 1.0 / (variance + floor)
    return jax.lax.stop_gradient(jnp.clip(weights / jnp.mean(weights), *clip))
