"""A learned step on a point, a line and a plane: what it reaches, how it meets the ends, which symmetries it has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion.propagator import Propagator, init_propagator, propagate
from tests.rough import rough

PLANE = Propagator(parity=((1, 1), (-1, 1), (1, -1)), radius=2, width=8, depth=2, gated=True)


def with_all_weights(config, state, key):
    return rough(init_propagator(config, state, key), 0.2, kept=0.0)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("shape", [(2,), (11, 2), (11, 9, 3)])
def test_a_step_changes_what_lies_within_its_radius_and_nothing_else(shape, gated):
    axes = len(shape) - 1
    config = Propagator(parity=((1,) * axes,) * shape[-1], radius=2, width=8, depth=1, gated=gated)
    state = jax.random.normal(jax.random.key(0), shape)
    params = with_all_weights(config, state, jax.random.key(1))
    middle = tuple(size // 2 for size in shape[:-1])
    slope = jax.jit(jax.jacobian(lambda x: propagate(config, params, x, 2)[1][middle]))(state)
    reached = np.abs(np.asarray(slope)).max(axis=(0, -1)) > 0
    expected = np.zeros(shape[:-1], bool)
    expected[tuple(slice(m - 2, m + 3) for m in middle)] = True
    np.testing.assert_array_equal(reached, expected)


def test_odd_fields_vanish_at_their_own_ends_only():
    state = jax.random.normal(jax.random.key(0), (8, 7, 3))
    new = propagate(PLANE, with_all_weights(PLANE, state, jax.random.key(1)), state, 2)[1]
    np.testing.assert_array_equal(new[[0, -1], :, 1], 0.0)
    np.testing.assert_array_equal(new[:, [0, -1], 2], 0.0)
    assert np.all(np.abs(np.asarray(new[1:-1, [0, -1], 1])) > 0) and np.all(np.abs(np.asarray(new[..., 0])) > 0)


def test_mirroring_past_the_walls_is_what_a_doubled_basin_would_do():
    """A state and its continuation by parity on twice the grid: the step inside the first half is the same."""
    state = jax.random.normal(jax.random.key(0), (8, 7, 3)).at[jnp.array([0, -1]), :, 1].set(0.0)
    signs = jnp.array([1.0, -1.0, 1.0])
    mirrored = signs * state[::-1]
    params = with_all_weights(PLANE, state, jax.random.key(1))
    beyond_right, beyond_left = jnp.concatenate([state, mirrored[1:]]), jnp.concatenate([mirrored[:-1], state])
    one, right, left = (propagate(PLANE, params, x, 2)[1] for x in (state, beyond_right, beyond_left))
    np.testing.assert_allclose(right[:7], one[:7], atol=1e-6)
    np.testing.assert_allclose(left[8:], one[1:], atol=1e-6)


def test_gates_multiply_so_that_closed_ones_leave_an_affine_step():
    state = jax.random.normal(jax.random.key(0), (8, 7, 3)).at[jnp.array([0, -1]), :, 1].set(0.0)
    params = with_all_weights(PLANE, state, jax.random.key(1))
    closed = {**params, **{name: jax.tree.map(jnp.zeros_like, params[name]) for name in ("Linear_1", "Linear_3")}}

    def bend(these):
        one, two, none = (propagate(PLANE, these, scale * state, 2)[1] for scale in (1.0, 2.0, 0.0))
        return float(jnp.abs(two - 2 * one + none).max())

    assert bend(closed) < 1e-5 < 0.1 < bend(params)
