"""Where states are Gaussian and motions linear, every method that forecasts from sensors draws from the posterior."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.methods.base import Fitted
from phdme_jax.methods.draws import draw_forecasts
from phdme_jax.methods.sensors import ensemble, interpolated, variational
from phdme_jax.methods.sensors.assimilation import Sizes
from phdme_jax.methods.sensors.background import fit_background
from phdme_jax.methods.sensors.gauss_newton import gauss_newton, laplace
from phdme_jax.methods.sensors.sensed import Sensed
from tests.methods.sensors import world

ZERO = jnp.zeros(world.DIRECTIONS)


def sizes(members=8, assimilations=2):
    return Sizes(world.WINDOW, members, assimilations, iterations=2)


def drawn(model, sensed, count):
    fitted = Fitted(model, world.PARAMS, {})
    return draw_forecasts(fitted, jax.tree.map(lambda leaf: leaf[None], sensed), count, jax.random.key(7)).samples[0]


def assert_posterior(samples, sensed, frames=world.WINDOW, tolerance=0.03):
    mean, covariance = world.posterior(sensed, frames)
    found = world.coordinates(samples)
    np.testing.assert_allclose(found.mean(axis=0), mean, atol=tolerance)
    np.testing.assert_allclose(np.cov(found.T), covariance, atol=tolerance)
    last = world.trajectory(jnp.asarray(samples[0, 0]), world.FRAMES)
    np.testing.assert_allclose(samples[0], last, atol=1e-9)


def test_laplace_is_the_posterior_after_one_step_from_anywhere():
    sensed = world.readings()
    mean, covariance = world.posterior(sensed)
    for begin in (ZERO, jnp.array([3.0, -2.0, 1.0, 0.5])):
        found = laplace(world.phi, sensed, world.DEVIATION, begin, steps=1)
        np.testing.assert_allclose(found.mode, mean, atol=1e-9)
        np.testing.assert_allclose(found.root @ found.root.T, covariance, atol=1e-9)
        np.testing.assert_allclose(found.whitened(found.coordinates(begin)), begin, atol=1e-9)


def test_a_search_around_another_background_is_the_least_of_its_objective():
    sensed, centre = world.readings(), jnp.array([0.5, 1.0, -1.0, 0.2])

    def objective(z):
        missed = sensed.mask * (world.phi(z) - sensed.values) / world.DEVIATION
        return 0.5 * jnp.sum((z - centre) ** 2) + 0.5 * jnp.sum(missed**2)

    mode, error, slope = gauss_newton(world.phi, sensed, world.DEVIATION, ZERO, 2, centre)
    np.testing.assert_allclose(jax.grad(objective)(mode), 0.0, atol=1e-8)
    np.testing.assert_allclose(mode - centre + slope.T @ error, 0.0, atol=1e-8)


def test_a_search_never_takes_a_step_uphill_and_finds_the_least_of_a_curved_objective():
    curved = lambda z: world.phi(jnp.sinh(z))  # noqa: E731
    sensed = world.readings()

    def value(steps):
        mode, error, _ = gauss_newton(curved, sensed, world.DEVIATION, jnp.full(4, 4.0), steps)
        return float(mode @ mode + error @ error), mode, error

    values = [value(steps)[0] for steps in (0, 1, 2, 4, 8, 40)]
    assert all(later <= earlier for earlier, later in itertools.pairwise(values))
    _, mode, _ = value(40)
    gradient = jax.grad(
        lambda z: 0.5 * z @ z + 0.5 * jnp.sum((sensed.mask * (curved(z) - sensed.values) / world.DEVIATION) ** 2)
    )
    np.testing.assert_allclose(gradient(mode), 0.0, atol=1e-5)


def test_variational_samples_are_those_of_the_posterior():
    model = variational.make_variational(world.DYNAMICS, world.TIMES, world.DIRECTIONS, sizes())
    sensed = world.readings()
    assert_posterior(drawn(model, sensed, 20000), sensed)


@pytest.mark.parametrize("assimilations", [1, 4])
def test_members_of_a_large_ensemble_are_samples_of_the_posterior(assimilations):
    model = ensemble.make_ensemble_smoother(
        world.DYNAMICS, world.TIMES, world.DIRECTIONS, sizes(members=6000, assimilations=assimilations)
    )
    sensed = world.readings()
    members = model.prepare(world.PARAMS, sensed)
    assert_posterior(np.asarray(members), sensed, tolerance=0.06)


def test_an_ensemble_without_readings_is_left_as_it_was_drawn():
    model = ensemble.make_ensemble_smoother(world.DYNAMICS, world.TIMES, world.DIRECTIONS, sizes(members=2000))
    empty = Sensed(jnp.zeros((world.WINDOW, world.GRID, 2)), jnp.zeros((world.GRID, 2)))
    found = world.coordinates(model.prepare(world.PARAMS, empty))
    np.testing.assert_allclose(np.cov(found.T), np.eye(world.DIRECTIONS), atol=0.1)


def test_interpolated_samples_are_those_of_the_posterior_of_the_first_frame():
    model = interpolated.make_interpolated(world.DYNAMICS, world.TIMES, world.DIRECTIONS, sizes())
    sensed = world.readings()
    assert_posterior(drawn(model, sensed, 20000), sensed, frames=1)


def test_the_background_has_the_moments_of_the_draws():
    z = np.random.default_rng(3).normal(size=(60_000, world.DIRECTIONS))
    windows = np.asarray(jax.vmap(world.phi)(jnp.asarray(z)))
    slope = np.asarray(jax.jacfwd(world.phi)(ZERO)).reshape(-1, world.DIRECTIONS)
    found = fit_background(windows[:, 0])
    assert found.root.shape[-1] == world.DIRECTIONS and fit_background(windows[:, 0], 2).root.shape[-1] == 2
    flat = found.root.reshape(-1, world.DIRECTIONS)
    first = slope[: 2 * world.GRID]
    np.testing.assert_allclose(flat @ flat.T, first @ first.T, atol=0.06)
    state = found.state(jnp.array([0.3, -1.0, 2.0, 0.1]))
    np.testing.assert_allclose(found.coordinates(state), [0.3, -1.0, 2.0, 0.1], atol=1e-9)
