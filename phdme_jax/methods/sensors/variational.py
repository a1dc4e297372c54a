"""Forecasts from sensors by search: the state that a rollout of the learned energy has to begin at (4D-Var).

    x_0 = b + B^(1/2) z,   J(z) = |z - z_b|^2 / 2 + sum |H x(t; x_0) - y(t) - e|^2 / (2 s^2)

J is minimised by Gauss-Newton steps (incremental 4D-Var) in the directions that states differ in. A sample has
an energy of its own, drawn from the posterior, and perturbations z_b and e of background and readings, so that in a
linear world with a known energy the samples are those of the posterior. Every search begins at the background.
Source: Courtier, Thepaut, Hollingsworth (1994), Q. J. R. Meteorol. Soc. 120, 1367 (incremental); Bannister (2017), same
journal, 143, 607, section 5 (ensembles).
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
from jaxtyping import Array

from phdme_jax.methods.base import Dynamics, Model, Times
from phdme_jax.methods.sensors.assimilation import AssimilationParams, Sizes, rollout_calls, sampled_rollout
from phdme_jax.methods.sensors.gauss_newton import gauss_newton
from phdme_jax.methods.sensors.sensed import Sensed


@lru_cache
def make_variational(dynamics: Dynamics, times: Times, directions: int, sizes: Sizes) -> Model:
    """4D-Var with an ensemble, see `assimilation.MakeModel`; `num_calls` counts tangents as rollouts."""

    def draw(params: AssimilationParams, sensed: Sensed, latent: Array, key: Array) -> Array:
        # the first half of the key made the latent
        noise_key, energy_key = jax.random.split(jax.random.split(key)[1])
        background, readings = params.background, sensed.values
        noise = sensed.mask * params.noise * jax.random.normal(noise_key, readings.shape, readings.dtype)

        def window(z: Array) -> Array:
            return sampled_rollout(dynamics, params, background.state(z), energy_key, times[: sizes.window])

        perturbed, begin = sensed._replace(values=readings + noise), jnp.zeros_like(latent)
        mode, _, _ = gauss_newton(window, perturbed, params.noise, begin, sizes.iterations, centre=latent)
        return sampled_rollout(dynamics, params, background.state(mode), energy_key, times)

    def prepare(params: AssimilationParams, sensed: Sensed) -> Sensed:
        return jax.tree.map(lambda leaf: leaf.astype(params.noise.dtype), sensed)

    linearised = (sizes.iterations + 1) * (1 + directions) * rollout_calls(dynamics, sizes.window)
    return Model(
        prepare=prepare,
        draw=draw,
        latent=lambda key: jax.random.normal(jax.random.split(key)[0], (directions,), jnp.float64),
        times=times,
        num_calls=linearised + rollout_calls(dynamics, len(times)),
    )
