"""Encodings of fields: there and back, and their statistics."""

import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.methods.equations.encoding import decode, encode, fit_encoding

KINDS = ("linear", "log", "unit")


def fields(count=50):
    random = np.random.default_rng(0)
    return jnp.asarray(
        np.stack(
            [
                3.0 + 2.0 * random.standard_normal((count, 4)),
                np.exp(random.standard_normal((count, 4))),
                random.random((count, 4)),
            ],
            axis=-1,
        )
    )


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
