"""Quotients and roots at zero, mixed types, and caches that their readers cannot change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.numerics.arrays import cached_arrays, one_type, ratio, root, static_times
from phdme_jax.numerics.quadrature import interval_weights
from phdme_jax.numerics.stencils import closed_matrix, sbp_matrix
from phdme_jax.systems.equations.closed_form import sine_matrix
from phdme_jax.systems.equations.elasticity import constitutive_matrix, element_stiffness
from phdme_jax.systems.equations.gaussian_modes import karhunen_loeve


def test_root_is_clipped_at_zero_has_no_slope_there_and_keeps_what_is_not_a_number():
    values = jnp.array([4.0, 0.0, -1e-16, jnp.nan])
    np.testing.assert_array_equal(root(values), [2.0, 0.0, 0.0, jnp.nan])
    np.testing.assert_array_equal(jax.vmap(jax.grad(root))(values[:3]), [0.25, 0.0, 0.0])


def test_nothing_by_nothing_is_nothing():
    np.testing.assert_array_equal(ratio(jnp.array([0.0, 1.0, 3.0]), jnp.array([0.0, 0.0, 2.0])), [0.0, jnp.inf, 1.5])


def test_types_are_joined_to_the_one_that_holds_all():
    tree = {"a": jnp.ones(2, jnp.float32), "b": 1.0}
    for others, dtype in (((), jnp.float32), ((jnp.arange(3), None), jnp.float32), ((jnp.ones(2),), jnp.float64)):
        assert {leaf.dtype for leaf in jax.tree.leaves(one_type(tree, *others))} == {jnp.dtype(dtype)}
    (whole,) = one_type(jnp.arange(3, dtype=jnp.int32))
    assert whole.dtype == jnp.float64
    np.testing.assert_array_equal(whole, [0.0, 1.0, 2.0])


def test_times_are_the_same_however_they_come():
    times = (0.0, 0.25, 1.0)
    for given in (list(times), np.array(times), np.array(times, np.float32), jnp.array(times)):
        assert static_times(given) == times
        assert interval_weights(given) is interval_weights(times)


@pytest.mark.parametrize(
    "read",
    [
        lambda: interval_weights((0.0, 1.0, 2.0)),
        lambda: sbp_matrix(9, 1.0, 4),
        lambda: closed_matrix(9, 1.0, 2),
        lambda: sine_matrix(9),
        lambda: karhunen_loeve(9, 0.1, 4),
        lambda: constitutive_matrix(),
        lambda: element_stiffness(),
    ],
)
def test_what_is_kept_is_shared_and_cannot_be_written_to(read):
    assert read() is read()
    with pytest.raises(ValueError, match="read-only"):
        read()[0] = 7.0


def test_all_arrays_of_a_kept_tuple_are_read_only():
    pair = cached_arrays(lambda size: (np.zeros(size), np.ones(size)))(3)
    assert not any(array.flags.writeable for array in pair)
