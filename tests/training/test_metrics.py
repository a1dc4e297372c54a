"""Scores against closed forms, double sums and the properties that define them."""

import math

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from scipy import stats

from phdme_jax.training.metrics import (
    band_width,
    crps,
    energy_drift,
    energy_increase,
    energy_score,
    mse,
    mse_per_field,
    nmse,
    nmse_per_field,
    reference_variance,
    spread_skill,
    spread_skill_ratio,
)


def _normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def _ensemble(seed, num_samples, shape=(4, 3, 2), dtype=jnp.float64):
    """Truth and samples, independent standard normal."""
    values = np.random.default_rng(seed).standard_normal((num_samples + 1, *shape))
    return jnp.asarray(values[0], dtype), jnp.asarray(values[1:], dtype)


def _ensembles(seed, num_repeats, num_samples, shape):
    """Many truths and their samples, independent standard normal."""
    values = _normal(seed, num_repeats, num_samples + 1, *shape)
    return values[:, 0], values[:, 1:]


def _within(values, expected, num_errors=4.0):
    """Whether the mean of independent values lies within some standard errors of the expected one."""
    values = np.asarray(values)
    return abs(values.mean() - expected) < num_errors * values.std() / math.sqrt(values.size)


def test_squared_errors_by_hand():
    truth = jnp.array([[1.0, 10.0], [2.0, 30.0]])
    forecast = jnp.array([[1.0, 12.0], [5.0, 30.0]])
    np.testing.assert_allclose(mse_per_field(truth, forecast), [4.5, 2.0])
    assert float(mse(truth, forecast)) == 3.25
    np.testing.assert_allclose(nmse_per_field(truth, forecast, jnp.array([9.0, 8.0])), [0.5, 0.25])
    assert float(nmse(truth, forecast, jnp.array([9.0, 8.0]))) == 0.375


def test_forecasting_the_reference_mean_has_normalised_error_one():
    reference = 5 + _normal(0, 30, 4, 3, 2) * jnp.array([1.0, 100.0])
    variance = reference_variance(reference)
    constant = jnp.broadcast_to(jnp.mean(reference, axis=(0, 1, 2)), (4, 3, 2))
    errors = jax.vmap(nmse_per_field, in_axes=(0, None, None))(reference, constant, variance)
    np.testing.assert_allclose(jnp.mean(errors, axis=0), 1.0, rtol=1e-12)


def test_normalised_error_does_not_depend_on_units():
    reference = _normal(1, 30, 4, 3, 2)
    truth, samples = _ensemble(2, 1)
    units = jnp.array([1.0, 1000.0])
    np.testing.assert_allclose(
        nmse(truth * units, samples[0] * units, reference_variance(reference * units)),
        nmse(truth, samples[0], reference_variance(reference)),
        rtol=1e-12,
    )


def test_field_that_never_varies_is_no_error_unless_missed():
    truth = jnp.zeros((4, 2))
    variance = jnp.array([1.0, 0.0])
    assert float(nmse(truth, truth, variance)) == 0.0
    assert float(nmse(truth, truth + 0.1, variance)) == math.inf


@pytest.mark.parametrize("fair", [True, False])
@pytest.mark.parametrize("num_samples", [2, 3, 10, 51])
def test_sorted_crps_equals_the_double_sum(num_samples, fair):
    truth, samples = _ensemble(3, num_samples)
    pairs = jnp.sum(jnp.abs(samples[:, None] - samples[None]), axis=(0, 1))
    count = num_samples * (num_samples - 1) if fair else num_samples**2
    expected = jnp.mean(jnp.mean(jnp.abs(samples - truth), axis=0) - pairs / (2 * count))
    np.testing.assert_allclose(crps(truth, samples, fair=fair), expected, rtol=1e-12)


def test_crps_of_the_empirical_distribution_is_the_integral_of_its_squared_error():
    """∫ (F(x) − 1[x ≥ y])² dx, with F the step function of the ensemble, summed exactly between its steps."""
    truth, samples = _ensemble(4, 7, shape=(1, 1))
    members, y = np.sort(np.ravel(samples)), float(truth[0, 0])
    knots = np.sort(np.append(members, y))
    middles = (knots[1:] + knots[:-1]) / 2
    distribution = np.searchsorted(members, middles) / members.size
    expected = np.sum((distribution - (middles >= y)) ** 2 * np.diff(knots))
    assert float(crps(truth, samples, fair=False)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1.5, -3.0])
