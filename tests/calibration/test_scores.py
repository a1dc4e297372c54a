"""The scores and the band they define are two views of one prediction set."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from phdme_jax.calibration import ball_score, band, band_scale, band_score

SHAPE = (6, 5, 2)


def _example(seed, dtype=jnp.float64, shape=SHAPE):
    random = np.random.default_rng(seed)
    truth, mean = random.standard_normal((2, *shape))
    scale = np.add(random.uniform(0.1, 2.0, shape), [0.01, 0.3])
    return tuple(jnp.asarray(array, dtype) for array in (truth, mean, scale))


def test_band_scale_adds_each_floor_to_its_own_field():
    scale = band_scale(jnp.ones(SHAPE), jnp.array([0.25, 2.0]))
    np.testing.assert_array_equal(scale[..., 0], 1.25)
    np.testing.assert_array_equal(scale[..., 1], 3.0)


def test_band_score_by_hand():
    truth = jnp.array([[1.0, 0.0], [3.0, -2.0]])
    mean = jnp.array([[1.0, 0.5], [1.0, 2.0]])
    scale = jnp.array([[0.0, 0.25], [1.0, 1.0]])  # scaled errors 0 (0/0), 2, 2, 4
    assert float(band_score(truth, mean, scale)) == 4.0


@pytest.mark.parametrize("shape", [(6, 2), (6, 5, 2), (4, 3, 5, 2)], ids=["no grid", "line", "plane"])
def test_trajectory_is_inside_band_exactly_when_score_is_at_most_quantile(shape):
    """Just above its score the band holds the trajectory, just below it does not."""
    for seed in range(5):
        truth, mean, scale = _example(seed, shape=shape)
        score = band_score(truth, mean, scale)
        for factor, inside in ((1 + 1e-9, True), (1 - 1e-9, False)):
            lower, upper = band(mean, scale, factor * score)
            assert bool(jnp.all((lower <= truth) & (truth <= upper))) is inside


def test_known_initial_row_takes_no_part_even_without_a_floor():
    truth, mean, scale = _example(1)
    later = band_score(truth[1:], mean[1:], scale[1:])
    pinned = band_score(truth, mean.at[0].set(truth[0]), scale.at[0].set(0.0))
    assert float(pinned) == float(later)
    lower, upper = band(mean, scale.at[0].set(0.0), later)
    np.testing.assert_array_equal(lower[0], mean[0])
    np.testing.assert_array_equal(upper[0], mean[0])


def test_impossible_and_failed_forecasts_score_infinity():
    truth, mean, scale = _example(2)
    assert band_score(truth, mean, scale.at[0].set(0.0)) == jnp.inf  # an error where none was deemed possible
    assert band_score(truth, mean.at[3, 1, 0].set(jnp.nan), scale) == jnp.inf
    assert band_score(truth, mean, scale.at[3, 1, 0].set(jnp.nan)) == jnp.inf
    assert ball_score(truth, mean.at[3, 1, 0].set(jnp.nan)) == jnp.inf
    assert ball_score(truth, mean.at[3, 1, 0].set(jnp.inf)) == jnp.inf


def test_infinite_quantile_gives_the_whole_line_even_at_zero_scale():
    _, mean, scale = _example(3)
    for quantile in (jnp.inf, jnp.asarray(jnp.inf)):
        lower, upper = band(mean, scale.at[0].set(0.0), quantile)
        assert bool(jnp.all(lower == -jnp.inf)) and bool(jnp.all(upper == jnp.inf))


def test_scores_do_not_depend_on_units():
    """Measuring the second field in other units changes neither score, if the scales follow."""
    truth, mean, scale = _example(4)
    units, field_scale = jnp.array([1.0, 1000.0]), jnp.array([0.5, 2.0])
    np.testing.assert_allclose(
        band_score(truth * units, mean * units, scale * units), band_score(truth, mean, scale), rtol=1e-12
    )
    np.testing.assert_allclose(
        ball_score(truth * units, mean * units, field_scale * units),
        ball_score(truth, mean, field_scale),
        rtol=1e-12,
    )
    assert float(ball_score(truth * units, mean * units)) > 100 * float(ball_score(truth, mean))


def test_ball_score_is_the_root_mean_square_of_the_whole_trajectory():
    truth, mean, _ = _example(5)
    expected = np.linalg.norm(np.ravel(truth - mean)) / np.sqrt(truth.size)
    np.testing.assert_allclose(ball_score(truth, mean), expected, rtol=1e-12)
    np.testing.assert_allclose(ball_score(truth, mean, jnp.array([2.0, 2.0])), expected / 2, rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_precision_follows_the_inputs_under_jit_and_vmap(dtype):
    truths, means, scales = (jnp.stack(arrays) for arrays in zip(*(_example(n, dtype) for n in range(7)), strict=True))
    scores = jax.jit(jax.vmap(band_score))(truths, means, scales)
    balls = jax.jit(jax.vmap(ball_score))(truths, means)
    lowers, uppers = jax.jit(jax.vmap(band, in_axes=(0, 0, None)))(means, scales, scores[0])
    assert scores.dtype == balls.dtype == lowers.dtype == uppers.dtype == dtype
    np.testing.assert_allclose(scores[3], band_score(truths[3], means[3], scales[3]), rtol=1e-6)
    np.testing.assert_allclose(balls[3], ball_score(truths[3], means[3]), rtol=1e-6)


def test_shapes_that_would_broadcast_are_refused():
    truth, mean, scale = _example(7)
    jaxtyping.config.update("jaxtyping_disable", True)  # users run without the shape checks of the tests
    try:
        with pytest.raises(ValueError, match="expected one shape for truth, mean, scale"):
            band_score(truth, mean, scale[:1])
        with pytest.raises(ValueError, match="expected one shape for truth, mean"):
            ball_score(truth, mean[..., :1])
        with pytest.raises(ValueError, match="expected one shape for mean, scale"):
            band(mean, scale[0], 1.0)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_a_perfect_forecast_is_at_the_bottom_of_the_ball_score():
    truth = jnp.ones((5, 3, 2))
    np.testing.assert_array_equal(jax.grad(lambda mean: ball_score(truth, mean))(truth), 0.0)
