"""Darcy's data: the Gaussian field, both solvers against dense algebra, and the residuals the literature reports."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.systems import make_equations
from phdme_jax.systems.equations import darcy
from phdme_jax.systems.equations.base import stacked_residual


def permeability(num_points, seed=0):
    modes = darcy.karhunen_loeve(num_points, 0.1, 32)
    return jnp.exp(jnp.asarray(modes @ np.random.default_rng(seed).standard_normal(32)))


@pytest.mark.parametrize("num_points", [8, 9])
def test_modes_are_those_of_the_whole_covariance(num_points):
    line = np.linspace(0, 1, num_points)
    x, y = (axis.ravel() for axis in np.meshgrid(line, line, indexing="ij"))
    covariance = np.exp(-np.hypot(x[:, None] - x, y[:, None] - y) / 0.3)
    whole = darcy.karhunen_loeve(num_points, 0.3, num_points**2).reshape(num_points**2, -1)
    np.testing.assert_allclose(whole @ whole.T, covariance, atol=1e-12)
    few = darcy.karhunen_loeve(num_points, 0.3, 5).reshape(num_points**2, -1)
    np.testing.assert_allclose((few**2).sum(axis=0), np.linalg.eigvalsh(covariance)[::-1][:5], rtol=1e-10)


def test_modes_are_the_same_whatever_the_signs_of_eigenvectors(monkeypatch):
    expected, eigh = darcy.karhunen_loeve(16, 0.1, 40), np.linalg.eigh

    def other_machine(matrix):
        values, vectors = eigh(matrix * (1 + 1e-14 * np.random.default_rng(0).standard_normal(matrix.shape)))
        return values, vectors * (-1.0) ** np.arange(len(values))

    monkeypatch.setattr(np.linalg, "eigh", other_machine)
    np.testing.assert_allclose(darcy.karhunen_loeve.__wrapped__(16, 0.1, 40), expected, atol=1e-9)


@pytest.mark.parametrize("num_points", [12, 24])
def test_least_squares_pressure_equals_the_dense_one(num_points):
    coefficient, source = permeability(num_points), jnp.asarray(darcy.corner_source(num_points))
    basis = jnp.eye(num_points**2).reshape(-1, num_points, num_points)
    columns = jax.vmap(lambda p: jnp.concatenate([part.ravel() for part in darcy._operator(p, coefficient)]))(basis)
    weights = np.ones(num_points)
    weights[[0, -1]] = 0.5
    mean = np.outer(weights, weights) / weights.sum() ** 2
    matrix = np.vstack([np.asarray(columns).T, mean.ravel()])
    right = np.concatenate([np.ravel(source), np.zeros(2 * num_points**2 + 1)])
    expected = np.linalg.lstsq(matrix, right, rcond=None)[0].reshape(num_points, num_points)
    solved = jax.jit(darcy.solve_kle)(coefficient, source)
    np.testing.assert_allclose(solved, expected, atol=1e-11)


def test_multiplied_out_operator_is_the_divergence_on_polynomials():
    num_points = 16
    x, y = np.meshgrid(*[np.linspace(0, 1, num_points)] * 2, indexing="ij")
    pressure, coefficient = x**2 * y + y**2, 2.0 + x * y  # both exact for the stencils
    balance, across_x, across_y = darcy._operator(jnp.asarray(pressure), jnp.asarray(coefficient))
    expected = -((2 + x * y) * (2 * y + 2) + y * 2 * x * y + x * (x**2 + 2 * y))
    np.testing.assert_allclose(balance, expected, atol=1e-9)
    np.testing.assert_allclose(across_x[-1], 2 * y[-1], atol=1e-10)
    np.testing.assert_allclose(across_x[0], 0.0, atol=1e-10)
    np.testing.assert_allclose(across_y[:, 0], -(x**2)[:, 0], atol=1e-10)
    assert not np.asarray(across_x)[1:-1].any() and not np.asarray(across_y)[:, 1:-1].any()


@pytest.mark.slow
def test_published_residuals_are_met():
    """The literature's data have a mean absolute residual near 1.26e-3 and a vanishing pressure has 0.1042."""
    equations = darcy.make_darcy_kle(64)
    fields = jax.jit(jax.vmap(lambda key: equations.draw(key).fields))(jax.random.split(jax.random.key(0), 8))
    measure = jax.jit(jax.vmap(lambda x: jnp.mean(jnp.abs(stacked_residual(equations, x, x[..., :0])))))
    assert 1.0e-3 < measure(fields).mean() < 1.6e-3
    np.testing.assert_allclose(measure(fields.at[..., 0].set(0.0)), 128 * 10 / (64 * 64 * 3), rtol=1e-12)
    assert 0.63 < (darcy.karhunen_loeve(64, 0.1, 64) ** 2).sum(axis=-1).mean() < 0.67