def test_fair_crps_of_three_samples_is_on_average_the_gaussian_closed_form(offset):
    """σ[z(2Φ(z) − 1) + 2φ(z) − 1/√π]; the biased score of the same ensembles is rejected."""
    mean, sigma, truth = 2.0, 0.7, 2.0 + 0.7 * offset
    samples = mean + sigma * _normal(5, 60_000, 3, 1, 1)
    closed = sigma * (offset * (2 * stats.norm.cdf(offset) - 1) + 2 * stats.norm.pdf(offset) - 1 / math.sqrt(math.pi))

    def score(fair):
        return jax.jit(jax.vmap(lambda members: crps(jnp.full((1, 1), truth), members, fair=fair)))(samples)

    assert _within(score(True), closed)
    # E|X − X'| = 2σ/√π; the empirical distribution keeps only (n−1)/n of the half of it.
    assert _within(score(False), closed + sigma / math.sqrt(math.pi) / 3)
    assert not _within(score(False), closed)


def test_single_forecast_scores_its_absolute_error_and_has_no_fair_score():
    truth, samples = _ensemble(6, 1)
    np.testing.assert_allclose(crps(truth, samples, fair=False), jnp.mean(jnp.abs(truth - samples[0])), rtol=1e-12)
    np.testing.assert_allclose(energy_score(truth, samples, fair=False), jnp.sqrt(mse(truth, samples[0])), rtol=1e-12)
    for score in (crps, energy_score, spread_skill):
        with pytest.raises(ValueError, match="expected at least 2 samples, got 1"):
            score(truth, samples)


@pytest.mark.parametrize("fair", [True, False])
def test_energy_score_of_a_single_number_is_the_crps(fair):
    truth, samples = _ensemble(7, 9, shape=(1, 1))
    np.testing.assert_allclose(energy_score(truth, samples, fair=fair), crps(truth, samples, fair=fair), rtol=1e-12)


def test_energy_score_equals_the_double_sum():
    truth, samples = _ensemble(8, 12)
    flat, y = np.reshape(samples, (12, -1)), np.ravel(truth)
    norm = np.sqrt(y.size)
    pairs = sum(np.linalg.norm(a - b) for a in flat for b in flat) / norm
    first = np.mean([np.linalg.norm(a - y) for a in flat]) / norm
    assert float(energy_score(truth, samples)) == pytest.approx(first - pairs / (2 * 12 * 11), rel=1e-12)
    assert float(energy_score(truth, samples, fair=False)) == pytest.approx(first - pairs / (2 * 144), rel=1e-12)


def test_fair_energy_score_of_white_noise_has_its_closed_form():
    """½E‖X − X'‖ = Γ((d+1)/2)/Γ(d/2)/√d for standard normal trajectories of d numbers, whatever the ensemble size."""
    dimension = 12
    closed = math.gamma((dimension + 1) / 2) / math.gamma(dimension / 2) / math.sqrt(dimension)
    for num_samples in (2, 5):
        scores = jax.jit(jax.vmap(energy_score))(*_ensembles(9, 10_000, num_samples, (2, 3, 2)))
        assert _within(scores, closed)


def test_energy_score_is_least_for_the_true_distribution_of_trajectories():
    """Against a shift, both wrong spreads, and samples right at each time but without their dependence over time."""
    num_times, num_samples, num_repeats = 12, 12, 1_000
    truths, noise = _ensembles(10, num_repeats, num_samples, (num_times, 1))
    truths, walks = jnp.cumsum(truths, axis=-2), jnp.cumsum(noise, axis=-2)
    growth = jnp.sqrt(jnp.arange(1.0, num_times + 1))[:, None]
    forecasts = {
        "shifted": walks + 1.0,
        "overconfident": 0.5 * walks,
        "underconfident": 1.7 * walks,
        "independent in time": growth * noise,
    }
    scores = jax.jit(jax.vmap(energy_score))
    for name, forecast in forecasts.items():
        difference = np.asarray(scores(truths, forecast) - scores(truths, walks))  # a paired comparison
        assert difference.mean() > 4 * difference.std() / math.sqrt(num_repeats), name


