"""Continuation by parity: sines and cosines are what they are past the ends."""

import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.numerics.parity import inside, neighbourhood, parity_array, periodic


def sine_and_cosine(points, wave=3):
    angle = wave * np.pi * np.asarray(points) / 10
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1)


def test_neighbours_past_the_ends_are_the_continued_waves():
    around = neighbourhood(jnp.asarray(sine_and_cosine(np.arange(11))), ((-1,), (1,)), 4)
    for shift in range(9):
        expected = sine_and_cosine(np.arange(11) + shift - 4)
        np.testing.assert_allclose(around[:, 2 * shift : 2 * shift + 2], expected, atol=1e-12)


def test_a_period_is_that_of_the_waves():
    whole = periodic(jnp.asarray(sine_and_cosine(np.arange(11))), ((-1,), (1,)))
    np.testing.assert_allclose(whole, sine_and_cosine(np.arange(20)), atol=1e-12)


def test_a_period_along_two_axes():
    x, y = np.meshgrid(np.arange(7), np.arange(5), indexing="ij")

    def wave(x, y):
        return np.stack([np.sin(np.pi * x / 6) * np.cos(np.pi * y / 4), np.cos(np.pi * x / 6)], axis=-1)

    whole = periodic(jnp.asarray(wave(x, y)), ((-1, 1), (1, 1)))
    expected = wave(*np.meshgrid(np.arange(12), np.arange(8), indexing="ij"))
    np.testing.assert_allclose(whole, expected, atol=1e-12)


def test_odd_fields_are_masked_at_their_own_ends():
    mask = np.asarray(inside(jnp.ones((5, 4, 2)), ((-1, 1), (1, -1))))
    expected = np.ones((5, 4, 2))
    expected[[0, -1], :, 0] = 0
    expected[:, [0, -1], 1] = 0
    np.testing.assert_array_equal(mask, expected)


def test_a_parity_of_other_fields_is_refused():
    with pytest.raises(ValueError, match="parity for each of 2 fields and 1 axes"):
        parity_array(((1,),), jnp.ones((5, 2)))


def test_a_ring_goes_on_at_its_other_end():
    ring = sine_and_cosine(np.arange(20))
    parity = ((0,), (0,))
    np.testing.assert_array_equal(periodic(jnp.asarray(ring), parity), ring)
    np.testing.assert_array_equal(inside(jnp.asarray(ring), parity), np.ones_like(ring))
    around = neighbourhood(jnp.asarray(ring), parity, 4)
    for shift in range(9):
        np.testing.assert_allclose(
            around[:, 2 * shift : 2 * shift + 2], sine_and_cosine(np.arange(20) + shift - 4), atol=1e-12
        )


def test_an_axis_is_a_ring_for_all_fields_or_for_none():
    with pytest.raises(ValueError, match="parity 0 of all fields or of none along axis 0"):
        periodic(jnp.ones((5, 2)), ((0,), (1,)))
