"""What failed counts as failed in every score, and what was cached but damaged is made again."""

import math

import numpy as np
import pytest

from experiments.evaluation.forecasts import accuracy
from phdme_jax.forecasting.bands import Forecasts, band_scores
from phdme_jax.training.stages import Trainer


@pytest.fixture
def truth():
    return np.random.default_rng(0).standard_normal((4, 5, 6, 2))


def test_a_failed_forecast_makes_every_score_infinite(truth):
    samples = np.repeat(truth[:, None], 3, axis=1)
    samples[1] = 0.0
    fine, failed = (
        Forecasts(samples.mean(axis=1), samples, np.array([True, ok, True, True]), 0.0) for ok in (True, False)
    )
    whole, broken = (accuracy(truth, forecasts, ("p", "q")) for forecasts in (fine, failed))
    assert set(whole) >= {"nmse", "mse", "nmse_p", "nmse_q", "crps", "energy_score"}
    assert all(math.isfinite(value.value) for value in whole.values())
    assert all(math.isinf(value.value) for value in broken.values())
    scores = band_scores(truth, failed, np.full(2, 0.1))
    assert np.isinf(scores[1]) and np.isfinite(scores[[0, 2, 3]]).all()


def test_spread_over_skill_of_samples_twice_as_wide_as_their_error(truth):
    """Samples at c +- d about a mean that is off by e: variance 2 d^2, times 3/2 for two samples, over e^2."""
    error, half = 0.3, 0.6
    samples = np.stack([truth + error - half, truth + error + half], axis=1)
    scores = accuracy(truth, Forecasts(samples.mean(axis=1), samples, np.ones(4, bool), 0.0), ("p", "q"))
    assert scores["spread_skill"].value == pytest.approx(np.sqrt(1.5 * 2 * half**2 / error**2))


def test_accuracy_by_hand_on_a_plane(truth):
    plane = truth.reshape(4, 5, 2, 3, 2)
    shifted = plane + np.array([0.5, -1.0])
    scores = accuracy(plane, Forecasts(shifted, None, np.ones(4, bool), 0.0), ("p", "q"))
    variance = plane.var(axis=(0, 1, 2, 3))
    assert scores["mse"].value == pytest.approx((0.25 + 1.0) / 2)
    assert scores["nmse_p"].value == pytest.approx(0.25 / variance[0])
    assert scores["nmse"].value == pytest.approx((0.25 / variance[0] + 1.0 / variance[1]) / 2)


def test_a_damaged_cache_is_made_again(tmp_path):
    states, made = np.arange(12.0).reshape(1, 2, 3, 2), []

    def keep():
        return Trainer(shared=tmp_path / "data", suffix="_0").keep(
            "rollouts", lambda: made.append(1) or {"states": states}
        )

    np.testing.assert_array_equal(keep()["states"], keep()["states"])
    assert len(made) == 1
    path = tmp_path / "data" / "rollouts_0.npz"
    path.write_bytes(path.read_bytes()[:-40])
    np.testing.assert_array_equal(keep()["states"], states)
    assert len(made) == 2
