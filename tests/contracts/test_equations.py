"""What all known equations of the registry keep."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.systems import EQUATIONS, make_equations
from phdme_jax.systems.equations.base import stacked_residual

SMALL = {
    "circle": {},
    "poisson_1d": {"num_points": 48},
    "darcy_kle": {"num_points": 16, "num_modes": 4, "length": 1.0},
    "darcy_nodal": {"num_points": 17, "num_modes": 12},
    "topology": {"num_squares": 8, "num_iterations": 12},
    "poisson_2d": {"num_points": 16},
    "helmholtz_2d": {"num_points": 16},
    "darcy_binary": {"num_points": 16},
    "burgers": {"num_points": 16, "num_frames": 64},
    "burgers_ic": {"num_points": 16, "num_frames": 16},
    "burgers_bc": {"num_points": 16, "num_frames": 16},
    "heat": {"num_points": 16, "num_frames": 32},
    "stokes": {"num_points": 64, "num_frames": 32},
    "porous_medium": {"num_points": 16, "num_frames": 16},
    "stefan": {"num_points": 24, "num_frames": 24},
    "reaction_diffusion": {"num_points": 16, "num_frames": 16},
    "navier_stokes": {"num_points": 12, "num_frames": 3},
    "advection": {"num_points": 16, "num_frames": 16, "highest_wave": 1},
    "viscous_burgers": {"num_points": 16, "num_frames": 32, "viscosity": 1.0, "highest_wave": 1},
    "dam_break": {"num_points": 12, "num_frames": 31},
    "five_springs": {"num_frames": 5},
    "three_body": {"num_frames": 5, "duration": 1.0},
    "charged_particles": {"num_frames": 5},
    "gravity": {"num_particles": 4, "num_frames": 5},
}
# largest residual of a true example in units of that of a disturbed one; the multiplied-out equation is overdetermined,
# the first of few frames of Burgers' equation are far apart, fronts are as wide as a few cells
FLOORS = dict.fromkeys(SMALL, 1e-12) | {
    "poisson_1d": 1e-5,
    "darcy_kle": 0.2,
    "burgers": 0.2,
    "heat": 1e-9,
    "stokes": 1e-3,
    "stefan": 1e-3,
    "advection": 0.02,
    "viscous_burgers": 0.4,
    "dam_break": 0.8,
}
PARTICLES = ("five_springs", "three_body", "charged_particles", "gravity")
# how much an invariant of true examples changes: energies are those of the exact motion, which schemes keep nearly
DRIFTS = {"five_springs": 1e-3, "charged_particles": 0.3, "gravity": 1e-2}


@pytest.fixture(scope="module", params=list(EQUATIONS))
def drawn(request):
    equations = make_equations(request.param, **SMALL[request.param])
    samples = jax.jit(jax.vmap(equations.draw))(jax.random.split(jax.random.key(0), 4))
    return equations, samples


@lru_cache
def residuals_of(name):
    return jax.jit(jax.vmap(partial(stacked_residual, make_equations(name, **SMALL[name]))))


def residuals(equations, fields, conditions):
    return residuals_of(equations.name)(fields, conditions)


def test_every_entry_is_tried_small():
    assert set(SMALL) == set(EQUATIONS) == set(FLOORS)


def test_examples_have_the_declared_shapes(drawn):
    equations, samples = drawn
    assert samples.fields.shape == (4, *equations.grid.points, len(equations.fields))
    assert samples.condition.shape == (4, *equations.grid.points, len(equations.conditions))
    assert len(equations.units) == len(equations.fields)
    assert np.isfinite(samples.fields).all() and samples.ok.all()
    assert np.abs(samples.fields[0] - samples.fields[1]).max() > 1e-3


def test_examples_obey_the_equations_and_disturbed_ones_do_not(drawn):
    equations, samples = drawn
    noise = jax.random.normal(jax.random.key(1), samples.fields.shape)
    size = jnp.std(samples.fields, axis=tuple(range(samples.fields.ndim - 1)))
    disturbed = samples.fields + 0.1 * size * noise
    true = np.abs(residuals(equations, samples.fields, samples.condition)).max()
    wrong = np.abs(residuals(equations, disturbed, samples.condition)).max()
    assert true < FLOORS[equations.name] * wrong


def test_resolving_a_true_example_gives_it_back(drawn):
    equations, samples = drawn
    if equations.resolve is None:
        pytest.skip("no solver")
    count = equations.num_solution
    # a single field holds what it is computed from, and so does the first frame of particles
    wrong = samples.fields.at[..., :count].multiply(1.1 if "map" in equations.offers or count > 1 else 1.0)
    if equations.name in PARTICLES:
        wrong = wrong.at[:, 0].set(samples.fields[:, 0])
    again = jax.jit(jax.vmap(equations.resolve))(wrong, samples.condition)
    scale = np.abs(samples.fields[..., :count]).max()
    np.testing.assert_allclose(again, samples.fields, atol=1e-9 * scale, rtol=1e-9)


def test_what_is_conserved_is_kept_by_true_examples_and_not_by_disturbed_ones(drawn):
    equations, samples = drawn
    if equations.conserved is None:
        pytest.skip("nothing is conserved, or not by what the fields hold")
    balance = jax.jit(jax.vmap(equations.conserved))
    deviation = jnp.std(samples.fields[..., 0])
    noise = 0.1 * deviation * jax.random.normal(jax.random.key(1), samples.fields.shape)
    assert np.abs(balance(samples.fields, samples.condition)).max() < 1e-12 * deviation
    first, second = (balance(samples.fields + scale * noise, samples.condition) for scale in (1.0, 2.0))
    assert np.abs(first).max() > 1e-3 * deviation
    # affine ones double with what is added
    assert equations.affine_conserved == bool(np.allclose(second, 2.0 * first, rtol=1e-6, atol=1e-9))


@pytest.mark.slow
def test_residual_keeps_the_type_and_has_the_derivative_that_differences_see(drawn):
    equations, samples = drawn
    fields, condition = samples.fields[0], samples.condition[0]
    narrow = stacked_residual(equations, fields.astype(jnp.float32), condition.astype(jnp.float32))
    assert narrow.dtype == jnp.float32
    function = jax.jit(lambda x: jnp.mean(stacked_residual(equations, x, condition) ** 2))
    direction = jax.random.normal(jax.random.key(2), fields.shape)
    point = fields + 0.1 * direction
    slope = jnp.vdot(jax.jit(jax.grad(function))(point), direction)
    step = 1e-5
    difference = (function(point + step * direction) - function(point - step * direction)) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=1e-6)


def test_symmetries_leave_the_size_of_residuals_as_it_is(drawn):
    equations, samples = drawn
    symmetry = equations.priors.symmetry
    if symmetry is None:
        pytest.skip("no symmetry")
    rough = samples.fields + 0.1 * jax.random.normal(jax.random.key(1), samples.fields.shape)
    elements = jax.jit(jax.vmap(symmetry.draw))(jax.random.split(jax.random.key(2), len(rough)))
    moved = jax.jit(jax.vmap(symmetry.act))(elements, rough, samples.condition)
    sizes = [np.mean(residuals(equations, *one) ** 2, axis=(1, 2, 3)) for one in ((rough, samples.condition), moved)]
    np.testing.assert_allclose(*sizes, rtol=1e-9)
    np.testing.assert_allclose(np.mean(moved[0] ** 2, axis=(1, 2, 3)), np.mean(rough**2, axis=(1, 2, 3)), rtol=1e-12)
    assert np.abs(moved[0] - rough).max() > 1e-3


def test_terms_of_linear_and_multilinear_feasibilities_are_affine_in_what_is_predicted(drawn):
    equations, samples = drawn
    found = [one for one in equations.priors.feasibilities if one.form in ("linear", "multilinear")]
    if not found:
        pytest.skip("no such feasibility")
    first, second = jax.random.normal(jax.random.key(1), (2, *samples.fields.shape[1:]))
    for feasibility in found:
        terms = jax.jit(feasibility.terms)
        parts = [
            terms(one, samples.fields[0], samples.condition[0]) for one in (first + second, 0 * first, first, second)
        ]
        np.testing.assert_allclose(parts[0] + parts[1], parts[2] + parts[3], rtol=1e-8, atol=1e-8)


def test_terms_of_feasibilities_are_small_for_the_clean_example_and_not_for_another(drawn):
    equations, samples = drawn
    found = [one for one in equations.priors.feasibilities if one.form != "general"]
    if not found:
        pytest.skip("no such feasibility")
    fields, condition = samples.fields[0], samples.condition[0]
    rough = fields + 0.1 * jnp.std(samples.fields) * jax.random.normal(jax.random.key(1), fields.shape)
    for feasibility in found:
        terms = jax.jit(feasibility.terms)
        clean, other = (np.abs(terms(one, fields, condition)).max() for one in (fields, rough))
        # what is linear or multilinear in the example is its residual, of the scheme's own size
        floor = 0.9 if feasibility.form in ("linear", "multilinear") else 0.05
        assert clean < floor * other, feasibility.name


def test_subspaces_hold_true_examples_and_what_is_projected_obeys(drawn):
    equations, samples = drawn
    priors, fields, condition = equations.priors, samples.fields[0], samples.condition[0]
    found = [one for one in priors.feasibilities if one.subspace is not None]
    if not found:
        pytest.skip("no subspace")
    first, second = jax.random.normal(jax.random.key(1), (2, *fields.shape))
    element, act = priors.symmetry.draw(jax.random.key(2)), jax.jit(priors.symmetry.act)
    for one in found:
        project, terms_of = jax.jit(one.subspace), jax.jit(one.terms)
        once = project(first)
        np.testing.assert_allclose(project(fields), fields, atol=1e-9)
        np.testing.assert_allclose(project(once), once, atol=1e-12)
        np.testing.assert_allclose(project(2.0 * first + second), 2.0 * once + project(second), atol=1e-12)
        moved = act(element, first, condition)[0]
        np.testing.assert_allclose(project(moved), act(element, once, condition)[0], atol=1e-12)
        assert np.abs(first - once).max() > 0.1
        # as small as of the truth, which is zero but for the error of a scheme
        terms = [np.sqrt(np.mean(terms_of(x, fields, condition) ** 2)) for x in (once, first)]
        assert terms[0] < max(1e-10, 0.2 * terms[1])
        assert project(fields.astype(jnp.float32)).dtype == jnp.float32


def test_invariants_are_kept_by_true_examples_and_by_projected_ones(drawn):
    equations, samples = drawn
    priors, fields, condition = equations.priors, samples.fields[0], samples.condition[0]
    if not priors.invariants or priors.project is None:
        pytest.skip("no invariants, or no projection on them")
    # so little that velocities can make up for what it changes of potential energies
    rough = fields + 0.01 * jax.random.normal(jax.random.key(1), fields.shape)
    project = jax.jit(priors.project)
    projected, drift = project(rough, condition), DRIFTS.get(equations.name, 1e-12)
    for _, function in priors.invariants:
        invariant = jax.jit(function)
        for one, tolerance in ((fields, drift), (projected, 1e-12)):
            values = invariant(one, condition)
            np.testing.assert_allclose(values, np.broadcast_to(values[0], values.shape), atol=tolerance)
        assert np.ptp(invariant(rough, condition), axis=0).max() > 1e-4
    np.testing.assert_allclose(project(fields, condition), fields, atol=drift)
    np.testing.assert_allclose(project(projected, condition), projected, atol=1e-12)


def test_unknown_equations_are_refused():
    with pytest.raises(ValueError, match="expected equations among"):
        make_equations("phlogiston")
