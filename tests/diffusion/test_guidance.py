import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion.guidance import clamp_known, gaussian_scale, moment_matched, residual_guidance
from phdme_jax.diffusion.preconditioning import score_from_x0
from phdme_jax.diffusion.samplers import sample
from phdme_jax.diffusion.schedule import CosineSchedule, EdmSchedule
from tests import oracles

SHAPE = (3, 2)
WORLD = oracles.gaussian_world(SHAPE, seed=4)
OPERATOR = jnp.asarray(np.random.default_rng(5).normal(size=(1, 6)))
VALUE, NOISE_VARIANCE = jnp.array([1.7]), 0.05
POSTERIOR = oracles.condition_on(WORLD, OPERATOR, VALUE, NOISE_VARIANCE)


def guided_denoiser(schedule):
    def scale(t):
        return 1.0 / (NOISE_VARIANCE + (OPERATOR @ oracles.posterior_covariance(WORLD, schedule, t) @ OPERATOR.T)[0, 0])

    denoise = oracles.exact_denoiser(WORLD, schedule)
    return residual_guidance(denoise, schedule, lambda x0: OPERATOR @ x0.ravel() - VALUE, scale)


@pytest.mark.parametrize("schedule", [CosineSchedule(), EdmSchedule()])
def test_guidance_gives_the_exact_posterior_mean_and_score(schedule):
    guided = jax.jit(guided_denoiser(schedule))
    score_fn = jax.jit(jax.grad(lambda noisy, t: oracles.log_density(POSTERIOR, schedule, noisy, t)))
    for t in jnp.array([0.05, 0.4, 0.8, 1.0]):
        alpha, sigma = schedule.alpha_sigma(t)
        noisy = alpha * WORLD.mean + sigma * jax.random.normal(jax.random.key(1), SHAPE)
        x0_hat = guided(noisy, t)
        np.testing.assert_allclose(x0_hat, oracles.exact_denoiser(POSTERIOR, schedule)(noisy, t), rtol=1e-6, atol=1e-7)
        score = score_fn(noisy, t)
        np.testing.assert_allclose(score_from_x0(noisy, x0_hat, alpha, sigma), score, rtol=1e-5, atol=1e-6)


def test_guided_samples_have_the_posterior_mean_and_covariance():
    schedule = EdmSchedule()
    run = jax.jit(
        lambda noise: sample(
            guided_denoiser(schedule), schedule, noise, jax.random.key(0), sampler="heun", num_steps=80
        )
    )
    slope = jax.jit(jax.jacfwd(run))(jnp.zeros(SHAPE)).reshape(6, 6)
    np.testing.assert_allclose(run(jnp.zeros(SHAPE)), POSTERIOR.mean, atol=0.03)
    np.testing.assert_allclose(slope @ slope.T, POSTERIOR.covariance, atol=5e-3)
    assert float(jnp.abs(POSTERIOR.covariance - WORLD.covariance).max()) > 0.2  # there was something to learn


def test_gaussian_scale_is_exact_for_white_data():
    schedule, world = CosineSchedule(), oracles.GaussianWorld(jnp.zeros(SHAPE), 0.64 * jnp.eye(6))
    posterior = oracles.condition_on(world, OPERATOR, VALUE, NOISE_VARIANCE)
    scale = gaussian_scale(schedule, NOISE_VARIANCE, gain=float(jnp.sum(OPERATOR**2)), data_std=0.8)
    denoise = oracles.exact_denoiser(world, schedule)
    guided = jax.jit(residual_guidance(denoise, schedule, lambda x0: OPERATOR @ x0.ravel() - VALUE, scale))
    for t in jnp.array([0.1, 0.5, 0.9]):
        noisy = jax.random.normal(jax.random.key(2), SHAPE)
        expected = oracles.exact_denoiser(posterior, schedule)(noisy, t)
        np.testing.assert_allclose(guided(noisy, t), expected, rtol=1e-7, atol=1e-9)


def test_guidance_without_scale_or_residual_changes_nothing_and_keeps_the_type():
    schedule = CosineSchedule()

    def denoise(noisy, t):
        return jnp.tanh(noisy)

    noisy, t = jnp.ones(SHAPE, "float32"), jnp.asarray(0.5)
    for residual_fn, scale in ((lambda x0: x0, 0.0), (lambda x0: 0.0 * x0, 3.0)):
        guided = residual_guidance(denoise, schedule, residual_fn, scale)(noisy, t)
        assert guided.dtype == jnp.float32
        np.testing.assert_array_equal(guided, jnp.tanh(noisy))


def test_clamped_denoiser_holds_what_is_known_and_leaves_the_rest():
    mask = jnp.zeros(SHAPE, bool).at[0].set(True)
    values = jnp.full(SHAPE, 7.0)
    schedule = CosineSchedule()
    denoise = oracles.exact_denoiser(WORLD, schedule)
    noisy, t = jax.random.normal(jax.random.key(3), SHAPE), jnp.asarray(0.6)
    clamped = clamp_known(denoise, mask, values)
    np.testing.assert_array_equal(clamped(noisy, t)[0], 7.0)
    np.testing.assert_array_equal(clamped(noisy, t)[1:], denoise(noisy, t)[1:])
    by_denoiser = sample(clamped, schedule, noisy, jax.random.key(0), num_steps=4)
    by_sampler = sample(
        denoise, schedule, noisy, jax.random.key(0), num_steps=4, clamp=lambda x0: jnp.where(mask, values, x0)
    )
    np.testing.assert_array_equal(by_denoiser, by_sampler)
    np.testing.assert_array_equal(by_denoiser[0], 7.0)
    # The known row reaches the rest through the denoiser alone.
    assert not np.allclose(by_denoiser[1:], sample(denoise, schedule, noisy, jax.random.key(0), num_steps=4)[1:])


@pytest.mark.parametrize("schedule", [CosineSchedule(), EdmSchedule()])
def test_matched_moments_give_the_exact_posterior_of_several_observations(schedule):
    operator = jnp.asarray(np.random.default_rng(6).normal(size=(3, 6)))
    values, variance = jnp.array([1.0, -0.5, 0.2]), jnp.array([0.05, 0.1, 0.2])
    whiten = jnp.diag(variance**-0.5)
    posterior = oracles.condition_on(WORLD, whiten @ operator, whiten @ values, 1.0)
    denoise = oracles.exact_denoiser(WORLD, schedule)
    noisy = jax.random.normal(jax.random.key(1), SHAPE)
    for count, tolerance in ((3, 1e-6), (0, None)):
        guided = moment_matched(denoise, schedule, lambda x0: operator @ x0.ravel(), values, variance, count)
        missed = []
        for t in jnp.array([0.05, 0.4, 0.8]):
            expected = oracles.exact_denoiser(posterior, schedule)(noisy, t)
            missed.append(float(jnp.abs(jax.jit(guided)(noisy, t) - expected).max()))
        assert max(missed) < tolerance if tolerance else max(missed) > 0.1  # as many iterations as observations
