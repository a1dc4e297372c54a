"""Rows are what they claim: the operator at a site, its integral in time, and noise that is uncorrelated."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.gp.basis import Basis, Box, Energy, efforts, feature_efforts, prior_deviations
from phdme_jax.gp.fit import kernel_of
from phdme_jax.gp.observations import (
    anchor_rows,
    concatenate,
    cosine_tests,
    derivative_rows,
    integral_rows,
    interval_tests,
)
from phdme_jax.gp.quadrature import find_time_scale
from phdme_jax.gp.sites import select_sites
from phdme_jax.systems import make_system
from phdme_jax.systems.energy.base import zero_parameters

BASIS = Basis(2, 6, 3)
BOX = Box(jnp.zeros(2), jnp.array([1.0, 1.5]))
TIMES = np.linspace(0.0, 1.3, 12)


def make_rows(structure, time_tests, space_tests, times=TIMES):
    """Rows of one trajectory, and of noise of the scale that uneven times need."""
    noise = np.random.default_rng(1).standard_normal((3, len(times), 17, 2))
    tests = interval_tests(times, np.sin(3 * times)[:, None, None] + 0.01 * noise, time_tests)
    return jax.jit(lambda x: integral_rows(BASIS, BOX, structure.flow, structure.parameters, x, tests, space_tests))


def combined(rows, parameters):
    return jnp.tensordot(jnp.stack([1.0, *parameters.values()]), rows.design, axes=1)


def test_derivative_rows_are_the_vector_field_at_the_sites(world):
    structure = world.system.structure
    weights = jnp.asarray(np.random.default_rng(0).standard_normal(BASIS.size))
    energy = Energy(BOX, jnp.array([0.7, 1.2]), weights)
    arguments = (structure.flow, tuple(world.parameters), world.states, world.rates, world.sites)
    rows = jax.jit(partial(derivative_rows, BASIS, BOX, *arguments[:2]))(*arguments[2:])
    predicted = combined(rows, world.parameters) @ jnp.concatenate([energy.weights, energy.stiffness])
    fields = jax.jit(jax.vmap(lambda x: structure.flow(efforts(BASIS, energy, x), world.parameters)))(world.states)
    frames, places = np.asarray(world.sites).T
    np.testing.assert_allclose(predicted, fields[frames, places].ravel(), atol=1e-11)
    np.testing.assert_allclose(rows.target, world.rates[frames, places].ravel())
    np.testing.assert_array_equal(rows.group, [0, 1] * len(frames))
    assert np.all(rows.rate_share == 1) and np.all(rows.state_share == 0) and np.all(rows.fixed == 0)


def test_integral_rows_are_exact_for_states_that_are_polynomials_in_time(world):
    """With a quadratic energy the operator of a polynomial is one; the rule of eight even nodes is exact for it."""
    structure, parameters, stiffness = world.system.structure, world.parameters, jnp.array([0.7, 1.2])
    coefficients = 0.3 * np.random.default_rng(0).standard_normal((8, 17, 2))
    powers = TIMES[:, None] ** np.arange(8)
    states = jnp.asarray(np.einsum("tk,kgf->tgf", powers, coefficients))
    rows = make_rows(structure, time_tests=7, space_tests=9)(states)
    predicted = combined(rows, parameters)[:, BASIS.size :] @ stiffness
    forces = jax.jit(jax.vmap(lambda c: structure.flow(stiffness * c, parameters)))(jnp.asarray(coefficients))
    primitives = TIMES[:, None] ** np.arange(1, 9) / np.arange(1, 9)
    work = np.einsum("tk,kgf->tgf", np.diff(primitives, axis=0), forces)
    order, index = np.arange(1, 8)[:, None], np.arange(1, 12)
    in_time = np.sqrt(2 / 12) * np.sin(np.pi * order * index / 12)
    in_space = cosine_tests(17, 9)
    np.testing.assert_allclose(predicted, np.einsum("jt,sg,tgf->jsf", in_time, in_space, work).ravel(), atol=1e-11)
    change = np.einsum("jt,sg,tgf->jsf", in_time, in_space, np.diff(states, axis=0))
    np.testing.assert_allclose(rows.target, change.ravel(), atol=1e-12)


def test_integral_rows_hold_along_a_solution(world):
    """A uniform momentum and a strain that grows evenly solve the string without elastic forces exactly."""
    structure = make_system("vibrating_string", num_points=17, order=4, closure="sbp", dissipation=()).structure
    momentum = jnp.sin(np.pi * jnp.arange(17) / 16).at[jnp.array([0, -1])].set(0.0)
    growth = structure.flow(jnp.stack([momentum, jnp.zeros(17)], axis=1), {})[:, 1]
    states = jnp.stack([jnp.stack([momentum, 0.1 + t * growth], axis=1) for t in TIMES])
    rows = make_rows(structure, time_tests=11, space_tests=17)(states)
    np.testing.assert_allclose(rows.design[0, :, BASIS.size], rows.target, atol=1e-12)
    assert float(jnp.max(jnp.abs(rows.target))) > 0.1


UNEVEN = np.array([0.0, 0.1, 0.25, 0.2501, 0.3, 0.45, 0.6, 0.7, 0.75, 0.9, 1.2, 1.3])


@pytest.mark.parametrize("times", [TIMES, UNEVEN])
def test_noise_of_the_integral_rows_is_uncorrelated_with_the_stated_variances(world, times):
    make = make_rows(world.system.structure, 8, 9, times)
    states = jnp.zeros((12, 17, 2))
    impulses = jnp.eye(states.size).reshape(-1, *states.shape)
    # targets are linear in the states
    slope = jax.jit(jax.vmap(lambda x: make(x).target))(impulses).T
    np.testing.assert_allclose(slope @ slope.T, jnp.diag(make(states).state_share), atol=1e-13)
    if times is TIMES:
        np.testing.assert_allclose(make(states).rate_share, (1.3 / 11) ** 2)
    # a row listens to the field of its noise group only
    listens = np.abs(np.asarray(slope).reshape(144, 12, 17, 2)).sum(axis=(1, 2)) > 0
    np.testing.assert_array_equal(listens, np.eye(2, dtype=bool)[np.asarray(make(states).group)])


def waves(times, noise=0.01):
    clock = 6.0 * times[:, None] + np.arange(40)
    return np.cos(clock)[None, :, :, None] + noise * np.random.default_rng(0).standard_normal((1, len(times), 40, 1))


def test_between_uneven_frames_the_share_of_the_rates_is_the_variance_of_what_the_rule_lets_through_and_misses():
    """Tested integrals of a process with the scale of the states, sampled at noisy frames, against fine quadrature."""
    times = np.sort(np.random.default_rng(3).uniform(0.0, 3.0, 30))
    tests = interval_tests(times, waves(times), 12)
    scale = find_time_scale(times, waves(times)[0, :, :, 0] / np.sqrt(0.5))
    fine = np.linspace(0.0, 1.0, 41)
    points = (times[:-1, None] + np.diff(times)[:, None] * fine).ravel()
    measure = np.kron(np.diff(times), np.array([1, *([4, 2] * 19), 4, 1]) / 120)
    own = (tests.change @ (np.eye(29).repeat(41, axis=1) * measure)).T

    def kernel(a, b):
        return np.exp(-0.5 * ((a[:, None] - b) / scale.length) ** 2)

    cross = own.T @ kernel(points, times) @ tests.integral.T
    missed = own.T @ kernel(points, points) @ own - cross - cross.T
    missed = missed + tests.integral @ kernel(times, times) @ tests.integral.T
    exact = np.diag(missed) / scale.noise + np.sum(tests.integral**2, axis=1)
    assert np.all(tests.rate_share > 0.5 * exact) and np.all(tests.rate_share < 3 * exact)


def test_weights_between_frames_that_nearly_coincide_stay_small():
    times = np.linspace(0.0, 3.0, 40)
    even = interval_tests(times, waves(times), 20)
    times[20] = times[19] + 1e-3 * times[1]
    close = interval_tests(times, waves(times), 20)
    assert np.max(np.abs(close.integral)) < 2 * np.max(np.abs(even.integral))
    assert np.max(close.rate_share) < 3 * np.max(even.rate_share)


def test_intervals_that_no_frame_resolves_are_left_out():
    times = np.linspace(0.0, 3.0, 40)
    times[15:] += 2.0
    tests = interval_tests(times, waves(times), 30)
    np.testing.assert_array_equal(tests.change[:, 14], 0.0)
    assert np.all(np.any(tests.change[:, [13, 15]], axis=0))
    # no test spans the pause
    assert not np.any(np.any(tests.change[:, :14], axis=1) & np.any(tests.change[:, 15:], axis=1))
    with pytest.raises(ValueError, match="most intervals are not resolved"):
        interval_tests(np.array([0.0, 2.0, 5.0, 9.0, 14.0]), np.random.default_rng(0).standard_normal((9, 5, 3, 1)))


def test_cosine_tests_are_orthonormal_and_the_smoothest_come_first():
    rows = cosine_tests(17, 30)
    np.testing.assert_allclose(rows @ rows.T, np.eye(17), atol=1e-13)
    np.testing.assert_array_equal(np.sum(np.diff(np.sign(rows)) != 0, axis=1), np.arange(17))


def test_anchor_holds_the_gradient_at_rest_and_rows_stack(world):
    anchor = anchor_rows(BASIS, BOX, 2, 1e-3)
    np.testing.assert_allclose(anchor.design[0], feature_efforts(BASIS, BOX, BOX.centre))
    np.testing.assert_allclose(anchor.design[1:], 0.0)
    np.testing.assert_allclose(anchor.fixed, 1e-6)
    np.testing.assert_allclose(anchor.target, 0.0)
    both = concatenate([anchor, anchor._replace(target=anchor.target + 1)])
    np.testing.assert_allclose(both.target, [0, 0, 1, 1])
    assert both.design.shape == (3, 4, BASIS.size + 2)


@pytest.mark.slow
def test_selected_sites_are_distinct_and_leave_less_unknown_than_random_ones(world):
    structure = world.system.structure
    none = zero_parameters(structure, jnp.float64)
    deviations = prior_deviations(world.basis, world.box, kernel_of(world.hyperparameters, world.box))
    candidates = jnp.asarray([(frame, point) for frame in range(5) for point in range(17)])

    def flow(e):
        return structure.flow(e, none)

    chosen = np.asarray(select_sites(world.basis, world.box, flow, deviations, world.states, candidates, 20))
    assert len({tuple(site) for site in chosen}) == 20

    apply = jax.vmap(flow, in_axes=-1, out_axes=-1)
    features = jax.jit(jax.vmap(lambda x: apply(feature_efforts(world.basis, world.box, x))))(world.states)
    rows = np.asarray(features[..., : world.basis.size] * deviations)

    def unknown(sites):
        known = rows[sites[:, 0], sites[:, 1]].reshape(-1, world.basis.size)
        everything = rows.reshape(-1, world.basis.size)
        gain = np.linalg.solve(known @ known.T + 1e-6 * np.eye(len(known)), known @ everything.T)
        return np.sum(everything**2) - np.sum((everything @ known.T) * gain.T)

    generator = np.random.default_rng(0)
    random = [unknown(np.asarray(candidates)[generator.choice(85, 20, replace=False)]) for _ in range(20)]
    assert unknown(chosen) < min(random)


def test_more_sites_than_the_basis_can_tell_apart_are_still_distinct(world):
    structure, small = world.system.structure, Basis(2, 3, 0)
    none = zero_parameters(structure, jnp.float64)
    candidates = jnp.asarray([(frame, point) for frame in range(3) for point in range(1, 16)])

    def select(count):
        flow = partial(structure.flow, parameters=none)
        return select_sites(small, world.box, flow, jnp.ones(small.size), world.states, candidates, count)

    assert len({tuple(site) for site in np.asarray(select(30))}) == 30
    with pytest.raises(ValueError, match="at most 45 sites"):
        select(46)


def test_states_of_single_precision_beside_a_box_of_double_give_rows_of_double(world):
    make = make_rows(world.system.structure, 8, 9)
    states = jnp.asarray(0.1 * np.random.default_rng(0).standard_normal((12, 17, 2)).astype(np.float32))
    rows, exact = make(states), make(states.astype(jnp.float64))
    assert {leaf.dtype for leaf in rows if leaf.dtype != rows.group.dtype} == {jnp.dtype(jnp.float64)}
    np.testing.assert_allclose(rows.design, exact.design, rtol=1e-12)
