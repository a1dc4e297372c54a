"""A simulated spring with a known energy: rows, shapes, preload, and what the fit recovers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.spring import prior as spring_prior
from experiments.spring.recording import SpringRecording, modal_amplitudes, sine_modes, sine_slopes
from phdme_jax.gp.basis import Basis, Box, Energy, density, efforts, feature_efforts
from phdme_jax.gp.fit import Hyperparameters, Hyperprior, negative_log_likelihood, sample_hyperparameters
from phdme_jax.gp.observations import Observations, displacement_rows
from phdme_jax.gp.sampling import roll_out
from phdme_jax.systems.energy.vibrating_string import KELVIN_VOIGT, VISCOUS

POINTS, MODES = 33, 2
TIMES = (0.0, 0.1)
BASIS = Basis(2, 12, 0, ("known", "even"))
DAMPING = {VISCOUS: jnp.asarray(2.0), KELVIN_VOIGT: jnp.asarray(0.08)}
PRIOR = {
    "main": 12,
    "margin": 2.0,
    "lengthscale": 1.0,
    "damping_ratio": 0.02,
    "first_frame": 0,
    "last_frame": 10_000,
    "half_width": 0.034,
    "spacing": 0.017,
    "draws": 32,
    "substeps": 4,
}


def preload():
    """A sag of two per cent of the length."""
    z = np.linspace(0.0, 1.0, POINTS)
    return jnp.stack([jnp.zeros(POINTS), jnp.asarray(sine_slopes(z, 1)[:, 0] * 0.02)], axis=-1)


def true_energy():
    """A hardening spring: V' = 290 q - 133 sin(pi q / 4), about 185 q at small strain."""
    weights = np.zeros(BASIS.size)
    weights[12] = 240.0
    return Energy(Box(jnp.zeros(2), jnp.array([40.0, 2.0]), preload()), jnp.array([1.0, 290.0]), jnp.asarray(weights))


def stress_of(energy, strain):
    return np.asarray(spring_prior.stress(energy, jnp.asarray(strain)))


@pytest.fixture(scope="module")
def motion():
    """Times, displacement in many modes, and momentum and strain of the simulated spring."""
    structure = spring_prior.spring_structure(POINTS)
    grid = np.linspace(0.0, 1.0, POINTS)
    amplitude = np.array([-0.26, 0.04])
    state = jnp.asarray(np.stack([np.zeros(POINTS), sine_slopes(grid, 2) @ amplitude], axis=-1))
    times = np.arange(0.0, 0.7, 1.0 / 960.0)
    weights = jnp.asarray(structure.weights())
    rolled = jax.jit(
        lambda energy, state, times: roll_out(BASIS, structure.flow, weights, energy, DAMPING, state, times, 2)
    )(true_energy(), state, jnp.asarray(times))
    assert bool(rolled.ok)
    trajectory = np.asarray(rolled.trajectory)
    return times, modal_amplitudes(grid, trajectory[..., 1], 12) @ sine_modes(grid, 12).T, trajectory


@partial(jax.jit, static_argnums=0)
def rows_of(basis, box, states, tests, shapes):
    structure = spring_prior.spring_structure(POINTS)
    return displacement_rows(basis, box, structure.flow, structure.parameters, states, tests, shapes)


def residual_of(motion, energy, damping, basis=BASIS):
    """Root mean square of rows minus design at given energy and damping, over that of the rows."""
    times, displacement, trajectory = motion
    structure = spring_prior.spring_structure(POINTS)
    tests = spring_prior.window_tests(times, np.arange(0.034, times[-1] - 0.034, 0.017), 0.034)
    shapes = jnp.asarray(2.0 * sine_modes(np.linspace(0, 1, POINTS), MODES).T * structure.weights())
    rows = rows_of(basis, energy.box, jnp.asarray(np.stack([displacement, trajectory[..., 1]], -1)), tests, shapes)
    factors = jnp.stack([jnp.ones(()), *(damping[name] for name in structure.parameters)])
    found = jnp.tensordot(factors, rows.design, 1) @ jnp.concatenate([energy.weights, energy.stiffness])
    return float(jnp.sqrt(jnp.mean((rows.target - found) ** 2) / jnp.mean(rows.target**2)))


