"""Cubics are exact, smooth functions converge at fourth order, the samples themselves are met."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.numerics.interpolation import interpolate


def at(times, values, wanted):
    return jax.jit(jax.vmap(interpolate, in_axes=(None, None, 0)))(times, values, wanted)


def test_cubics_are_exact_on_uneven_times_and_beyond_them():
    times = np.cumsum(np.random.default_rng(0).uniform(0.2, 1.0, 9))
    wanted = np.linspace(times[0] - 0.3, times[-1] + 0.3, 37)
    values = np.stack([times**3 - times, 2 - times**2], axis=-1)
    np.testing.assert_allclose(at(times, values, wanted), np.stack([wanted**3 - wanted, 2 - wanted**2], -1), atol=1e-11)
    np.testing.assert_allclose(at(times, values, times), values, atol=1e-12)


def test_fourth_order():
    wanted = np.linspace(0.5, 5.5, 200)

    def error(count):
        times = np.linspace(0.0, 6.0, count)
        return np.abs(at(times, np.sin(times), wanted) - np.sin(wanted)).max()

    assert np.log2(error(41) / error(81)) == pytest.approx(4, abs=0.2)


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="at least four samples, got 3"):
        interpolate(jnp.arange(3.0), jnp.arange(3.0), jnp.asarray(0.5))
