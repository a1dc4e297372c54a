"""Physics-informed losses: variances, estimates and terms against hand calculation and exact denoisers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion.schedule import CosineSchedule, SteppedCosineSchedule
from phdme_jax.methods.equations.constraints import Constraints
from phdme_jax.methods.equations.informed import (
    Informed,
    constraint_penalty,
    informed_loss,
    level_frequencies,
    posterior_variance,
    sample_estimate,
)

SCHEDULE = SteppedCosineSchedule()
MEAN, STD = 0.4, 0.7


def gaussian_denoise(noisy, t):
    """Posterior mean for normal examples, the exact denoiser."""
    alpha, sigma = SCHEDULE.alpha_sigma(t)
    return MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (noisy - alpha * MEAN)


def test_posterior_variance_is_that_of_the_discrete_chain():
    angle = np.cos((np.arange(101) / 100 + 0.008) / 1.008 * np.pi / 2) ** 2
    beta = np.clip(1 - angle[1:] / angle[:-1], 0, 0.999)
    signal = np.cumprod(1 - beta)
    expected = beta[1:] * (1 - signal[:-1]) / (1 - signal[1:])
    found = jax.vmap(lambda level: posterior_variance(SCHEDULE, level, 100))(jnp.arange(100.0))
    np.testing.assert_allclose(found[1:], expected, rtol=1e-8)
    assert found[0] == found[1]
    np.testing.assert_allclose(found[0], 4.03e-4, rtol=2e-3)
    np.testing.assert_allclose(np.mean(1 / (2 * found)), 65.9, rtol=2e-3)  # as measured of the published code


def test_sample_estimate_follows_the_exact_flow_of_a_gaussian():
    """The probability flow takes alpha m + sqrt(alpha^2 s^2 + sigma^2) z to m + s z."""
    z, level = jnp.array([1.3, -0.2]), jnp.asarray(60.0)
    alpha, sigma = SCHEDULE.alpha_sigma(level / 99)
    noisy = alpha * MEAN + jnp.sqrt(alpha**2 * STD**2 + sigma**2) * z
    first = gaussian_denoise(noisy, level / 99)

    def error(between):
        options = Informed(estimation="sample", num_between=between)
        found = sample_estimate(gaussian_denoise, SCHEDULE, noisy, first, level, options)
        return jnp.abs(found - (MEAN + STD * z)).max()

    assert error(0) > 2 * error(2) > 8 * error(59)
    assert error(59) < 0.03


def test_published_sample_estimate_hands_the_noisy_example_on():
    calls = []

    def denoise(noisy, t):
        calls.append((np.asarray(noisy), float(t)))
        return 0.5 * noisy

    noisy, level = jnp.array([1.0, 2.0]), jnp.asarray(40.0)
    for reuses in (True, False):
        calls.clear()
        options = Informed(estimation="sample", reuses_noisy_input=reuses)
        sample_estimate(denoise, SCHEDULE, noisy, 0.5 * noisy, level, options)
        ((given, time),) = calls
        assert time == 0.0
        assert np.array_equal(given, noisy) is reuses
        if not reuses:
            alpha, sigma = SCHEDULE.alpha_sigma(level / 99)
            last_alpha, last_sigma = SCHEDULE.alpha_sigma(jnp.asarray(0.0))
            expected = last_alpha * 0.5 * noisy + last_sigma * (noisy - alpha * 0.5 * noisy) / sigma
            np.testing.assert_allclose(given, expected, rtol=1e-12)


def test_at_the_first_level_the_sample_is_the_mean():
    noisy = jnp.array([0.3, 1.0])
    first = gaussian_denoise(noisy, jnp.asarray(0.0))
    found = sample_estimate(gaussian_denoise, SCHEDULE, noisy, first, jnp.asarray(0.0), Informed(num_between=3))
    np.testing.assert_allclose(found, first, rtol=1e-12)


def test_terms_are_weighted_by_the_variance_and_by_their_coefficients():
    asked = Constraints(lambda x: x - 1.0, lambda x: x[0] - 3.0, lambda x: jnp.sum(x))
    point, variance = jnp.array([2.0, 5.0]), jnp.asarray(0.1)
    options = Informed(mean_weight=0.5, inequality_weight=0.25, objective_weight=2.0)
    total, sizes = constraint_penalty(options, asked, point, variance)
    # the inequality holds, so that it costs nothing
    np.testing.assert_allclose(total, 0.5 * (1 + 16) / 2 / 0.2 + 2.0 * 7.0, rtol=1e-12)
    np.testing.assert_allclose([sizes["residual"], sizes["inequality"], sizes["objective"]], [2.5, 0.0, 7.0])
    held, _ = constraint_penalty(
        Informed(mean_weight=0.0, inequality_weight=0.25, equality=True), asked, point, variance
    )
    np.testing.assert_allclose(held, 0.25 * 1.0 / 0.2, rtol=1e-12)
    broken, _ = constraint_penalty(
        Informed(mean_weight=0.0, inequality_weight=0.25), asked, point.at[0].set(4.0), variance
    )
    np.testing.assert_allclose(broken, 0.25 * 1.0 / 0.2, rtol=1e-12)


@pytest.mark.parametrize(("variance", "expected"), [("step", None), ("denoising", 0.2), ("denoising", 0.3**2)])
def test_the_variance_of_the_virtual_observation_is_the_one_asked_for(variance, expected):
    """A signal-to-noise ratio of 1 / 0.09 at some level; a denoiser that always answers 2, a residual of its square."""
    levels = jnp.arange(0.0, 99.0, 1e-3)
    alpha, sigma = jax.vmap(SCHEDULE.alpha_sigma)(levels / 99)
    level = levels[jnp.argmin(jnp.abs(sigma / alpha - 0.3))]
    gamma = 5.0 if expected == 0.2 else 20.0  # cut off below 1 / 0.09, or not
    options = Informed(mean_weight=0.5, objective_weight=3.0, variance=variance, gamma=gamma)
    asked = Constraints(residual=lambda point: point**2, objective=lambda point: point[0])
    two = lambda noisy, t: jnp.full_like(noisy, 2.0)  # noqa: E731
    _, metrics = informed_loss(two, SCHEDULE, jnp.zeros(3), asked, options, jax.random.key(0), level)
    objective = 3.0 * 2.0 / (expected or 1.0)
    expected = expected or posterior_variance(SCHEDULE, level, 100)
    np.testing.assert_allclose(metrics["penalty"], 0.5 * 16.0 / (2.0 * expected) + objective, rtol=1e-4)
    np.testing.assert_allclose(metrics["denoising"], 4.0 * min(1 / 0.3**2, gamma), rtol=1e-4)


def test_a_floor_of_the_likelihood_takes_the_slope_of_large_residuals_away():
    asked, variance = Constraints(lambda x: x), jnp.asarray(0.1)
    options = Informed(mean_weight=1.0, least_log_likelihood=-10.0)
    slope = jax.grad(lambda x: constraint_penalty(options, asked, x, variance)[0])(jnp.array([1.0, 9.0]))
    np.testing.assert_allclose(slope, [1.0 / 0.1 / 2, 0.0])


def test_without_physics_the_loss_is_the_weighted_denoising_loss():
    example, key = jnp.array([0.3, -0.2, 0.9]), jax.random.key(0)
    level = jnp.asarray(30.0)
    loss, metrics = informed_loss(gaussian_denoise, SCHEDULE, example, Constraints(), Informed(), key, level)
    alpha, sigma = SCHEDULE.alpha_sigma(level / 99)
    noise_key = jax.random.split(jax.random.split(key)[1])[1]
    noisy = alpha * example + sigma * jax.random.normal(noise_key, (3,))
    expected = min((alpha / sigma) ** 2, 5.0) * jnp.mean((gaussian_denoise(noisy, level / 99) - example) ** 2)
    np.testing.assert_allclose(loss, expected, rtol=1e-10)
    assert metrics["penalty"] == 0.0


def test_drawn_levels_are_those_of_the_chain():
    seen = []

    def denoise(noisy, t):
        seen.append(t)
        return noisy

    loss = lambda key: informed_loss(denoise, SCHEDULE, jnp.zeros(1), Constraints(), Informed(num_levels=5), key)[0]  # noqa: E731
    times = []
    for key in jax.random.split(jax.random.key(0), 40):
        loss(key)
        times.append(float(seen.pop()))
    assert set(np.round(np.array(times) * 4, 9)) == {0.0, 1.0, 2.0, 3.0, 4.0}


def test_levels_drawn_by_their_weight_leave_the_mean_of_the_loss_and_lower_its_spread():
    asked = Constraints(residual=lambda point: jnp.ones_like(point))  # of one size at all levels
    example = MEAN + STD * jnp.array([1.0, -0.5])
    losses = []
    for share in (0.0, 0.5):
        options = Informed(mean_weight=0.1, level_share=share)
        one = lambda key, options=options: informed_loss(gaussian_denoise, SCHEDULE, example, asked, options, key)[0]  # noqa: E731
        losses.append(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 40000)))
    even, drawn = losses
    np.testing.assert_allclose(drawn.mean(), even.mean(), rtol=0.02)
    assert drawn.std() < 0.5 * even.std()
    often = level_frequencies(Informed(level_share=0.5), SCHEDULE)
    np.testing.assert_allclose(often.sum(), 1.0, rtol=1e-12)
    assert often[0] > 0.09 and often[50] > 0.005


def test_levels_are_drawn_evenly_where_no_residual_weighs_them():
    example = MEAN + STD * jnp.array([1.0, -0.5])
    for key in jax.random.split(jax.random.key(4), 3):
        even, drawn = (
            informed_loss(gaussian_denoise, SCHEDULE, example, Constraints(), Informed(level_share=share), key)[0]
            for share in (0.0, 0.5)
        )
        assert even == drawn


def test_gradients_pass_through_every_call_of_the_denoiser():
    def loss(scale, between):
        denoise = lambda x, t: scale * gaussian_denoise(x, t)  # noqa: E731
        noisy, level = jnp.array([0.9]), jnp.asarray(50.0)
        options = Informed(estimation="sample", num_between=between)
        return sample_estimate(denoise, SCHEDULE, noisy, denoise(noisy, level / 99), level, options)[0]

    for between in (0, 2):
        slope = jax.grad(loss)(1.0, between)
        difference = (loss(1.0 + 1e-6, between) - loss(1.0 - 1e-6, between)) / 2e-6
        np.testing.assert_allclose(slope, difference, rtol=1e-6)


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="level_share"):
        Informed(level_share=1.0)
    with pytest.raises(ValueError, match="variance"):
        Informed(variance="guess")
    with pytest.raises(ValueError, match="estimation"):
        Informed(estimation="median")
    with pytest.raises(ValueError, match="levels"):
        Informed(num_levels=2)
    assert CosineSchedule().variance_preserving