def test_crps_does_not_see_dependence_over_time_and_the_energy_score_does():
    """Members that all stay on one side, against the same values dealt out so that each member changes sides."""
    signs = jnp.array([1.0, -1.0, 1.0, -1.0])[:, None, None]
    steady = signs * jnp.ones((4, 8, 1))
    changing = steady * jnp.array([1.0, -1.0] * 4)[:, None]
    truth = jnp.zeros((8, 1))
    assert float(crps(truth, steady)) == pytest.approx(float(crps(truth, changing)), rel=1e-12)
    mixed = jnp.concatenate([steady[:2], changing[2:]])
    assert float(crps(truth, mixed)) == pytest.approx(float(crps(truth, steady)), rel=1e-12)
    # Distances of pairs: steady 2 in 4 of 6 pairs; mixed 2 in 2 pairs and √2 in 4.
    assert float(energy_score(truth, steady)) == pytest.approx(1 - 8 / 12, rel=1e-12)
    assert float(energy_score(truth, mixed)) == pytest.approx(1 - (4 + 4 * math.sqrt(2)) / 12, rel=1e-12)


@pytest.mark.parametrize("score", [crps, energy_score])
def test_scores_scale_with_units_and_ignore_a_common_shift(score):
    truth, samples = _ensemble(13, 6)
    value, shift, units = score(truth, samples), jnp.array([3.0, -7.0]), jnp.array([10.0, 0.1])
    np.testing.assert_allclose(score(truth + shift, samples + shift), value, rtol=1e-12)
    np.testing.assert_allclose(score(10 * truth, 10 * samples), 10 * value, rtol=1e-12)
    np.testing.assert_allclose(score(truth * units, samples * units, units), value, rtol=1e-12)


@pytest.mark.parametrize("score", [crps, energy_score])
def test_float32_keeps_its_digits_far_from_zero(score):
    """An ensemble of unit spread about 10 000: the difference of large sums would lose four digits."""
    truth, samples = _ensemble(14, 40, dtype=jnp.float32)
    truth, samples = truth + 1e4, samples + 1e4
    exact = score(truth.astype(jnp.float64), samples.astype(jnp.float64))
    assert float(score(truth, samples)) == pytest.approx(float(exact), rel=2e-6)


@pytest.mark.parametrize("num_samples", [2, 20])
def test_reliable_ensemble_has_spread_skill_ratio_one_at_every_size(num_samples):
    """Truth and members drawn alike; halving the members' spread about the mean gives the ratio it should."""

    truths, samples = _ensembles(15, 4_000, num_samples, (5, 2))

    def terms(spread):
        return jax.jit(jax.vmap(spread_skill))(truths, spread * samples)

    assert float(spread_skill_ratio(*terms(1.0))) == pytest.approx(1.0, abs=0.02)
    overconfident = 0.5 * math.sqrt((1 + 1 / num_samples) / (1 + 0.25 / num_samples))
    assert float(spread_skill_ratio(*terms(0.5))) == pytest.approx(overconfident, abs=0.02)


def test_spread_skill_terms_by_hand():
    truth, samples = jnp.array([[1.0]]), jnp.array([[[2.0]], [[4.0]]])
    terms = spread_skill(truth, samples)
    assert (float(terms.variance), float(terms.squared_error)) == (3.0, 4.0)  # 3/2 · variance 2; (3 − 1)²
    terms = spread_skill(truth, samples, jnp.array([2.0]))
    assert (float(terms.variance), float(terms.squared_error)) == (0.75, 1.0)


def test_energy_drift_and_increase_of_known_series():
    energy = jnp.array([2.0, 1.5, 1.7, 1.0, 1.1, 1.9])
    assert float(energy_drift(energy)) == 0.5
    assert float(energy_drift(energy, 4.0)) == 0.25
    assert float(energy_drift(-energy)) == 0.5
    assert float(energy_increase(energy)) == pytest.approx(0.9)  # from 1.0 to 1.9, in two steps
    assert float(energy_increase(jnp.linspace(1.0, 0.1, 50))) == 0.0
    assert float(energy_increase(jnp.linspace(0.0, 1.0, 7))) == pytest.approx(
        float(energy_increase(jnp.linspace(0.0, 1.0, 70)))
    )
    assert float(energy_drift(jnp.zeros(5))) == 0.0
    assert float(energy_drift(jnp.array([0.0, 1.0]))) == math.inf
    assert math.isnan(float(energy_increase(energy.at[2].set(jnp.nan))))


