"""Corrections down the residual: the exact step, the published constant, backtracking."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.methods.sampling.correction import PUBLISHED_STEP, STEPS, correct, correct_once, largest_slope
from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.base import stacked_residual

MATRIX = jnp.asarray(np.random.default_rng(0).standard_normal((6, 4)))
TARGET = MATRIX @ jnp.array([1.0, -2.0, 0.5, 3.0]) + 0.3


def linear(solution):
    return MATRIX @ solution - TARGET


def square(solution):
    return jnp.sum(linear(solution) ** 2)


def test_exact_step_ends_at_the_minimum_along_the_gradient():
    start = jnp.zeros(4)
    gradient = jax.grad(square)(start)
    found = correct_once(linear, start, "exact")
    step = (start - found)[0] / gradient[0]
    lengths = jnp.linspace(0.9, 1.1, 21) * step
    values = jax.vmap(lambda length: square(start - length * gradient))(lengths)
    assert jnp.argmin(values) == 10
    np.testing.assert_allclose(found, start - step * gradient, rtol=1e-12)


def test_many_exact_steps_reach_the_least_squares_solution():
    expected = np.linalg.lstsq(np.asarray(MATRIX), np.asarray(TARGET), rcond=None)[0]
    np.testing.assert_allclose(correct(linear, jnp.zeros(4), 400), expected, atol=1e-6)


def test_published_step_is_a_constant_over_the_largest_entry():
    found = correct_once(lambda p: linear(p), jnp.ones(4), "published")
    # every place of a short line is within reach of the others, so that each is probed alone
    largest = float(jnp.max(MATRIX))
    np.testing.assert_allclose(found, 1.0 - PUBLISHED_STEP / largest * jax.grad(square)(jnp.ones(4)), rtol=1e-12)


def test_largest_slope_is_that_of_the_dense_jacobian():
    darcy = make_equations("darcy_kle", num_points=16, num_modes=4, length=1.0)
    fields = darcy.draw(jax.random.key(0)).fields

    def residual(pressure):
        return stacked_residual(darcy, jnp.stack([pressure, fields[..., 1]], -1), fields[..., :0])

    dense = jax.jit(jax.jacfwd(residual))(fields[..., 0])
    np.testing.assert_allclose(jax.jit(lambda p: largest_slope(residual, p))(fields[..., 0]), dense.max(), rtol=1e-12)


@pytest.mark.parametrize("rule", STEPS)
def test_every_rule_lowers_a_nonlinear_residual(rule):
    residual = lambda p: jnp.concatenate([p**3 - 1.0, 0.1 * linear(p)])  # noqa: E731
    start = jnp.array([2.0, -1.0, 0.5, 1.5])
    values = [jnp.sum(residual(correct(residual, start, n, rule)) ** 2) for n in (0, 1, 5)]
    assert values[2] < values[1] < values[0]


def test_backtracking_leaves_a_minimum_alone():
    exact = jnp.asarray(np.linalg.lstsq(np.asarray(MATRIX), np.asarray(TARGET), rcond=None)[0])
    np.testing.assert_allclose(correct_once(linear, exact, "backtracking"), exact, atol=1e-9)


def test_unknown_rules_are_refused():
    with pytest.raises(ValueError, match="rule"):
        correct_once(linear, jnp.zeros(4), "newton")
