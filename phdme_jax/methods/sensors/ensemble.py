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
from jaxtyping import Array, Float, Key

from phdme_jax.methods.base import Dynamics, Fitted, Host, Model, Options, Start, Task, Times
from phdme_jax.methods.sensors.background import Assimilated, assimilation
from phdme_jax.methods.sensors.sensed import Sensed

SEED = 20261129  # of the members, the same for all readings


def fit_ensemble(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """The ensemble smoother; nothing is trained.

    Args:
      task: gives the states that the background is made of.
      options: the group `sensors`.
      host: not used.
      teacher: a learned energy.
      key: not used.
    Returns:
      the method; its condition is a `Sensed`, and a sample is one of its members.
    """
    del host, key
    _, chosen, model, params = assimilation(task, options, teacher)
    assert teacher is not None and model.dynamics is not None
    sizes = (chosen.window, chosen.members, chosen.assimilations)
    return Fitted(make_model(model.dynamics, task.times, *sizes), params, teacher.seconds)


def moved(
    states: Float[Array, "member entry"],
    predicted: Float[Array, "member reading"],
    told: Float[Array, "member reading"],
    variance: Float[Array, "reading"],
) -> Float[Array, "member entry"]:
    """States of an ensemble after one assimilation.

    Args:
      states: before it.
      predicted: readings of each member.
      told: the readings, perturbed for each member.
      variance: of their noise; one where nothing is read, and there `predicted` equals `told`.
    Returns:
      states.
    """
    away, apart = states - jnp.mean(states, axis=0), (predicted - jnp.mean(predicted, axis=0)) / jnp.sqrt(variance)
    count = len(states) - 1
    gram = jnp.eye(apart.shape[1], dtype=apart.dtype) + apart.T @ apart / count
    gain = jnp.linalg.solve(gram, apart.T @ away) / count
    return states + ((told - predicted) / jnp.sqrt(variance)) @ gain


@lru_cache
def make_model(dynamics: Dynamics, times: Times, window: int, members: int, assimilations: int) -> Model:
    """The model of some dynamics; the same record for the same arguments."""
    substeps = dynamics.substeps

    def roll(params: Assimilated, states: Array, keys: Array, frames: int) -> Array:
        def one(state: Array, key: Array) -> Array:
            start = Start(state, jnp.zeros((frames, 0)))
            return dynamics.sample(params.energy, start, key, times[:frames], substeps).trajectory

        return jax.vmap(one)(states, keys)

    def prepare(params: Assimilated, sensed: Sensed) -> Float[Array, "member time *grid field"]:
        state_key, energy_key, noise_key = jax.random.split(jax.random.key(SEED), 3)
        z = jax.random.normal(state_key, (members, params.background.root.shape[-1]), params.noise.dtype)
        states, energies = jax.vmap(params.background.state)(z), jax.random.split(energy_key, members)
        mask = jnp.broadcast_to(sensed.mask.astype(z.dtype), sensed.values.shape)
        variance = assimilations * jnp.broadcast_to(params.noise**2, mask.shape)

        def assimilate(states: Array, key: Array) -> tuple[Array, None]:
            predicted = mask * roll(params, states, energies, window)
            noise = jnp.sqrt(variance) * jax.random.normal(key, predicted.shape, predicted.dtype)
            told = mask * (sensed.values + noise)
            flat, seen, heard = (values.reshape(members, -1) for values in (states, predicted, told))
            return moved(flat, seen, heard, variance.ravel()).reshape(states.shape), None

        states, _ = jax.lax.scan(assimilate, states, jax.random.split(noise_key, assimilations))
        return roll(params, states, energies, len(times))

    def draw(params: Assimilated, found: Array, latent: Array, key: Array) -> Array:
        del params, key
        return found[latent]

    return Model(
        prepare=prepare,
        draw=draw,
        latent=lambda key: jax.random.randint(jax.random.split(key)[0], (), 0, members),
        times=times,
        num_calls=members * (assimilations + 1),
    )
