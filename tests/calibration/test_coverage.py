"""Measured coverage follows the Beta and beta-binomial laws that its intervals are taken from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from phdme_jax.calibration import (
    conformal_quantile,
    conformal_rank,
    coverage_curve,
    coverage_interval,
    expected_coverage,
    is_covered,
)
from phdme_jax.calibration.coverage import coverage

NUM_REPEATS = 5_000


def _uniform_quantiles(seed, num_calibration, level):
    """Quantiles of uniform scores: each is its own coverage given the calibration set."""
    scores = jnp.asarray(np.random.default_rng(seed).uniform(size=(NUM_REPEATS, num_calibration)))
    return np.asarray(jax.jit(jax.vmap(lambda row: conformal_quantile(row, level)))(scores))


def _exponential_scores(seed, num_scores, dtype=jnp.float64):
    return jnp.asarray(np.random.default_rng(seed).exponential(size=num_scores), dtype)


@pytest.mark.parametrize(("num_calibration", "level"), [(20, 0.9), (99, 0.9), (50, 0.5)])
def test_conditional_coverage_follows_the_beta_law(num_calibration, level):
    quantiles = _uniform_quantiles(0, num_calibration, level)
    rank = conformal_rank(num_calibration, level)
    assert stats.kstest(quantiles, stats.beta(rank, num_calibration + 1 - rank).cdf).pvalue > 0.01
    # The neighbouring rank and the shape of a Beta law without the "+1" are rejected, so the test has power.
    assert stats.kstest(quantiles, stats.beta(rank - 1, num_calibration + 2 - rank).cdf).pvalue < 1e-6
    assert stats.kstest(quantiles, stats.beta(rank, num_calibration - rank).cdf).pvalue < 1e-6


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
def test_beta_interval_holds_the_coverage_as_often_as_it_says(confidence):
    interval = coverage_interval(30, None, 0.9, confidence)
    quantiles = _uniform_quantiles(1, 30, 0.9)
    held = np.mean((interval.lower <= quantiles) & (quantiles <= interval.upper))
    assert abs(held - confidence) < 4 * np.sqrt(confidence * (1 - confidence) / NUM_REPEATS)
    assert interval.lower < expected_coverage(30, 0.9) < interval.upper


@pytest.mark.parametrize("num_test", [1, 25, 400])
def test_beta_binomial_interval_holds_the_empirical_coverage(num_test):
    """As often as the discrete law allows, while the Beta interval alone would miss too often on a small test set."""
    confidence, rank = 0.9, conformal_rank(30, 0.9)
    interval = coverage_interval(30, num_test, 0.9, confidence)
    quantiles = _uniform_quantiles(2, 30, 0.9)
    fresh = np.random.default_rng(3).uniform(size=(NUM_REPEATS, num_test))
    measure = jax.jit(jax.vmap(lambda scores, quantile: coverage(is_covered(scores, quantile))))
    measured = np.asarray(measure(jnp.asarray(fresh), jnp.asarray(quantiles)))

    def held(ends):
        return np.mean((measured >= ends.lower - 1e-12) & (measured <= ends.upper + 1e-12))

    counts = np.arange(num_test + 1)
    inside = (counts / num_test >= interval.lower - 1e-12) & (counts / num_test <= interval.upper + 1e-12)
    exact = stats.betabinom(num_test, rank, 31 - rank).pmf(counts[inside]).sum()
    assert exact >= confidence
    assert abs(held(interval) - exact) < 4 * np.sqrt(exact * (1 - exact) / NUM_REPEATS) + 1e-12
    if num_test == 25:
        assert held(coverage_interval(30, None, 0.9, confidence)) < 0.8


def test_many_test_trajectories_leave_only_the_randomness_of_calibration():
    np.testing.assert_allclose(coverage_interval(30, 20_000, 0.9), coverage_interval(30, None, 0.9), atol=1e-3)


def test_interval_narrows_around_the_level_as_calibration_grows():
    widths = [interval.upper - interval.lower for interval in (coverage_interval(n, None, 0.9) for n in (99, 9999))]
    assert widths[0] / widths[1] == pytest.approx(10, rel=0.05)  # standard deviation √(level(1−level)/n)
    assert widths[1] == pytest.approx(2 * 1.96 * np.sqrt(0.09 / 1e4), rel=0.01)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_curve_agrees_with_one_level_at_a_time(dtype):
    calibration, fresh = _exponential_scores(4, 19, dtype), _exponential_scores(5, 200, dtype)
    levels = (0.1, 0.5, 0.9, 0.95, 0.96, 0.99)
    curve = jax.jit(lambda *scores: coverage_curve(*scores, levels))(calibration, fresh)
    assert {array.dtype for array in curve} == {jnp.dtype(dtype)}
    np.testing.assert_allclose(curve.level, levels[:4], rtol=1e-6)  # 19 trajectories support 95 % and no more
    for index, level in enumerate(levels[:4]):
        single = coverage(is_covered(fresh, conformal_quantile(calibration, level)))
        assert float(curve.coverage[index]) == pytest.approx(float(single), abs=1e-6)
        assert float(curve.expected[index]) == pytest.approx(expected_coverage(19, level), abs=1e-6)
        np.testing.assert_allclose(
            (curve.lower[index], curve.upper[index]), coverage_interval(19, 200, level), rtol=1e-6
        )


def test_curve_of_a_shifted_test_set_leaves_its_interval_and_an_exchangeable_one_stays():
    """Levels far apart; a 99.9 % interval at each."""
    calibration, fresh = _exponential_scores(6, 199), _exponential_scores(7, 500)
    same = coverage_curve(calibration, fresh, (0.2, 0.5, 0.9), 0.999)
    shifted = coverage_curve(calibration, 3 * fresh, (0.2, 0.5, 0.9), 0.999)
    assert np.all((same.lower <= same.coverage) & (same.coverage <= same.upper))
    assert np.all(shifted.coverage < shifted.lower)


def test_curve_is_empty_where_no_level_is_supported():
    curve = coverage_curve(jnp.ones(3), jnp.ones(5), (0.9, 0.95))
    assert all(array.shape == (0,) for array in curve)


def test_failed_forecasts_are_misses():
    """A test score that is not a number is not covered; one in calibration counts as infinite."""
    scores = jnp.array([1.0, jnp.nan, jnp.inf, 2.0])  # a score at the quantile is inside the closed set
    np.testing.assert_array_equal(is_covered(scores, 1.0), [True, False, False, False])
    assert float(coverage(is_covered(scores, jnp.asarray(1.0)))) == 0.25
    failing = coverage_curve(jnp.array([1.0, jnp.nan, 3.0]), jnp.array([2.0, 9.0]), (0.5, 0.75))
    np.testing.assert_array_equal(failing.coverage, [0.5, 1.0])  # quantiles 3 and infinity


def test_senseless_requests_are_refused():
    with pytest.raises(ValueError, match="expected at least 9 calibration trajectories"):
        coverage_interval(8, None, 0.9)
    with pytest.raises(ValueError, match="confidence strictly between"):
        coverage_interval(20, None, 0.9, 1.0)
    with pytest.raises(ValueError, match="at least one test trajectory"):
        coverage_interval(20, 0, 0.9)
    with pytest.raises(ValueError, match="at least one test trajectory"):
        coverage(jnp.zeros(0, bool))
    with pytest.raises(ValueError, match="at least one test trajectory"):
        coverage_curve(jnp.ones(20), jnp.ones(0), (0.9,))


def test_nine_runs_of_split_conformal_in_ten_end_inside_the_interval():
    """Simulated on exchangeable scores."""
    num_calibration, num_test, level = 39, 60, 0.8
    random = np.random.default_rng(0)
    calibration = np.sort(random.random((20_000, num_calibration)), axis=1)
    quantile = calibration[:, int(np.ceil((num_calibration + 1) * level)) - 1]
    coverage = np.mean(random.random((20_000, num_test)) <= quantile[:, None], axis=1)
    lower, upper = coverage_interval(num_calibration, num_test, level, 0.9)
    assert 0.9 <= np.mean((coverage >= lower) & (coverage <= upper)) < 0.95, "discreteness adds a little to 90 %"
    assert np.mean(coverage < lower) < 0.05 and np.mean(coverage > upper) < 0.05
