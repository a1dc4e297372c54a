"""The circle and Poisson's equation, whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.systems.equations.closed_form import make_circle, make_poisson, poisson_solution


def test_points_are_uniform_on_the_circle():
    circle = make_circle()
    points = np.asarray(jax.vmap(lambda key: circle.draw(key).fields)(jax.random.split(jax.random.key(0), 4000)))
    np.testing.assert_allclose((points**2).sum(axis=1), 1.0, atol=1e-12)
    count, _ = np.histogram(np.arctan2(points[:, 1], points[:, 0]), bins=20, range=(-np.pi, np.pi))
    assert np.sum((count - 200) ** 2 / 200) < 43.8  # chi square of 19 degrees of freedom, one in a thousand
    residual = circle.residual(jnp.array([3.0, 4.0]), jnp.zeros((0,)))
    assert residual["radius"] == 24.0
    np.testing.assert_allclose(circle.resolve(jnp.array([3.0, 4.0]), jnp.zeros((0,))), [0.6, 0.8])


def test_poisson_solution_of_one_sine_is_exact():
    line = np.linspace(0.0, 1.0, 33)
    for waves in (1, 5, 31):
        solution = poisson_solution(jnp.asarray(np.sin(waves * np.pi * line)))
        np.testing.assert_allclose(solution, np.sin(waves * np.pi * line) / (waves * np.pi) ** 2, atol=1e-14)


@pytest.mark.parametrize("order", [4, 8])
def test_residual_of_the_exact_solution_falls_with_the_order_of_the_stencil(order):
    def largest(num_points):
        poisson = make_poisson(num_points, num_waves=3, order=order)
        sample = poisson.draw(jax.random.key(1))
        return np.abs(poisson.residual(sample.fields, sample.condition)["balance"]).max()

    measured = np.log(largest(25) / largest(49)) / np.log(48 / 24)
    assert abs(measured - order) < 0.4


def test_ends_that_do_not_vanish_are_seen():
    poisson = make_poisson(17, num_waves=2)
    residual = poisson.residual(jnp.ones((17, 2)), jnp.zeros((17, 0)))
    np.testing.assert_array_equal(np.nonzero(residual["ends"])[0], [0, 16])


def test_unresolved_sources_are_refused():
    with pytest.raises(ValueError, match="sines"):
        make_poisson(16, num_waves=15)
