"""The worlds with exact answers, against sums over a fine grid and against Gaussians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion import exact
from phdme_jax.diffusion.networks import Condition
from phdme_jax.diffusion.preconditioning import bind, precondition
from phdme_jax.diffusion.schedule import CosineSchedule
from phdme_jax.methods.equations.flow import noise_level, velocity_from_network
from tests import oracles

WEIGHTS, MEANS = jnp.array([0.3, 0.7]), jnp.array([[-1.0, 0.5], [0.8, -0.2]])
COVARIANCES = jnp.array([[[0.3, 0.1], [0.1, 0.2]], [[0.1, -0.05], [-0.05, 0.4]]])
MIXTURE = exact.make_mixture(WEIGHTS, MEANS, COVARIANCES)
AXIS = jnp.linspace(-5.0, 5.0, 401)
POINTS = jnp.stack(jnp.meshgrid(AXIS, AXIS, indexing="ij"), axis=-1).reshape(-1, 2)
NOISY, RATIO = jnp.array([0.4, 0.3]), jnp.asarray(0.6)


def normal_density(apart, covariance):
    solved = jnp.linalg.solve(covariance, apart.T).T
    return jnp.exp(-0.5 * jnp.sum(apart * solved, axis=-1)) / jnp.sqrt(jnp.linalg.det(covariance))


DENSITY = sum(w * normal_density(POINTS - m, c) for w, m, c in zip(WEIGHTS, MEANS, COVARIANCES, strict=True))


def moments_on_grid(density):
    share = density / density.sum()
    mean = share @ POINTS
    return mean, (share[:, None] * (POINTS - mean)).T @ (POINTS - mean)


def test_moments_and_draws_are_those_of_the_density():
    mean, covariance = exact.moments(MIXTURE)
    expected = moments_on_grid(DENSITY)
    np.testing.assert_allclose(mean, expected[0], atol=1e-8)
    np.testing.assert_allclose(covariance, expected[1], atol=1e-8)
    draws = jax.vmap(lambda key: exact.draw_from(MIXTURE, key))(jax.random.split(jax.random.key(0), 40000))
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.02)
    np.testing.assert_allclose(jnp.cov(draws.T), covariance, atol=0.02)


def test_the_denoiser_and_an_observation_are_sums_over_the_density():
    given = DENSITY * normal_density(NOISY - POINTS, RATIO**2 * jnp.eye(2))
    np.testing.assert_allclose(exact.denoised(MIXTURE, NOISY, RATIO), moments_on_grid(given)[0], atol=1e-8)
    operator, value = jnp.array([[1.0, 2.0]]), jnp.array([0.5])
    seen = DENSITY * jnp.exp(-0.5 * (POINTS @ operator[0] - value) ** 2 / 0.04)
    for found, expected in zip(
        exact.moments(exact.observed_mixture(MIXTURE, operator, value, 0.04)), moments_on_grid(seen), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-7)
    # and of the whole noisy example: the denoiser again
    posterior = exact.observed_mixture(MIXTURE, jnp.eye(2), NOISY, RATIO**2)
    np.testing.assert_allclose(exact.moments(posterior)[0], exact.denoised(MIXTURE, NOISY, RATIO), atol=1e-10)


def test_other_units_are_those_of_the_draws():
    shift, scale = jnp.array([1.0, -2.0]), jnp.array([2.0, 0.5])
    mean, covariance = exact.moments(exact.rescaled(MIXTURE, shift, scale))
    plain = exact.moments(MIXTURE)
    np.testing.assert_allclose(mean, (plain[0] - shift) / scale, atol=1e-12)
    np.testing.assert_allclose(covariance, plain[1] / (scale[:, None] * scale), atol=1e-12)


def test_the_network_is_the_denoiser_and_the_velocity_of_its_world():
    network, schedule = exact.make_exact_network(), CosineSchedule()
    params = exact.ExactParams(MIXTURE, exact.make_mixture(jnp.ones(1), MEANS[:1], COVARIANCES[:1]))
    point = jnp.array([[0.3], [-0.8]])
    for told, world in ((None, params.plain), (jnp.zeros((2, 2)), params.plain), (jnp.ones((2, 2)), params.told)):
        condition = Condition(rollout=told)
        denoise = bind(precondition(network, schedule, "edm"), params, condition)
        for t in jnp.array([0.1, 0.5, 0.9]):
            alpha, sigma = schedule.alpha_sigma(t)
            expected = exact.denoised(world, point.ravel() / alpha, sigma / alpha)
            np.testing.assert_allclose(denoise(point, t).ravel(), expected, rtol=1e-9, atol=1e-10)
            # of straight lines: x = (1 - s) noise + s x1, u = E[x1 - noise | x]
            apply = lambda at, s=t, c=condition: network.apply(params, at, noise_level(s), network.encode(params, c))  # noqa: E731
            ahead = exact.denoised(world, point.ravel() / t, (1 - t) / t)
            velocity = velocity_from_network("edm", apply, point, t)
            np.testing.assert_allclose(velocity.ravel(), (ahead - point.ravel()) / (1 - t), rtol=1e-8)


def test_untrained_it_is_a_world_of_white_noise():
    network = exact.make_exact_network()
    params = network.init(jax.random.key(0), jnp.zeros((3, 2), "float32"), Condition())
    answer = network.apply(params, jnp.ones((3, 2), "float32"), jnp.float32(0.1), network.encode(params, Condition()))
    np.testing.assert_allclose(answer, 0.0, atol=1e-6)  # E[x0 | y] = y / (1 + r^2)


@pytest.mark.parametrize("noise", [0.05, 0.0])
def test_one_component_is_updated_by_the_gain(noise):
    world = oracles.gaussian_world((2, 2), seed=3)
    operator, values = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4))), jnp.array([0.3, -1.0])
    innovation = operator @ world.covariance @ operator.T + noise * jnp.eye(2)
    gain = jnp.linalg.solve(innovation, operator @ world.covariance).T
    mean, covariance = exact.moments(exact.observed_mixture(oracles.as_mixture(world), operator, values, noise))
    expected = world.mean.ravel() + gain @ (values - operator @ world.mean.ravel())
    np.testing.assert_allclose(mean, expected, atol=1e-10)
    np.testing.assert_allclose(covariance, world.covariance - gain @ operator @ world.covariance, atol=1e-10)


def test_the_ideal_denoiser_of_a_training_set_is_that_of_a_mixture_of_points():
    examples = jax.random.normal(jax.random.key(4), (5, 2, 2))
    network, flat = exact.make_empirical_network(), examples.reshape(5, 4)
    assert network.init(jax.random.key(0), examples[0], Condition()).examples.shape == (1, 4)
    points = exact.make_mixture(jnp.ones(5) / 5, flat, jnp.zeros((5, 4, 4)))
    params = exact.EmpiricalParams(flat)
    denoise = bind(precondition(network, CosineSchedule(), "edm"), params, Condition())
    time, noisy = jnp.asarray(0.4), jax.random.normal(jax.random.key(5), (2, 2))
    alpha, sigma = CosineSchedule().alpha_sigma(time)
    expected = exact.denoised(points, noisy.ravel() / alpha, sigma / alpha)
    np.testing.assert_allclose(denoise(noisy, time).ravel(), expected, atol=1e-9)
