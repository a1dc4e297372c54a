"""Waves that a grid carries come out exactly on another."""

import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.numerics.resampling import resample, resampling_matrix


def fields(points):
    x = np.linspace(0.0, np.pi, points)
    return np.stack([np.sin(x) - 0.3 * np.sin(4 * x), 1.0 + 0.5 * np.cos(3 * x)], axis=-1)


@pytest.mark.parametrize("sizes", [(9, 64), (64, 9), (16, 253)])
def test_a_line(sizes):
    state = resample(jnp.asarray(fields(sizes[0])), ((-1,), (1,)), sizes[1])
    np.testing.assert_allclose(state, fields(sizes[1]), atol=1e-11)


def test_a_plane_has_its_own_parity_along_each_axis():
    def wave(points):
        x = np.linspace(0.0, np.pi, points)
        return (np.sin(2 * x)[:, None] * np.cos(3 * x))[..., None]

    np.testing.assert_allclose(resample(jnp.asarray(wave(8)), ((-1, 1),), 13), wave(13), atol=1e-11)


def test_values_pass_through_their_own_grid_and_odd_ends_are_zero():
    np.testing.assert_allclose(resampling_matrix(7, 7, 1), np.eye(7), atol=1e-12)
    odd = resampling_matrix(7, 7, -1)
    np.testing.assert_allclose(odd, np.diag([0, 1, 1, 1, 1, 1, 0]), atol=1e-12)


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="3 points or more"):
        resampling_matrix(2, 5, 1)
