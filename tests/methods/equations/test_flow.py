"""What the network of a flow predicts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion.flow import sample_flow
from phdme_jax.methods.equations.flow import velocity_from_network


def linear(gain):
    return lambda point: gain * point


def test_a_network_that_says_nothing_is_the_flow_of_unit_gaussian_data():
    """E[x1 - x0 | x_t] of two standard normals: (t - (1 - t)) x_t / (t^2 + (1 - t)^2), by regression."""
    noise, data = np.random.default_rng(0).normal(size=(2, 400_000))
    for t in (0.0, 0.2, 0.5, 0.9, 1.0):
        point = (1 - t) * noise + t * data
        slope = np.mean(point * (data - noise)) / np.mean(point**2)
        found = velocity_from_network("edm", linear(0.0), jnp.asarray(1.0), jnp.asarray(t))
        np.testing.assert_allclose(found, slope, atol=0.01)


def test_input_and_target_of_the_network_have_unit_variance_at_all_times():
    noise, data = np.random.default_rng(1).normal(size=(2, 400_000))
    for t in (0.0, 0.3, 0.5, 0.8, 1.0):
        point, seen = (1 - t) * noise + t * data, []
        of = lambda at: seen.append(at) or jnp.zeros_like(at)  # noqa: E731
        straight = velocity_from_network("edm", of, jnp.asarray(point), jnp.asarray(t))
        gain = velocity_from_network("edm", jnp.ones_like, jnp.asarray(0.0), jnp.asarray(t))  # of the network's answer
        target = (data - noise - np.asarray(straight)) / float(gain)
        np.testing.assert_allclose(np.std(np.asarray(seen[0])), 1.0, atol=0.01)
        np.testing.assert_allclose(np.std(target), 1.0, atol=0.01)


def test_at_the_noise_one_call_is_what_the_network_says():
    point = jax.random.normal(jax.random.key(0), (5, 2))
    found = point + velocity_from_network("edm", jnp.sin, point, jnp.asarray(0.0))
    np.testing.assert_allclose(found, jnp.sin(point), atol=1e-12)


def test_a_network_that_says_the_example_says_the_velocity_of_the_line_to_it():
    noise, example = jax.random.normal(jax.random.key(0), (2, 5))
    for t in (0.0, 0.3, 0.9):
        point, seen = (1 - t) * noise + t * example, []
        found = velocity_from_network("x0", lambda at: seen.append(at) or example, point, jnp.asarray(t))
        np.testing.assert_allclose(found, example - noise, atol=1e-12)
        np.testing.assert_allclose(seen[0], point / np.hypot(t, 1 - t), rtol=1e-12)  # of unit variance
    # at the end what is wrong of the example is not divided by nothing
    ahead = velocity_from_network("x0", lambda at: example + 0.01, example, jnp.asarray(1.0))
    np.testing.assert_allclose(ahead, 0.2, rtol=1e-9)


def test_the_flow_of_unit_gaussian_data_keeps_the_size_of_noise():
    noise = jax.random.normal(jax.random.key(1), (7,))
    velocity = lambda point, t: velocity_from_network("edm", linear(0.0), point, t)  # noqa: E731
    carried = sample_flow(velocity, noise, jax.random.key(2), num_steps=2000)
    np.testing.assert_allclose(carried, noise, rtol=2e-3)


def test_what_a_network_predicts_is_a_known_word():
    point, t = jnp.ones(3), jnp.asarray(0.5)
    np.testing.assert_array_equal(velocity_from_network("velocity", jnp.sin, point, t), jnp.sin(point))
    with pytest.raises(ValueError, match="flow_predicts among"):
        velocity_from_network("noise", jnp.sin, point, t)
