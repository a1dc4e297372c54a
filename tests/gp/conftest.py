"""A short string, observed with exact rates, and prior hyperparameters under which basis and kernel agree."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.gp.basis import Basis, Box
from phdme_jax.gp.fit import Hyperparameters
from phdme_jax.systems import make_system
from phdme_jax.systems.energy.base import parameter_values, vector_field
from phdme_jax.systems.energy.vibrating_string import modes_state

BOTH = ("kelvin_voigt_damping", "viscous_damping")


class World(NamedTuple):
    system: object
    states: jax.Array
    rates: jax.Array
    sites: jax.Array
    parameters: dict
    basis: Basis
    box: Box
    hyperparameters: Hyperparameters


@pytest.fixture(scope="session")
def world():
    """States within 0.35 of a box of half width 1, where the sines resolve the kernel and feel no walls."""
    system = make_system("vibrating_string", num_points=17, order=4, dissipation=BOTH, damping=0.1)
    parameters = parameter_values(system, jnp.float64)
    z = jnp.asarray(system.structure.grid.coordinates())
    deflections, velocities = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 5)) * np.arange(1, 6) ** -2.0)

    @jax.jit
    def observe():
        states = jax.vmap(lambda a, b: modes_state(z, a, b))(deflections, 0.3 * velocities)
        states = 0.35 * states / jnp.max(jnp.abs(states))
        return states, jax.vmap(lambda x: vector_field(system.structure, system.density, x, parameters))(states)

    states, rates = observe()
    sites = jnp.asarray([(0, 0), (0, 5), (1, 8), (1, 16), (2, 3), (2, 11), (3, 1), (4, 14)])
    hyperparameters = Hyperparameters(
        lengthscale=jnp.log(jnp.array([0.19, 0.21])),
        amplitude=jnp.log(jnp.array([0.8, 1.3])),
        pair_amplitude=jnp.log(jnp.array([0.5])),
        stiffness=jnp.log(jnp.array([0.9, 0.4])),
        state_noise=jnp.log(jnp.array([1e-2, 1e-2])),
        rate_noise=jnp.log(jnp.array([0.1, 0.15])),
        dissipation=jnp.log(jnp.array([parameters[name] for name in BOTH])),
    )
    box = Box(jnp.zeros(2), jnp.ones(2))
    return World(system, states, rates, sites, parameters, Basis(2, 23, 23), box, hyperparameters)


@pytest.fixture
def points():
    """States well inside the box."""
    return jnp.asarray(np.random.default_rng(1).uniform(-0.35, 0.35, (6, 2)))
