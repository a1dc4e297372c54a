"""Forecasts from sensors by an ensemble: states and energies drawn together, their states moved by the readings.

    x_0 <- x_0 + C_xy (C_yy + a R)^-1 (y + sqrt(a) e - H x(t; x_0)),   a times in turn

with covariances over the members, each of which keeps the energy that was drawn for it. In a linear world with many
members they are samples of the posterior.
Source: Evensen (2009), Data Assimilation, chapter 9 (smoother); Emerick and Reynolds (2013), Computers & Geosciences 55
(the readings assimilated several times, each with a share of them).
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from phdme_jax.methods.base import Dynamics, Model, Times
from phdme_jax.methods.sensors.assimilation import AssimilationParams, Sizes, rollout_calls, sampled_rollout
from phdme_jax.methods.sensors.sensed import Sensed

SEED = 20261129  # of the members, the same for all readings


def analysis(
    states: Float[Array, "member entry"],
    predicted: Float[Array, "member reading"],
    readings: Float[Array, "member reading"],
    variance: Float[Array, "reading"],
) -> Float[Array, "member entry"]:
    """States of an ensemble after one analysis step.

    Args:
      states: the forecast, before it.
      predicted: readings of each member.
      readings: perturbed for each member.
      variance: of their noise; one where nothing is read, and there `predicted` equals `readings`.
    Returns:
      states.
    """
    away, apart = states - jnp.mean(states, axis=0), (predicted - jnp.mean(predicted, axis=0)) / jnp.sqrt(variance)
    count = len(states) - 1
    gram = jnp.eye(apart.shape[1], dtype=apart.dtype) + apart.T @ apart / count
    gain = jnp.linalg.solve(gram, apart.T @ away) / count
    return states + ((readings - predicted) / jnp.sqrt(variance)) @ gain


@lru_cache
def make_ensemble_smoother(dynamics: Dynamics, times: Times, directions: int, sizes: Sizes) -> Model:
    """The ensemble smoother, see `assimilation.MakeModel`; a sample is one of its members, drawn with replacement."""
    count = sizes.members

    def roll(params: AssimilationParams, states: Array, keys: Array, frames: int) -> Array:
        one = lambda state, key: sampled_rollout(dynamics, params, state, key, times[:frames])  # noqa: E731
        return jax.vmap(one)(states, keys)

    def prepare(params: AssimilationParams, sensed: Sensed) -> Float[Array, "member time *grid field"]:
        state_key, energy_key, noise_key = jax.random.split(jax.random.key(SEED), 3)
        z = jax.random.normal(state_key, (count, directions), params.noise.dtype)
        states, energies = jax.vmap(params.background.state)(z), jax.random.split(energy_key, count)
        mask = jnp.broadcast_to(sensed.mask.astype(z.dtype), sensed.values.shape)
        variance = sizes.assimilations * jnp.broadcast_to(params.noise**2, mask.shape)

        def assimilate(states: Array, key: Array) -> tuple[Array, None]:
            predicted = mask * roll(params, states, energies, sizes.window)
            noise = jnp.sqrt(variance) * jax.random.normal(key, predicted.shape, predicted.dtype)
            perturbed = mask * (sensed.values + noise)
            flat = tuple(values.reshape(count, -1) for values in (states, predicted, perturbed))
            return analysis(flat[0], flat[1], flat[2], variance.ravel()).reshape(states.shape), None

        states, _ = jax.lax.scan(assimilate, states, jax.random.split(noise_key, sizes.assimilations))
        return roll(params, states, energies, len(times))

    def draw(params: AssimilationParams, members: Array, latent: Array, key: Array) -> Array:
        del params, key
        return members[latent]

    calls = sizes.assimilations * rollout_calls(dynamics, sizes.window) + rollout_calls(dynamics, len(times))
    return Model(
        prepare=prepare,
        draw=draw,
        latent=lambda key: jax.random.randint(jax.random.split(key)[0], (), 0, count),
        times=times,
        num_calls=count * calls,
    )
