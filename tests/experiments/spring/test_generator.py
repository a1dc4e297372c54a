"""What trains the spring's generator: its dynamics, its start states, and its known values."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.spring import generator as spring_generator
from experiments.spring.prior import Candidate, SpringPrior, spring_structure
from experiments.spring.recording import SpringRecording, sine_modes, sine_slopes
from phdme_jax.gp.basis import Basis, Box, Energy, efforts
from phdme_jax.gp.fit import EnergyPosterior, initial_hyperparameters
from phdme_jax.gp.sampling import roll_out
from phdme_jax.methods.energy import prior as priors
from phdme_jax.methods.energy.physics import dynamics_residual
from phdme_jax.systems.energy.vibrating_string import KELVIN_VOIGT, VISCOUS

POINTS = 17
GRID = np.linspace(0.0, 1.0, POINTS)
BASIS = Basis(2, 12, 0, ("known", "even"))
TIMES = tuple(np.linspace(0.0, 0.1, 9).tolist())


@pytest.fixture(scope="module")
def prior() -> SpringPrior:
    """A hardening spring, known exactly, and two draws of it with other dampings."""
    weights = np.zeros(BASIS.size)
    weights[12] = 240.0
    box = Box(jnp.zeros(2), jnp.array([40.0, 2.0]), jnp.full((POINTS, 2), 9.0))  # a preload that must not be used
    energy = Energy(box, jnp.array([1.0, 290.0]), jnp.asarray(weights))
    damping = {VISCOUS: jnp.asarray(2.0), KELVIN_VOIGT: jnp.asarray(0.08)}
    posterior = EnergyPosterior(
        energy, jnp.zeros((BASIS.size, BASIS.size)), damping, initial_hyperparameters(BASIS, box, 2), jnp.zeros(()),
        jnp.asarray(True),
    )  # fmt: skip
    draws = Candidate(
        jnp.stack([energy.stiffness] * 2), jnp.stack([energy.weights] * 2),
        {VISCOUS: jnp.array([1.0, 4.0]), KELVIN_VOIGT: jnp.array([0.08, 0.08])},
    )  # fmt: skip
    return SpringPrior(posterior, draws)


def state_of(amplitude: tuple[float, float], sag: float) -> np.ndarray:
    strain = sine_slopes(GRID, 2) @ np.array(amplitude)
    return np.stack([sine_modes(GRID, 1)[:, 0], strain, sine_slopes(GRID, 1)[:, 0] * sag], axis=-1)


def plain(prior: SpringPrior, sag: float) -> Energy:
    rest = jnp.stack([jnp.zeros(POINTS), jnp.asarray(sine_slopes(GRID, 1)[:, 0] * sag)], axis=-1)
    mean = prior.posterior.mean
    return mean._replace(box=mean.box._replace(preload=rest))


def test_rate_takes_the_rest_strain_from_the_state_and_leaves_it_alone(prior):
    dynamics = spring_generator.spring_dynamics(BASIS, prior, TIMES, 4)
    for sag in (0.0, 0.05):
        state = state_of((0.2, -0.03), sag).astype(np.float32)
        rate = np.asarray(dynamics.rate(jnp.asarray(state)))
        effort = efforts(BASIS, plain(prior, sag), jnp.asarray(state[:, :2], float))
        expected = spring_structure(POINTS).flow(effort, prior.posterior.parameters)
        np.testing.assert_array_equal(rate[:, 2], 0.0)
        np.testing.assert_allclose(rate[:, :2], expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert np.abs(dynamics.rate(jnp.asarray(state_of((0.2, -0.03), 0.0).astype(np.float32))) - rate).max() > 1.0


def test_rollouts_are_those_of_the_energy_with_the_states_own_preload(prior):
    starts = np.stack([state_of((0.2, -0.03), sag) for sag in (0.0, 0.05, 0.02)])
    structure = spring_structure(POINTS)
    weights, times = jnp.asarray(structure.weights()), jnp.asarray(TIMES)
    mean, kept = spring_generator.rollouts(BASIS, prior, starts, TIMES, 4, drawn=False)
    drawn, _ = spring_generator.rollouts(BASIS, prior, starts, TIMES, 4, drawn=True)
    assert kept.all()
    one = jax.jit(partial(roll_out, BASIS, structure.flow, weights, substeps=4))
    for index, sag in enumerate((0.0, 0.05, 0.02)):
        start = jnp.asarray(starts[index, :, :2])
        expected = one(plain(prior, sag), prior.posterior.parameters, start, times).trajectory
        np.testing.assert_allclose(mean[index, ..., :2], expected, rtol=0, atol=1e-9)
        own = jax.tree.map(lambda leaf, i=index: leaf[i % 2], prior.draws.parameters)
        expected = one(plain(prior, sag), own, start, times).trajectory
        np.testing.assert_allclose(drawn[index, ..., :2], expected, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(mean[..., 2], np.broadcast_to(starts[:, None, :, 2], mean.shape[:-1]))


def test_start_states_are_motions_of_the_recording_and_measured_with_its_errors():
    time = np.linspace(0.0, 1.0, 80)
    amplitude = np.stack([0.2 * np.cos(28 * time), 0.04 * np.sin(56 * time)] + [0 * time] * 3, axis=-1)
    empty = np.zeros((80, POINTS))
    recording = SpringRecording(
        "made", 2, 0, np.arange(80), time, GRID, empty, empty, empty, amplitude, 0.03 * sine_slopes(GRID, 1)[:, 0],
        0.05, np.zeros(5), 0.0, 2100.0,
    )  # fmt: skip
    errors = np.random.default_rng(1).normal(size=(6, POINTS, 2))
    starts = spring_generator.draw_starts(recording, errors, 500, np.random.default_rng(0), (1.0, 1.0), (0.5, 1.5))
    difference = (starts.measured - starts.true)[..., :2]
    assert all(np.abs(difference - error).max(axis=(1, 2)).min() < 1e-9 for error in errors)
    np.testing.assert_allclose(starts.measured[:, [0, -1], 0], 0.0, atol=1e-12)  # the ends do not move
    strength = 2.0 * (starts.measured[..., 1] * spring_structure(POINTS).weights()) @ sine_slopes(GRID, 2)
    reach = np.abs(strength / (np.pi * np.arange(1, 3)) ** 2).max(axis=0)
    np.testing.assert_allclose(reach, [0.2, 0.04], rtol=0.03)  # no mode is larger than it was seen
    scale = starts.measured[:, 0, 2] / recording.rest_strain[0]
    assert 0.5 <= np.abs(scale).min() < 0.55 and 1.45 < np.abs(scale).max() <= 1.5 and np.abs(scale.mean()) < 0.2


def test_only_held_ends_and_the_rest_strain_are_known():
    """The start is measured with an error, so that samples may differ from it."""
    known = spring_generator.known_values(spring_generator.generator_structure(POINTS), TIMES)
    expected = np.zeros((len(TIMES), POINTS, 3))
    expected[:, [0, -1], 0] = 1.0  # the ends do not move
    expected[:, :, 2] = 1.0
    np.testing.assert_array_equal(known, expected)


def test_residual_weights_are_those_of_the_residuals_of_two_energies(prior):
    """One unsure coefficient: the residual's deviation is what a change of it does to the residual, times its own."""
    factor = np.zeros((BASIS.size, BASIS.size))
    factor[12, 12] = 5.0
    unsure = prior._replace(posterior=prior.posterior._replace(factor=jnp.asarray(factor)))
    sags = (0.02, -0.02)
    starts = np.stack([state_of((0.2, -0.03), sags[0]), state_of((0.1, 0.02), sags[1])])
    states = spring_generator.rollouts(BASIS, prior, starts, TIMES, 4, drawn=False)[0].astype(np.float32)
    weights = spring_generator.residual_weights(BASIS, unsure, states, TIMES)
    flow, damping = spring_structure(POINTS).flow, prior.posterior.parameters

    def residual(energy: Energy, path: np.ndarray) -> np.ndarray:
        def rate(state: jax.Array) -> jax.Array:
            return flow(efforts(BASIS, energy, state), damping)

        return np.asarray(dynamics_residual(rate, jnp.asarray(path), TIMES))

    variance = []
    for path, sag in zip(states[..., :2].astype(float), sags, strict=True):
        energy = plain(prior, sag)
        other = energy._replace(weights=energy.weights.at[12].add(5.0))
        variance.append((residual(other, path) - residual(energy, path)) ** 2)
    expected = priors.residual_weight(np.stack(variance), states[..., :2], TIMES)
    assert np.ptp(expected[..., 0]) > 0.5 * expected[..., 0].mean()
    np.testing.assert_allclose(weights[..., 0], expected[..., 0], rtol=2e-3)
    np.testing.assert_array_equal(weights[..., 2], 1.0)
    assert np.ptp(weights[..., 1]) == 0.0  # the rate of the strain is known