def test_rows_close_at_the_true_energy_and_at_no_other(motion):
    energy = true_energy()
    assert residual_of(motion, energy, DAMPING) < 2e-4
    for name in DAMPING:
        assert residual_of(motion, energy, DAMPING | {name: jnp.zeros(())}) > 5e-3, name
        assert residual_of(motion, energy, DAMPING | {name: -DAMPING[name]}) > 1e-2, name
    straight = energy._replace(box=energy.box._replace(preload=jnp.zeros((POINTS, 2))))
    assert residual_of(motion, straight, DAMPING) > 2e-3
    assert residual_of(motion, energy._replace(weights=0.0 * energy.weights), DAMPING) > 0.1


def test_rows_need_the_kinetic_energy_known(motion):
    with pytest.raises(ValueError, match="expected the shape 'known' for field 0"):
        residual_of(motion, true_energy(), DAMPING, Basis(2, 12, 0))


def test_windows_integrate_by_parts():
    times = np.arange(0.0, 0.5, 1.0 / 960.0)
    tests = spring_prior.window_tests(times, np.array([0.1, 0.2]), 0.034)
    values = np.sin(47.0 * times)
    np.testing.assert_allclose(tests.curvature @ values, tests.value @ (-(47.0**2) * values), rtol=1e-4)
    np.testing.assert_allclose(-tests.slope @ values, tests.value @ (47.0 * np.cos(47.0 * times)), rtol=1e-4)


def test_preload_leaves_the_energy_above_a_held_state():
    energy, r = true_energy(), preload()
    state = jax.random.normal(jax.random.key(0), (POINTS, 2), float) * 0.3

    @jax.jit
    def compare(energy, r, state):
        free = energy._replace(box=energy.box._replace(preload=None))
        linear = jnp.sum(efforts(BASIS, free, r) * state, axis=-1)
        above = density(BASIS, free, r + state) - density(BASIS, free, r) - linear
        slope = jax.grad(lambda x: jnp.sum(density(BASIS, energy, x)))(state)
        columns = jnp.concatenate([energy.weights, energy.stiffness])
        return (
            density(BASIS, energy, state) - above,
            efforts(BASIS, energy, state) - slope,
            efforts(BASIS, energy, 0.0 * state),
            feature_efforts(BASIS, energy.box, state) @ columns - slope,
        )

    for difference in compare(energy, r, state):
        np.testing.assert_allclose(difference, 0.0, atol=1e-9)


def test_modal_amplitudes_invert_the_strain():
    grid = np.linspace(0.0, 1.0, POINTS)
    amplitude = np.array([0.2, -0.05, 0.03])
    found = modal_amplitudes(grid, sine_slopes(grid, 3) @ amplitude, 2)
    np.testing.assert_allclose(found, amplitude[:2], atol=1e-12)


def recording_of(motion):
    """The simulated spring as a recording with camera times and noise of a quarter of a pixel in 2100."""
    times, displacement, _ = motion
    steps = np.cumsum(np.resize([4, 4, 8, 4, 4, 4, 8], 200))
    images = steps[steps < times.size]
    grid = np.linspace(0.0, 1.0, POINTS)
    amplitude = 2.0 / (POINTS - 1) * displacement[images] @ sine_modes(grid, 5)
    amplitude += 1.2e-4 * np.random.default_rng(0).normal(size=amplitude.shape)
    count = np.arange(images.size)
    rest = np.asarray(preload())[:, 1]
    return SpringRecording(
        "made", MODES, 0, count, times[images], grid, amplitude, amplitude, 0 * amplitude, np.zeros(5), rest
    )


@pytest.fixture(scope="module")
def learned(motion):
    recording = recording_of(motion)
    options, key = {"prior": PRIOR}, jax.random.key(1)
    return recording, {
        quadratic: spring_prior.fit_spring(recording, TIMES, options, key, quadratic) for quadratic in (False, True)
    }


