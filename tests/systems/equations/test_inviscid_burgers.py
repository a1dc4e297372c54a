"""Godunov's scheme against shocks and fans in closed form, its own balances, and what is fixed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.inviscid_burgers import godunov_flux, solve_godunov

NOTHING = jnp.zeros(())


def test_fluxes_are_those_of_the_exact_solutions_of_jumps():
    """A shock by its speed (l + r) / 2, a fan by the side that it leaves, u = 0 at the face inside of it."""
    pairs = {
        (1.0, 0.5): 0.5,
        (0.5, 1.0): 0.125,
        (1.0, -0.5): 0.5,
        (0.5, -1.0): 0.5,
        (-1.0, 1.0): 0.0,
        (-1.0, -0.5): 0.125,
    }
    for pair, expected in pairs.items():
        np.testing.assert_allclose(godunov_flux(jnp.array(pair)), [expected], atol=1e-14)


def test_a_shock_travels_at_half_its_height_and_a_fan_is_a_straight_line():
    """Errors in the mean of first order: shock from u = 1 to 0 at p + t / 2; behind it u = x / t from an inlet of 0."""

    def errors(count):
        places = np.linspace(0.0, 1.0, count)
        fields = solve_godunov(jnp.asarray(1.0 * (places < 0.25)), jnp.asarray(0.0), count, 1.0)
        truth = np.where(places < 0.25 + 0.5 * 0.4, np.minimum(places / 0.4, 1.0), 0.0)
        return float(np.mean(np.abs(fields[:, round(0.4 * (count - 1))] - truth)))

    coarse, fine = errors(101), errors(801)
    assert fine < 0.01 and np.log2(coarse / fine) / 3 > 0.7


@pytest.fixture(scope="module")
def drawn():
    equations = make_equations("burgers_ic", num_points=32, num_frames=40)
    return equations, jax.jit(jax.vmap(equations.draw))(jax.random.split(jax.random.key(0), 5)).fields


def test_residual_and_balance_vanish_to_rounding_and_tell_what_is_lost(drawn):
    equations, fields = drawn
    for one in fields:
        np.testing.assert_allclose(equations.residual(one, NOTHING)["balance"], 0.0, atol=1e-12)
        np.testing.assert_allclose(equations.conserved(one, NOTHING), 0.0, atol=1e-13)
    # what is added to inner cells after the tenth frame is missed by the balance from then on
    added = fields[0].at[4:14, 10:].add(0.3)
    found = equations.conserved(added, NOTHING)
    np.testing.assert_allclose(found[:9], 0.0, atol=1e-13)
    np.testing.assert_allclose(found[9:], 0.3 * 10 / 30, atol=1e-12)


def test_what_comes_through_the_ends_is_that_of_the_exact_solution():
    """Until the shock leaves, an inlet of one brings t / 2: mean p + t / 2."""
    equations = make_equations("burgers_ic", num_points=201, num_frames=201, shock=0.3, inlet=1.0)
    values = jax.jit(equations.draw)(jax.random.key(0)).fields[..., 0]
    times = np.linspace(0.0, 1.0, 201)
    np.testing.assert_allclose(values.mean(axis=0), 0.3 + 0.5 * times, atol=0.006)


@pytest.mark.slow
def test_a_fixed_part_is_the_same_in_all_examples_and_the_rest_is_drawn():
    keys = jax.random.split(jax.random.key(1), 4)
    first = jax.vmap(make_equations("burgers_ic", num_points=16, num_frames=16, shock=0.4).draw)(keys).fields
    np.testing.assert_array_equal(np.ptp(first[:, :, 0], axis=0), 0.0)
    assert np.ptp(first[:, 0, 1:], axis=0).min() > 0.1
    side = jax.vmap(make_equations("burgers_bc", num_points=16, num_frames=16, inlet=0.7).draw)(keys).fields
    np.testing.assert_array_equal(side[:, 0, 1:], 0.7)
    assert np.ptp(side[:, :, 0], axis=0).max() > 0.5


def test_frames_too_far_apart_are_refused():
    with pytest.raises(ValueError, match="expected frames no further apart"):
        make_equations("burgers_ic", num_points=64, num_frames=32)
