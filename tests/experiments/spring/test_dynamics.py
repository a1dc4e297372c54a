"""What a learned spring says of the motion of any: its rest strain is the state's, its samples are draws."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.spring.bench import draw_states, observe_displacement
from experiments.spring.prior import (
    SHAPES,
    SpringPrior,
    spring_dynamics,
    spring_problem,
    spring_structure,
    total_energy,
)
from experiments.spring.recording import SpringRecording, modal_amplitudes, sine_modes, sine_slopes
from phdme_jax.gp.basis import Basis, Box, Energy, density, efforts
from phdme_jax.gp.fit import EnergyPosterior, initial_hyperparameters
from phdme_jax.gp.sampling import roll_out
from phdme_jax.methods.base import Start
from phdme_jax.methods.energy.conditional import Fields
from phdme_jax.methods.energy.physics import dynamics_residual
from phdme_jax.systems.energy.vibrating_string import KELVIN_VOIGT, VISCOUS

POINTS = 17
GRID = np.linspace(0.0, 1.0, POINTS)
BASIS = Basis(2, 12, 0, SHAPES)
TIMES = tuple(np.linspace(0.0, 0.1, 9).tolist())
DYNAMICS = spring_dynamics(BASIS, POINTS, 4)
SAG = sine_slopes(GRID, 1)[:, 0]


@pytest.fixture(scope="module")
def prior() -> SpringPrior:
    """A hardening spring, known exactly, and two draws of it with other dampings."""
    weights = np.zeros(BASIS.size)
    weights[12] = 240.0
    box = Box(jnp.zeros(2), jnp.array([40.0, 2.0]), jnp.full((POINTS, 2), 9.0))  # a preload that must not be used
    energy = Energy(box, jnp.array([1.0, 290.0]), jnp.asarray(weights))
    best = EnergyPosterior(
        mean=energy,
        factor=jnp.zeros((BASIS.size, BASIS.size)),
        parameters={VISCOUS: jnp.asarray(2.0), KELVIN_VOIGT: jnp.asarray(0.08)},
        hyperparameters=initial_hyperparameters(BASIS, box, 2),
        objective=jnp.zeros(()),
        ok=jnp.asarray(True),
    )
    draws = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), best)
    return SpringPrior(best, draws._replace(parameters={**draws.parameters, VISCOUS: jnp.array([1.0, 4.0])}))


def state_of(amplitude: tuple[float, float], sag: float) -> np.ndarray:
    strain = sine_slopes(GRID, 2) @ np.array(amplitude)
    return np.stack([sine_modes(GRID, 1)[:, 0], strain, sag * SAG], axis=-1)


def preloaded(prior: SpringPrior, sag: float) -> Energy:
    rest = jnp.stack([jnp.zeros(POINTS), jnp.asarray(sag * SAG)], axis=-1)
    mean = prior.best.mean
    return mean._replace(box=mean.box._replace(preload=rest))


def start_at(state: np.ndarray, errors: np.ndarray | None = None) -> Start:
    return Start(jnp.asarray(state), jnp.zeros((len(TIMES), 0)), None if errors is None else jnp.asarray(errors))


def test_rate_takes_the_rest_strain_from_the_state_and_leaves_it_alone(prior):
    rates = []
    for sag in (0.0, 0.05):
        state = state_of((0.2, -0.03), sag).astype(np.float32)
        rates.append(np.asarray(DYNAMICS.rate(prior, jnp.asarray(state))))
        effort = efforts(BASIS, preloaded(prior, sag), jnp.asarray(state[:, :2], float))
        expected = spring_structure(POINTS).flow(effort, prior.best.parameters)
        np.testing.assert_array_equal(rates[-1][:, 2], 0.0)
        np.testing.assert_allclose(rates[-1][:, :2], expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert rates[0].dtype == np.float32 and np.abs(rates[1] - rates[0]).max() > 1.0


@pytest.mark.slow
def test_rollouts_are_those_of_an_energy_with_the_states_own_preload(prior):
    """A sample is one of the draws, from one of the states that the start may have been; both by its key."""
    structure = spring_structure(POINTS)
    weights, times = jnp.asarray(structure.weights()), jnp.asarray(TIMES)
    alone = jax.jit(partial(roll_out, BASIS, structure.flow, weights, substeps=4))
    mean = jax.jit(lambda start: DYNAMICS.rollout(prior, start, TIMES, 4))
    sample = jax.jit(lambda start, key: DYNAMICS.sample(prior, start, key, TIMES, 4))
    errors = 0.01 * np.random.default_rng(0).normal(size=(2, POINTS, 3))
    errors[:, [0, -1], 0] = errors[..., 2] = 0.0
    for sag in (0.0, 0.05):
        state, energy = state_of((0.2, -0.03), sag), preloaded(prior, sag)
        rolled = mean(start_at(state, errors))
        expected = alone(energy, prior.best.parameters, jnp.asarray(state[:, :2]), times)
        np.testing.assert_allclose(rolled.trajectory[..., :2], expected.trajectory, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(rolled.trajectory[..., 2], np.broadcast_to(sag * SAG, (len(TIMES), POINTS)))
        np.testing.assert_allclose(total_energy(prior.best, np.asarray(rolled.trajectory)), rolled.energy, rtol=1e-12)
    possible = {
        (damping, error): alone(
            energy,
            {**prior.best.parameters, VISCOUS: jnp.asarray(damping)},
            jnp.asarray(state - errors[error])[:, :2],
            times,
        ).trajectory
        for damping in (1.0, 4.0)
        for error in (0, 1)
    }
    found = set()
    for key in jax.random.split(jax.random.key(0), 24):
        drawn = sample(start_at(state, errors), key).trajectory[..., :2]
        (name,) = [name for name, path in possible.items() if np.abs(path - drawn).max() < 1e-9]
        found.add(name)
    assert found == set(possible)


@pytest.mark.slow
def test_variance_is_that_of_the_residuals_of_two_energies(prior):
    """One unsure coefficient: the residual's deviation is what a change of it does to the residual."""
    factor = np.zeros((BASIS.size, BASIS.size))
    factor[12, 12] = 5.0
    unsure = prior._replace(best=prior.best._replace(factor=jnp.asarray(factor)))
    flow, damping = spring_structure(POINTS).flow, prior.best.parameters
    path = DYNAMICS.rollout(prior, start_at(state_of((0.2, -0.03), 0.02)), TIMES, 4).trajectory

    def residual(energy: Energy) -> np.ndarray:
        rate = lambda state: flow(efforts(BASIS, energy, state), damping)  # noqa: E731
        return np.asarray(dynamics_residual(rate, path[..., :2], TIMES))

    energy = preloaded(prior, 0.02)
    other = energy._replace(weights=energy.weights.at[12].add(5.0))
    expected = (residual(other) - residual(energy)) ** 2
    found = np.asarray(DYNAMICS.variance(unsure, path, TIMES))
    np.testing.assert_allclose(found[..., :2], expected, rtol=1e-6, atol=1e-9 * expected.max())
    np.testing.assert_array_equal(found[..., 1:], 0.0)  # the rates of the strains are known


