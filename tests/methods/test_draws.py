"""Draws of many conditions from a model of one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from phdme_jax.methods.base import Fitted, Model
from phdme_jax.methods.draws import compile_draws, draw_forecasts

MODEL = Model(
    prepare=lambda params, condition: condition,
    draw=lambda params, prepared, latent, key: params / prepared + latent,
    latent=lambda key: jax.random.normal(key, (2,), jnp.float32),
    mean=lambda params, prepared: params / prepared,
    times=(),
)


def test_what_is_not_finite_is_zero_and_told_and_what_is_stays_as_drawn():
    """Of params / condition, infinite where the condition is zero."""
    condition = np.array([[1.0, 2.0], [0.0, 1.0], [4.0, 0.5]], np.float32)
    drawn = draw_forecasts(Fitted(MODEL, jnp.float32(3.0), {}), condition, 4, jax.random.key(0))
    np.testing.assert_array_equal(drawn.ok, [True, False, True])
    assert drawn.mean.dtype == drawn.samples.dtype == np.float64
    assert np.isfinite(drawn.mean).all() and np.isfinite(drawn.samples).all()
    np.testing.assert_allclose(drawn.mean[[0, 2]], 3.0 / condition[[0, 2]], rtol=1e-6)
    keys = jax.random.split(jax.random.key(0), (3, 4))
    noise = np.asarray(jax.vmap(jax.vmap(MODEL.latent))(keys))
    np.testing.assert_allclose((drawn.samples - drawn.mean[:, None])[[0, 2]], noise[[0, 2]], atol=1e-5)


def test_after_compiling_as_many_conditions_are_drawn_without_a_trace():
    """Seconds an answer: 20 conditions of 4 samples are several slices, of which one was drawn before."""
    traces = []

    def draw(params, prepared, latent, key):
        traces.append("draw")
        return params / prepared + latent

    def prepare(params, condition):
        traces.append("prepare")
        return condition

    def mean(params, prepared):
        traces.append("mean")
        return params / prepared

    fitted = Fitted(dataclasses.replace(MODEL, draw=draw, prepare=prepare, mean=mean), jnp.float32(3.0), {})
    condition = np.ones((20, 2), np.float32)
    compile_draws(fitted, condition, 4, jax.random.key(0))
    before = sorted(traces)
    draw_forecasts(fitted, condition, 4, jax.random.key(1))
    assert sorted(set(before)) == ["draw", "mean", "prepare"] and sorted(traces) == before
