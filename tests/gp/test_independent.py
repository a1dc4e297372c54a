"""The published two-process scheme: each of its steps against what it is meant to compute."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from phdme_jax.gp.independent import (
    Inversion,
    fit_independent,
    independent_efforts,
    invert_operator,
    local_polynomial_rates,
    published_sites,
    roll_out_independent,
)
from phdme_jax.numerics.stepping import rk4_step, rollout
from phdme_jax.systems import make_system
from phdme_jax.systems.energy.base import parameter_values, vector_field
from phdme_jax.systems.energy.vibrating_string import deflection, modes_state, pulse_state

LENGTH = 10.0


def test_inversion_integrates_the_rates_with_the_stated_gauge():
    def error(num_points):
        z = np.linspace(0.0, LENGTH, num_points)
        strain = np.stack([np.cos(np.pi * z / LENGTH), 0.3 + np.cos(2 * np.pi * z / LENGTH)])
        rest = np.argmin(np.abs(strain), axis=1)
        stress, velocity = np.stack([np.tanh(strain), np.stack([np.sin(np.pi * z / LENGTH)] * 2)])
        wave = np.pi / LENGTH
        strain_slope = -wave * np.stack([np.sin(wave * z), 2 * np.sin(2 * wave * z)])
        stress_slope = (1 - np.tanh(strain) ** 2) * strain_slope
        rates = np.stack([stress_slope, np.stack([wave * np.cos(wave * z)] * 2)], axis=-1)
        states = jnp.asarray(np.stack([velocity, strain], axis=-1))
        invert = jax.jit(partial(invert_operator, spacing=LENGTH / (num_points - 1)))
        found = np.asarray(invert(states, jnp.asarray(rates)))
        shift = np.take_along_axis(stress, rest[:, None], axis=1)
        np.testing.assert_allclose(found[..., 0][:, 0], 0.0)
        np.testing.assert_allclose(np.take_along_axis(found[..., 1], rest[:, None], axis=1), 0.0, atol=1e-14)
        return max(np.abs(found[..., 0] - velocity).max(), np.abs(found[..., 1] - (stress - shift)).max())

    assert abs(np.log2(error(41) / error(81)) - 2) < 0.2


def test_inversion_of_a_basin_turns_the_sign_and_the_fields():
    # z_t = -d e_v, v_t = -d e_z: the string's with its fields exchanged and the rates negated
    states, rates = np.random.default_rng(0).standard_normal((2, 3, 9, 2))
    basin = invert_operator(jnp.asarray(states), jnp.asarray(rates), 0.3, Inversion(odd=1, sign=-1.0))
    string = invert_operator(jnp.asarray(states[..., ::-1]), jnp.asarray(-rates[..., ::-1]), 0.3)
    np.testing.assert_allclose(basin, string[..., ::-1], atol=1e-14)


def test_the_gauge_of_the_inversion_is_that_of_the_state_at_rest():
    random = np.random.default_rng(0)
    states, rates = (jnp.asarray(random.standard_normal((2, 20, 2))) for _ in range(2))
    plain = invert_operator(states, rates, 0.3)
    np.testing.assert_allclose(invert_operator(states.at[..., 1].add(30.0), rates, 0.3, rest=30.0), plain, atol=1e-12)


def test_published_sites_are_the_81_of_the_study():
    sites = np.asarray(published_sites(201, 400))
    assert sites.shape == (81, 2) and len({tuple(site) for site in sites}) == 81
    np.testing.assert_array_equal(np.unique(sites[:, 1]), np.arange(0, 400, 20))
    # time runs first: fifty frames on, or into the next column
    np.testing.assert_array_equal(sites[:6, 0], [0, 50, 100, 150, 200, 49])


@pytest.mark.parametrize("num_frames", [24, 60, 64, 128])
def test_sites_see_every_frame_however_many_there_are(num_frames):
    sites = np.asarray(published_sites(num_frames, 64))
    assert len(sites) >= 81 and len({tuple(site) for site in sites}) == len(sites)
    assert len(np.unique(sites[:, 0])) >= min(num_frames, 81)


@pytest.mark.parametrize("degree", [2, 4])
def test_local_polynomials_are_exact_on_their_degree_at_uneven_times(degree):
    times = tuple(np.cumsum(np.random.default_rng(0).uniform(0.05, 0.2, 15)))
    t = jnp.asarray(times)[:, None, None] * jnp.ones((1, 3, 2))
    smoothed, rates = local_polynomial_rates(t**degree, times, 7, degree)
    np.testing.assert_allclose(smoothed, t**degree, atol=1e-11)
    np.testing.assert_allclose(rates, degree * t ** (degree - 1), atol=1e-10)


def test_rates_converge_at_the_stated_order_and_smoothing_lowers_noise():
    def error(count):
        times = tuple(np.linspace(0.0, 2.0, count))
        t = jnp.asarray(times)[:, None, None] * jnp.ones((1, 1, 2))
        return float(jnp.max(jnp.abs(local_polynomial_rates(jnp.sin(3 * t), times)[1] - 3 * jnp.cos(3 * t))))

    assert abs(np.log2(error(81) / error(161)) - 4) < 0.2
    noise = jnp.asarray(np.random.default_rng(0).standard_normal((201, 40, 2)))
    smoothed, _ = local_polynomial_rates(noise, tuple(np.arange(201.0)), 15, 2)
    assert 0.2 < float(jnp.std(smoothed[20:-20])) < 0.5
    with pytest.raises(ValueError, match="degree between"):
        local_polynomial_rates(noise, tuple(np.arange(201.0)), 5, 5)


@pytest.fixture(scope="module")
def pulse():
    """The study's system on a coarser grid: pulse released from rest, unseen sine, Kelvin-Voigt damping."""
    system = make_system("vibrating_string", num_points=60, order=2, closure="sbp")
    structure, values = system.structure, parameter_values(system, jnp.float64)
    times = jnp.linspace(0.0, 20.0, 201)
    z = jnp.asarray(structure.grid.coordinates())

    @jax.jit
    def simulate(start):
        def field(x):
            return vector_field(structure, system.density, x, values)

        states = rollout(lambda x, dt: (rk4_step(field, x, dt), dt), start, times, 4)
        return states, jax.vmap(field)(states)

    states, rates = simulate(pulse_state(z))
    sine, _ = simulate(modes_state(z, jnp.array([4.0]), jnp.array([0.0])))
    sites = published_sites(201, 60)
    fit = jax.jit(partial(fit_independent, sites=sites, spacing=structure.grid.spacing[0]))
    fitted = fit(states, rates)
    measured = fit(states, local_polynomial_rates(states, tuple(np.asarray(times)))[1])
    return system, values, times, states, rates, sites, fitted, measured, sine