@pytest.mark.slow
def test_energy_of_states_is_that_of_their_own_preload(prior):
    states = np.stack([state_of((0.2, -0.03), 0.05), state_of((-0.1, 0.02), 0.05)])
    expected = density(BASIS, preloaded(prior, 0.05), jnp.asarray(states[..., :2])) @ spring_structure(POINTS).weights()
    np.testing.assert_allclose(total_energy(prior.best, states), expected, rtol=1e-12)


def test_only_held_ends_and_the_rest_strain_are_known():
    """The start is measured with an error, so that samples may differ from it."""
    known = Fields(spring_problem(POINTS).structure, 1).known(len(TIMES), exact_start=False)
    expected = np.zeros((len(TIMES), POINTS, 3))
    expected[:, [0, -1], 0] = 1.0  # the ends do not move
    expected[:, :, 2] = 1.0
    np.testing.assert_array_equal(known, expected)


def made_recording() -> SpringRecording:
    time = np.linspace(0.0, 1.0, 80)
    amplitude = np.stack([0.2 * np.cos(28 * time), 0.04 * np.sin(56 * time)] + [0 * time] * 3, axis=-1)
    rate = np.stack([-5.6 * np.sin(28 * time), 2.24 * np.cos(56 * time)] + [0 * time] * 3, axis=-1)
    return SpringRecording("made", 2, 0, np.arange(80), time, GRID, amplitude, amplitude, rate, np.zeros(5), 0.03 * SAG)


def test_start_states_are_motions_of_the_recording():
    recording = made_recording()
    states = draw_states(recording, 500, (1.0, 1.0), (0.5, 1.5), jax.random.key(0))
    np.testing.assert_allclose(states[:, [0, -1], 0], 0.0, atol=1e-12)  # the ends do not move
    value, speed = modal_amplitudes(GRID, states[..., 1], 2), 2 / (POINTS - 1) * states[..., 0] @ sine_modes(GRID, 2)
    for mode in range(2):
        ellipse = (value[:, mode] / (0.2, 0.04)[mode]) ** 2 + (speed[:, mode] / (5.6, 2.24)[mode]) ** 2
        np.testing.assert_allclose(ellipse, 1.0, rtol=1e-9)  # value and rate are those of one image
        assert min(np.mean(value[:, mode] > 0), np.mean(value[:, mode] < 0)) > 0.4
    assert abs(np.corrcoef(value.T)[0, 1]) < 0.15  # every mode takes an image of its own
    scale = states[:, 0, 2] / recording.rest_strain[0]
    assert 0.5 <= np.abs(scale).min() < 0.55 and 1.45 < np.abs(scale).max() <= 1.5 and np.abs(scale.mean()) < 0.2


def test_observed_is_the_displacement_in_the_recordings_modes_at_the_images_times():
    recording, frames = made_recording(), np.linspace(0.0, 0.6, 60)
    since = np.array([[0.013, 0.4], [0.2, 0.57]])
    phase = np.array([[0.3], [1.1]])

    def moved(times: np.ndarray) -> np.ndarray:
        return np.stack([0.2 * np.cos(28 * times + phase), 0.04 * np.sin(56 * times + phase)], axis=-1)

    strain = moved(frames) @ sine_slopes(GRID, 2).T + 0.1 * sine_slopes(GRID, 3)[:, 2]  # a mode that is not shown
    seen = observe_displacement(recording, since, np.stack([0 * strain, strain], axis=-1), tuple(frames))
    expected = np.stack([moved(times)[row] for row, times in enumerate(since)]) @ sine_modes(GRID, 2).T
    np.testing.assert_allclose(seen[..., 0], expected, atol=2e-4)
