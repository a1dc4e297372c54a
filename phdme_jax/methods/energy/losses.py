"""The conditional generator of PHDME: a conditional mean, and a diffusion model of what the mean does not know.

    x = scale_x [ mu(x_0) + s xi ],   xi ~ diffusion model given x_0 and mu

The mean mu is a propagator learned from the initial state, or the posterior-mean rollout of the learned energy; s is
the root mean square of what is left, per frame and field. The mean is the limit of the denoiser at pure noise,
E[x | x_0]; modelling it by a network of its own, and the remainder by diffusion, lets a narrow predictive distribution
be learned with networks of moderate accuracy.
Source: Tan et al. (2026), arXiv 2601.21234 (conditional diffusion on posterior rollouts with a weighted physics
residual); Mardani et al. (2025), Commun. Earth Environ. 6, 124 (mean plus residual diffusion).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from phdme_jax.diffusion.loss import denoising_loss, snr_weight
from phdme_jax.diffusion.networks import Condition, Network
from phdme_jax.diffusion.preconditioning import bind
from phdme_jax.diffusion.samplers import sample
from phdme_jax.diffusion.schedule import Schedule
from phdme_jax.methods.energy.physics import dynamics_residual


class Example(NamedTuple):
    """One training trajectory, normalised units.

    Attributes:
      state: trajectory, shape (time, *grid, field).
      weight: weight of the squared residual, mean about one, shape (time - 1, *grid, field).
      mean: the conditional mean mu, its first frame the initial state that the generator is told, shape
        (time, *grid, field).
    """

    state: Float[Array, "time *grid field"]
    weight: Float[Array, "interval *grid field"]
    mean: Float[Array, "time *grid field"]


TARGETS = ("zero", "trajectory")


class PhysicsTerms(NamedTuple):
    """How strongly the loss asks for the learned dynamics and the boundary conditions.

    Attributes:
      rate: normalised state -> normalised rate, or None to leave the residual out.
      boundary: normalised state -> what must vanish at the boundary.
      residual_weight: lambda_phys.
      boundary_weight: lambda_bc.
      target: what the residual r of a prediction should be: "zero", as published, or that of the training trajectory,
        "trajectory". The latter follows an energy drawn from the posterior, so that its residual under the mean energy
        is not zero; asking for zero pulls samples towards the mean energy and makes them too alike. Where r is linear
        the difference is the operator of the dynamics applied to the error, and where W is also the same for all
        trajectories, their conditional mean is least for this term as for the denoising loss.
    """

    rate: Callable[[Array], Array] | None
    boundary: Callable[[Array], Array]
    residual_weight: float
    boundary_weight: float
    target: str = "zero"


def physics_penalty(
    terms: PhysicsTerms,
    predicted: Array,
    trajectory: Array,
    weight: Array,
    times: tuple[float, ...],
    unit: Array | float,
) -> Float[Array, ""]:
    """lambda_phys mean(W (r - target)^2) / unit^2 + lambda_bc mean(boundary^2) / unit^2 of a normalised prediction."""
    total = jnp.zeros((), predicted.dtype)
    if terms.boundary_weight > 0:
        total = total + terms.boundary_weight * jnp.mean(jax.vmap(terms.boundary)(predicted) ** 2)
    if terms.rate is not None and terms.residual_weight > 0:
        residual = dynamics_residual(terms.rate, predicted, times)
        if terms.target == "trajectory":
            residual = residual - dynamics_residual(terms.rate, trajectory, times)
        total = total + terms.residual_weight * jnp.mean(weight * residual**2)
    return total / unit**2


Forecast = Callable[[Any, Array, int], Array]


def mean_loss(
    forecast: Forecast, terms: PhysicsTerms, times: tuple[float, ...], window: int, start_noise: float = 0.0
) -> Callable[[Any, Example, Array], tuple[Array, dict[str, Array]]]:
    """Loss of a network that forecasts by time steps, on a random window of a trajectory, from its first state.

        mean |x - mu|^2 + lambda_phys mean(W r(mu)^2) + lambda_bc boundary

    The residual integrates through eight neighbouring frames; shorter windows leave it out. Noise on the start
    teaches a step to damp what no trajectory has in it, so that repeating it stays stable.

    Args:
      forecast: (params, state, number of frames) -> trajectory from that state, normalised units.
      terms: physics.
      times: evenly spaced times of the frames.
      window: frames after the first one.
      start_noise: standard deviation of white noise on the start of a window, normalised units.
    Returns:
      example_loss(params, example, key) -> (loss, metrics).
    Source: Sanchez-Gonzalez et al. (2020), arXiv 2002.09405, section 4.3 (noise on the input).
    """
    span = tuple(float(t - times[0]) for t in times[: window + 1])
    terms = terms if len(span) >= 8 else terms._replace(rate=None)

    def loss(params: Any, example: Example, key: Array) -> tuple[Array, dict[str, Array]]:
        start_key, noise_key = jax.random.split(key) if start_noise else (key, key)
        start = jax.random.randint(start_key, (), 0, len(times) - window)
        truth = jax.lax.dynamic_slice_in_dim(example.state, start, window + 1)
        weight = jax.lax.dynamic_slice_in_dim(example.weight, start, window)
        begin = truth[0]
        if start_noise:
            begin = begin + start_noise * jax.random.normal(noise_key, begin.shape, begin.dtype)
        found = forecast(params, begin, window + 1)
        error = jnp.mean((found - truth) ** 2)
        penalty = physics_penalty(terms, found, truth, weight, span, 1.0)
        return error + penalty, {"error": error, "penalty": penalty}

    return loss


def residual_loss(
    denoiser: Network, schedule: Schedule, terms: PhysicsTerms, times: tuple[float, ...]
) -> Callable[[Any, tuple[Example, Array], Array], tuple[Array, dict[str, Array]]]:
    """Loss of the diffusion model of xi = (x - mu)/s.

        denoising + omega_t [ lambda_phys mean(W r(x0_hat)^2) + lambda_bc boundary ] / mean(s^2)

    Args:
      denoiser: preconditioned network.
      schedule: noise schedule.
      terms: physics.
      times: times of the frames.
    Returns:
      example_loss(params, (example, scale), key) -> (loss, metrics); the scale s is broadcast against the trajectory.
    """

    def loss(params: Any, item: tuple[Example, Array], key: Array) -> tuple[Array, dict[str, Array]]:
        example, scale = item
        condition = Condition(initial=example.mean[0], rollout=example.mean)
        target = (example.state - example.mean) / scale
        denoised = denoising_loss(bind(denoiser, params, condition), schedule, target, key)
        decoded = example.mean + scale * denoised.x0_hat
        unit = jnp.sqrt(jnp.mean(scale**2))
        penalty = physics_penalty(terms, decoded, example.state, example.weight, times, unit)
        penalty = snr_weight(schedule, denoised.time) * penalty
        return denoised.loss + penalty, {"denoising": denoised.loss, "penalty": penalty}

    return loss


class Around(NamedTuple):
    """What a sample is drawn around, normalised units.

    Attributes:
      mean: conditional mean mu, the initial state that is told in its first frame, shape (time, *grid, field).
      scale: s, broadcast against it.
    """

    mean: Float[Array, "time *grid field"]
    scale: Float[Array, "..."]


def draw_deviation(
    denoiser: Network,
    params: Any,
    mean: Float[Array, "time *grid field"],
    known: Float[Array, "time *grid field"],
    noise: Float[Array, "time *grid field"],
    key: PRNGKeyArray,
    sampler: tuple[Schedule, int],
) -> Float[Array, "time *grid field"]:
    """xi, the deviation from a conditional mean in units of its scale; arguments as of `generate`."""
    schedule, num_steps = sampler
    return sample(
        bind(denoiser, params, Condition(initial=mean[0], rollout=mean)),
        schedule,
        noise,
        key,
        sampler="dpm",
        spacing="log_snr",
        num_steps=num_steps,
        clamp=lambda x: x * (1 - known),
    )


def generate(
    denoiser: Network,
    params: Any,
    around: Around,
    known: Float[Array, "time *grid field"],
    noise: Float[Array, "time *grid field"],
    key: PRNGKeyArray,
    sampler: tuple[Schedule, int],
) -> Float[Array, "time *grid field"]:
    """Draw one trajectory, normalised units.

    Args:
      denoiser: preconditioned network.
      params: its parameters.
      around: conditional mean and scale.
      known: one where the trajectory equals the mean (initial state, fixed ends), zero elsewhere.
      noise: what the sample is made of.
      key: of the sampler's own draws.
      sampler: noise schedule, and noise levels of the second-order sampler.
    Returns:
      trajectory.
    """
    xi = draw_deviation(denoiser, params, around.mean, known, noise, key, sampler)
    return around.mean + around.scale * xi
