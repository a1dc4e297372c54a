"""Dilated convolutions: translations that they commute with, how far they reach, and sizes that are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion import dilated
from phdme_jax.diffusion.dilated import make_dilated
from phdme_jax.diffusion.networks import Condition
from tests.rough import rough

SIZES = {"channels": 8, "groups": 4, "embedding_size": 8, "dilations": (1, 2, 4, 1)}
RING = {**SIZES, "padding": ("circular", "edge"), "patch": (1, 2)}
LEVEL = 0.3


def made(shape, dtype=jnp.float64, seed=0, **sizes):
    network = make_dilated(**sizes)
    noisy = jax.random.normal(jax.random.key(seed), shape).astype(dtype)
    channels = jax.random.normal(jax.random.key(seed + 1), (*shape[:-1], 2)).astype(dtype)
    params = rough(network.init(jax.random.key(2), noisy, Condition(rollout=channels)))

    @jax.jit
    def apply(noisy, channels):
        features = network.encode(params, Condition(rollout=channels))
        return network.apply(params, noisy, jnp.asarray(LEVEL, dtype), features)

    return apply, noisy, channels


def errors(apply, noisy, channels, axis):
    """Of each cyclic shift along an axis, in units of the answer."""
    answer = apply(noisy, channels)
    moved = (
        apply(jnp.roll(noisy, shift, axis), jnp.roll(channels, shift, axis)) - jnp.roll(answer, shift, axis)
        for shift in range(1, noisy.shape[axis])
    )
    return np.array([float(jnp.abs(error).max() / jnp.abs(answer).max()) for error in moved])


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.float64, 1e-12)])
def test_it_commutes_with_every_shift_along_a_circular_axis_and_along_no_other(dtype, tolerance):
    apply, noisy, channels = made((12, 6, 1), dtype, **RING)
    assert errors(apply, noisy, channels, 0).max() < tolerance
    assert errors(apply, noisy, channels, 1).min() > 1e-2
    assert apply(noisy, channels).dtype == dtype


def test_without_circular_padding_shifts_are_noticed():
    apply, noisy, channels = made((12, 6, 1), **{**RING, "padding": ("zero", "edge")})
    assert errors(apply, noisy, channels, 0).min() > 1e-2


def test_both_axes_may_be_circular_and_dilations_may_be_longer_than_them():
    apply, noisy, channels = made((6, 5, 1), **{**SIZES, "padding": "circular", "dilations": (1, 8)})
    assert errors(apply, noisy, channels, 0).max() < 1e-12
    assert errors(apply, noisy, channels, 1).max() < 1e-12


def test_a_change_at_one_place_reaches_the_farthest(monkeypatch):
    """Through the convolutions: their dilations, and one place for the first and the last layer, add up."""
    monkeypatch.setattr(dilated, "_norm", lambda *kind: lambda inputs: inputs)  # it sees all places

    def farthest(dilations):
        apply, noisy, channels = made((32, 2, 1), **{**RING, "dilations": dilations})
        slope = jax.grad(lambda one: jnp.sum(apply(one, channels)[0]))(noisy)
        return float(jnp.abs(slope[16]).max())

    assert farthest((1, 1, 4, 7)) == 0 < farthest((1, 2, 4, 7))
    assert sum(dilated.DilatedConfig().dilations) + 2 >= 32, "half a ring of 64"


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((8, 7, 3), {"padding": ("circular", "zero"), "patch": (1, 4)}),
        ((6, 9, 2), {"padding": "edge", "patch": 2}),
        ((9, 1), {"padding": "circular"}),
        ((4, 6, 5, 1), {"padding": ("circular", "circular", "zero"), "patch": (1, 1, 3)}),
    ],
)
def test_the_answer_has_the_shape_of_the_fields_whatever_the_patch(shape, sizes):
    apply, noisy, channels = made(shape, **{**SIZES, **sizes})
    answer = apply(noisy, channels)
    assert answer.shape == shape
    changed = apply(noisy, channels + 1.0)
    assert jnp.abs(changed - answer).max() > 1e-3, "what is given is seen"


def test_it_begins_at_zero_and_every_parameter_has_a_finite_slope():
    network, noisy = make_dilated(**RING), jax.random.normal(jax.random.key(0), (8, 4, 1))
    params = network.init(jax.random.key(1), noisy, Condition())
    assert not np.asarray(jax.jit(network.apply)(params, noisy, jnp.asarray(LEVEL), Condition())).any()

    @jax.jit
    @jax.grad
    def slope(params):
        return jnp.mean((network.apply(params, noisy, jnp.asarray(LEVEL), Condition()) - noisy) ** 2)

    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(slope(params)))
    slopes = jax.tree.leaves(slope(rough(params)))
    assert all(jnp.isfinite(leaf).all() and jnp.abs(leaf).max() > 0 for leaf in slopes)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"channels": 9}, "channels in multiples of groups"),
        ({"embedding_size": 7}, "even embedding_size"),
        ({"dilations": ()}, "dilations of one or more"),
        ({"dilations": (1, 0)}, "dilations of one or more"),
        ({"patch": 0}, "patches of one place or more"),
        ({"padding": "twisted"}, "expected paddings among"),
    ],
)
def test_wrong_sizes_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        make_dilated(**{**SIZES, **sizes})


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"padding": ("circular",)}, "one padding for each of 2 axes"),
        ({"patch": (1, 2, 1), "padding": "edge"}, "one patch for each of 2 axes"),
        ({"padding": ("circular", "edge"), "patch": 2}, "patches of one along axes that wrap"),
        ({"padding": ("periodic", "edge"), "patch": 2}, "patches of one along axes that wrap"),
    ],
)
def test_sizes_of_other_axes_are_refused_when_fields_come(sizes, message):
    with pytest.raises(ValueError, match=message):
        make_dilated(**{**SIZES, **sizes}).init(jax.random.key(0), jnp.ones((4, 4, 1)), Condition())