def test_energy_of_a_damped_oscillator_only_drifts():
    """x'' + 2γx' + x = 0: the exact energy never rises, and its drift is what the formula says."""
    gamma, time = 0.1, jnp.linspace(0.0, 20.0, 400)
    omega = math.sqrt(1 - gamma**2)
    decay = jnp.exp(-gamma * time)
    position = decay * (jnp.cos(omega * time) + gamma / omega * jnp.sin(omega * time))
    velocity = -decay / omega * jnp.sin(omega * time)
    energy = (position**2 + velocity**2) / 2
    assert float(energy_increase(energy)) < 1e-15
    assert float(energy_drift(energy)) == pytest.approx(float(1 - energy[-1] / energy[0]), rel=1e-12)
    assert float(energy_increase(position**2 / 2)) > 0.1  # the potential part alone does rise


def test_band_width_averages_and_weighs_fields():
    lower = jnp.zeros((3, 2))
    upper = jnp.array([[0.0, 0.0], [1.0, 20.0], [2.0, 40.0]])
    assert float(band_width(lower, upper)) == pytest.approx(10.5)
    assert float(band_width(lower, upper, jnp.array([1.0, 10.0]))) == pytest.approx(1.5)
    assert float(band_width(lower - jnp.inf, upper)) == math.inf


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_precision_follows_the_inputs_under_jit_and_vmap(dtype):
    truths, samples = (array.astype(dtype) for array in _ensembles(16, 3, 5, (4, 3, 2)))
    units = jnp.asarray([1.0, 2.0], dtype)

    def every_metric(truth, members):
        terms = spread_skill(truth, members, units)
        energy = jnp.sum(truth**2, axis=(1, 2))
        return {
            "mse": mse(truth, members[0]),
            "nmse": nmse(truth, members[0], reference_variance(members)),
            "crps": crps(truth, members, units),
            "energy_score": energy_score(truth, members, units, fair=False),
            "spread": terms.variance,
            "skill": terms.squared_error,
            "ratio": spread_skill_ratio(terms.variance[None], terms.squared_error[None]),
            "energy_drift": energy_drift(energy),
            "scaled_drift": energy_drift(energy, 2.0),
            "energy_increase": energy_increase(energy),
            "band_width": band_width(truth, members[0], units),
        }

    batched = jax.jit(jax.vmap(every_metric))(truths, samples)
    single = jax.jit(every_metric)(truths[1], samples[1])
    for name, values in batched.items():
        assert values.dtype == single[name].dtype == dtype, name
        np.testing.assert_allclose(values[1], single[name], rtol=2e-5, err_msg=name)


def test_shapes_that_would_broadcast_are_refused():
    truth, samples = _ensemble(17, 4)
    jaxtyping.config.update("jaxtyping_disable", True)  # users run without the shape checks of the tests
    try:
        with pytest.raises(ValueError, match="expected one shape for truth, forecast"):
            mse(truth, samples[0, :1])
        with pytest.raises(ValueError, match="expected samples of shape"):
            crps(truth, samples[:, :1])
        with pytest.raises(ValueError, match="expected one shape for lower, upper"):
            band_width(truth, samples[0, 0])
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_the_energy_score_has_a_slope_where_samples_and_truth_coincide():
    truth, samples = _ensemble(0, 4)
    direction = _normal(1, *samples.shape)
    slope = jnp.sum(jax.grad(lambda x: energy_score(truth, x))(samples) * direction)
    ahead, behind = (energy_score(truth, samples + sign * 1e-6 * direction) for sign in (1, -1))
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-6, rtol=1e-6)
    perfect = jnp.broadcast_to(truth, samples.shape)
    np.testing.assert_array_equal(jax.grad(lambda x: energy_score(truth, x))(perfect), 0.0)
