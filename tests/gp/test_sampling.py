"""Samples have the posterior's moments, and every one of them is a port-Hamiltonian system."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.gp.basis import Basis, Box, Energy, density, efforts, feature_efforts
from phdme_jax.gp.fit import EnergyPosterior, initial_hyperparameters
from phdme_jax.gp.sampling import inside_box, sample_energy, sample_rollout, sample_system
from phdme_jax.numerics.reference import solve_reference
from phdme_jax.systems.energy.base import parameter_values, zero_parameters

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


def test_dissipation_is_drawn_with_the_energy_that_goes_with_it(posterior):
    """Moments of log c and of a weight: variances, and the covariance that the shared noise gives."""
    generator, count = np.random.default_rng(3), 40_000
    tilt = 0.02 * generator.standard_normal((BASIS.size, 2))
    names = sorted(posterior.parameters)
    spread = {names[0]: jnp.array([0.3, 0.1]), names[1]: jnp.array([0.0, 0.2])}
    uncertain = posterior._replace(factor=jnp.concatenate([posterior.factor, tilt], axis=1), spread=spread)
    energies, drawn = jax.vmap(lambda key: sample_system(uncertain, key))(jax.random.split(jax.random.key(5), count))
    logarithms = np.stack([np.log(drawn[name] / posterior.parameters[name]) for name in names], axis=1)
    rows = np.stack([spread[name] for name in names])
    weights = np.asarray(energies.weights - posterior.mean.weights)
    np.testing.assert_allclose(logarithms.mean(0), 0.0, atol=4.5 * 0.32 / count**0.5)
    np.testing.assert_allclose(np.cov(logarithms.T), rows @ rows.T, atol=4.5 * 0.1 * (2 / count) ** 0.5)
    size = np.sqrt(np.diag(uncertain.factor @ uncertain.factor.T))[:, None] * np.sqrt(np.diag(rows @ rows.T))
    error = 5 * np.sqrt((size**2 + (tilt @ rows.T) ** 2) / count)
    assert np.all(np.abs(weights.T @ logarithms / count - tilt @ rows.T) < error)
    # known parameters are left alone
    assert sample_system(posterior, jax.random.key(0))[1] == posterior.parameters


@pytest.fixture(scope="module")
def rollouts(world, posterior):
    """Samples without and with damping, then the mean, too large a start, and an unstable string."""
    structure, states = world.system.structure, world.states
    weights = jnp.asarray(structure.weights())
    none = posterior._replace(parameters=zero_parameters(structure, jnp.float64))
    sure = posterior._replace(factor=jnp.zeros_like(posterior.factor))
    unstable = sure._replace(mean=sure.mean._replace(stiffness=jnp.array([1.0, -3.0])))
    cases = [(chosen, state) for chosen in (none, posterior) for state in states[:3]]
    cases += [(sure, states[0]), (sure, 60 * states[0]), (unstable, states[0])]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *cases)
    keys = jax.random.split(jax.random.key(1), 3)[jnp.array([0, 1, 2, 0, 1, 2, 0, 0, 0])]

    @jax.jit
    def run(case, key):
        chosen, state = case
        return sample_rollout(BASIS, structure.flow, weights, chosen, state, TIMES, key, 8)

    return jax.vmap(run)(batch, keys)


def test_every_sample_keeps_or_loses_energy(posterior, rollouts):
    assert np.all(rollouts.ok[:6])
    kept, damped = np.asarray(rollouts.energy[:3]), np.asarray(rollouts.energy[3:6])
    np.testing.assert_allclose(kept, np.broadcast_to(kept[:, :1], kept.shape), rtol=1e-12)
    assert np.all(np.diff(damped, axis=1) < 0)
    # they are different systems, and they move
    assert np.ptp(rollouts.trajectory[:3], axis=1).max() > 0.1
    first, second = (sample_energy(posterior, jax.random.key(seed)).weights for seed in range(2))
    assert float(jnp.max(jnp.abs(first - second))) > 1e-3


def test_rollout_follows_the_vector_field_of_its_energy(world, posterior, rollouts):
    structure, energy = world.system.structure, posterior.mean

    @jax.jit
    def reference(state):
        def field(x, parameters):
            return structure.flow(efforts(BASIS, energy, x), parameters)

        exact, _ = solve_reference(field, state, TIMES, world.parameters, rtol=1e-9, atol=1e-10)
        return exact, jnp.asarray(structure.weights()) @ density(BASIS, energy, state)

    assert rollouts.ok[6]
    exact, level = reference(world.states[0])
    np.testing.assert_allclose(rollouts.trajectory[6], exact, atol=1e-8)
    np.testing.assert_allclose(rollouts.energy[6, 0], level, rtol=1e-12)


def test_a_rollout_in_no_step_is_refused(world, posterior):
    structure, weights = world.system.structure, jnp.asarray(world.system.structure.weights())
    with pytest.raises(ValueError, match="substeps >= 1, got 0"):
        sample_rollout(BASIS, structure.flow, weights, posterior, world.states[0], TIMES, jax.random.key(0), 0)


def test_rollouts_that_leave_the_box_or_blow_up_are_flagged(rollouts):
    assert not np.any(rollouts.ok[7:])
    assert inside_box(BOX, jnp.array([[1.99, -2.99]])) and not inside_box(BOX, jnp.array([[1.5, -3.01]]))


def test_dtype_follows(world, posterior):
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.float64 else leaf, posterior)
    values = parameter_values(world.system, jnp.float32)
    state, times = world.states[0].astype(jnp.float32), TIMES.astype(jnp.float32)
    weights = jnp.asarray(world.system.structure.weights(), jnp.float32)
    run = partial(sample_rollout, BASIS, world.system.structure.flow)
    result = jax.eval_shape(run, weights, single._replace(parameters=values), state, times, jax.random.key(0))
    assert result.trajectory.dtype == result.energy.dtype == jnp.float32


@pytest.mark.slow
def test_states_and_times_of_single_precision_are_rolled_out_in_that_of_the_posterior(world, posterior):
    structure, weights = world.system.structure, jnp.asarray(world.system.structure.weights())

    def run(state, times):
        arguments = BASIS, structure.flow, weights, posterior, state, times
        return jax.jit(lambda key: sample_rollout(*arguments, key, 2))(jax.random.key(0))

    narrow = run(world.states[0].astype(jnp.float32), TIMES[:3].astype(jnp.float32))
    assert narrow.ok and narrow.trajectory.dtype == narrow.energy.dtype == jnp.float64
    np.testing.assert_allclose(narrow.trajectory, run(world.states[0], TIMES[:3]).trajectory, atol=1e-6)
