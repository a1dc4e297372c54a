"""The exact posterior against the reduced-rank one, against dense algebra, and against its own samples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.gp import basis as reduced
from phdme_jax.gp.fit import condition, kernel_of
from phdme_jax.gp.kernels import additive_squared_exponential
from phdme_jax.gp.observations import anchor_rows, concatenate, derivative_rows
from phdme_jax.systems import make_system
from tests.gp.exact import (
    concatenate_rows,
    condition_exact,
    density_covariance,
    effort_rows,
    predict_rows,
    rate_rows,
    row_covariance,
    sample_exact,
)
from tests.gp.site_energy import draw_prior, site_density, site_efforts

predict = jax.jit(predict_rows)
covariance_of = jax.jit(row_covariance)
energies_at = jax.jit(site_density)
efforts_at = jax.jit(site_efforts)
gradients_at = jax.jit(jax.vmap(jax.grad(site_density, 1), (None, 0)))

HELD_OUT = jnp.asarray([(0, 9), (1, 0), (2, 15), (3, 6)])


class Both(NamedTuple):
    exact: object
    reduced: object
    held_out: object
    held_out_design: jax.Array


@pytest.fixture(scope="module")
def posteriors(world):
    """One set of rows, conditioned on in function space and in weight space."""
    flow, names, noise = world.system.structure.flow, tuple(world.parameters), jnp.exp(world.hyperparameters.rate_noise)
    rows = concatenate_rows(
        [
            rate_rows(flow, world.parameters, world.states, world.rates, world.sites, noise),
            effort_rows(world.box.centre[None], 1e-6),
        ]
    )
    kernel = kernel_of(world.hyperparameters, world.box)
    exact = jax.jit(condition_exact)(kernel, jnp.exp(world.hyperparameters.stiffness), world.box.centre, rows)

    @jax.jit
    def in_weight_space():
        args = (world.basis, world.box, flow, names, world.states, world.rates)
        observed = concatenate([derivative_rows(*args, world.sites), anchor_rows(world.basis, world.box, len(names))])
        posterior = condition(world.basis, world.box, observed, world.hyperparameters, names)
        factors = jnp.stack([1.0, *world.parameters.values()])
        return posterior, jnp.tensordot(factors, derivative_rows(*args, HELD_OUT).design, axes=1)

    low, design = in_weight_space()
    held_out = rate_rows(flow, world.parameters, world.states, world.rates, HELD_OUT, noise)
    return Both(exact, low, held_out, design)


def test_efforts_and_energies_of_both_posteriors_agree(world, posteriors, points):
    exact, low = posteriors.exact, posteriors.reduced
    assert exact.ok and low.ok
    mean, covariance = predict(exact, effort_rows(points))

    @jax.jit
    def in_weight_space():
        slopes = reduced.feature_efforts(world.basis, world.box, points)[..., : world.basis.size] @ low.factor
        zero = low.mean._replace(stiffness=jnp.zeros(2))
        values = jax.vmap(lambda w: reduced.density(world.basis, zero._replace(weights=w), points), 1)(low.factor)
        efforts = reduced.efforts(world.basis, low.mean, points)
        return efforts, slopes, reduced.density(world.basis, low.mean, points), values

    efforts, slopes, density, values = in_weight_space()
    slopes = slopes.reshape(-1, world.basis.size)
    np.testing.assert_allclose(mean, efforts.ravel(), atol=1e-6)
    np.testing.assert_allclose(covariance, slopes @ slopes.T, atol=1e-5)
    np.testing.assert_allclose(energies_at(exact.mean, points), density, atol=1e-7)
    np.testing.assert_allclose(jax.jit(density_covariance)(exact, points), values.T @ values, atol=1e-7)
    # the data said something: far less is left than the prior's variance
    assert float(jnp.linalg.det(covariance)) < 1e-3 * float(
        jnp.linalg.det(covariance_of(exact.mean.kernel, effort_rows(points), effort_rows(points)))
    )


def test_residual_variances_and_likelihoods_of_both_posteriors_agree(world, posteriors):
    mean, covariance = predict(posteriors.exact, posteriors.held_out)
    low, size = posteriors.reduced, world.basis.size
    design = posteriors.held_out_design
    spread = design[:, :size] @ low.factor
    expected = design @ jnp.concatenate([low.mean.weights, low.mean.stiffness])
    np.testing.assert_allclose(mean, expected, atol=1e-6)
    np.testing.assert_allclose(covariance, spread @ spread.T, atol=1e-5)
    assert float(jnp.min(jnp.diagonal(covariance)[jnp.array([0, 1])])) > 1e-3
    np.testing.assert_allclose(posteriors.exact.negative_log_likelihood, low.objective, atol=1e-5)


def test_rate_rows_are_the_operator_on_both_sides_of_the_covariance_of_all_efforts(world, posteriors):
    structure, exact = world.system.structure, posteriors.exact
    mean, covariance = predict(exact, posteriors.held_out)
    size = world.states[0].size
    flow = jax.jit(jax.jacobian(lambda e: structure.flow(e, world.parameters)))
    operator = np.asarray(flow(jnp.zeros_like(world.states[0])))
    for index, (frame, point) in enumerate(np.asarray(HELD_OUT)):
        efforts, dense = predict(exact, effort_rows(world.states[frame]))
        rows = operator[point].reshape(2, size)
        block = slice(2 * index, 2 * index + 2)
        np.testing.assert_allclose(mean[block], rows @ efforts, atol=1e-11)
        np.testing.assert_allclose(covariance[block, block], rows @ dense @ rows.T, atol=1e-11)


@pytest.mark.slow
def test_row_covariance_approaches_the_continuous_operator(world):
    """For the viscous string: p_t = (p_z d_p d_q + q_z d_q^2 - c d_p) h and q_t = (p_z d_p^2 + q_z d_p d_q) h."""
    kernel, c, length = kernel_of(world.hyperparameters, world.box), 0.3, 10.0

    def fields(z):
        p = 0.3 * jnp.sin(2 * np.pi * z / length)
        return jnp.stack([p, 0.2 * jnp.cos(np.pi * z / length) + 0.1 * jnp.cos(3 * np.pi * z / length)])

    def functionals(h, z):
        state, slope = jax.jvp(fields, (z,), (jnp.ones_like(z),))
        hessian = jax.hessian(h)(state)
        return jnp.stack([hessian[1] @ slope - c * jax.grad(h)(state)[0], hessian[0] @ slope])

    left, right = 3.125, 4.375

    @jax.jit
    def continuous():
        def outer(x):
            return functionals(lambda y: additive_squared_exponential(x, y, kernel).value, jnp.asarray(right))

        return jnp.stack([functionals(lambda x, row=row: outer(x)[row], jnp.asarray(left)) for row in range(2)], axis=1)

    def discrete(num_points):
        structure = make_system(
            "vibrating_string", num_points=num_points, order=4, dissipation=("viscous_damping",)
        ).structure
        states = jax.vmap(fields)(jnp.linspace(0.0, length, num_points))[None]
        sites = np.array([[0, round(z / length * (num_points - 1))] for z in (left, right)])
        parameters = {"viscous_damping": jnp.asarray(c)}
        rows = rate_rows(structure.flow, parameters, states, states, jnp.asarray(sites), jnp.zeros(2))
        return covariance_of(kernel, rows, rows)[:2, 2:]

    exact = continuous()
    errors = [float(jnp.max(jnp.abs(discrete(n) - exact))) for n in (33, 65)]
    assert errors[1] < 5e-3 * float(jnp.max(jnp.abs(exact)))
    assert abs(np.log2(errors[0] / errors[1]) - 4) < 0.3


def test_posterior_mean_efforts_are_the_gradient_of_its_energy(posteriors, points):
    energy = posteriors.exact.mean
    gradient = gradients_at(energy, points)
    np.testing.assert_allclose(efforts_at(energy, points), gradient, atol=1e-12)
    assert float(energies_at(energy, energy.centre)) == 0.0
    np.testing.assert_allclose(efforts_at(energy, energy.centre[None]), 0.0, atol=1e-9)


def test_prior_draws_have_the_covariance_of_the_kernel(world, points):
    kernel, stiffness = kernel_of(world.hyperparameters, world.box), jnp.zeros(2)

    @jax.jit
    @jax.vmap
    def draw(key):
        energy = draw_prior(world.box.centre, stiffness, kernel, 3, key)
        return site_efforts(energy, points[:2]).ravel()

    efforts = draw(jax.random.split(jax.random.key(0), 20_000))
    check_moments(efforts, jnp.zeros(4), covariance_of(kernel, effort_rows(points[:2]), effort_rows(points[:2])))


def test_pathwise_samples_have_the_moments_of_the_posterior(posteriors, points):
    exact = posteriors.exact
    # where nothing was observed, and where the noise of the observations is all that is left unknown
    elsewhere, observed = effort_rows(points[:2]), jax.tree.map(lambda leaf: leaf[1:3], exact.rows)
    mean, covariance = predict(exact, concatenate_rows([elsewhere, observed]))
    value_mean = energies_at(exact.mean, points)
    value_covariance = jax.jit(density_covariance)(exact, points)

    @jax.jit
    def draw(key):
        energy = sample_exact(exact, 32, key)
        rates = jnp.einsum("srjb,sjb->sr", observed.coefficients, site_efforts(energy, observed.states))
        efforts = site_efforts(energy, points[:2])
        return jnp.concatenate([efforts.ravel(), rates.ravel()]), site_density(energy, points)

    rows, values = jax.lax.map(draw, jax.random.split(jax.random.key(1), 3000), batch_size=100)
    check_moments(rows, mean, covariance)
    check_moments(values, value_mean, value_covariance)


def check_moments(samples, mean, covariance):
    """Within 4.5 standard errors; those of the covariances by the samples' own spread, Gaussian or not."""
    samples, count = np.asarray(samples) - np.asarray(mean), len(samples)
    deviation = np.sqrt(np.diagonal(covariance))
    assert np.all(np.abs(samples.mean(axis=0)) < 4.5 * deviation / np.sqrt(count))
    products = samples[:, :, None] * samples[:, None]
    error = products.std(axis=0) / np.sqrt(count)
    assert np.all(np.abs(products.mean(axis=0) - covariance) < 4.5 * error)


