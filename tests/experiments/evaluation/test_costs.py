"""The distance between predictive distributions."""

import numpy as np
import pytest

from experiments.evaluation.costs import predictive_distance


def normal(seed, mean=0.0, n=400):
    return mean + np.random.default_rng(seed).normal(size=(n, 12, 1, 1, 1))


def test_one_distribution_has_distance_zero_and_another_its_own():
    """For numbers of unit normals a shift of two gives E|Z sqrt2 + 2| twice, minus 4/sqrt(pi)."""
    truth = np.random.default_rng(3).normal(size=(5000, 1, 1, 1))
    same = predictive_distance(normal(0), normal(1), truth)
    assert abs(same.value) < 4 * same.stderr
    shifted = predictive_distance(normal(0), normal(1, 2.0), truth)
    draws = np.random.default_rng(4).normal(size=1_000_000) * np.sqrt(2)
    expected = 2 * np.abs(draws + 2.0).mean() - 4 / np.sqrt(np.pi)
    assert shifted.value == pytest.approx(expected, rel=0.05)
