"""Burgers' equation with PDEBench's viscosity: the solution of Cole and Hopf, orders, and what is asked of means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.burgers import solve_burgers

NOTHING, NU = jnp.zeros(()), 0.15  # nu / pi is the viscosity


def exact(places, times):
    """u = -2 nu / pi phi_x / phi of the heat flow phi = 2 + decaying waves."""
    viscosity, phi, slope = NU / np.pi, 2.0, 0.0
    for order, size, phase in ((1, 0.9, 0.3), (2, 0.5, 1.1)):
        k = 2 * np.pi * order
        decay = size * np.exp(-viscosity * k**2 * times)
        phi = phi + decay * np.cos(k * places[:, None] + phase)
        slope = slope - k * decay * np.sin(k * places[:, None] + phase)
    return -2 * viscosity * slope / phi


def exact_means(count, times):
    """Means of the exact solution over cells, by Gauss's rule."""
    nodes, weights = np.polynomial.legendre.leggauss(6)
    places = np.arange(count)[:, None] / count + 0.5 * nodes / count
    return np.tensordot(exact(places.ravel(), times).reshape(count, 6, -1), 0.5 * weights, axes=(1, 0))


def test_examples_are_solved_as_cole_and_hopf_have_it_over_the_whole_duration():
    equations = make_equations("viscous_burgers", num_points=32, num_frames=7, duration=0.6, viscosity=NU)
    truth = exact_means(32, np.linspace(0.0, 0.6, 7))
    found = jax.jit(equations.resolve)(jnp.asarray(truth).at[:, 1:].set(7.0)[..., None], NOTHING)
    np.testing.assert_allclose(found[..., 0], truth, atol=1e-8)


def test_a_longer_time_is_more_frames_of_the_same():
    initial = jnp.asarray(exact(np.arange(16) / 16, np.zeros(1))[:, 0])
    short, long = solve_burgers(initial, 9, 0.05), solve_burgers(initial, 17, 0.05, 2.0)
    np.testing.assert_allclose(short, long[:, :9], rtol=1e-12)


def test_both_residuals_have_order_two_on_the_exact_solution_and_on_its_means():
    def largest(solution, count):
        options = {"num_points": count, "num_frames": count + 1, "duration": 0.8, "viscosity": NU}
        equations = make_equations("viscous_burgers", **options)
        fields = jnp.asarray(solution(count, np.linspace(0.0, 0.8, count + 1)))[..., None]
        found = [part(fields, NOTHING)["balance"] for part in (equations.residual, equations.unseen)]
        assert all(not one[:, 0].any() for one in found)
        return np.array([float(jnp.abs(one).max()) for one in found])

    for solution in (lambda count, times: exact(np.arange(count) / count, times), exact_means):
        coarse, fine = largest(solution, 64), largest(solution, 128)
        np.testing.assert_allclose(np.log2(coarse / fine), 2.0, atol=0.2)
        assert fine.max() < 0.05


def test_examples_keep_their_mean_lose_energy_and_stay_within_their_bounds():
    equations = make_equations("viscous_burgers", num_points=32, num_frames=8)
    fields = jax.jit(jax.vmap(equations.draw))(jax.random.split(jax.random.key(0), 8)).fields[..., 0]
    np.testing.assert_allclose(np.ptp(fields.mean(axis=1), axis=1), 0.0, atol=1e-13)
    assert (np.diff(np.mean(fields**2, axis=1), axis=1) < 0).all()
    extent = np.ptp(fields, axis=1)
    assert (extent[:, 1:] < 1.2 * extent[:, :1]).all() and (extent[:, -1] < 0.9 * extent[:, 0]).all()


def test_the_sum_of_a_residual_is_the_change_of_the_mean():
    equations = make_equations("viscous_burgers", num_points=16, num_frames=5, duration=0.4)
    rough = jax.random.normal(jax.random.key(1), (16, 5, 1))
    for part in (equations.residual, equations.unseen):
        found = part(rough, NOTHING)["balance"]
        np.testing.assert_allclose(found.mean(axis=0)[1:], 10 * np.diff(rough[..., 0].mean(axis=0)), atol=1e-11)


def test_every_translation_moves_solution_and_residuals():
    equations = make_equations("viscous_burgers", num_points=8, num_frames=4, viscosity=NU)
    rough = jax.random.normal(jax.random.key(2), (8, 4, 1))
    resolve = jax.jit(equations.resolve)
    for shift in range(8):
        moved, _ = equations.priors.symmetry.act(jnp.asarray(shift), rough, rough)
        np.testing.assert_allclose(resolve(moved, NOTHING), np.roll(resolve(rough, NOTHING), shift, 0), atol=1e-11)
        for part in (equations.residual, equations.unseen):
            expected = np.roll(part(rough, NOTHING)["balance"], shift, axis=0)
            np.testing.assert_allclose(part(moved, NOTHING)["balance"], expected, atol=1e-10)


def test_the_feasibility_is_linear_in_the_prediction_and_the_residual_of_a_clean_example():
    """With v for u_0 the product is v u / 2: of two waves known in closed form."""
    equations = make_equations("viscous_burgers", num_points=64, num_frames=3, duration=1e-3, viscosity=NU)
    (balance,) = equations.priors.feasibilities
    first, second, clean = jax.random.normal(jax.random.key(3), (3, 64, 3, 1))
    assert balance.form == "multilinear"
    np.testing.assert_allclose(balance.terms(clean, clean, NOTHING), equations.residual(clean, NOTHING)["balance"])
    both, none = balance.terms(first + second, clean, NOTHING), balance.terms(0 * first, clean, NOTHING)
    parts = balance.terms(first, clean, NOTHING) + balance.terms(second, clean, NOTHING)
    np.testing.assert_allclose(both + none, parts, rtol=1e-9, atol=1e-9)
    place = 2 * np.pi * np.arange(64)[:, None, None] / 64 + np.zeros((1, 3, 1))
    found = balance.terms(jnp.sin(place), jnp.cos(place), NOTHING)[:, 1:]
    # (sin cos / 2)_x = pi cos 2 x, less the viscosity's part
    expected = np.pi * np.cos(2 * place) + NU / np.pi * 4 * np.pi**2 * np.sin(place)
    np.testing.assert_allclose(found, expected[:, 1:, 0], atol=0.03)


def test_small_viscosities_and_grids_are_refused():
    with pytest.raises(ValueError, match=r"expected a viscosity of at least 0\.01"):
        make_equations("viscous_burgers", viscosity=0.001)
    for options in ({"num_points": 33}, {"num_points": 6}, {"num_frames": 1}, {"duration": 0.0}, {"highest_wave": 0}):
        with pytest.raises(ValueError, match="expected an even number of points"):
            make_equations("viscous_burgers", **options)
