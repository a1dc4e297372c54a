"""Samples have the posterior's moments, and every one of them is a port-Hamiltonian system."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.gp.basis import Basis, Box, Energy, density, efforts, feature_efforts
from phdme_jax.gp.fit import EnergyPosterior, initial_hyperparameters
from phdme_jax.gp.sampling import inside_box, roll_out, sample_energy, sample_rollout
from phdme_jax.numerics.reference import solve_reference
from phdme_jax.systems.base import parameter_values, zero_parameters

BASIS = Basis(2, 5, 2)
BOX = Box(jnp.zeros(2), jnp.array([2.0, 3.0]))
TIMES = jnp.linspace(0.0, 4.0, 9)


@pytest.fixture(scope="module")
def posterior(world):
    """Made by hand: a stiff quadratic and correlated weights that bend it, convex for every draw."""
    generator = np.random.default_rng(0)
    factor = jnp.asarray(0.03 * generator.standard_normal((BASIS.size, BASIS.size)) / np.arange(1, BASIS.size + 1))
    mean = Energy(BOX, jnp.array([1.0, 0.7]), jnp.asarray(0.05 * generator.standard_normal(BASIS.size)))
    hyperparameters = initial_hyperparameters(BASIS, BOX, 2)
    zero = jnp.zeros(())
    return EnergyPosterior(mean, factor, world.parameters, hyperparameters, zero, jnp.asarray(True))


def test_samples_have_the_mean_and_covariance_of_the_posterior(posterior, points):
    count = 20_000
    draw = jax.jit(jax.vmap(lambda key: sample_energy(posterior, key).weights))
    slopes = feature_efforts(BASIS, BOX, points[:2])[..., : BASIS.size].reshape(4, -1)
    centred = np.asarray((draw(jax.random.split(jax.random.key(0), count)) - posterior.mean.weights) @ slopes.T)
    covariance = np.asarray(slopes @ posterior.factor @ posterior.factor.T @ slopes.T)
    variance = np.diagonal(covariance)
    assert np.all(np.abs(centred.mean(axis=0)) < 4.5 * np.sqrt(variance / count))
    error = np.sqrt((np.outer(variance, variance) + covariance**2) / count)
    assert np.all(np.abs(centred.T @ centred / count - covariance) < 4.5 * error)
    assert np.all(error < 0.02 * np.sqrt(np.outer(variance, variance)))


def test_every_sample_keeps_or_loses_energy(world, posterior):
    structure = world.system.structure
    weights = jnp.asarray(structure.weights())
    keys = jax.random.split(jax.random.key(1), 4)

    @jax.jit
    def run(parameters):
        def one(key, state):
            chosen = posterior._replace(parameters=parameters)
            return sample_rollout(BASIS, structure.flow, weights, chosen, state, TIMES, key, 6)

        return jax.vmap(one)(keys, world.states[:4])

    kept, damped = run(zero_parameters(structure, jnp.float64)), run(world.parameters)
    assert np.all(kept.ok) and np.all(damped.ok)
    np.testing.assert_allclose(kept.energy, np.broadcast_to(kept.energy[:, :1], kept.energy.shape), rtol=1e-12)
    assert np.all(np.diff(damped.energy, axis=1) < 0)
    # they are different systems, and they move
    assert float(jnp.max(jnp.abs(jnp.ptp(kept.trajectory, axis=1)))) > 0.1
    first, second = (sample_energy(posterior, key).weights for key in keys[:2])
    assert float(jnp.max(jnp.abs(first - second))) > 1e-3


def test_rollout_follows_the_vector_field_of_its_energy(world, posterior):
    structure, energy = world.system.structure, posterior.mean
    weights = jnp.asarray(structure.weights())

    @jax.jit
    def run(state):
        found = roll_out(BASIS, structure.flow, weights, energy, world.parameters, state, TIMES, 16)
        field = partial(lambda x, p: structure.flow(efforts(BASIS, energy, x), p))
        return found, solve_reference(field, state, TIMES, world.parameters, rtol=1e-10, atol=1e-11)[0]

    found, exact = run(world.states[0])
    assert found.ok
    np.testing.assert_allclose(found.trajectory, exact, atol=2e-6)
    level = jnp.sum(weights * density(BASIS, energy, found.trajectory[3]))
    np.testing.assert_allclose(found.energy[3], level, rtol=1e-12)


def test_rollouts_that_leave_the_box_or_blow_up_are_flagged(world, posterior):
    structure = world.system.structure
    weights = jnp.asarray(structure.weights())

    @jax.jit
    def run(state, stiffness):
        energy = posterior.mean._replace(stiffness=stiffness)
        return roll_out(BASIS, structure.flow, weights, energy, world.parameters, state, TIMES, 6).ok

    state, stiffness = world.states[0], posterior.mean.stiffness
    assert run(state, stiffness)
    assert not run(12 * state, stiffness)
    # a negative stiffness makes the string unstable
    assert not run(state, jnp.array([1.0, -3.0]))
    assert inside_box(BOX, jnp.array([[1.5, -2.3]])) and not inside_box(BOX, jnp.array([[1.5, -2.5]]))


def test_dtype_follows(world, posterior):
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.float64 else leaf, posterior)
    values = parameter_values(world.system, jnp.float32)
    state, times = world.states[0].astype(jnp.float32), TIMES.astype(jnp.float32)
    weights = jnp.asarray(world.system.structure.weights(), jnp.float32)
    run = partial(sample_rollout, BASIS, world.system.structure.flow)
    result = jax.eval_shape(run, weights, single._replace(parameters=values), state, times, jax.random.key(0))
    assert result.trajectory.dtype == result.energy.dtype == jnp.float32