def test_each_regression_is_the_best_gaussian_process_with_a_constant_mean(pulse):
    system, _, _, states, rates, sites, fitted, _, _ = pulse
    frames, places = np.asarray(sites).T
    invert = jax.jit(partial(invert_operator, spacing=system.structure.grid.spacing[0]))
    inputs, targets = (np.asarray(whole)[frames, places] for whole in (states, invert(states, rates)))
    square = np.sum((inputs[:, None] - inputs) ** 2, axis=-1)
    where = np.array([[0.1, -0.4], [0.5, 1.0], [-0.3, 0.2]])
    cross = np.sum((where[:, None] - inputs) ** 2, axis=-1)
    predicted = np.asarray(jax.jit(independent_efforts)(fitted, jnp.asarray(where)))
    for field in range(2):
        values = targets[:, field]

        def objective(logarithms, values=values, full=False):
            length, size, noise = np.exp(logarithms)
            covariance = size**2 * np.exp(-square / (2 * length**2)) + noise**2 * np.eye(len(values))
            weights = np.linalg.solve(covariance, np.ones(len(values)))
            constant = weights @ values / weights.sum()
            if full:
                smooth = size**2 * np.exp(-cross / (2 * length**2))
                return constant + smooth @ np.linalg.solve(covariance, values - constant)
            return -stats.multivariate_normal(np.full(len(values), constant), covariance).logpdf(values)

        found = np.log([float(part[field]) for part in (fitted.lengthscale, fitted.amplitude, fitted.noise)])
        np.testing.assert_allclose(predicted[:, field], objective(found, full=True), atol=1e-6)
        best, floor = objective(found), np.log(1e-3 * values.std())
        assert found[2] > floor
        for change in 0.3 * np.concatenate([np.eye(3), -np.eye(3)]):
            # nearly linear efforts leave a long flat valley; the noise is not to go below its floor
            assert objective(np.maximum(found + change, [-np.inf, -np.inf, floor])) > best - 0.05


def test_efforts_are_learned_where_there_are_data_from_rates_and_from_states(pulse):
    *_, fitted, measured, sine = pulse
    assert fitted.ok and measured.ok
    visited = np.asarray(sine)[::10].reshape(-1, 2)
    visited = visited[np.abs(visited[:, 1]) < 1]
    truth = np.stack([visited[:, 0], np.tanh(visited[:, 1]) / 2], axis=1)
    evaluate = jax.jit(independent_efforts)
    for efforts in (fitted, measured):
        error = evaluate(efforts, jnp.asarray(visited)) - truth
        assert np.sqrt(np.mean(error**2) / np.var(truth)) < 0.1


def test_nothing_makes_the_two_efforts_one_gradient(pulse):
    *_, fitted, _, _ = pulse
    jacobian = jax.jit(jax.jacobian(partial(independent_efforts, fitted)))(jnp.array([0.3, 0.8]))
    assert abs(float(jacobian[0, 1] - jacobian[1, 0])) > 1e-4


def test_rollout_forecasts_an_unseen_motion_and_reports_failure(pulse):
    system, values, times, *_, fitted, _, sine = pulse
    run = jax.jit(lambda f, x: roll_out_independent(system.structure.flow, f, values, x, times, 2))
    trajectory, ok = run(fitted, sine[0])
    assert ok
    deflections = jax.jit(jax.vmap(deflection))
    truth = deflections(sine[..., 1])
    error = jnp.mean((deflections(trajectory[..., 1]) - truth) ** 2)
    assert float(error / jnp.var(truth)) < 0.02
    assert not run(fitted._replace(constant=fitted.constant * jnp.nan), sine[0])[1]


def test_dtype_follows(pulse):
    system, *_, sites, fitted, _, _ = pulse
    states = jnp.zeros((201, 60, 2), jnp.float32)

    def everything(states):
        smoothed, rates = local_polynomial_rates(states, tuple(np.arange(201.0)))
        learned = fit_independent(smoothed, rates, sites, system.structure.grid.spacing[0])
        parameters = parameter_values(system, states.dtype)
        times = jnp.arange(3, dtype=states.dtype)
        return learned._replace(ok=states), roll_out_independent(
            system.structure.flow, learned, parameters, states[0], times
        )[0]

    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(everything, states))} == {jnp.dtype(jnp.float32)}
    assert fitted.solved.dtype == jnp.float64
