"""Compressed rows have the likelihood, the slopes and the posterior of the rows, whole or in parts."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.gp.basis import Basis, make_box
from phdme_jax.gp.compression import compress
from phdme_jax.gp.fit import condition, initial_hyperparameters, negative_log_likelihood
from phdme_jax.gp.observations import anchor_rows, concatenate, integral_rows, interval_tests
from phdme_jax.systems.energy.vibrating_string import KELVIN_VOIGT, string_structure

BASIS, STRUCTURE = Basis(2, 6, 0), string_structure(12, order=4)


@pytest.fixture(scope="module")
def parts():
    """Rows of three trajectories with a little noise, and the anchor."""
    times, z = np.linspace(0.0, 12.0, 40), np.linspace(0.0, np.pi, 12)
    generator = np.random.default_rng(0)
    clock = times[:, None] * np.pi / 10 + np.array([0.0, 1.0, 4.0])[:, None, None]
    states = np.stack([-np.sin(clock) * np.sin(z), np.cos(clock) * np.cos(z)], axis=-1) * 0.4
    states = jnp.asarray(states + 1e-3 * generator.standard_normal(states.shape))
    box, tests = make_box(states, jnp.zeros(2)), interval_tests(times, states, 12)
    build = jax.jit(lambda x: integral_rows(BASIS, box, STRUCTURE.flow, (KELVIN_VOIGT,), x, tests, 12))
    return box, [*map(build, states), anchor_rows(BASIS, box, 1)]


@pytest.mark.parametrize("noise", [1e-1, 1e-3, 1e-6])
def test_likelihood_slopes_and_posterior_are_those_of_the_rows(parts, noise):
    """Down to the smallest noise that a fit admits, where the conditions of what is factorised are worst."""
    box, rows = parts
    whole = concatenate(rows)
    hyper = initial_hyperparameters(BASIS, box, 1, noise)
    hyper = hyper._replace(rate_noise=hyper.rate_noise + 1.0)
    value_and_slope = jax.jit(
        lambda rows: jax.value_and_grad(lambda h: negative_log_likelihood(BASIS, box, rows, h))(hyper)
    )
    posterior = jax.jit(lambda rows: condition(BASIS, box, rows, hyper, (KELVIN_VOIGT,)))
    expected, slopes, energy = *value_and_slope(whole), posterior(whole)
    for compressed in (compress(whole), compress(iter(rows))):
        assert sum(len(group.target) for group in compressed.groups) < len(whole.target) / 5
        found, found_slopes = value_and_slope(compressed)
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        for ours, theirs in zip(jax.tree.leaves(found_slopes), jax.tree.leaves(slopes), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6 * np.max(np.abs(slopes.state_noise)))
        again = posterior(compressed)
        np.testing.assert_allclose(again.mean.weights, energy.mean.weights, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(
            again.factor @ again.factor.T, energy.factor @ energy.factor.T, rtol=1e-6, atol=1e-10
        )


@pytest.mark.slow
def test_curvature_is_that_of_the_rows(parts):
    """What draws of hyperparameters are made with; roots of squares have tangents of their own."""
    box, rows = parts
    start = initial_hyperparameters(BASIS, box, 1, 1e-3)
    flat, unflatten = jax.flatten_util.ravel_pytree(start)
    curvature = jax.jit(
        lambda rows: jax.hessian(lambda u: negative_log_likelihood(BASIS, box, rows, unflatten(u)))(flat)
    )
    expected = curvature(concatenate(rows))
    scale = np.sqrt(np.abs(np.diagonal(expected)))
    found = curvature(compress(iter(rows)))
    np.testing.assert_allclose(found / np.outer(scale, scale), expected / np.outer(scale, scale), atol=1e-7)


def test_few_rows_stay_as_they_are(parts):
    _, rows = parts
    few = jax.tree.map(lambda leaf: leaf[:, :9] if leaf.ndim == 3 else leaf[:9], rows[0])
    compressed = compress(few)
    assert not compressed.groups
    np.testing.assert_array_equal(compressed.rows.design, few.design)


def test_parts_with_other_noise_shares_and_traced_rows_are_refused(parts):
    _, rows = parts
    with pytest.raises(ValueError, match="same noise shares"):
        compress(iter([rows[0], rows[1]._replace(state_share=2 * rows[1].state_share)]))
    with pytest.raises(ValueError, match=r"outside of jax\.jit"):
        jax.jit(lambda rows: compress(rows).rows)(rows[0])
