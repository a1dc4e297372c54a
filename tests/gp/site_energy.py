"""Energy densities in closed form: a quadratic, random waves, and kernel functions at given states.

Posterior means and pathwise samples of the exact Gaussian process are energies of this kind.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phdme_jax.gp.basis import Kernel
from phdme_jax.gp.kernels import additive_squared_exponential


class SiteEnergy(NamedTuple):
    """An energy density in closed form: a quadratic, random waves and kernel functions at stencil states.

        h(x) = 1/2 sum_a kappa_a (x_a - c_a)^2 + sum_m w_m cos(omega_m . x + tau_m) + sum_j d/dx'_j k(x, x_j) . u_j

    up to a constant that makes h(c) zero.

    Attributes:
      centre: state at rest c, shape (field,).
      stiffness: kappa, shape (field,).
      kernel: hyperparameters of k.
      sources: stencil states x_j, shape (source, field).
      strengths: u_j, shape (source, field).
      frequencies: omega_m, shape (wave, field); no waves for a posterior mean.
      phases: tau_m, shape (wave,).
      weights: w_m, shape (wave,).
    """

    centre: Float[Array, "field"]
    stiffness: Float[Array, "field"]
    kernel: Kernel
    sources: Float[Array, "source field"]
    strengths: Float[Array, "source field"]
    frequencies: Float[Array, "wave field"]
    phases: Float[Array, "wave"]
    weights: Float[Array, "wave"]


def site_density(energy: SiteEnergy, state: Float[Array, "*points field"]) -> Float[Array, "*points"]:
    """Energy density h at every point, zero at rest.

    Args:
      energy: a posterior mean or a sample.
      state: states, any number of leading axes.
    Returns:
      h, shape (*points).
    """

    def functions(x: Array) -> Array:
        right = jax.vmap(lambda source: additive_squared_exponential(x, source, energy.kernel).right)(energy.sources)
        waves = jnp.cos(energy.frequencies @ x + energy.phases) @ energy.weights
        return jnp.sum(right * energy.strengths) + waves

    offset = state - energy.centre
    flat = jnp.reshape(state, (-1, state.shape[-1]))
    values = jax.vmap(functions)(flat) - functions(energy.centre)
    return 0.5 * jnp.sum(energy.stiffness * offset**2, axis=-1) + values.reshape(state.shape[:-1])


def site_efforts(energy: SiteEnergy, state: Float[Array, "*points field"]) -> Float[Array, "*points field"]:
    """Efforts e = grad h at every point, in closed form.

    Args:
      energy: a posterior mean or a sample.
      state: states, any number of leading axes.
    Returns:
      gradient of h with respect to the state, same shape as the state.
    """

    def functions(x: Array) -> Array:
        cross = jax.vmap(lambda source: additive_squared_exponential(x, source, energy.kernel).cross)(energy.sources)
        waves = -(jnp.sin(energy.frequencies @ x + energy.phases) * energy.weights) @ energy.frequencies
        return jnp.einsum("jab,jb->a", cross, energy.strengths) + waves

    values = jax.vmap(functions)(jnp.reshape(state, (-1, state.shape[-1])))
    return energy.stiffness * (state - energy.centre) + values.reshape(state.shape)


def draw_prior(
    centre: Float[Array, "field"], stiffness: Float[Array, "field"], kernel: Kernel, num_waves: int, key: Array
) -> SiteEnergy:
    """Draw one energy from the prior, as a sum of random waves.

        h = h_0 + sum_m sqrt(2 sigma^2 / M) w_m cos(omega_m . x + tau_m),   omega ~ N(0, diag(l)^{-2}), w ~ N(0, 1)

    with tau uniform: the covariance is the kernel's for any number of waves M; the draw becomes Gaussian as M grows.

    Args:
      centre: state at rest.
      stiffness: kappa of the quadratic prior mean.
      kernel: hyperparameters.
      num_waves: waves M for each part (field or pair) of the additive kernel.
      key: random key.
    Returns:
      an energy without kernel functions.
    Source: Rahimi and Recht (2007), NIPS 20, section 3.
    """
    num_fields = centre.shape[0]
    left, right = np.triu_indices(num_fields, 1)
    members = np.eye(num_fields)
    if kernel.pair_amplitude.shape[0]:
        members = np.concatenate([members, members[left] + members[right]])
    deviation = jnp.repeat(jnp.concatenate([kernel.amplitude, kernel.pair_amplitude]), num_waves)
    mask = jnp.asarray(np.repeat(members, num_waves, axis=0), centre.dtype)
    frequency_key, phase_key, weight_key = jax.random.split(key, 3)
    frequencies = mask * jax.random.normal(frequency_key, mask.shape, mask.dtype) / kernel.lengthscale
    phases = jax.random.uniform(phase_key, deviation.shape, mask.dtype, 0.0, 2 * np.pi)
    weights = deviation * (2 / num_waves) ** 0.5 * jax.random.normal(weight_key, deviation.shape, mask.dtype)
    none = jnp.zeros((0, num_fields), centre.dtype)
    return SiteEnergy(centre, stiffness, kernel, none, none, frequencies, phases, weights)
