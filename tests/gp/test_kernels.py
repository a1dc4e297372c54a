"""Closed forms against automatic differentiation, also where the two states coincide."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.gp.basis import Kernel
from phdme_jax.gp.kernels import additive_squared_exponential, squared_exponential

SCALES = jnp.array([0.5, 1.3, 0.8])
KERNELS = {
    "plain": partial(squared_exponential, lengthscale=SCALES, amplitude=jnp.asarray(1.7)),
    "separable": lambda x, y: additive_squared_exponential(x, y, Kernel(SCALES, SCALES + 0.2, jnp.zeros(0))),
    "additive": lambda x, y: additive_squared_exponential(x, y, Kernel(SCALES, SCALES + 0.2, 1 - SCALES / 2)),
}


def states(count=6, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((count, 3)))


@pytest.mark.parametrize("name", KERNELS)
def test_derivatives_are_those_of_the_value_apart_and_together(name):
    kernel = KERNELS[name]
    left = states()
    # the last two pairs coincide
    right = jnp.concatenate([states(4, 1), left[4:]])

    @jax.jit
    @jax.vmap
    def differentiate(x, y):
        def value(x, y):
            return kernel(x, y).value

        return jax.grad(value, 0)(x, y), jax.grad(value, 1)(x, y), jax.jacfwd(jax.grad(value, 0), 1)(x, y)

    jet = jax.vmap(kernel)(left, right)
    for closed, differentiated in zip(jet[1:], differentiate(left, right), strict=True):
        np.testing.assert_allclose(closed, differentiated, atol=1e-13)
    third = jax.jacrev(lambda x: kernel(x, left[0]).cross)(left[0])
    np.testing.assert_allclose(third, 0.0, atol=1e-15)


@pytest.mark.parametrize("name", KERNELS)
def test_joint_covariance_of_values_and_efforts_is_symmetric_and_positive(name):
    x = states()
    jet = jax.vmap(jax.vmap(KERNELS[name], (None, 0)), (0, None))(x, x)
    top = jnp.concatenate([jet.value, jet.right.reshape(6, 18)], axis=1)
    efforts = jnp.moveaxis(jet.cross, 2, 1).reshape(18, 18)
    bottom = jnp.concatenate([jnp.moveaxis(jet.left, 2, 1).reshape(18, 6), efforts], axis=1)
    joint = np.concatenate([top, bottom])
    np.testing.assert_allclose(joint, joint.T, atol=1e-14)
    assert np.linalg.eigvalsh(joint).min() > 1e-12


def test_the_additive_kernel_is_the_sum_of_its_parts():
    x, y = states(2)
    own, between = jnp.array([0.7, 0.9, 1.1]), jnp.array([0.3, 0.4, 0.5])
    jet = additive_squared_exponential(x, y, Kernel(SCALES, own, between))
    groups = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]
    total, cross = 0.0, np.zeros((3, 3))
    for fields, amplitude in zip(groups, [*own, *between], strict=True):
        index = jnp.asarray(fields)
        part = squared_exponential(x[index], y[index], SCALES[index], amplitude)
        total += float(part.value)
        cross[np.ix_(fields, fields)] += part.cross
    np.testing.assert_allclose(jet.value, total, rtol=1e-14)
    np.testing.assert_allclose(jet.cross, cross, atol=1e-14)


def test_dtype_follows_and_a_wrong_number_of_pairs_is_refused():
    x = states(2).astype(jnp.float32)
    kernel = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), Kernel(SCALES, SCALES, SCALES))
    assert {leaf.dtype for leaf in additive_squared_exponential(x[0], x[1], kernel)} == {jnp.dtype(jnp.float32)}
    with pytest.raises(ValueError, match="pair amplitude"):
        additive_squared_exponential(x[0], x[1], kernel._replace(pair_amplitude=SCALES[:2].astype(jnp.float32)))
