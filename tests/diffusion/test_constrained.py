"""Constraints while a flow is followed: obeyed, exact where they say nothing of the rest, biased elsewhere."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion.constrained import project, relax, sample_d_flow, sample_eci, sample_pcfm
from phdme_jax.diffusion.flow import carry_noise, sample_flow
from tests import oracles

SHAPE, KEY = (3, 2), jax.random.key(0)
WORLD = oracles.gaussian_world(SHAPE, seed=4)
FREE = jnp.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]).reshape(SHAPE)
APART = WORLD._replace(covariance=WORLD.covariance * jnp.kron(jnp.eye(2), jnp.ones((3, 3))))
VALUES = jnp.array([0.0, 0.0, 0.0, 1.2, -0.4, 0.8]).reshape(SHAPE)


def written_over(example):
    return FREE * example + VALUES


def missed(example):
    return ((1 - FREE) * example - VALUES).ravel()[3:]


def sampler(name, world):
    velocity = oracles.exact_velocity(world)
    if name == "eci":
        return lambda noise: sample_eci(velocity, noise, KEY, written_over, 400, anchored=False)
    return lambda noise: sample_pcfm(velocity, noise, missed, 400, anchored=False)


def conditional(world):
    return oracles.condition_on(world, jnp.eye(6)[3:], VALUES.ravel()[3:], 0.0)


@pytest.mark.parametrize("name", ["eci", "pcfm"])
def test_values_that_say_nothing_of_the_rest_are_imposed_exactly(name):
    law, expected = oracles.affine_law(sampler(name, APART), SHAPE), conditional(APART)
    np.testing.assert_allclose(law.mean, expected.mean, atol=0.01)
    np.testing.assert_allclose(law.covariance, expected.covariance, atol=0.04)


def test_published_steps_make_spreads_too_large():
    """White data without a constraint: x_1 = E[x_1 | x], so that the standard deviation is a recurrence."""
    white = oracles.GaussianWorld(jnp.zeros(SHAPE), jnp.eye(6))
    expected = 1.0
    for index in range(100):
        t, later = index / 100, (index + 1) / 100
        expected = 1 - later + later * t / ((1 - t) ** 2 + t**2) * expected
    assert expected == pytest.approx(3.849, abs=1e-3)
    velocity = oracles.exact_velocity(white)
    laws = [
        oracles.affine_law(lambda noise: sample_eci(velocity, noise, KEY, lambda x: x, 100, anchored=True), SHAPE),
        oracles.affine_law(lambda noise: sample_pcfm(velocity, noise, lambda x: 0 * x, 100, anchored=True), SHAPE),
    ]
    for law in laws:
        np.testing.assert_allclose(law.covariance, expected**2 * jnp.eye(6), rtol=1e-5, atol=1e-6)
    fresh = jax.jit(
        jax.vmap(lambda noise, key: sample_eci(velocity, noise, key, lambda x: x, 100, resample_every=1, anchored=True))
    )
    deviation = jnp.std(fresh(jax.random.normal(KEY, (2000, *SHAPE)), jax.random.split(KEY, 2000)))
    assert float(deviation) == pytest.approx(0.69, abs=0.02)
    free = oracles.affine_law(lambda noise: sample_eci(velocity, noise, KEY, lambda x: x, 100, anchored=False), SHAPE)
    np.testing.assert_allclose(free.covariance, jnp.eye(6), atol=0.1)  # Euler's steps


def test_values_hold_to_rounding_and_the_law_of_the_rest_is_biased():
    """Correlated entries. Written over once a time they hardly reach the rest; more mixes bring its mean nearer."""
    velocity, expected = oracles.exact_velocity(WORLD), conditional(WORLD)
    mixed = partial(sample_eci, velocity, key=KEY, correct=written_over, num_steps=100, num_mixes=8, anchored=False)
    laws = {name: oracles.affine_law(sampler(name, WORLD), SHAPE) for name in ("eci", "pcfm")}
    laws["eci, 8 mixes"] = oracles.affine_law(mixed, SHAPE)
    laws["eci, published"] = oracles.affine_law(partial(mixed, num_mixes=1, anchored=True), SHAPE)
    for law in laws.values():
        np.testing.assert_allclose(missed(law.mean), 0.0, atol=1e-6)
    laws["flow"] = oracles.affine_law(lambda noise: sample_flow(velocity, noise, KEY, 200), SHAPE)
    error = {name: float(jnp.abs(FREE * (law.mean - expected.mean)).max()) for name, law in laws.items()}
    assert 0.05 < error["eci, 8 mixes"] < 0.6 * error["eci"] < 0.6 * error["flow"], error
    assert 0.8 * error["flow"] < error["pcfm"] < error["flow"], error
    assert 0.3 * error["eci"] < error["eci, published"] < 0.6 * error["eci"], error
    spread = (jnp.diag(laws["eci, published"].covariance) / jnp.diag(expected.covariance))[:3]
    assert 12 < spread.min() < spread.max() < 18, "published steps make spreads too large"


def test_fresh_noise_is_drawn_as_often_as_told():
    """Of a velocity that forgets its point, the example is the corrected mean whatever the noise."""
    velocity = oracles.exact_velocity(WORLD)
    kept, fresh = (sample_eci(velocity, jnp.ones(SHAPE), KEY, written_over, 4, 2, every) for every in (0, 2))
    never = sample_eci(velocity, jnp.ones(SHAPE), KEY, written_over, 4, 2, 9)
    np.testing.assert_allclose(kept, never)
    assert float(jnp.abs(kept - fresh).max()) > 1e-3
    np.testing.assert_allclose(missed(fresh), 0.0, atol=1e-12)


def test_projection_is_the_nearest_point_of_an_affine_set_and_reaches_a_curved_one():
    matrix = jnp.asarray(np.random.default_rng(1).normal(size=(2, 6)))
    values, point = jnp.array([1.0, -2.0]), jax.random.normal(KEY, (6,))
    found = project(lambda x: matrix @ x - values, point, damping=0.0)
    expected = point - jnp.linalg.pinv(matrix) @ (matrix @ point - values)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    on_circle = project(lambda x: jnp.sum(x**2) - 1.0, jnp.array([3.0, 4.0]), 8)
    np.testing.assert_allclose(on_circle, [0.6, 0.8], atol=1e-10)


def test_relaxed_steps_end_where_distance_and_residual_balance():
    """Of an affine residual: w = x - (I + weight A^T A)^-1 weight A^T (A x - b)."""
    matrix = jnp.asarray(np.random.default_rng(1).normal(size=(2, 6)))
    values, point, weight = jnp.array([1.0, -2.0]), jax.random.normal(KEY, (6,)), 2.0
    found = relax(lambda x: matrix @ x - values, point, weight, 0.01, 2000)
    inner = jnp.eye(6) + weight * matrix.T @ matrix
    expected = point - jnp.linalg.solve(inner, weight * matrix.T @ (matrix @ point - values))
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_relaxed_steps_of_a_projected_flow_change_the_way_and_keep_the_constraint():
    velocity, noise = oracles.exact_velocity(WORLD), jax.random.normal(KEY, SHAPE)
    plain, relaxed = (sample_pcfm(velocity, noise, missed, 20, relaxation_steps=count) for count in (0, 20))
    np.testing.assert_allclose(missed(relaxed), 0.0, atol=1e-10)
    assert float(jnp.abs(plain - relaxed).max()) > 1e-6


def test_search_for_noise_meets_what_was_observed():
    carry = partial(carry_noise, oracles.exact_velocity(WORLD), num_calls=20)
    noise = jax.random.normal(KEY, SHAPE)
    found = sample_d_flow(carry, noise, lambda x: jnp.sum(missed(x) ** 2), 30)
    np.testing.assert_allclose(missed(found), 0.0, atol=1e-5)
    start = sample_d_flow(carry, noise, lambda x: jnp.sum(missed(x) ** 2), 0)
    np.testing.assert_allclose(start, carry(noise))


@pytest.mark.parametrize("run", [sample_eci, sample_pcfm])
def test_no_steps_are_refused(run):
    arguments = {sample_eci: (KEY, written_over, 0), sample_pcfm: (missed, 0)}[run]
    with pytest.raises(ValueError, match=r"steps|mixes|1"):
        run(oracles.exact_velocity(WORLD), jnp.zeros(SHAPE), *arguments)