def test_nodal_fluxes_are_those_of_a_manufactured_pressure():
    """Second order for p = cos(pi x) cos(2 pi y), K = 1 + x y / 2, whose flux through the boundary vanishes."""

    def largest_error(num_points):
        x, y = np.meshgrid(*[np.linspace(0, 1, num_points)] * 2, indexing="ij")
        a, b = np.pi, 2 * np.pi
        pressure, coefficient = np.cos(a * x) * np.cos(b * y), 1 + 0.5 * x * y
        slopes = -a * np.sin(a * x) * np.cos(b * y), -b * np.cos(a * x) * np.sin(b * y)
        source = (a**2 + b**2) * coefficient * pressure - 0.5 * (y * slopes[0] + x * slopes[1])
        width = darcy._cell_width(num_points)
        area = np.outer(width, width)
        source = source - (area * source).sum() / area.sum()
        solved = jax.jit(darcy.solve_nodal)(jnp.asarray(coefficient), jnp.asarray(source))
        return np.abs(solved - darcy.centred(jnp.asarray(pressure))).max()

    coarse, fine = largest_error(17), largest_error(33)
    assert abs(np.log2(coarse / fine) - 2) < 0.2


@pytest.mark.parametrize("roughness", [0.0, 0.5])
def test_nodal_pressures_leave_a_residual_of_rounding_whatever_the_permeability(roughness):
    noise = np.random.default_rng(0).standard_normal((32, 32))
    coefficient = jnp.asarray(np.exp(roughness * noise))
    source = jnp.asarray(darcy.corner_source(32))
    left = darcy.outflow(jax.jit(darcy.solve_nodal)(coefficient, source), coefficient) - source
    assert np.sqrt(np.mean(np.asarray(left) ** 2)) < 3e-13


@pytest.mark.parametrize("name", ["darcy_nodal", "darcy_binary"])
def test_slopes_of_a_pressure_are_those_of_differences_and_cost_no_second_factor(name):
    equations = make_equations(name, num_points=12)
    fields = jnp.abs(jax.random.normal(jax.random.key(0), (12, 12, 2))) + 0.5
    direction, weights = jax.random.normal(jax.random.key(1), (2, 12, 12))

    def pressure(permeability):
        return equations.resolve(fields.at[..., 1].set(permeability), jnp.zeros((12, 12, 0)))[..., 0]

    permeability, step = fields[..., 1], 1e-5
    slope = jax.jit(lambda: jax.jvp(pressure, (permeability,), (direction,))[1])()
    ends = [jax.jit(pressure)(permeability + sign * step * direction) for sign in (1, -1)]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), atol=1e-6 * float(jnp.abs(slope).max()))
    (back,) = jax.jit(lambda: jax.vjp(pressure, permeability)[1](weights))()
    np.testing.assert_allclose(jnp.vdot(back, direction), jnp.vdot(weights, slope), rtol=1e-9)
    _, along = jax.linearize(pressure, permeability)
    linear = str(jax.make_jaxpr(along)(direction))
    assert "custom_linear_solve" in linear and "triangular_solve" not in linear


def test_nodal_outflow_sums_to_nothing():
    fields = jnp.stack([jax.random.normal(jax.random.key(0), (9, 9)), permeability(9)], axis=-1)
    width = darcy._cell_width(9)
    outflow = darcy.nodal_residual(fields, np.zeros((9, 9)))["balance"]
    assert abs((np.outer(width, width) * np.asarray(outflow)).sum()) < 1e-12


def test_both_discretisations_tend_to_the_same_pressure():
    def distance(num_points):
        x, y = np.meshgrid(*[np.linspace(0, 1, num_points)] * 2, indexing="ij")
        coefficient = jnp.asarray(np.exp(np.sin(3 * x + 2 * y)))
        source = jnp.asarray(np.cos(np.pi * x) * np.cos(np.pi * y))
        both = jax.jit(lambda k, f: jnp.abs(darcy.solve_kle(k, f) - darcy.solve_nodal(k, f)).max())
        return float(both(coefficient, source))

    assert distance(24) < 0.6 * distance(12) < 6e-3


def test_each_is_judged_by_the_stencils_of_the_other():
    nodal, kle = (make_equations(name, num_points=16) for name in ("darcy_nodal", "darcy_kle"))
    sample = jax.jit(nodal.draw)(jax.random.key(0))
    for one, other in ((nodal, kle), (kle, nodal)):
        seen, judged = one.residual(*sample[:2]), other.unseen(*sample[:2])
        assert seen.keys() == judged.keys() and all(np.array_equal(seen[name], judged[name]) for name in seen)
    own, unseen = (np.sqrt(np.mean(part(*sample[:2])["balance"] ** 2)) for part in (nodal.residual, nodal.unseen))
    assert own < 1e-10 and unseen > 1e-2


