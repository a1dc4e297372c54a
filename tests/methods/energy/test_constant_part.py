"""A constant that the dynamics keep is no part of any scale: of units, initial states, weights, an energy's box."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.methods.base import Examples, Start, fit_normaliser
from phdme_jax.methods.energy.conditional import Fields
from phdme_jax.methods.energy.dynamics import learned_dynamics
from phdme_jax.methods.energy.initial_states import FrameMixture, draw_initial_states
from phdme_jax.methods.energy.posterior import PriorOptions, fit_energy, state_at_rest
from phdme_jax.methods.energy.rollouts import trajectory_weights
from phdme_jax.systems.energy.vibrating_string import string_structure
from tests.forecasting.string_files import waves

pytestmark = pytest.mark.slow

STRUCTURE = string_structure(12, 10.0, 4)
STATES = waves(3, 0)["state"] / waves(3, 0)["state"].std(axis=(0, 1, 2))
TIMES = tuple(np.linspace(0.0, 10.0, 14).tolist())
STRAIN = np.array([0.0, 50.0])
PRIOR = PriorOptions(main=6, margin=1.5, time_tests=10, space_tests=6, substeps=2, iterations=20)


def learned(states):
    examples = Examples(jnp.asarray(states), Start(states[:, 0], np.zeros((3, 14, 0))), TIMES)
    return fit_energy(STRUCTURE, examples, PRIOR)[:2]


@pytest.fixture(scope="module")
def energies():
    """Learned with and without the constant."""
    return learned(STATES), learned(STATES + STRAIN)


def test_units_are_those_of_the_deviation_about_the_constant():
    plain, stretched = (fit_normaliser(states, STRUCTURE) for states in (STATES, STATES + STRAIN))
    np.testing.assert_array_equal(plain.scale, np.sqrt(np.mean(STATES**2, axis=(0, 1, 2))))
    np.testing.assert_array_equal(plain.centre, 0.0)
    np.testing.assert_allclose(stretched.scale, plain.scale, rtol=1e-12)
    np.testing.assert_allclose(stretched.centre, STRAIN, rtol=1e-12)
    np.testing.assert_allclose(stretched.normalised(STATES + STRAIN), plain.normalised(STATES), atol=1e-11)
    np.testing.assert_allclose(stretched.physical(plain.normalised(STATES)), STATES + STRAIN, rtol=1e-12)
    # trajectories stretched each by its own: deviations are what they are
    varied = fit_normaliser(STATES + np.array([0.8, 1.0, 1.2])[:, None, None, None] * STRAIN, STRUCTURE)
    np.testing.assert_allclose(varied.scale, plain.scale, rtol=1e-12)
    np.testing.assert_allclose(varied.centre, STRAIN, rtol=1e-12)


def test_initial_states_are_scaled_about_the_constant():
    plain, stretched = (
        draw_initial_states(STRUCTURE, states, 200, FrameMixture(modes=6, frame_share=1.0), jax.random.key(0))
        for states in (STATES, STATES + STRAIN)
    )
    np.testing.assert_allclose(stretched - STRAIN, plain, atol=1e-11)


def test_an_energy_is_learned_about_the_constant_with_the_same_evidence(energies):
    (basis, plain), (_, stretched) = energies
    np.testing.assert_array_equal(plain.mean.box.centre, 0.0)
    np.testing.assert_allclose(stretched.mean.box.centre, STRAIN, rtol=1e-12)
    np.testing.assert_allclose(stretched.mean.box.half_width, plain.mean.box.half_width, rtol=1e-12)
    assert float(stretched.objective) == pytest.approx(float(plain.objective), abs=1e-3)
    dynamics = learned_dynamics(STRUCTURE, basis, 2)
    state = jnp.asarray(STATES[0, 3])
    rates = dynamics.rate(plain, state)
    np.testing.assert_allclose(dynamics.rate(stretched, state + STRAIN), rates, atol=1e-3 * np.abs(rates).max())
    # the rest that options name is moved, but not where the energy is even about it
    moved = state_at_rest(STRUCTURE, STATES + STRAIN, PriorOptions(6, 1.5, 10, 2, centre=(0.0, 49.5)))
    np.testing.assert_allclose(moved, [0.0, 49.5], rtol=1e-12)
    even = PriorOptions(6, 1.5, 10, 2, shapes=("even", "even"))
    np.testing.assert_array_equal(state_at_rest(STRUCTURE, STATES + STRAIN, even), 0.0)


def test_weights_of_the_residual_do_not_grow_with_the_constant(energies):
    def weights(states, energy):
        dynamics = learned_dynamics(STRUCTURE, energy[0], 2)
        return trajectory_weights(dynamics, energy[1], states.astype(np.float32), TIMES, Fields(STRUCTURE))

    plain, stretched = (weights(*pair) for pair in zip((STATES, STATES + STRAIN), energies, strict=True))
    np.testing.assert_allclose(stretched.mean(axis=(0, 1, 2)), plain.mean(axis=(0, 1, 2)), rtol=0.02)