def test_fit_recovers_stress_and_damping_within_its_draws(learned):
    recording, fits = learned
    prior = fits[False].params
    strain = np.linspace(0.05, 0.9 * np.abs(recording.states[..., 1]).max(), 20)
    truth, found = stress_of(true_energy(), strain), stress_of(prior.best.mean, strain)
    assert np.max(np.abs(found / truth - 1.0)) < 0.03
    for name, value in DAMPING.items():
        draws = np.asarray(prior.draws.parameters[name])
        assert abs(fits[False].found[name] - value) < 4.0 * draws.std() < 2.0 * value, name


def test_quadratic_baseline_is_the_same_fit_without_the_nonlinear_part(learned):
    _, fits = learned
    prior = fits[True].params
    assert not np.any(prior.best.mean.weights) and not np.any(prior.draws.mean.weights)
    assert not np.any(prior.draws.factor)
    strain = np.linspace(0.1, 0.9, 5)
    stiffness = float(prior.best.mean.stiffness[1])
    np.testing.assert_allclose(stress_of(prior.best.mean, strain) / strain, stiffness, rtol=1e-12)
    assert float(prior.best.objective) > float(fits[False].params.best.objective) + 20.0
    assert all(float(fitted.params.best.mean.stiffness[0]) == 1.0 for fitted in fits.values())


def test_learned_energy_is_even_and_its_lengthscale_held(learned):
    _, fits = learned
    best = fits[False].params.best
    strain = np.linspace(0.1, 0.9, 5)
    np.testing.assert_allclose(stress_of(best.mean, strain), -stress_of(best.mean, -strain), rtol=1e-9)
    assert float(best.hyperparameters.lengthscale[1]) == 0.0


@pytest.mark.slow
def test_draws_follow_the_exact_posterior_of_a_damping(monkeypatch):
    """One row, target = -theta x + noise of known size: the posterior of log theta on a grid is the judge."""
    basis, box = Basis(2, 2, 0, ("known", "quadratic")), Box(jnp.zeros(2), jnp.ones(2))
    design = np.zeros((2, 1, basis.size + 2))
    design[1, 0, -2] = -1.0
    one = jnp.ones(1)
    rows = Observations(-0.7 * one, jnp.asarray(design), jnp.zeros(1, int), 0 * one, 0 * one, 0.03 * one)
    centre = Hyperparameters(*(jnp.zeros(n) for n in (2, 2, 0, 2, 1, 1, 1)))
    prior = Hyperprior(centre)
    optimum = centre._replace(dissipation=jnp.array([-0.36]))
    draw = jax.jit(lambda rows, key: sample_hyperparameters(basis, box, rows, prior, optimum, 1000, key))
    draws = draw(rows, jax.random.key(3)).dissipation[:, 0]
    grid = np.linspace(-9.0, 4.0, 4001)
    at = jax.vmap(lambda g: negative_log_likelihood(basis, box, rows, centre._replace(dissipation=g[None])))
    level = -np.asarray(at(jnp.asarray(grid[::100])))
    exact = -0.5 * (0.7 - np.exp(grid)) ** 2 / 0.03
    np.testing.assert_allclose(level - level[0], (exact - exact[0])[::100], atol=1e-4)
    mass = np.exp(exact - 0.5 * (grid / 2.0) ** 2)
    mass /= mass.sum()
    mean = mass @ grid
    deviation = np.sqrt(mass @ (grid - mean) ** 2)
    assert abs(float(draws.mean()) - mean) < 0.12 * deviation
    assert abs(float(draws.std()) / deviation - 1.0) < 0.15
    # the signs of axes are rounding's affair and change no draw
    eigh = jnp.linalg.eigh

    def other_signs(matrix):
        values, axes = eigh(matrix)
        return values, -axes

    monkeypatch.setattr(jnp.linalg, "eigh", other_signs)
    again = jax.jit(lambda rows, key: sample_hyperparameters(basis, box, rows, prior, optimum, 1000, key))
    np.testing.assert_allclose(again(rows, jax.random.key(3)).dissipation[:, 0], draws, rtol=1e-9)
