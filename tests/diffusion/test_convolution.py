"""Convolutions that are fast in loops are those of XLA, with the same gradients of first and second order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion.convolution import convolve

SPATIAL = "HWD"


def plain(inputs, kernel, strides, padding, apart=None):
    spatial = SPATIAL[: inputs.ndim - 2]
    numbers = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    return jax.lax.conv_general_dilated(inputs, kernel, strides, padding, rhs_dilation=apart, dimension_numbers=numbers)


def ours(inputs, kernel, strides, padding, apart=None):
    return convolve(inputs, kernel, strides, padding, dimension_numbers=None, precision=None, rhs_dilation=apart)


# grid, window, steps, padding, distance of the window's places
CASES = [
    ((6,), (3,), 1, "SAME", None),
    ((6, 5), (3, 3), 1, "SAME", None),
    ((6, 5), (3, 5), 1, "VALID", None),
    ((4, 5, 6), (3, 3, 3), 1, "SAME", None),
    ((6, 4), (2, 2), 2, "VALID", None),
    ((7, 5), (2, 2), 2, "VALID", None),
    ((6, 4, 2), (2, 2, 2), 2, "VALID", None),
    ((9, 5), (3, 3), 1, "VALID", (4, 1)),
    ((9, 5), (3, 3), 1, "SAME", (2, 3)),
    ((8,), (2,), 1, "VALID", (3,)),
]


@pytest.mark.parametrize("channels", [(3, 4), (4, 3)])
@pytest.mark.parametrize(("shape", "window", "stride", "padding", "apart"), CASES)
def test_values_and_gradients_are_those_of_the_plain_convolution(shape, window, stride, padding, apart, channels):
    keys, strides = jax.random.split(jax.random.key(0), 4), (stride,) * len(shape)
    inputs = jax.random.normal(keys[0], (2, *shape, channels[0]))
    kernel = jax.random.normal(keys[1], (*window, *channels))

    def of(convolution):
        def size(inputs, kernel):
            found = convolution(inputs, kernel, strides, padding, apart)
            return jnp.sum(jnp.sin(found)), found

        (_, found), slopes = jax.value_and_grad(size, (0, 1), has_aux=True)(inputs, kernel)

        def steep(kernel):  # of second order
            return jnp.sum(jax.grad(lambda inputs: size(inputs, kernel)[0])(inputs) ** 2)

        return found, slopes, jax.grad(steep)(kernel)

    assert all(
        np.allclose(one, other, atol=1e-10)
        for one, other in zip(jax.tree.leaves(of(ours)), jax.tree.leaves(of(plain)), strict=True)
    )


def test_many_at_once_are_those_of_a_loop():
    keys = jax.random.split(jax.random.key(1), 2)
    inputs, kernel = jax.random.normal(keys[0], (4, 1, 6, 5, 3)), jax.random.normal(keys[1], (3, 3, 3, 2))
    slope = jax.grad(lambda inputs: jnp.sum(jnp.sin(ours(inputs, kernel, (1, 1), "SAME"))))
    np.testing.assert_allclose(jax.vmap(slope)(inputs), jnp.stack([slope(one) for one in inputs]), atol=1e-12)


def test_steps_that_overlap_otherwise_are_refused():
    with pytest.raises(NotImplementedError, match="steps of one and odd windows"):
        ours(jnp.ones((1, 6, 3)), jnp.ones((3, 3, 4)), (2,), "SAME")


def test_inputs_with_gaps_are_refused():
    arrays, options = (jnp.ones((1, 6, 5, 3)), jnp.ones((3, 3, 3, 4))), {"dimension_numbers": None, "precision": None}
    with pytest.raises(NotImplementedError, match=r"expected inputs without gaps, got \(2, 1\)"):
        convolve(*arrays, (1, 1), "SAME", **options, lhs_dilation=(2, 1))
    plain = convolve(*arrays, (1, 1), "SAME", **options)
    np.testing.assert_array_equal(convolve(*arrays, (1, 1), "SAME", **options, lhs_dilation=(1, 1)), plain)
