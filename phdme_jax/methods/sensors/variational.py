"""Forecasts from sensors by search: the state that a rollout of the learned energy has to begin at (4D-Var).

    x_0 = b + B^(1/2) z,   J(z) = |z - z_b|^2 / 2 + sum |H x(t; x_0) - y(t) - e|^2 / (2 s^2)

J is minimised by steps of Gauss and Newton (incremental 4D-Var) in the directions that states differ in. A sample has
an energy of its own, drawn from the posterior, and perturbations z_b and e of background and readings, so that in a
linear world with a known energy the samples are those of the posterior. Every search begins at the background.
Source: Courtier, Thepaut, Hollingsworth (1994), Q. J. R. Meteorol. Soc. 120, 1367 (incremental); Bannister (2017), same
journal, 143, 607, section 5 (ensembles).
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from phdme_jax.methods.base import Dynamics, Fitted, Host, Model, Options, Start, Task, Times
from phdme_jax.methods.sensors.background import Assimilated, assimilation
from phdme_jax.methods.sensors.laplace import search
from phdme_jax.methods.sensors.sensed import Sensed


def fit_variational(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """The search; nothing is trained.

    Args:
      task: gives the states that the background is made of.
      options: the group `sensors`.
      host: not used.
      teacher: a learned energy.
      key: not used.
    Returns:
      the method; its condition is a `Sensed`.
    """
    del host, key
    _, chosen, model, params = assimilation(task, options, teacher)
    assert teacher is not None and model.dynamics is not None
    directions = params.background.root.shape[-1]
    found = make_model(model.dynamics, task.times, chosen.window, directions, chosen.iterations)
    return Fitted(found, params, teacher.seconds)


@lru_cache
def make_model(dynamics: Dynamics, times: Times, window: int, directions: int, iterations: int) -> Model:
    """The model of some dynamics; the same record for the same arguments."""
    substeps = dynamics.substeps

    def roll(params: Assimilated, state: Array, key: Array, frames: int) -> Array:
        start = Start(state, jnp.zeros((frames, 0)))
        return dynamics.sample(params.energy, start, key, times[:frames], substeps).trajectory

    def draw(params: Assimilated, sensed: Sensed, latent: Array, key: Array) -> Array:
        noise_key, energy_key = jax.random.split(jax.random.split(key)[1])  # the first half made the latent
        background, readings = params.background, sensed.values
        noise = sensed.mask * params.noise * jax.random.normal(noise_key, readings.shape, readings.dtype)

        def phi(z: Array) -> Array:
            return roll(params, background.state(z), energy_key, window)

        told, begin = sensed._replace(values=readings + noise), jnp.zeros_like(latent)
        mode, _, _ = search(phi, told, params.noise, begin, iterations, centre=latent)
        return roll(params, background.state(mode), energy_key, len(times))

    def prepare(params: Assimilated, sensed: Sensed) -> Sensed:
        return jax.tree.map(lambda leaf: leaf.astype(params.noise.dtype), sensed)

    return Model(
        prepare=prepare,
        draw=draw,
        latent=lambda key: jax.random.normal(jax.random.split(key)[0], (directions,), jnp.float64),
        times=times,
        num_calls=iterations + 1,
        num_backward=iterations + 1,
    )
