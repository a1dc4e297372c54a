"""Worlds with exact answers, against which diffusion, guidance and calibration are tested."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from phdme_jax.diffusion import exact
from phdme_jax.diffusion.schedule import Schedule


class GaussianWorld(NamedTuple):
    """Clean examples x0 ~ N(mean, covariance); the covariance is that of the flattened example."""

    mean: Array
    covariance: Array


def gaussian_world(shape: tuple[int, ...], seed: int = 0) -> GaussianWorld:
    """A world with correlated entries, standard deviations around one and a mean that is not zero."""
    generator = np.random.default_rng(seed)
    size = int(np.prod(shape))
    factor = generator.normal(size=(size, size)) / np.sqrt(size)
    return GaussianWorld(jnp.asarray(generator.normal(size=shape)), jnp.asarray(factor @ factor.T + 0.1 * np.eye(size)))


def draw(world: GaussianWorld, count: int, key: Array) -> Array:
    """Clean examples, shape (count, *shape)."""
    noise = jax.random.normal(key, (count, world.mean.size), world.mean.dtype)
    return world.mean + (noise @ jnp.linalg.cholesky(world.covariance).T).reshape(count, *world.mean.shape)


def as_mixture(world: GaussianWorld) -> exact.Mixture:
    """The world as the library has it, flattened."""
    return exact.make_mixture(jnp.ones(1), world.mean.reshape(1, -1), world.covariance[None])


def condition_on(world: GaussianWorld, operator: Array, values: Array, noise_variance: float) -> GaussianWorld:
    """The world after seeing values = operator x0 + noise; operator of shape (observation, size)."""
    after = exact.observed_mixture(as_mixture(world), operator, values, noise_variance)
    return GaussianWorld(after.means[0].reshape(world.mean.shape), after.covariances[0])


def posterior_covariance(world: GaussianWorld, schedule: Schedule, t: Array) -> Array:
    """Covariance of x0 given a noisy example at diffusion time t."""
    variances, axes = jnp.linalg.eigh(world.covariance)
    square = schedule.noise_ratio(t) ** 2
    return (axes * (variances * square / (variances + square))) @ axes.T


def exact_denoiser(world: GaussianWorld, schedule: Schedule) -> Callable[[Array, Array], Array]:
    """The posterior mean of x0 given the noisy example."""
    mixture = as_mixture(world)

    def denoise(noisy: Array, t: Array) -> Array:
        alpha, sigma = schedule.alpha_sigma(t)
        return exact.denoised(mixture, noisy.ravel() / alpha, sigma / alpha).reshape(world.mean.shape)

    return denoise


def exact_velocity(world: GaussianWorld) -> Callable[[Array, Array], Array]:
    """The velocity of straight lines from noise (t = 0) to the world's examples (t = 1)."""
    variances, axes = jnp.linalg.eigh(world.covariance)

    def velocity(point: Array, t: Array) -> Array:
        offset = axes.T @ (point - t * world.mean).ravel() / ((1 - t) ** 2 + t**2 * variances)
        return world.mean + (axes @ ((t * variances - (1 - t)) * offset)).reshape(world.mean.shape)

    return velocity


def affine_law(sampler: Callable[[Array], Array], shape: tuple[int, ...]) -> GaussianWorld:
    """Law of what a sampler makes of standard normal noise, where it is affine in the noise."""
    mean, slope = jax.jit(lambda noise: (sampler(noise), jax.jacfwd(sampler)(noise)))(jnp.zeros(shape))
    slope = slope.reshape(-1, int(np.prod(shape)))
    return GaussianWorld(mean, slope @ slope.T)


def log_density(world: GaussianWorld, schedule: Schedule, noisy: Array, t: Array) -> Array:
    """Log density of the noisy example, up to a constant; its gradient is the score."""
    alpha, sigma = schedule.alpha_sigma(t)
    offset = noisy.ravel() - alpha * world.mean.ravel()
    covariance = alpha**2 * world.covariance + sigma**2 * jnp.eye(world.mean.size)
    return -0.5 * offset @ jnp.linalg.solve(covariance, offset)


def probability_flow(world: GaussianWorld, schedule: Schedule, noise: Array) -> Array:
    """What a deterministic sampler with infinitely many steps makes of this noise, the last jump to clean included.

    With y = noisy/alpha and r = sigma/alpha, y - mean grows along each principal axis like sqrt(variance + r^2).
    """
    ends = jnp.asarray([1.0, 0.0], noise.dtype)
    (start, end), (alpha, sigma) = schedule.noise_ratio(ends), schedule.alpha_sigma(ends[0])
    variances, axes = jnp.linalg.eigh(world.covariance)
    offset = axes.T @ (sigma / alpha * noise - world.mean).ravel()
    offset = offset * jnp.sqrt((variances + end**2) / (variances + start**2)) * variances / (variances + end**2)
    return world.mean + (axes @ offset).reshape(world.mean.shape)
