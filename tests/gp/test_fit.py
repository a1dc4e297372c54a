"""Marginal likelihood and posterior against dense formulas, and what a fit recovers from clean data."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from phdme_jax.gp.basis import Basis, Box, efforts, feature_efforts, make_box, prior_deviations
from phdme_jax.gp.fit import (
    condition,
    dissipation_intervals,
    fit,
    initial_hyperparameters,
    kernel_of,
    negative_log_likelihood,
)
from phdme_jax.gp.observations import anchor_rows, concatenate, derivative_rows, integral_rows, interval_tests
from phdme_jax.numerics.stepping import rk4_step, rollout
from phdme_jax.systems import make_system
from phdme_jax.systems.energy.base import parameter_values, vector_field
from phdme_jax.systems.energy.vibrating_string import modes_state

SMALL = Basis(2, 6, 3)
BOX = Box(jnp.zeros(2), jnp.array([1.0, 1.5]))


@pytest.fixture(scope="module", params=[5, 25], ids=["fewer rows than weights", "more rows than weights"])
def dense(request, world):
    """Rows, and the mean and covariance of their targets and weights written out."""
    generator = np.random.default_rng(0)
    frames, places = generator.integers(0, 5, request.param), generator.integers(1, 16, request.param)
    sites = jnp.asarray(np.stack([frames, places], axis=1))
    flow, names = world.system.structure.flow, tuple(world.parameters)
    make = jax.jit(lambda: derivative_rows(SMALL, BOX, flow, names, world.states, world.rates, sites))
    rows = concatenate([make(), anchor_rows(SMALL, BOX, 2, 1e-2)])
    rows = rows._replace(state_share=jnp.linspace(0.0, 2.0, len(rows.target)))
    hyper = world.hyperparameters
    design = np.asarray(rows.design[0] + jnp.tensordot(jnp.exp(hyper.dissipation), rows.design[1:], axes=1))
    root = np.asarray(prior_deviations(SMALL, BOX, kernel_of(hyper, BOX)))
    mean = design[:, SMALL.size :] @ np.exp(hyper.stiffness)
    state, rate = (np.exp(2 * np.asarray(noise))[rows.group] for noise in (hyper.state_noise, hyper.rate_noise))
    noise = np.diag(state * rows.state_share + rate * rows.rate_share + rows.fixed)
    return rows, mean, design[:, : SMALL.size] * root, noise, root


def test_likelihood_is_that_of_the_multivariate_normal(world, dense):
    rows, mean, design, noise, _ = dense
    found = jax.jit(partial(negative_log_likelihood, SMALL, BOX))(rows, world.hyperparameters)
    expected = -stats.multivariate_normal(mean, design @ design.T + noise).logpdf(np.asarray(rows.target))
    np.testing.assert_allclose(found, expected - 0.5 * mean.size * np.log(2 * np.pi), rtol=1e-8)


def test_posterior_is_that_of_the_joint_normal(world, dense):
    rows, mean, design, noise, root = dense
    names = tuple(world.parameters)
    posterior = jax.jit(lambda r, h: condition(SMALL, BOX, r, h, names))(rows, world.hyperparameters)
    gain = np.linalg.solve(design @ design.T + noise, design).T
    np.testing.assert_allclose(posterior.mean.weights, root * (gain @ (rows.target - mean)), atol=1e-7)
    covariance = np.eye(SMALL.size) - gain @ design
    np.testing.assert_allclose(posterior.factor @ posterior.factor.T, covariance * np.outer(root, root), atol=1e-8)
    # the one upper triangular root with a positive diagonal
    lower = np.linalg.cholesky((covariance * np.outer(root, root))[::-1, ::-1])
    np.testing.assert_allclose(posterior.factor, lower[::-1, ::-1], atol=1e-8)
    assert posterior.ok
    for name, value in world.parameters.items():
        np.testing.assert_allclose(posterior.parameters[name], value)


@pytest.mark.slow
def test_uncertain_dissipation_is_a_column_of_the_joint_gaussian(world, dense):
    """Against the inverse of the whole precision of weights and logarithms, its Jacobian taken of the dense rows."""
    rows, _, _, noise, root = dense
    names, widths, scale = tuple(world.parameters), jnp.array([2.0, 0.7]), np.sqrt(np.diag(noise))
    hyper = world.hyperparameters
    known = condition(SMALL, BOX, rows, hyper, names)
    posterior = jax.jit(lambda r, h: condition(SMALL, BOX, r, h, names, widths))(rows, hyper)
    np.testing.assert_allclose(posterior.mean.weights, known.mean.weights, atol=1e-10)
    np.testing.assert_allclose(posterior.factor[:, : SMALL.size], known.factor, atol=1e-10)

    def model(both):
        weights, logarithms = both[: SMALL.size] * root, both[SMALL.size :]
        design = rows.design[0] + jnp.tensordot(jnp.exp(logarithms), rows.design[1:], axes=1)
        return design @ jnp.concatenate([weights, jnp.exp(hyper.stiffness)]) / scale

    at = jnp.concatenate([posterior.mean.weights / root, hyper.dissipation])
    slopes = np.asarray(jax.jacrev(model)(at))
    precision = slopes.T @ slopes + np.diag(np.concatenate([np.ones(SMALL.size), 1 / np.asarray(widths) ** 2]))
    expected = np.linalg.inv(precision) * np.outer(*2 * [np.concatenate([root, np.ones(2)])])
    logarithms = np.stack([np.r_[np.zeros(SMALL.size), posterior.spread[name]] for name in names])
    found = np.concatenate([posterior.factor, logarithms])
    np.testing.assert_allclose(found @ found.T, expected, atol=1e-8 * np.abs(expected).max())


def test_an_uncertain_posterior_is_of_the_type_of_its_rows(world, dense):
    rows, *_ = dense
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.float64 else leaf, rows)
    hyper, box = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (world.hyperparameters, BOX))
    made = jax.eval_shape(lambda r, h: condition(SMALL, box, r, h, tuple(world.parameters), jnp.ones(2)), narrow, hyper)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(made)} == {"float32", "bool"}


TIMES = tuple(float(t) for t in np.linspace(0.0, 10.0, 41))


@pytest.fixture(scope="module")
def observed():
    """A softening string with both kinds of damping, released from one smooth state; states and exact rates."""
    system = make_system("vibrating_string", num_points=25, order=4, damping=0.05)
    values = parameter_values(system, jnp.float64)

    @jax.jit
    def simulate():
        def field(x):
            return vector_field(system.structure, system.density, x, values)

        z = jnp.asarray(system.structure.grid.coordinates())
        start = modes_state(z, jnp.array([1.5, -0.9, 0.4, 0.0]), jnp.array([-0.2, 0.3, 0.2, -0.1]))
        states = rollout(lambda x, dt: (rk4_step(field, x, dt), dt), start, jnp.asarray(TIMES), 8)
        return states, jax.vmap(field)(states)

    return system, *simulate()


def check_recovery(system, states, basis, posterior, damping_error, stress_error):
    assert posterior.ok
    damping = float(posterior.parameters["kelvin_voigt_damping"])
    assert abs(damping / 0.05 - 1) < damping_error
    reach = float(jnp.minimum(jnp.max(states[..., 1]), -jnp.min(states[..., 1])))
    strain = jnp.linspace(-0.8 * reach, 0.8 * reach, 21)
    line = jnp.stack([jnp.zeros(21), strain], axis=1)
    found = jax.jit(partial(efforts, basis))(posterior.mean, line)[:, 1]
    assert float(jnp.max(jnp.abs(found - jnp.tanh(strain) / 2))) < stress_error
    # softening was there to be found: the best line misses by far more
    slope = jnp.sum(strain * jnp.tanh(strain) / 2) / jnp.sum(strain**2)
    assert float(jnp.max(jnp.abs(slope * strain - jnp.tanh(strain) / 2))) > 4 * stress_error
    return line


def test_fit_to_rates_recovers_the_damping_and_the_stress_law(observed):
    system, states, rates = observed
    structure, basis, box = system.structure, Basis(2, 16, 4), make_box(states, jnp.zeros(2))
    generator = np.random.default_rng(0)
    sites = jnp.asarray(np.stack([generator.integers(0, 41, 40), generator.integers(0, 25, 40)], axis=1))

    @jax.jit
    def learn():
        rows = derivative_rows(basis, box, structure.flow, structure.parameters, states, rates, sites)
        rows = concatenate([rows, anchor_rows(basis, box, 1)])
        start = initial_hyperparameters(basis, box, 1)
        before = negative_log_likelihood(basis, box, rows, start)
        return fit(basis, box, rows, start, structure.parameters), before

    posterior, before = learn()
    assert float(posterior.objective) < float(before) - 100
    check_recovery(system, states, basis, posterior, 1e-3, 1e-3)


@pytest.mark.slow
def test_fit_to_states_alone_recovers_them_too_and_knows_its_error(observed):
    system, states, _ = observed
    structure, box = system.structure, make_box(states, jnp.zeros(2))
    # the kinetic energy is known, and with it the inertia
    basis = Basis(2, 16, 4, ("known", "free"))
    noise = 2e-3
    measured = states + noise * jnp.asarray(np.random.default_rng(0).standard_normal(states.shape))

    tests = interval_tests(TIMES, measured[None], 16)

    def rows():
        found = integral_rows(basis, box, structure.flow, structure.parameters, measured, tests, 10)
        return concatenate([found, anchor_rows(basis, box, 1)])

    @jax.jit
    def learn():
        return fit(basis, box, rows(), initial_hyperparameters(basis, box, 1), structure.parameters)

    posterior = learn()
    line = check_recovery(system, states, basis, posterior, 0.1, 0.01)
    features = jax.jit(partial(feature_efforts, basis))(box, line)[:, 1, : basis.size]
    deviation = jnp.linalg.norm(features @ posterior.factor, axis=1)
    error = jax.jit(partial(efforts, basis))(posterior.mean, line)[:, 1] - jnp.tanh(line[:, 1]) / 2
    assert float(jnp.max(jnp.abs(error[1:-1]) / deviation[1:-1].clip(1e-5))) < 5
    assert float(jnp.max(deviation)) < 0.02
    ((low, high),) = dissipation_intervals(posterior, level=0.99).values()
    assert low < 0.05 < high < 1.3 * low
    # as wide as the likelihood along the damping is curved, all other hyperparameters held
    logarithm, step = posterior.hyperparameters.dissipation, 0.01

    @jax.jit
    def along(shift):
        moved = posterior.hyperparameters._replace(dissipation=logarithm + shift)
        energy = condition(basis, box, rows(), moved, structure.parameters).mean
        return negative_log_likelihood(basis, box, rows(), moved), energy.weights

    (below, down), (here, _), (above, up) = (along(shift) for shift in (-step, 0.0, step))
    curvature = float(below - 2 * here + above) / step**2
    deviation = float(posterior.spread["kelvin_voigt_damping"][0])
    assert deviation == pytest.approx(curvature**-0.5, rel=0.05)
    assert np.log(high / low) == pytest.approx(2 * 2.5758 * deviation, rel=1e-3)
    # and the energy goes with it
    slope, moved = features @ (up - down) / (2 * step), features @ posterior.factor[:, -1] / deviation
    np.testing.assert_allclose(moved, slope, atol=0.05 * float(jnp.max(jnp.abs(slope))))
    np.testing.assert_allclose(jnp.exp(posterior.hyperparameters.state_noise), noise, rtol=0.4)
    assert float(posterior.mean.stiffness[0]) == 1.0 != float(posterior.mean.stiffness[1])


def test_hyperparameters_get_physical_units():
    kernel = kernel_of(initial_hyperparameters(SMALL, BOX, 2), BOX)
    np.testing.assert_allclose(kernel.lengthscale, 0.5 * BOX.half_width)
    np.testing.assert_allclose(kernel.amplitude, 1.0)
    assert kernel.pair_amplitude.shape == (1,)
