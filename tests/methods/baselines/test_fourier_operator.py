"""The Fourier operator: what it does to single waves, ends, resolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.methods.baselines.fourier_operator import FourierOperator, _SpectralLayer, init_operator, operate
from tests.rough import rough

CONFIG = FourierOperator(parity=((-1,), (1,)), modes=5, width=6, depth=2)


def trained(config, state, key):
    return rough(init_operator(config, state, key), 0.3, kept=0.0)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(9, 2), (9, 7, 3)])
def test_it_starts_as_the_identity_and_keeps_the_shape(shape):
    config = FourierOperator(parity=((1,) * (len(shape) - 1),) * shape[-1], modes=4, width=6, depth=2)
    state = jax.random.normal(jax.random.key(0), shape)
    path = operate(config, init_operator(config, state, jax.random.key(1)), state, 3)
    np.testing.assert_allclose(path, jnp.broadcast_to(state, (3, *shape)), atol=1e-6)


def test_a_spectral_layer_multiplies_each_wave_by_its_own_matrix():
    """cos(k x) comes out as |R| cos(k x + phase of R) for the modes kept, and not at all beyond them."""
    points, width, modes = 16, 2, 4
    layer = _SpectralLayer(width, modes, jnp.float64)
    angle = 2 * np.pi * np.arange(points) / points
    channels = jnp.zeros((points, width))
    params = layer.init(jax.random.key(0), channels)
    kernel = jax.random.normal(jax.random.key(1), (2, modes, width, width), jnp.float64)
    params = {"params": {"spectral": {"kernel": kernel}}}
    matrix = np.sqrt(modes) * (np.asarray(kernel[0]) + 1j * np.asarray(kernel[1]))
    for wave in (1, 3, 4, 7):
        answer = np.asarray(layer.apply(params, channels.at[:, 0].set(np.cos(wave * angle))))
        row = matrix[wave, 0] if wave < modes else np.zeros(width)
        expected = np.real(row[None] * np.exp(1j * wave * angle)[:, None])
        np.testing.assert_allclose(answer, expected, atol=1e-12)


@pytest.mark.slow
def test_modes_along_two_axes_are_symmetric_in_sign():
    """A wave along the first axis comes through whichever way it travels."""
    layer = _SpectralLayer(1, 3, jnp.float64)
    x, y = np.meshgrid(2 * np.pi * np.arange(8) / 8, 2 * np.pi * np.arange(10) / 10, indexing="ij")
    params = layer.init(jax.random.key(0), jnp.zeros((8, 10, 1)))
    ones = jax.tree.map(lambda leaf: jnp.ones_like(leaf).at[1].set(0.0), params)
    kept = ones["params"]["spectral"]["kernel"].shape[1]
    assert kept == 5 * 3
    for wave, expected in (((2, 1), 1.0), ((-2, 1), 1.0), ((3, 1), 0.0), ((1, 3), 0.0)):
        field = jnp.asarray(np.cos(wave[0] * x + wave[1] * y))[..., None]
        np.testing.assert_allclose(layer.apply(ones, field), expected * np.sqrt(kept) * field, atol=1e-9)


@pytest.mark.slow
def test_odd_fields_stay_zero_at_the_ends():
    state = jax.random.normal(jax.random.key(0), (9, 2))
    path = operate(CONFIG, trained(CONFIG, state, jax.random.key(1)), state, 4)
    np.testing.assert_array_equal(path[1:, [0, -1], 0], 0.0)
    assert np.all(np.abs(np.asarray(path[1:, [0, -1], 1])) > 0)


def test_the_same_parameters_act_on_a_finer_grid():
    """A state of few waves on twice the grid: the operator's answer is the same at shared points."""
    angle = np.pi * np.arange(33) / 32
    fine = jnp.asarray(np.stack([0.1 * np.sin(angle), 0.1 * np.cos(2 * angle)], axis=-1))
    params = trained(CONFIG, fine, jax.random.key(1))
    step = jax.jit(lambda x: operate(CONFIG, params, x, 2)[1])
    np.testing.assert_allclose(step(fine)[::2], step(fine[::2]), atol=2e-3)
