"""Integrals between noisy frames: the posterior of the process, and the scale it is told."""

import numpy as np
import pytest

from phdme_jax.gp.quadrature import TimeScale, find_time_scale, noisy_interval_rule
from phdme_jax.numerics.quadrature import integral_of_tests


def kernel(a, b, length):
    return np.exp(-0.5 * ((a[:, None] - b) / length) ** 2)


@pytest.mark.parametrize(("length", "noise"), [(0.5, 1e-2), (0.2, 1e-4), (1.0, 0.3)])
def test_the_scale_of_draws_is_found(length, noise):
    generator = np.random.default_rng(0)
    times = np.sort(generator.uniform(0.0, 5.0, 60))
    covariance = kernel(times, times, length) + noise * np.eye(60)
    draws = 7.0 * np.linalg.cholesky(covariance) @ generator.standard_normal((60, 300))
    found = find_time_scale(times, draws)
    assert abs(np.log(found.length / length)) < 0.15 and abs(np.log(found.noise / noise)) < 0.6


def test_the_scale_of_a_long_recording_is_found_from_a_few_windows():
    times = np.cumsum(np.random.default_rng(0).uniform(0.5, 1.5, 3000))
    values = np.sin(times[:, None] / 6 + np.arange(20)) + 0.05 * np.random.default_rng(1).standard_normal((3000, 20))
    found = find_time_scale(times, values)
    assert 3 < found.length < 20 and 0.2 < found.noise / (0.05**2 / 0.5) < 3


def test_the_rule_is_the_posterior_of_the_integral():
    """Against the process on a fine grid: mean and variance of the integral given all samples."""
    times, scale = np.array([0.0, 0.1, 0.5, 0.52, 1.1, 2.0]), TimeScale(0.7, 0.02)
    rule = noisy_interval_rule(times, scale)
    inverse = np.linalg.inv(kernel(times, times, 0.7) + 0.02 * np.eye(6))
    for k in range(5):
        fine = np.linspace(times[k], times[k + 1], 401)
        measure = np.full(401, fine[1] - fine[0])
        measure[[0, -1]] /= 2
        cross = measure @ kernel(fine, times, 0.7)
        np.testing.assert_allclose(rule.weights[k], cross @ inverse, atol=1e-5)
        left = measure @ kernel(fine, fine, 0.7) @ measure - cross @ inverse @ cross
        # what is left is what noise lets through and what the rule misses
        np.testing.assert_allclose(rule.missed[k] + 0.02 * rule.weights[k] @ rule.weights[k], left, atol=1e-5)


def test_smooth_functions_without_noise_are_integrated_at_any_times():
    times = np.concatenate([np.geomspace(0.01, 3.0, 40), [3.000001]])
    rule = noisy_interval_rule(times, TimeScale(1.0, 1e-12))
    found = integral_of_tests(rule, np.eye(40)) @ np.cos(2 * times)
    np.testing.assert_allclose(found, np.diff(np.sin(2 * times)) / 2, atol=3e-5)
