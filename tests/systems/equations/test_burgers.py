"""Burgers' equation against the exact solution of Cole and Hopf, what it keeps, and the order of its residuals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.burgers import periodic_derivative, periodic_resample, solve_burgers

NU = 0.05


def exact(places, times):
    """u = -2 nu phi_x / phi of the heat flow phi = 2 + sum of decaying cosines and sines."""
    waves = ((1, 0.9, 0.2), (2, -0.3, 0.4))
    x, t = places[:, None], times
    phi, slope = 2.0, 0.0
    for order, cosine, sine in waves:
        k = 2 * np.pi * order
        decay = np.exp(-NU * k**2 * t)
        phi = phi + decay * (cosine * np.cos(k * x) + sine * np.sin(k * x))
        slope = slope + k * decay * (sine * np.cos(k * x) - cosine * np.sin(k * x))
    return -2 * NU * slope / phi


def test_solution_is_that_of_cole_and_hopf():
    places, times = np.arange(64) / 64, np.linspace(0.0, 1.0, 17)
    truth = exact(places, times)
    found = jax.jit(lambda start: solve_burgers(start, 17, NU))(jnp.asarray(truth[:, 0]))
    np.testing.assert_allclose(found, truth, atol=2e-9)


def test_residual_of_the_exact_solution_falls_with_the_frames_and_the_unseen_one_with_its_order():
    def largest(num_points, num_frames):
        equations = make_equations("burgers", num_points=num_points, num_frames=num_frames, viscosity=NU)
        fields = jnp.asarray(exact(np.arange(num_points) / num_points, np.linspace(0.0, 1.0, num_frames)))[..., None]
        parts = (equations.residual, equations.unseen)
        found = [part(fields, jnp.zeros(()))["balance"] for part in parts]
        assert all(not one[:, 0].any() for one in found)
        return np.array([float(jnp.max(jnp.abs(one))) for one in found])

    coarse, fine = largest(64, 65), largest(128, 129)
    own, unseen = np.log2(coarse / fine)
    assert own > 5.5 and fine[0] < 1e-3 * fine[1]
    assert abs(unseen - 2.0) < 0.3


@pytest.mark.slow
def test_data_keep_their_mean_lose_energy_and_are_solved_from_their_first_frame():
    equations = make_equations("burgers", num_points=32, num_frames=16)
    fields = jax.jit(equations.draw)(jax.random.key(1)).fields
    mean, energy = fields[..., 0].mean(axis=0), (fields[..., 0] ** 2).mean(axis=0)
    np.testing.assert_allclose(mean, 0.0, atol=1e-8)
    assert np.all(np.diff(energy) < 0)
    changed = fields.at[:, 1:].set(7.0)
    np.testing.assert_allclose(equations.resolve(changed, jnp.zeros(())), fields, atol=1e-12)


def test_trigonometric_polynomials_are_resampled_and_differentiated_exactly():
    place = np.arange(10) / 10
    values = np.cos(6 * np.pi * place) - 2 * np.sin(4 * np.pi * place) + 0.5
    slope = -6 * np.pi * np.sin(6 * np.pi * place) - 8 * np.pi * np.cos(4 * np.pi * place)
    np.testing.assert_allclose(periodic_derivative(jnp.asarray(values), 1), slope, atol=1e-12)
    finer = np.arange(30) / 30
    expected = np.cos(6 * np.pi * finer) - 2 * np.sin(4 * np.pi * finer) + 0.5
    np.testing.assert_allclose(periodic_resample(jnp.asarray(values), 30), expected, atol=1e-13)
    alternating = jnp.asarray(np.cos(10 * np.pi * place))
    np.testing.assert_allclose(periodic_resample(alternating, 20), np.cos(10 * np.pi * np.arange(20) / 20), atol=1e-13)


def test_an_odd_or_small_grid_is_refused():
    for options in ({"num_points": 33}, {"num_frames": 4}):
        with pytest.raises(ValueError, match="expected an even number of points"):
            make_equations("burgers", **options)
