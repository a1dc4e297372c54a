"""Flow matching in a world whose velocity is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion.flow import (
    as_denoiser,
    carry_noise,
    flow_matching_loss,
    follow_flow,
    sample_flow,
    uneven_times,
)
from phdme_jax.diffusion.samplers import sample
from phdme_jax.diffusion.schedule import CosineSchedule, EdmSchedule

MEAN, STD = jnp.array([1.5, -0.5]), 0.3


def gaussian_velocity(point, time):
    """E[x_1 - noise | x_t] for independent normal examples of the given mean and deviation."""
    variance = (1.0 - time) ** 2 + (time * STD) ** 2
    rest = point - time * MEAN
    return MEAN + (time * STD**2 - (1.0 - time)) * rest / variance


def test_exact_velocity_carries_noise_to_the_examples():
    noise = jax.random.normal(jax.random.key(0), (4000, 2))
    keys = jax.random.split(jax.random.key(1), 4000)
    for restart in (0.0, 0.2):
        draw = jax.jit(jax.vmap(lambda z, k: sample_flow(gaussian_velocity, z, k, 100, restart)))
        examples = draw(noise, keys)
        np.testing.assert_allclose(examples.mean(axis=0), MEAN, atol=0.02)
        np.testing.assert_allclose(examples.std(axis=0), STD, rtol=0.05)


def test_loss_is_least_for_the_exact_velocity():
    examples = MEAN + STD * jax.random.normal(jax.random.key(0), (2000, 2))
    keys = jax.random.split(jax.random.key(1), 2000)

    def loss(factor):
        velocity = lambda x, t: factor * gaussian_velocity(x, t)  # noqa: E731
        return jax.vmap(lambda x, k: flow_matching_loss(velocity, x, k).loss)(examples, keys).mean()

    slope, curvature = jax.grad(loss)(1.0), jax.grad(jax.grad(loss))(1.0)
    assert abs(slope / curvature) < 0.03


def test_terms_are_those_of_the_straight_line():
    example = jnp.array([2.0, 3.0])
    terms = flow_matching_loss(lambda x, t: jnp.zeros_like(x), example, jax.random.key(0), jnp.asarray(0.25))
    noise = (terms.point - 0.25 * example) / 0.75
    np.testing.assert_allclose(terms.loss, jnp.mean((example - noise) ** 2), rtol=1e-12)


@pytest.mark.parametrize("num_steps", [1, 4])
def test_straight_flow_is_followed_exactly_from_anywhere(num_steps):
    velocity = lambda x, t: jnp.array([1.0, -2.0])  # noqa: E731
    found = follow_flow(velocity, jnp.array([0.0, 1.0]), 0.4, num_steps)
    np.testing.assert_allclose(found, [0.6, -0.2], atol=1e-12)
    told = follow_flow(velocity, jnp.array([0.0, 1.0]), 0.4, num_steps, first=jnp.array([1.0, -2.0]))
    np.testing.assert_allclose(found, told)


def test_euler_converges_at_first_order():
    exact = follow_flow(gaussian_velocity, jnp.array([0.7, 0.1]), 0.1, 4096)
    errors = [jnp.abs(follow_flow(gaussian_velocity, jnp.array([0.7, 0.1]), 0.1, n) - exact).max() for n in (16, 32)]
    assert abs(np.log2(errors[0] / errors[1]) - 1) < 0.2


@pytest.mark.parametrize(
    "go",
    [
        lambda: sample_flow(gaussian_velocity, jnp.ones(2), jax.random.key(0), 0),
        lambda: follow_flow(gaussian_velocity, jnp.ones(2), 0.0, 0),
        lambda: follow_flow(gaussian_velocity, jnp.ones(2), 0.0, -1, jnp.ones(2)),
    ],
)
def test_no_step_is_refused(go):
    with pytest.raises(ValueError, match="num_steps >= 1"):
        go()


VARIANCES = jnp.array([1e-4, 1e-2, 1.0, 30.0, 800.0])


def scales_velocity(point, time):
    """Of independent normal entries, some far finer than the noise and some far larger."""
    return (time * VARIANCES - (1 - time)) / ((1 - time) ** 2 + time**2 * VARIANCES) * point


def test_a_velocity_is_a_denoiser_that_samplers_follow_at_every_scale():
    schedule = CosineSchedule(log_snr_min=-13.0, log_snr_max=13.0)
    denoise = as_denoiser(scales_velocity, schedule)
    noisy = jnp.array([0.3, -2.0, 1.0, 4.0, 9.0])
    for t in jnp.array([0.2, 0.7]):
        alpha, sigma = schedule.alpha_sigma(t)
        expected = alpha * VARIANCES / (alpha**2 * VARIANCES + sigma**2) * noisy
        np.testing.assert_allclose(denoise(noisy, t), expected, rtol=1e-9)
    ratio = {}
    for count in (20, 80):
        found = sample(
            denoise, schedule, jnp.ones(5), jax.random.key(0), sampler="dpm", num_steps=count, spacing="log_snr"
        )
        ratio[count] = np.asarray(found / jnp.sqrt(VARIANCES))
    np.testing.assert_allclose(ratio[20], 1.0, atol=0.03)
    np.testing.assert_allclose(ratio[80], 1.0, atol=0.011)  # the finest are below the last level
    np.testing.assert_allclose(carry_noise(scales_velocity, jnp.ones(5), 20) / jnp.sqrt(VARIANCES), ratio[20])
    even = np.asarray(follow_flow(scales_velocity, jnp.ones(5), 0.0, 20) / jnp.sqrt(VARIANCES))
    np.testing.assert_allclose(even, [0.186, 0.796, 0.938, 0.872, 0.531], atol=0.001)


@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_uneven_times_run_from_noise_to_example_evenly_in_the_logarithm_of_the_ratio(count):
    times = np.asarray(uneven_times(count, jnp.float64))
    assert times.shape == (count + 1,) and (times[0], times[-1]) == (0.0, 1.0) and (np.diff(times) > 0).all()
    ratio = np.log((1 - times[1:-1]) / times[1:-1])
    np.testing.assert_allclose(np.diff(ratio, n=2), 0.0, atol=1e-9)
    if count > 2:
        np.testing.assert_allclose(ratio[[0, -1]], [6.5, -6.5], rtol=1e-9)


def test_even_steps_are_of_first_order():
    """x' = x + t from 1/2: x(1) = (x0 + 3/2) sqrt(e) - 2."""

    def missed(count):
        return float(jnp.abs(follow_flow(lambda x, t: x + t, jnp.ones(2), 0.5, count) - (2.5 * np.exp(0.5) - 2)).max())

    assert np.log2(missed(16) / missed(32)) == pytest.approx(1.0, abs=0.1)


def test_a_velocity_is_a_denoiser_of_schedules_without_a_signals_amplitude_too():
    schedule = EdmSchedule()
    noisy, t = jnp.array([0.3, -2.0, 1.0, 4.0, 9.0]), jnp.asarray(0.4)
    square = schedule.noise_ratio(t) ** 2
    expected = VARIANCES / (VARIANCES + square) * noisy
    np.testing.assert_allclose(as_denoiser(scales_velocity, schedule)(noisy, t), expected, rtol=1e-9)
