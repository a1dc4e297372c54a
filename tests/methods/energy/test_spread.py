"""The scale of what a mean leaves: found where it depends on the mean, the overall one where nothing is trained."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from phdme_jax.methods.energy.losses import Example
from phdme_jax.methods.energy.spread import init_spread, predicted_scale, spread_loss


def waves(count, seed):
    """Means of amplitudes between 0.3 and 3; what they leave grows with time, for large ones faster than for small."""
    random = np.random.default_rng(seed)
    amplitude = random.uniform(0.3, 3.0, (count, 1, 1, 1))
    grid, times = np.linspace(0, np.pi, 16), np.linspace(0, 1, 9)
    shape = np.stack([np.cos(grid), np.sin(grid)], axis=-1)
    # the mean stands still: how much amplitude matters when is in the time alone
    mean = amplitude * np.ones_like(times)[:, None, None] * shape
    scale = 0.02 * amplitude ** (3 * times[:, None, None]) * times[:, None, None] * np.array([1.0, 3.0])
    state = mean + scale * random.standard_normal(mean.shape)
    return [jnp.asarray(part, jnp.float32) for part in (state, mean, np.broadcast_to(scale, mean.shape)[:, :, :1])]


@pytest.mark.slow
def test_a_scale_that_depends_on_the_mean_is_found():
    state, mean, _ = waves(256, 0)
    base = jnp.maximum(jnp.sqrt(jnp.mean((state - mean) ** 2, axis=(0, 2), keepdims=True))[0], 1e-3)
    params = init_spread(mean[0], jax.random.key(0))
    examples = Example(state, jnp.ones_like(state[:, 1:]), mean)
    # untrained, the scale is the overall one
    np.testing.assert_allclose(predicted_scale(params, base, mean[0]), base, rtol=1e-6)
    one = jax.vmap(spread_loss(base), in_axes=(None, 0, None))
    optimizer = optax.adam(1e-2)

    @jax.jit
    def train(params):
        def step(carry, _):
            params, state = carry
            slope = jax.grad(lambda p: one(p, examples, jax.random.key(0))[0].mean())(params)
            updates, state = optimizer.update(slope, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), length=400)[0][0]

    params = train(params)
    _, unseen, truth = waves(64, 1)
    found = jax.vmap(lambda m: predicted_scale(params, base, m))(unseen)
    error = np.log(np.asarray(found / truth)[:, 2:])
    before = np.log(np.asarray(base / truth)[:, 2:])
    assert np.sqrt(np.mean(error**2)) < 0.15 < 0.7 < np.sqrt(np.mean(before**2))


@pytest.mark.slow
def test_the_first_frame_is_left_out_and_a_perfect_mean_is_no_trouble():
    mean = jnp.ones((5, 4, 2))
    base = jnp.full((5, 1, 2), 0.1)
    params = init_spread(mean, jax.random.key(0))
    example = Example(mean.at[0].add(100.0), jnp.ones((4, 4, 2)), mean)
    value, metrics = spread_loss(base)(params, example, jax.random.key(0))
    assert value == 0.0 and metrics["negative_log_likelihood"] == 0.0
