"""Exactness on polynomials at uneven times, and the measured order of running integrals."""

import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.numerics.grid import Grid
from phdme_jax.numerics.quadrature import (
    cumulative_integral,
    integrate,
    interval_rule,
    interval_weights,
    trapezoid_weights,
)


def uneven_times(count=15, seed=0):
    return tuple(2.0 + np.cumsum(np.random.default_rng(seed).uniform(0.05, 0.2, count)))


@pytest.mark.parametrize("num_nodes", [2, 5, 8])
def test_interval_weights_are_exact_on_polynomials_at_uneven_times(num_nodes):
    times = uneven_times()
    weights, t = interval_weights(times, num_nodes), np.asarray(times)
    assert np.all(np.count_nonzero(weights, axis=1) <= num_nodes)
    for degree in range(num_nodes):
        primitive = t ** (degree + 1) / (degree + 1)
        np.testing.assert_allclose(weights @ t**degree, np.diff(primitive), rtol=1e-10)
    beyond = weights @ t**num_nodes - np.diff(t ** (num_nodes + 1) / (num_nodes + 1))
    assert np.max(np.abs(beyond)) > 1e-9


def test_long_recordings_are_integrated_as_short_ones_are():
    times = np.linspace(0.0, 3.0, 700)
    values = jnp.asarray(np.stack([np.cos(times), times], axis=1))
    found = integrate(interval_rule(times), values)
    np.testing.assert_allclose(found, np.stack([np.diff(np.sin(times)), np.diff(times**2) / 2], axis=1), atol=1e-13)
    np.testing.assert_allclose(found[:100], integrate(interval_rule(times[:101]), values[:101]), atol=1e-13)


def test_interval_weights_with_two_nodes_are_the_trapezoid_rule():
    times = uneven_times()
    steps = np.diff(times)
    expected = np.zeros((14, 15))
    expected[np.arange(14), np.arange(14)] = expected[np.arange(14), np.arange(1, 15)] = steps / 2
    np.testing.assert_allclose(interval_weights(times, 2), expected, atol=1e-14)


def test_few_times_lower_the_degree():
    times = (0.0, 0.3, 1.0)
    np.testing.assert_allclose(interval_weights(times, 8) @ np.array(times) ** 2, [0.009, 0.973 / 3], rtol=1e-12)


@pytest.mark.parametrize("times", [(1.0,), (0.0, 0.0), (1.0, 0.5)])
def test_times_that_do_not_increase_are_refused(times):
    with pytest.raises(ValueError, match="increasing times"):
        interval_weights(times)


def test_running_integral_is_exact_to_degree_five_and_of_sixth_order():
    z = jnp.linspace(0.0, 1.0, 21)
    np.testing.assert_allclose(cumulative_integral(z**5, 0.05), z**6 / 6, atol=1e-14)

    def error(n):
        z = jnp.linspace(0.0, 1.0, n)
        return float(jnp.max(jnp.abs(cumulative_integral(jnp.cos(3 * z), 1 / (n - 1)) - jnp.sin(3 * z) / 3)))

    assert abs(np.log2(error(41) / error(81)) - 6) < 0.2


def test_running_integral_starts_at_zero_and_keeps_dtype_and_trailing_axes():
    values = jnp.stack([jnp.ones(9), jnp.arange(9.0)], axis=1).astype(jnp.float32)
    running = cumulative_integral(values, 0.5)
    assert running.dtype == jnp.float32
    t = 0.5 * np.arange(9)
    np.testing.assert_allclose(running, np.stack([t, t**2], axis=1), atol=1e-5)


def test_trapezoid_weights_are_exact_on_lines():
    weights = trapezoid_weights(11, 0.2)
    np.testing.assert_allclose(weights @ np.linspace(1.0, 3.0, 11), 4.0)


def test_grid_geometry():
    grid = Grid((5, 3), (2.0, 3.0))
    assert grid.spacing == (0.5, 1.5)
    np.testing.assert_allclose(grid.coordinates(1), [0.0, 1.5, 3.0])
    assert hash(grid) == hash(Grid((5, 3), (2.0, 3.0)))


@pytest.mark.parametrize(("points", "lengths"), [((5, 5), (1.0,)), ((1,), (1.0,)), ((5,), (-1.0,))])
def test_impossible_grids_are_refused(points, lengths):
    with pytest.raises(ValueError, match="expected"):
        Grid(points, lengths)
