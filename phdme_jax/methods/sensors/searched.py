"""Forecasts from sensors by a forecaster that is told states: a search for the state, and nothing to train.

    x_0 = b + B z,   z ~ N(m, P) by Laplace's approximation given the readings,   x ~ forecaster given x_0

The search goes through the mean of the forecaster: its learned step, or where it has none the rollout of the mean
energy. Where that is linear and states are Gaussian, samples are those of the posterior.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from phdme_jax.diffusion.propagator import Propagator, propagate
from phdme_jax.methods.base import Dynamics, Model, Start, Times
from phdme_jax.methods.sensors.background import Background
from phdme_jax.methods.sensors.gauss_newton import Laplace, laplace
from phdme_jax.methods.sensors.sensed import Sensed
from phdme_jax.systems.energy.base import Structure


@dataclass(frozen=True)
class Search:
    """All of it but the arrays.

    Attributes:
      structure: of the system.
      forecaster: told the state; it has a mean.
      propagator: learned step of the forecaster, in its normalised units; None for the rollout of `dynamics`.
      dynamics: whose mean energy is rolled out where there is no learned step.
      steps: of Gauss-Newton, at the most.
    """

    structure: Structure
    forecaster: Model
    propagator: Propagator | None
    dynamics: Dynamics | None
    steps: int = 8


class SearchParams(NamedTuple):
    """Arrays of a search, in the units of the forecaster.

    Attributes:
      background: of states.
      noise: standard deviation of the readings, of each field at each place.
      forecaster: parameters of it.
      energy: parameters of the dynamics; None with a learned step.
    """

    background: Background
    noise: Float[Array, "*grid field"]
    forecaster: PyTree
    energy: PyTree = None


def mean_window(
    search: Search, params: SearchParams, state: Float[Array, "*grid field"], times: Times
) -> Float[Array, "window *grid field"]:
    """The first frames of the forecaster's mean from a state."""
    if search.propagator is None:
        assert search.dynamics is not None
        start = Start(state, jnp.zeros((len(times), 0)))
        return search.dynamics.rollout(params.energy, start, times, search.dynamics.substeps).trajectory
    units = params.forecaster.normaliser
    normalised = units.normalised(state).astype(units.scale.dtype)
    path = propagate(search.propagator, params.forecaster.propagator, normalised, len(times))
    return units.physical(path.astype(state.dtype))


@lru_cache
def make_searched(search: Search) -> Model:
    """The model of a search; the same record for the same search. Its condition is a `Sensed`, read in any frames.

    What `prepare` finds is a `Laplace`, whose `misfit` says how far the readings are from the best state.
    """
    structure, forecaster = search.structure, search.forecaster
    latent_of, mean_of = forecaster.latent, forecaster.mean
    assert latent_of is not None and mean_of is not None

    def prepare(params: SearchParams, sensed: Sensed) -> Laplace:
        background, sensed = params.background, jax.tree.map(lambda leaf: leaf.astype(params.noise.dtype), sensed)
        times = forecaster.times[: sensed.values.shape[0]]

        def window(z: Array) -> Array:
            return mean_window(search, params, structure.constrain(background.state(z)), times)

        begin = jnp.zeros(background.root.shape[-1], params.noise.dtype)
        # a state far from the few that were observed is a possible one: no network is asked about it
        return laplace(window, sensed, params.noise, begin, search.steps, furthest=float("inf"))

    def told(params: SearchParams, z: Array) -> Any:
        state = structure.constrain(params.background.state(z))
        return forecaster.prepare(params.forecaster, Start(state, jnp.zeros((len(forecaster.times), 0))))

    def latent(key: Array) -> tuple[Array, Array]:
        # the first half of a key makes the latent, the second is for the draw
        state_key, rest = jax.random.split(jax.random.split(key)[0])
        return state_key, latent_of(rest)

    def draw(params: SearchParams, found: Laplace, latent: tuple[Array, Any], key: Array) -> Array:
        xi = jax.random.normal(latent[0], found.mode.shape, found.mode.dtype)
        return forecaster.draw(params.forecaster, told(params, found.coordinates(xi)), latent[1], key)

    return Model(
        prepare=prepare,
        draw=draw,
        latent=latent,
        mean=lambda params, found: mean_of(params.forecaster, told(params, found.mode)),
        times=forecaster.times,
        num_calls=forecaster.num_calls,
    )
