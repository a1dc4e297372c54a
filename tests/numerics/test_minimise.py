"""The minimiser on functions whose minima are known."""

import jax
import jax.numpy as jnp
import numpy as np

from phdme_jax.numerics.minimise import minimise


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def test_minimum_of_a_quadratic_and_its_value_at_every_scale_of_the_function():
    root = np.random.default_rng(0).normal(size=(8, 8)) + 3 * np.eye(8)
    matrix, minimum = jnp.asarray(root @ root.T), jnp.linspace(-1.0, 1.0, 8)

    def search(scale):
        def bowl(x):
            return scale * (0.5 * (x - minimum) @ matrix @ (x - minimum) - 7.0)

        return jax.jit(lambda x: minimise(bowl, x, tolerance=1e-12 * scale))(jnp.zeros(8))

    counts = []
    for scale in (1e-3, 1.0, 1e6):
        point, value, evaluations = search(scale)
        np.testing.assert_allclose(point, minimum, atol=1e-5)
        np.testing.assert_allclose(value, -7.0 * scale, rtol=1e-9)
        counts.append(int(evaluations))
    # the first step gives the metric its scale, so that the scale of the function does not matter
    assert max(counts) - min(counts) <= 2 and max(counts) < 60


def test_a_step_too_long_is_shortened_to_the_minimum_of_the_cubic():
    """A cubic through both ends of the first step, which is one long, is exact on a parabola."""
    point, _, _ = minimise(lambda x: 3 * jnp.sum((x - 0.3) ** 2), jnp.zeros(1), max_evaluations=3)
    np.testing.assert_allclose(point, 0.3, rtol=1e-14)


def test_curved_valley_to_its_end():
    find = jax.jit(lambda x: minimise(rosenbrock, x, max_evaluations=300, tolerance=1e-16))
    point, value, _ = find(jnp.array([-1.2, 1.0, -0.5]))
    np.testing.assert_allclose(point, 1.0, atol=1e-7)
    assert value < 1e-14


def test_steps_into_a_region_without_values_are_shortened():
    def barrier(x):  # not a number beyond one; least where 1/(1 - x) = 50 (1 - x)
        return -jnp.sum(jnp.log(1 - x)) - 25.0 * jnp.sum(1 - (1 - x) ** 2)

    point, value, _ = jax.jit(lambda x: minimise(barrier, x, tolerance=1e-9))(jnp.array([-3.0, 0.5]))
    np.testing.assert_allclose(point, 1 - 1 / np.sqrt(50.0), atol=1e-9)
    assert np.isfinite(value)


def test_steps_to_a_gradient_that_is_not_finite_are_shortened():
    def cliff(x):  # the value is finite everywhere; beyond one the derivative is zero times infinity
        return 0.6 * jnp.sum((x - 0.9) ** 2) + 0.0 * jnp.sum(jnp.sqrt(jnp.maximum(1 - x, 0.0)))

    # the first step, of length one, ends beyond
    point, _, _ = jax.jit(lambda x: minimise(cliff, x, tolerance=1e-9))(jnp.array([0.05]))
    np.testing.assert_allclose(point, 0.9, atol=1e-9)


def test_budget_is_kept_and_what_is_returned_is_the_best_seen():
    start = jnp.array([-1.2, 1.0])
    for budget in (1, 2, 5, 20):
        point, value, evaluations = minimise(rosenbrock, start, max_evaluations=budget, tolerance=1e-12)
        assert evaluations == budget
        np.testing.assert_allclose(value, rosenbrock(point), rtol=1e-14)
        assert value <= rosenbrock(start)
    point, _, evaluations = minimise(rosenbrock, jnp.ones(2))
    assert evaluations == 1
    np.testing.assert_array_equal(point, jnp.ones(2))


def test_a_steep_function_whose_slopes_are_rounded_is_searched_to_its_minimum_and_no_further():
    """The gradient's norm never falls below its rounding, here one; the expected decrease does."""
    stiff = jnp.array([1e8, 1.0])

    @jax.custom_jvp
    def bowl(x):
        return 0.5 * jnp.sum(stiff * (x - 0.7) ** 2)

    bowl.defjvp(lambda p, t: (bowl(*p), jnp.round(stiff * (p[0] - 0.7), 0).at[1].set(p[0][1] - 0.7) @ t[0]))
    point, _, evaluations = jax.jit(lambda x: minimise(bowl, x))(jnp.zeros(2))
    np.testing.assert_allclose(point, 0.7, atol=1e-3)
    assert evaluations < 200


def test_the_function_is_traced_once():
    traces = []

    def counted(x):
        traces.append(None)
        return rosenbrock(x)

    jax.jit(lambda x: minimise(counted, x)).lower(jnp.zeros(3))
    assert len(traces) == 1
