import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion.guidance import (
    clamp_known,
    gaussian_scale,
    minimal_residual,
    moment_matched,
    residual_guidance,
)
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


def test_least_residuals_do_not_ask_for_symmetry():
    """A quarter turn, of which every product is across: conjugate gradients divide by zero."""
    turn, right = jnp.array([[0.0, 1.0], [-1.0, 0.0]]), jnp.array([3.0, -2.0])
    solve = lambda matrix, right, count: minimal_residual(lambda x: (matrix @ x, 3.0 * x), right, count)  # noqa: E731
    np.testing.assert_allclose(solve(turn, right, 2)[0], jnp.linalg.solve(turn, right), rtol=1e-9)
    matrix = jax.random.normal(jax.random.key(3), (9, 9))
    for count in (1, 3, 9):
        found, made = solve(matrix, jnp.arange(1.0, 10.0), count)
        np.testing.assert_allclose(made, 3.0 * found, rtol=1e-9)
        span = [jnp.arange(1.0, 10.0)]
        for _ in range(count - 1):
            span.append(matrix @ span[-1] / jnp.linalg.norm(span[-1]))
        images = matrix @ jnp.stack(span, axis=-1)
        best, *_ = jnp.linalg.lstsq(images, span[0])
        np.testing.assert_allclose(matrix @ found, images @ best, atol=1e-9)
    assert not solve(matrix, jnp.zeros(9), 3)[0].any()


def test_a_denoiser_without_symmetry_is_held_to_what_was_seen():
    """Its Jacobian turns two entries: what was seen of both is met all the same, and backward passes are as said."""
    calls = []

    @jax.custom_vjp
    def turned(point):
        return jnp.stack([-point[1], point[0]])

    def pulled(_, cotangent):
        jax.debug.callback(lambda: calls.append(1))
        return (jnp.stack([cotangent[1], -cotangent[0]]),)

    turned.defvjp(lambda point: (turned(point), None), pulled)
    schedule = CosineSchedule()
    guided = moment_matched(lambda noisy, t: turned(noisy), schedule, lambda x0: x0, jnp.array([1.0, 2.0]), 1e-8, 2)
    found = jax.block_until_ready(guided(jnp.array([0.4, -0.3]), jnp.asarray(0.5)))
    jax.effects_barrier()
    np.testing.assert_allclose(found, [1.0, 2.0], atol=1e-5)
    assert len(calls) == 2
