"""The shallow-water scheme against a dam break and a simple wave in closed form, walls, and the square's symmetry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from phdme_jax.systems.equations.finite_volume import (
    limited_slope,
    shallow_water_rate,
    solve_shallow_water,
    turned,
    velocities,
)

solve = jax.jit(solve_shallow_water, static_argnums=(1, 2, 3))


def along_x(depth, velocity, rows=2):
    """States that do not depend on y."""
    state = jnp.stack([depth, depth * velocity, 0 * depth], axis=-1)
    return jnp.broadcast_to(state[:, None], (len(depth), rows, 3))


def simple_wave(place, time):
    """A wave to the right into rest: u = 2 (sqrt h - 1), h constant on x = s + (3 sqrt h - 2) t."""

    def depth(start):
        return 1 + 0.2 * np.exp(-((start / 0.4) ** 2))

    start = np.asarray(place, float)
    for _ in range(200):
        start = place - (3 * np.sqrt(depth(start)) - 2) * time
    return depth(start), 2 * (np.sqrt(depth(start)) - 1)


def test_slopes_are_limited_to_twice_the_smaller_difference():
    before, after = jnp.array([1.0, 1.0, 1.0, -1.0, -2.0, 0.0]), jnp.array([2.0, 5.0, -1.0, -1.5, -0.5, 1.0])
    np.testing.assert_allclose(limited_slope(before, after), [1.5, 2.0, 0.0, -1.25, -1.0, 0.0])


@pytest.mark.slow
def test_a_broken_dam_has_the_middle_state_and_the_shock_of_stoker():
    """From depth 2 to 1: 2 (sqrt 2 - sqrt h) = (h - 1) sqrt((h + 1) / 2 h), the shock's speed is h u / (h - 1)."""
    middle = brentq(lambda h: 2 * (np.sqrt(2) - np.sqrt(h)) - (h - 1) * np.sqrt((h + 1) / (2 * h)), 1.0, 2.0)
    velocity = 2 * (np.sqrt(2) - np.sqrt(middle))
    shock = middle * velocity / (middle - 1)
    place = (np.arange(400) - 199.5) / 80
    found = solve(along_x(jnp.asarray(1.0 + (place < 0)), jnp.zeros(400)), 2, 1.0, 1 / 80)[1, :, 0]
    fan = (2 * np.sqrt(2) - place) ** 2 / 9
    head, tail = -np.sqrt(2), velocity - np.sqrt(middle)
    expected = np.where(place < head, 2.0, np.where(place < tail, fan, np.where(place < shock, middle, 1.0)))
    assert np.mean(np.abs(found[:, 0] - expected)) < 0.003
    flat = (place > tail + 0.15) & (place < shock - 0.15)
    np.testing.assert_allclose(found[flat, 0], middle, atol=0.003)
    np.testing.assert_allclose(velocities(found)[flat, 0], velocity, atol=0.003)
    # what the shock has passed, within half a cell
    np.testing.assert_allclose(np.sum(found[place > 0, 0] - 1) / 80, shock * (middle - 1), atol=0.002)


@pytest.mark.slow
def test_a_simple_wave_is_followed_to_second_order():
    def error(count):
        spacing = 5 / count
        place = spacing * (np.arange(count) - 0.5 * (count - 1))
        start, end = (jnp.stack(simple_wave(place, time)) for time in (0.0, 0.8))
        found = solve(along_x(*start), 2, 0.8, spacing)[1]
        return float(np.mean(np.abs(found - along_x(*end))))

    order = np.log2(error(160) / error(320))
    assert abs(order - 2.0) < 0.2, order


@pytest.fixture(scope="module")
def rough():
    first, second = jax.random.split(jax.random.key(0))
    depth = 1.0 + jax.random.uniform(first, (12, 12))
    return jnp.concatenate([depth[..., None], 0.3 * jax.random.normal(second, (12, 12, 2))], axis=-1)


@pytest.mark.slow
def test_walls_keep_the_water_and_lose_energy_alone(rough):
    frames = solve(rough, 5, 4.0, 0.4)
    depth, energy = frames[..., 0], 0.5 * (frames[..., 0] ** 2 + np.sum(frames[..., 1:] ** 2, -1) / frames[..., 0])
    np.testing.assert_allclose(depth.mean(axis=(1, 2)), depth[0].mean(), atol=1e-13)
    assert (np.diff(energy.mean(axis=(1, 2))) < 0).all()
    # at rest between walls, nothing moves
    still = jnp.zeros((6, 5, 3)).at[..., 0].set(1.3)
    np.testing.assert_allclose(shallow_water_rate(still, 0.1), 0.0, atol=1e-14)


def test_what_is_turned_or_mirrored_first_is_so_afterwards(rough):
    ends = solve(rough, 2, 0.5, 0.4)[1]
    np.testing.assert_allclose(solve(turned(rough), 2, 0.5, 0.4)[1], turned(ends), atol=1e-13)
    for mirror in (lambda s: s[::-1] * jnp.array([1, -1, 1]), lambda s: s[:, ::-1] * jnp.array([1, 1, -1])):
        np.testing.assert_allclose(solve(mirror(rough), 2, 0.5, 0.4)[1], mirror(ends), atol=1e-13)
