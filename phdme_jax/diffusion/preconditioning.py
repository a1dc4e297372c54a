"""From a raw network to a denoiser, and between the quantities a denoiser may predict.

A denoiser answers with the expected clean example, x0_hat(noisy, t) = E[x0 | noisy]. Everything else (noise, score,
velocity) is a linear function of it.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from phdme_jax.diffusion.networks import Condition, Network
from phdme_jax.diffusion.schedule import Schedule
from phdme_jax.numerics.bound import Bound

Denoise = Callable[[Array, Array], Array]
"""Maps (noisy, t) to x0_hat; the closure that losses, samplers and guidance work with."""

MODES = ("x0", "v", "eps", "edm")


def coefficients(
    schedule: Schedule, t: Float[Array, ""], mode: str = "edm", data_std: float = 1.0
) -> tuple[Array, Array, Array, Array]:
    """Coefficients of the preconditioned denoiser.

        x0_hat = c_skip y + c_out F(c_in y, c_noise),   y = noisy / alpha = x0 + r noise,   r = sigma / alpha

    mode      c_skip              c_out
    x0        0                   s
    eps       1                   -r
    v         s^2/(r^2+s^2)       -r s/sqrt(r^2+s^2)
    edm       s^2/(r^2+s^2)       r s/sqrt(r^2+s^2)

    with s the data's standard deviation; always c_in = 1/sqrt(r^2+s^2), so that the network's input has unit variance,
    and c_noise = log(r)/4. For a variance-preserving schedule and s = 1: c_in y = noisy, and mode "v" is the velocity
    alpha noise - sigma x0.

    Args:
      schedule: the noise schedule.
      t: diffusion time.
      mode: what the network predicts: "x0", "v", "eps" or "edm".
      data_std: standard deviation s of the clean data, in their own (normalised) units.

    Returns:
      c_skip, c_out, c_in, c_noise: scalars.

    Raises:
      ValueError: unknown mode, or a standard deviation that is not positive.

    Source: Karras et al. (2022), table 1; Salimans and Ho (2022) for "v".
    """
    _check(mode, data_std)
    log_snr = schedule.log_snr(t)
    ratio = jnp.exp(-0.5 * log_snr)
    total = jnp.sqrt(ratio**2 + data_std**2)
    c_in, c_noise = 1.0 / total, -log_snr / 8.0
    if mode == "x0":
        return jnp.zeros_like(ratio), jnp.full_like(ratio, data_std), c_in, c_noise
    if mode == "eps":
        return jnp.ones_like(ratio), -ratio, c_in, c_noise
    c_out = ratio * data_std / total
    return (data_std / total) ** 2, -c_out if mode == "v" else c_out, c_in, c_noise


def _check(mode: str, data_std: float) -> None:
    if mode not in MODES:
        raise ValueError(f"expected a mode among {MODES}, got {mode!r}")
    if data_std <= 0.0:
        raise ValueError(f"expected a positive data_std, got {data_std}")


def precondition(network: Network, schedule: Schedule, mode: str = "x0", data_std: float = 1.0) -> Network:
    """Denoiser around a raw network, behind the same seam.

    Where the condition all but fixes the example, "x0" learns much faster than "v", "eps" or "edm": they make the
    network hand the noise it was given through to its output, whereas "x0" lets it ignore the noise.

    Args:
      network: the raw network F; its `apply` receives c_in noisy / alpha and the noise level c_noise.
      schedule: the noise schedule.
      mode: what the network predicts: "x0", "v", "eps" or "edm"; see `coefficients`.
      data_std: standard deviation of the clean data, in their own (normalised) units.

    Returns:
      the denoiser: `init` and `encode` are the network's own, `apply(params, noisy, t, features)` receives a diffusion
      time and answers x0_hat, of the shape and type of `noisy`.

    Raises:
      ValueError: unknown mode, or a standard deviation that is not positive.

    Source: Karras et al. (2022), eq. 7, with noisy / alpha for their noisy example.
    """
    _check(mode, data_std)
    apply = Bound(_denoise, network.apply, schedule, mode, data_std)
    return Network(init=network.init, encode=network.encode, apply=apply)


def _denoise(
    apply: Any, schedule: Schedule, mode: str, data_std: float, params: Any, noisy: Array, t: Array, features: Any
) -> Array:
    t = jnp.asarray(t, noisy.dtype)
    alpha, _ = schedule.alpha_sigma(t)
    c_skip, c_out, c_in, c_noise = coefficients(schedule, t, mode, data_std)
    # Scalars first: at high noise alpha is tiny, and c_in / alpha is of order one.
    predicted = apply(params, (c_in / alpha) * noisy, c_noise, features)
    return (c_skip / alpha) * noisy + c_out * predicted


def bind(denoiser: Network, params: Any, condition: Condition) -> Denoise:
    """Closure `denoise(noisy, t) -> x0_hat` over parameters and condition, which is encoded once, here.

    Args:
      denoiser: what `precondition` returned.
      params: its parameters.
      condition: what is known of the trajectory.

    Returns:
      function of the noisy example and the diffusion time; build it inside the jitted function that uses it.
    """
    features = denoiser.encode(params, condition)

    def denoise(noisy: Array, t: Array) -> Array:
        return denoiser.apply(params, noisy, t, features)

    return denoise


def noise_from_x0(
    noisy: Float[Array, "*shape"], x0: Float[Array, "*shape"], alpha: Float[Array, ""], sigma: Float[Array, ""]
) -> Float[Array, "*shape"]:
    """Noise in a noisy example: (noisy - alpha x0) / sigma."""
    return (noisy - alpha * x0) / sigma


def x0_from_noise(
    noisy: Float[Array, "*shape"], noise: Float[Array, "*shape"], alpha: Float[Array, ""], sigma: Float[Array, ""]
) -> Float[Array, "*shape"]:
    """Clean example behind a noisy one: (noisy - sigma noise) / alpha."""
    return (noisy - sigma * noise) / alpha


def velocity_from_x0(
    noisy: Float[Array, "*shape"], x0: Float[Array, "*shape"], alpha: Float[Array, ""], sigma: Float[Array, ""]
) -> Float[Array, "*shape"]:
    """Velocity alpha noise - sigma x0. Source: Salimans and Ho (2022), section 4."""
    return alpha * noise_from_x0(noisy, x0, alpha, sigma) - sigma * x0


def x0_from_velocity(
    noisy: Float[Array, "*shape"], velocity: Float[Array, "*shape"], alpha: Float[Array, ""], sigma: Float[Array, ""]
) -> Float[Array, "*shape"]:
    """Clean example from the velocity: (alpha noisy - sigma velocity) / (alpha^2 + sigma^2), for either family."""
    return (alpha * noisy - sigma * velocity) / (alpha**2 + sigma**2)


def score_from_x0(
    noisy: Float[Array, "*shape"], x0: Float[Array, "*shape"], alpha: Float[Array, ""], sigma: Float[Array, ""]
) -> Float[Array, "*shape"]:
    """Score of the noisy density, (alpha x0 - noisy) / sigma^2 (Tweedie's formula, with x0 the posterior mean)."""
    return (alpha * x0 - noisy) / sigma**2


def x0_from_score(
    noisy: Float[Array, "*shape"], score: Float[Array, "*shape"], alpha: Float[Array, ""], sigma: Float[Array, ""]
) -> Float[Array, "*shape"]:
    """Posterior mean of the clean example from the score: (noisy + sigma^2 score) / alpha (Tweedie's formula)."""
    return (noisy + sigma**2 * score) / alpha
