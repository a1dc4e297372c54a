"""Slices of many examples: their shapes, their order, their values."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.numerics.batching import in_chunks, slice_size


def test_slices_of_trees_are_padded_to_one_shape():
    traces = []

    @jax.jit
    def double(tree):
        traces.append(None)
        return jax.tree.map(lambda leaf: 2 * leaf, tree)

    tree = {"a": np.arange(5.0), "b": np.arange(10.0).reshape(5, 2)}
    found = in_chunks(double, 2, tree)
    np.testing.assert_array_equal(found["b"], 2 * tree["b"])
    assert len(traces) == 1


@pytest.mark.parametrize(("count", "slices"), [(1, [1]), (2, [2]), (3, [4]), (5, [6]), (6, [6]), (7, [6, 6])])
def test_few_examples_are_not_computed_many_times(count, slices):
    seen = []

    def square(key, number):
        seen.append(len(number))
        return jax.random.key_data(key)[:, 0] + number**2

    keys, numbers = jax.random.split(jax.random.key(0), count), np.arange(float(count))
    found = in_chunks(square, 6, keys, numbers)
    np.testing.assert_array_equal(found, jax.random.key_data(keys)[:, 0] + numbers**2)
    assert seen == slices
    found[0] = -1.0  # the caller's own
    seen.clear()
    again = in_chunks(square, 6, keys, numbers, fixed=True)
    np.testing.assert_array_equal(again[1:], found[1:])
    assert set(seen) == {6}


def test_shapes_are_few_however_many_examples():
    traces = []

    @jax.jit
    def double(numbers):
        traces.append(numbers.shape)
        return 2 * numbers

    for count in range(1, 40):
        np.testing.assert_array_equal(in_chunks(double, 16, jnp.arange(count)), 2 * np.arange(count))
    assert len(traces) == 5 and {slice_size(16, count) for count in range(1, 40)} == {1, 2, 4, 8, 16}


def test_workers_keep_the_order_of_the_examples():
    """Slices that take the longer the earlier they are come back in their places."""

    def slow(numbers):
        time.sleep(0.02 * float(10.0 - numbers[0]))
        return {"twice": 2.0 * numbers}

    found = in_chunks(slow, 3, np.arange(10.0), workers=4)
    np.testing.assert_array_equal(found["twice"], 2.0 * np.arange(10.0))
