"""The conformal quantile covers exactly as often as theory says, and refuses where it cannot."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.calibration import (
    band,
    band_score,
    conformal_quantile,
    conformal_rank,
    expected_coverage,
    minimum_calibration_size,
)


def _batched_quantile(level):
    return jax.jit(jax.vmap(lambda scores: conformal_quantile(scores, level)))


def _exchangeable_scores(seed, num_repeats, num_scores):
    """Scores that are exchangeable but far from independent: a random location and scale shared by each row."""
    random = np.random.default_rng(seed)
    scale = np.exp(random.standard_normal((num_repeats, 1)))
    location = 3 * random.standard_normal((num_repeats, 1))
    return location + scale * np.abs(random.standard_normal((num_repeats, num_scores)))


@pytest.mark.parametrize(("num_calibration", "level"), [(20, 0.9), (10, 0.9), (30, 0.7), (9, 0.9)])
def test_coverage_of_exchangeable_scores_is_exact(num_calibration, level):
    """Within four binomial standard errors of k/(n+1), which tells the rank k from its neighbours."""
    num_repeats = 60_000
    scores = _exchangeable_scores(0, num_repeats, num_calibration + 1)
    calibration, fresh = scores[:, :-1], scores[:, -1]
    rank = conformal_rank(num_calibration, level)
    truth = rank / (num_calibration + 1)
    assert level <= truth < level + 1 / (num_calibration + 1)
    assert truth == pytest.approx(expected_coverage(num_calibration, level))

    tolerance = 4 * math.sqrt(truth * (1 - truth) / num_repeats)
    covered = fresh <= np.asarray(_batched_quantile(level)(jnp.asarray(calibration)))
    assert abs(np.mean(covered) - truth) < tolerance
    # The same tolerance rejects the next smaller score and the interpolated quantile, so the test can tell them apart.
    # Except at n = 9, where the conformal quantile is the maximum, the next smaller one is the plain s_(⌈n·level⌉).
    assert num_calibration == 9 or math.ceil(num_calibration * level) == rank - 1
    ordered = np.sort(calibration, axis=1)
    assert np.mean(fresh <= ordered[:, rank - 2]) < truth - 2 * tolerance
    assert np.mean(fresh <= np.quantile(calibration, level, axis=1)) < truth - 2 * tolerance


def test_band_covers_whole_trajectories_however_wrong_the_ensemble_spread():
    """Random walks forecast with a constant spread that is three times too small."""
    num_repeats, num_calibration, level = 2_000, 14, 0.8
    steps = np.random.default_rng(2).standard_normal((num_repeats, num_calibration + 1, 10, 2))
    steps[:, :, 0] = 0.0
    walks = jnp.asarray(np.cumsum(steps, axis=2))
    mean = jnp.zeros((10, 2))
    scale = jnp.full((10, 2), 1 / 3).at[0].set(0.0)

    def is_inside(trajectories):
        scores = jax.vmap(lambda truth: band_score(truth, mean, scale))(trajectories[:-1])
        lower, upper = band(mean, scale, conformal_quantile(scores, level))
        return jnp.all((lower <= trajectories[-1]) & (trajectories[-1] <= upper))

    covered = jnp.mean(jax.jit(jax.vmap(is_inside))(walks))
    assert abs(float(covered) - 0.8) < 4 * math.sqrt(0.8 * 0.2 / num_repeats)  # k = 12 of 15: exactly 80 %


def test_quantile_is_the_smallest_score_with_enough_scores_below():
    """Brute force in integers over every n to 40 and every whole per cent, ties included."""
    scores = np.random.default_rng(0).integers(0, 25, 40).astype(float)
    for num_calibration in range(1, 41):
        head = scores[:num_calibration]
        at_most = np.array([np.sum(head <= score) for score in head])
        for percent in range(1, 100):
            enough = 100 * at_most >= percent * (num_calibration + 1)
            if not enough.any():
                with pytest.raises(ValueError, match="expected at least"):
                    conformal_rank(num_calibration, percent / 100)
                continue
            rank = conformal_rank(num_calibration, percent / 100)
            assert np.sort(head)[rank - 1] == head[enough].min()
    for percent in (5, 50, 90, 97):
        enough = 100 * np.array([np.sum(scores <= score) for score in scores]) >= percent * 41
        assert float(conformal_quantile(jnp.asarray(scores), percent / 100)) == scores[enough].min()


@pytest.mark.parametrize("denominator", [3, 7, 10, 20, 100, 1000])
def test_rank_is_free_of_floating_error(denominator):
    """Levels written as quotients, differences from one and sums of tenths all mean the fraction."""
    for numerator in range(1, denominator):
        for num_calibration in (denominator - 1, 3 * denominator - 1, 3 * denominator, 997 * denominator - 1):
            exact = -(-(num_calibration + 1) * numerator // denominator)
            assert conformal_rank(num_calibration, numerator / denominator) == exact
            assert conformal_rank(num_calibration, 1 - (denominator - numerator) / denominator) == exact
    assert conformal_rank(9, 0.9) == 9
    assert conformal_rank(9, 0.1 + 0.2) == 3  # plain ceil gives 4


def test_minimum_size_is_the_first_that_is_not_refused():
    for level in (0.05, 0.5, 2 / 3, 0.9, 0.95, 0.97, 0.99, 0.999):
        least = minimum_calibration_size(level)
        assert 1 <= conformal_rank(least, level) <= least
        with pytest.raises(ValueError):
            conformal_rank(least - 1, level)
    assert minimum_calibration_size(0.9) == 9
    assert minimum_calibration_size(1 - 0.01) == 99


@pytest.mark.parametrize("num_calibration", [1, 2, 6, 8, 18, 12345])
def test_refusal_names_everything_and_its_advice_works(num_calibration):
    level = 0.99995
    with pytest.raises(ValueError) as refusal:
        conformal_quantile(jnp.zeros(num_calibration), level)
    message = str(refusal.value)
    least = minimum_calibration_size(level)
    assert f"at least {least} " in message and f"n = {num_calibration};" in message and "level 0.99995" in message
    advised = float(message.removesuffix(".").rsplit(" ", 1)[1])
    assert conformal_rank(num_calibration, advised) == num_calibration
    assert float(Fraction(num_calibration, num_calibration + 1)) - advised < 1e-6


def test_no_scores_at_all_are_refused_without_advice_on_levels():
    with pytest.raises(ValueError, match=r"got n = 0; add trajectories\.$"):
        conformal_quantile(jnp.zeros(0), 0.1)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 90.0, math.nan, math.inf])
def test_levels_outside_the_unit_interval_are_refused(level):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        conformal_rank(100, level)


def test_failed_forecasts_count_as_infinite_scores():
    scores = jnp.arange(1.0, 20.0)  # n = 19, level 0.9: rank 18
    assert float(conformal_quantile(scores, 0.9)) == 18.0
    assert float(conformal_quantile(scores.at[0].set(jnp.nan), 0.9)) == 19.0
    assert float(conformal_quantile(scores.at[:2].set(jnp.nan), 0.9)) == math.inf


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_quantile_is_one_of_the_scores_in_their_own_precision(dtype):
    scores = jnp.asarray(np.random.default_rng(3).uniform(size=50), dtype)
    quantile = jax.jit(conformal_quantile, static_argnames="level")(scores, level=0.85)
    assert quantile.dtype == dtype
    assert int(jnp.sum(scores <= quantile)) == 44  # ⌈51·0.85⌉ = ⌈43.35⌉
    assert float(quantile) == float(conformal_quantile(scores[::-1], 0.85))


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.float64, float, lambda x: jnp.asarray(x, jnp.float32)])
def test_a_level_is_the_one_that_was_meant_whatever_its_type(kind):
    for level, rank in ((0.6, 6), (0.7, 7), (0.8, 8), (0.9, 9)):
        assert conformal_rank(9, kind(level)) == rank
