"""Poisson's, Helmholtz' and binary Darcy problems: eigenfunctions, dense solves, orders, the law of the fields."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.base import stacked_residual
from phdme_jax.systems.equations.darcy_binary import solve_flux
from phdme_jax.systems.equations.elliptic import draw_smooth_field, on_edge, solve_helmholtz

NAMES = ("poisson_2d", "helmholtz_2d", "darcy_binary")


def waves(num_points, p, q):
    line = np.linspace(0.0, 1.0, num_points)
    return jnp.asarray(np.outer(np.sin(p * np.pi * line), np.sin(q * np.pi * line)))


@pytest.mark.parametrize("square", [0.0, 1.0, 9.0])
def test_products_of_sines_are_eigenfunctions_of_the_discrete_operator(square):
    count, mode = 24, waves(24, 3, 5)
    lam = [(2 - 2 * np.cos(p * np.pi / (count - 1))) * (count - 1) ** 2 for p in (3, 5)]
    np.testing.assert_allclose(solve_helmholtz(mode, square), mode / (square - sum(lam)), atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_data_obey_their_own_residual_to_rounding_and_another_to_its_error(name):
    equations = make_equations(name, num_points=24)
    sample = jax.jit(equations.draw)(jax.random.key(0))
    residual = equations.residual(sample.fields, sample.condition)
    unseen = equations.unseen(sample.fields, sample.condition)
    assert float(jnp.max(jnp.abs(stacked_residual(equations, sample.fields, sample.condition)))) < 1e-10
    assert float(jnp.max(jnp.abs(unseen["balance"]))) > 1e-3
    np.testing.assert_array_equal(equations.resolve(sample.fields, sample.condition), sample.fields)
    # a wrong edge, and a wrong place inside, are seen where they are
    wrong = sample.fields.at[0, 3, 0].add(1.0)
    assert np.argwhere(np.asarray(equations.residual(wrong, sample.condition)["edge"])).tolist() == [[0, 3]]
    wrong = sample.fields.at[5, 3, 0].add(1.0)
    seen = np.argwhere(np.abs(equations.residual(wrong, sample.condition)["balance"]) > 1e-6).tolist()
    assert sorted(seen) == [[4, 3], [5, 2], [5, 3], [5, 4], [6, 3]]
    assert not residual["edge"].any()


@pytest.mark.parametrize(("name", "square"), [("poisson_2d", 0.0), ("helmholtz_2d", 1.0)])
def test_stencils_have_their_orders_at_a_smooth_solution(name, square):
    def largest(num_points):
        equations = make_equations(name, num_points=num_points)
        exact = waves(num_points, 2, 1)
        source = (square - 5 * np.pi**2) * exact
        fields = jnp.stack([exact, source], axis=-1)
        parts = (equations.residual, equations.unseen)
        return np.array([float(jnp.max(jnp.abs(part(fields, jnp.zeros(()))["balance"]))) for part in parts])

    order = np.log(largest(25) / largest(49)) / np.log(48 / 24)
    np.testing.assert_allclose(order, [2.0, 4.0], atol=0.15)


def test_fluxes_balance_as_in_a_dense_system():
    count, generator = 9, np.random.default_rng(0)
    coefficient = jnp.asarray(generator.uniform(1.0, 9.0, (count, count)))
    equations = make_equations("darcy_binary", num_points=count)

    def balance(inside):
        solution = jnp.pad(inside.reshape(count - 2, count - 2), 1)
        found = equations.residual(jnp.stack([solution, coefficient], axis=-1), jnp.zeros(()))["balance"]
        return found[1:-1, 1:-1].ravel()

    nothing = jnp.zeros((count - 2) ** 2)
    matrix, right = jax.jacfwd(balance)(nothing), -balance(nothing)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    expected = np.linalg.solve(matrix, right).reshape(count - 2, count - 2)
    np.testing.assert_allclose(solve_flux(coefficient)[1:-1, 1:-1], expected, rtol=1e-10)
    # of one material it is Poisson's equation
    even = solve_flux(jnp.full((count, count), 4.0))
    np.testing.assert_allclose(even, solve_helmholtz(-jnp.ones((count, count)) / 4), atol=1e-15)


def test_the_field_has_the_variances_of_its_waves():
    count, draws = 16, 4000
    fields = jax.vmap(lambda key: draw_smooth_field(count, key))(jax.random.split(jax.random.key(3), draws))
    place = np.arange(count) + 0.5

    def along(order):
        wave = np.cos(np.pi * order * place / count)
        return wave / np.linalg.norm(wave)

    for p, q in ((0, 0), (1, 0), (2, 3)):
        found = np.einsum("sij,i,j->s", fields, along(p), along(q))
        expected = 3.0 * count / (np.pi**2 * (p**2 + q**2) + 9.0) if p + q else 0.0
        assert found.std() == pytest.approx(expected, rel=4.5 / np.sqrt(2 * draws), abs=1e-12)
    # two materials in equal shares
    binary = make_equations("darcy_binary", num_points=count).draw(jax.random.key(0)).fields[..., 1]
    assert set(np.unique(binary)) == {3.0, 12.0}
    assert abs(float(jnp.mean(fields > 0)) - 0.5) < 0.02


def test_what_cannot_be_built_is_told():
    assert on_edge(5).sum() == 16
    with pytest.raises(ValueError, match="resonance"):
        make_equations("helmholtz_2d", wave_number=5.0)
    for name in NAMES:
        with pytest.raises(ValueError, match="points, got 4"):
            make_equations(name, num_points=4)


def test_sources_of_another_smoothness_and_length_differ_by_their_sizes_wave_by_wave():
    """The size of a wave is tau^(alpha - 1) (pi^2 |k|^2 + tau^2)^(-alpha / 2)."""
    count, key = 12, jax.random.key(4)
    changes = ({}, {"smoothness": 1.5}, {"inverse_length": 6.0})
    drawn = [make_equations("poisson_2d", num_points=count, **change).draw(key).fields[..., 1] for change in changes]
    usual, rougher, shorter = (jax.scipy.fft.dctn(source, norm="ortho") for source in drawn)
    wave = np.pi * np.hypot(*np.meshgrid(np.arange(count), np.arange(count)))
    inside = wave > 0
    expected = 3.0**-0.5 * (wave**2 + 9.0) ** 0.25
    np.testing.assert_allclose((rougher / usual)[inside], expected[inside], rtol=1e-9)
    expected = 2.0 * (wave**2 + 9.0) / (wave**2 + 36.0)
    np.testing.assert_allclose((shorter / usual)[inside], expected[inside], rtol=1e-9)
    with pytest.raises(ValueError, match="smoothness above 1"):
        make_equations("poisson_2d", smoothness=1.0)