def test_single_precision_is_refused_where_no_digit_would_be_left():
    with pytest.raises(ValueError, match="expected float64"):
        darcy.solve_kle(jnp.ones((16, 16), jnp.float32), jnp.zeros((16, 16), jnp.float32))


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="even number of points"):
        darcy.solve_kle(permeability(9), jnp.zeros((9, 9)))
    with pytest.raises(ValueError, match="at least 6"):
        darcy.solve_kle(jnp.ones((4, 4)), jnp.zeros((4, 4)))
    with pytest.raises(ValueError, match="modes"):
        darcy.karhunen_loeve(8, 0.1, 65)
    with pytest.raises(ValueError, match="at least"):
        darcy.corner_source(3)


def test_residuals_ask_for_products_of_all_digits():
    """Accelerators round the factors of float32 products to three digits unless asked not to."""

    def shares(function, *arrays):
        text = str(jax.make_jaxpr(function)(*(jnp.ones(part.shape, jnp.float32) for part in arrays)))
        return text.count("dot_general["), text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)")

    sizes = {"darcy_kle": {"num_points": 16}, "darcy_nodal": {"num_points": 16}, "topology": {"num_squares": 8}}
    for name in (*sizes, "poisson_1d"):
        equations = make_equations(name, **sizes.get(name, {}))
        sample = jax.eval_shape(equations.draw, jax.random.key(0))
        functions = [equations.residual] if name == "darcy_kle" else [equations.residual, equations.resolve]
        for function in functions:
            products, exact = shares(function, sample.fields, sample.condition)
            assert products == exact
        assert exact > 0


@pytest.mark.parametrize("num_points", [16, 17])
def test_four_moves_of_the_square_leave_the_law_as_it_is(num_points):
    """The source, the covariance of the log permeability, and so the pressure that belongs to it; mirrors do not."""
    equations = make_equations("darcy_nodal", num_points=num_points, num_modes=12)
    act, source = equations.priors.symmetry.act, jnp.asarray(darcy.corner_source(num_points))
    modes = darcy.karhunen_loeve(num_points, 0.1, 12)
    sample = jax.jit(equations.draw)(jax.random.key(0))
    for element in jnp.array([[0, 0], [1, 0], [0, 1], [1, 1]], bool):
        moved, _ = act(element, sample.fields, sample.condition)
        again = darcy.solve_nodal(moved[..., 1], source)
        np.testing.assert_allclose(again, moved[..., 0], atol=1e-12)
        np.testing.assert_allclose(act(element, moved, sample.condition)[0], sample.fields)
        many = jax.vmap(lambda mode, element=element: act(element, jnp.stack([mode, mode], -1), mode)[0][..., 1])
        turned = np.moveaxis(many(np.moveaxis(modes, -1, 0)), 0, -1)
        found, expected = (np.einsum("ijm,klm->ijkl", each, each) for each in (turned, modes))
        np.testing.assert_allclose(found, expected, atol=1e-12)
    mirrored = darcy.solve_nodal(sample.fields[::-1, :, 1], source)
    assert min(jnp.abs(mirrored - sign * sample.fields[::-1, :, 0]).max() for sign in (1, -1)) > 0.1


def test_where_a_pair_of_modes_is_cut_axes_are_not_exchanged():
    wholes = [darcy.keeps_pairs(darcy.karhunen_loeve(16, 0.1, count)) for count in (1, 2, 3)]
    assert wholes == [True, False, True], "the second and the third are each other's exchange"
    keys = jax.random.split(jax.random.key(0), 40)
    for count, whole in zip((1, 2, 3), wholes, strict=True):
        symmetry = make_equations("darcy_nodal", num_points=16, num_modes=count).priors.symmetry
        drawn = np.asarray(jax.vmap(symmetry.draw)(keys))
        assert bool(drawn[:, 0].any()) == whole and 0.2 < drawn[:, 1].mean() < 0.8


def test_balance_with_one_factor_of_a_clean_example_is_the_residual_of_that_example():
    fields, other = jnp.exp(jax.random.normal(jax.random.key(0), (2, 9, 9, 2)))
    equations = make_equations("darcy_nodal", num_points=9, num_modes=4)
    (feasibility,) = equations.priors.feasibilities
    nothing = jnp.zeros((9, 9, 0))
    expected = equations.residual(fields, nothing)["balance"]
    np.testing.assert_allclose(feasibility.terms(fields, fields, nothing), expected, atol=1e-10)
    mixed = [jnp.stack([one[..., 0], two[..., 1]], axis=-1) for one, two in ((other, fields), (fields, other))]
    halves = sum(equations.residual(one, nothing)["balance"] for one in mixed) / 2
    np.testing.assert_allclose(feasibility.terms(other, fields, nothing), halves, atol=1e-10)