def test_samples_are_energies_that_differ_by_key_and_honour_clean_data(world, points):
    flow = world.system.structure.flow
    rows = rate_rows(flow, world.parameters, world.states, world.rates, world.sites, jnp.full(2, 1e-5))
    kernel, stiffness = kernel_of(world.hyperparameters, world.box), jnp.exp(world.hyperparameters.stiffness)
    posterior = jax.jit(condition_exact)(kernel, stiffness, world.box.centre, rows)
    sample = jax.jit(sample_exact, static_argnums=1)
    first, second = (sample(posterior, 32, jax.random.key(seed)) for seed in (0, 1))
    gradient = gradients_at(first, points)
    np.testing.assert_allclose(efforts_at(first, points), gradient, atol=1e-11)
    assert float(jnp.max(jnp.abs(gradient - efforts_at(second, points)))) > 0.1
    for energy in (first, second):
        rates = flow(efforts_at(energy, world.states[1]), world.parameters)
        np.testing.assert_allclose(rates[jnp.array([8, 16])], world.rates[1, jnp.array([8, 16])], atol=1e-4)


def test_parameters_may_be_traced(world):
    """The likelihood as a function of the damping: its derivative exists and leads towards the truth."""
    kernel, stiffness = kernel_of(world.hyperparameters, world.box), jnp.exp(world.hyperparameters.stiffness)
    name = "kelvin_voigt_damping"

    @jax.jit
    def slope(damping):
        def objective(value):
            parameters = world.parameters | {name: value}
            arguments = (world.states, world.rates, world.sites, jnp.full(2, 1e-3))
            rows = rate_rows(world.system.structure.flow, parameters, *arguments)
            return condition_exact(kernel, stiffness, world.box.centre, rows).negative_log_likelihood

        return jax.grad(objective)(damping)

    assert float(slope(jnp.asarray(0.5))) > 0 > float(slope(jnp.asarray(0.0)))


def test_dtype_follows(world, points):
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (world.parameters, world.states, world.rates, points))
    kernel = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), kernel_of(world.hyperparameters, world.box))

    def everything(parameters, states, rates, points, key):
        rest = jnp.zeros(2, states.dtype)
        rows = rate_rows(world.system.structure.flow, parameters, states, rates, world.sites, rest + 1)
        posterior = condition_exact(kernel, rest, rest, concatenate_rows([rows, effort_rows(rest[None], 0.1)]))
        energy = sample_exact(posterior, 8, key)
        covariance = density_covariance(posterior, points)
        return predict_rows(posterior, effort_rows(points)), site_density(energy, points), covariance, energy

    shapes = jax.eval_shape(everything, *single, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}
