"""Flow matching in a world whose velocity is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion.flow import flow_matching_loss, follow_flow, sample_flow

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
