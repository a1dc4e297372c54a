"""Encodings of fields: there and back, and their statistics."""

import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.methods.encoding import decode, encode, fit_encoding

KINDS = ("linear", "log", "unit")


def fields(count=50):
    random = np.random.default_rng(0)
    return jnp.asarray(np.stack([
        3.0 + 2.0 * random.standard_normal((count, 4)), np.exp(random.standard_normal((count, 4))),
        random.random((count, 4)),
    ], axis=-1))  # fmt: skip


def test_encoded_channels_have_mean_zero_and_deviation_one_and_come_back():
    code = fit_encoding(fields(), KINDS)
    normalised = encode(code, KINDS, fields())
    np.testing.assert_allclose(normalised.mean(axis=(0, 1)), 0.0, atol=1e-12)
    np.testing.assert_allclose(normalised.std(axis=(0, 1)), 1.0, atol=1e-12)
    np.testing.assert_allclose(decode(code, KINDS, normalised), fields(), rtol=1e-10, atol=1e-12)


def test_decoded_fields_stay_where_they_can_be():
    code = fit_encoding(fields(), KINDS)
    wild = decode(code, KINDS, 30.0 * jnp.asarray([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]))
    assert (wild[:, 1] > 0).all()
    np.testing.assert_array_equal(wild[:, 2], [0.0, 1.0])


def smooth_fields(count=400):
    """Random sums of three waves, and exponentials of two, on a grid of 4 x 5 places."""
    random = np.random.default_rng(1)
    waves = random.standard_normal((5, 4, 5))
    rough = np.einsum("nk,kxy->nxy", random.standard_normal((count, 3)) * [3.0, 1.0, 1e-3], waves[:3])
    logs = np.einsum("nk,kxy->nxy", random.standard_normal((count, 2)), waves[3:])
    return jnp.asarray(np.stack([2.0 + rough, np.exp(logs)], axis=-1))


def test_components_are_as_many_as_the_fields_have_uncorrelated_and_come_back():
    kinds, data = ("modes", "log_modes"), smooth_fields()
    code = fit_encoding(data, kinds)
    components = encode(code, kinds, data)
    assert components.shape == (400, 5) and [modes.shape for modes in code.modes] == [(20, 3), (20, 2)]
    np.testing.assert_allclose(components[:, :3].T @ components[:, :3] / 400, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(components.mean(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(decode(code, kinds, components), data, rtol=1e-9)
    np.testing.assert_allclose(decode(code, kinds, encode(code, kinds, data[7])), data[7], rtol=1e-9)


def test_no_channels_are_left_alone():
    empty = jnp.zeros((5, 4, 0))
    code = fit_encoding(empty, ())
    assert encode(code, (), empty[0]).shape == (4, 0)
    assert decode(code, (), empty[0]).shape == (4, 0)


def test_wrong_kinds_are_refused():
    with pytest.raises(ValueError, match="encodings"):
        fit_encoding(fields(), ("linear", "log", "sigmoid"))
    with pytest.raises(ValueError, match="encodings"):
        fit_encoding(fields(), ("linear",))
    with pytest.raises(ValueError, match="all channels or for none"):
        fit_encoding(fields(), ("linear", "log_modes", "unit"))
