"""Reaction and diffusion against solutions in closed form, its balance, and the fluxes that no field holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.systems import make_equations
from phdme_jax.systems.equations import reaction_diffusion as family
from phdme_jax.systems.equations.reaction_diffusion import DIFFUSIVITY, RATE, Fluxes, solve_reaction_diffusion

NOTHING = jnp.zeros(())


def test_even_states_grow_as_the_logistic_function_with_order_two():
    def error(num_frames):
        fields = solve_reaction_diffusion(jnp.full(12, 0.3), Fluxes(jnp.array(0.0), jnp.array(0.0)), num_frames, 100.0)
        grown = 0.3 * np.exp(RATE * np.linspace(0.0, 100.0, num_frames))
        return np.abs(fields - grown / (1 - 0.3 + grown)).max()

    assert error(21) < 5e-5 and abs(np.log2(error(21) / error(41)) - 2.0) < 0.1


def test_cosines_decay_and_equal_fluxes_draw_a_slope_with_the_order_of_the_scheme(monkeypatch):
    """Without reaction: a cosine, which decays, and the steady line u = -a x / nu."""
    monkeypatch.setattr(family, "RATE", 0.0)

    def error(count):
        places = (np.arange(count) + 0.5) / count
        slope, flux = -0.02 / DIFFUSIVITY, 0.02
        truth = slope * places + np.cos(np.pi * places) * np.exp(-DIFFUSIVITY * np.pi**2 * 4.0)
        start = jnp.asarray(slope * places + np.cos(np.pi * places))
        fields = solve_reaction_diffusion(start, Fluxes(jnp.array(flux), jnp.array(flux)), count, 4.0)
        return np.abs(fields[:, -1] - truth).max()

    assert abs(np.log2(error(16) / error(32)) - 2.0) < 0.2


@pytest.fixture(scope="module")
def drawn():
    equations = make_equations("reaction_diffusion", num_points=24, num_frames=20, initial=3)
    return equations, jax.jit(jax.vmap(equations.draw))(jax.random.split(jax.random.key(0), 5)).fields


@pytest.mark.slow
def test_the_mean_grows_by_source_and_fluxes(drawn):
    equations, fields = drawn
    given = make_equations("reaction_diffusion", num_points=24, num_frames=20, left_flux=0.04, right_flux=-0.01)
    values = jax.jit(given.draw)(jax.random.key(2)).fields[..., 0]
    times = np.linspace(0.0, 1.0, 20)
    rates = (RATE * values * (1 - values)).mean(axis=0)
    source = np.concatenate([[0.0], np.cumsum(0.5 * (rates[1:] + rates[:-1]) / 19)])
    np.testing.assert_allclose(values.mean(axis=0) - values[:, 0].mean(), source + 0.05 * times, atol=1e-13)
    for one in fields:
        np.testing.assert_allclose(equations.conserved(one, NOTHING), 0.0, atol=1e-13)
    lost = equations.conserved(fields[0].at[3:9, 7].add(-0.1), NOTHING)
    # the source sees it a little too
    np.testing.assert_allclose(lost[6], -0.1 * 6 / 24, rtol=1e-2)
    assert np.abs(lost[:6]).max() < 1e-4


def test_states_are_between_zero_and_one_and_the_first_is_fixed(drawn):
    _, fields = drawn
    np.testing.assert_array_equal(np.ptp(fields[:, :, 0], axis=0), 0.0)
    assert fields[0, :, 0].min() == 0.0 and fields[0, :, 0].max() == pytest.approx(1.0, abs=1e-15)
    assert np.ptp(fields[:, :, -1], axis=0).max() > 0.02


@pytest.mark.slow
def test_other_stencils_see_the_errors_of_the_scheme_fall_with_its_order():
    def largest(count):
        equations = make_equations("reaction_diffusion", num_points=count, num_frames=count, initial=3, left_flux=0.0)
        fields = jax.jit(equations.draw)(jax.random.key(0)).fields
        assert np.abs(equations.residual(fields, NOTHING)["balance"]).max() < 1e-11
        # inside, where nothing of the ends has come: fluxes meet states that do not fit them
        inner = equations.unseen(fields, NOTHING)["balance"][count // 3 : -count // 3, count // 2 :]
        return float(jnp.sqrt(jnp.mean(inner**2)))

    assert abs(np.log2(largest(48) / largest(96)) - 2.0) < 0.3


def test_few_cells_are_refused():
    with pytest.raises(ValueError, match="expected at least 12 points"):
        make_equations("reaction_diffusion", num_points=8)
