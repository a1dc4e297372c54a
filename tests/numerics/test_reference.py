"""Reference solutions: accuracy, and failure as a value that leaves its neighbours alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.numerics.reference import solve_reference


def field(x, frequency):
    """A harmonic oscillator, or x' = x^2 where the frequency is zero."""
    return jnp.where(frequency > 0, jnp.stack([-(frequency**2) * x[1], x[0]]), x**2)


@pytest.mark.slow
def test_accuracy_and_a_blow_up_that_does_not_harm_its_neighbours():
    times = jnp.linspace(0.0, 2.0, 5)
    starts = jnp.array([[0.0, 1.0], [0.1, -1.0], [1.0, 0.1]])
    frequencies = jnp.array([1.5, 0.0, 0.0])
    solve = jax.vmap(lambda x, w: solve_reference(field, x, times, w, max_steps=200))
    trajectory, ok = solve(starts, frequencies)
    np.testing.assert_array_equal(ok, [True, True, False])
    np.testing.assert_allclose(trajectory[0, :, 1], jnp.cos(1.5 * times), atol=1e-8)
    np.testing.assert_allclose(trajectory[0, :, 0], -1.5 * jnp.sin(1.5 * times), atol=1e-8)
    np.testing.assert_allclose(trajectory[1], np.stack([1 / (10 - times), -1 / (1 + times)], axis=1), rtol=1e-8)
