"""Equations whose first frames are given: what is told, what stays as it was, and how the group moves it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.base import stacked_residual
from phdme_jax.systems.given_frames import given_condition, imposed, with_given_frames

SMALL = {
    "five_springs": {"num_frames": 6},
    "gravity": {"num_particles": 4, "num_frames": 6},
    "advection": {"num_points": 16, "num_frames": 16},
}


@pytest.fixture(scope="module", params=list(SMALL))
def drawn(request):
    plain = make_equations(request.param, **SMALL[request.param])
    given = with_given_frames(plain, 3)
    return plain, given, given.draw(jax.random.key(0))


def test_the_first_frames_are_told_and_a_straight_line_from_them(drawn):
    plain, given, sample = drawn
    axis, channels, fields = plain.time_axis, len(plain.conditions), sample.fields
    told = sample.condition[..., channels:-1]
    first, later = (lambda x: jnp.moveaxis(x, axis, 0)[:3]), (lambda x: jnp.moveaxis(x, axis, 0)[3:])
    assert sample.condition.shape[-1] == len(given.conditions) == channels + fields.shape[-1] + 1
    np.testing.assert_array_equal(first(told), first(fields))
    step, ahead = first(fields)[2] - first(fields)[1], 1.0 + jnp.arange(len(later(fields)))
    line = first(fields)[2] + ahead.reshape(-1, *[1] * step.ndim) * step
    np.testing.assert_allclose(later(told), line, atol=1e-14)
    marks = sample.condition[..., -1]
    assert jnp.all(first(marks) == 1.0) and not jnp.any(later(marks))
    # nothing of what follows is told
    other = jnp.where(marks[..., None] > 0, fields, 7.0)
    np.testing.assert_array_equal(given_condition(other, sample.condition[..., :channels], 3, axis), sample.condition)


def test_particles_are_told_from_the_mean_of_the_given_frames(drawn):
    plain, _, sample = drawn
    if plain.priors.symmetry.centre is None:
        np.testing.assert_array_equal(sample.fields, plain.draw(jax.random.key(0)).fields)
        return
    position = sample.fields[..., : sample.fields.shape[-1] // 2]
    np.testing.assert_allclose(position[:3].mean(axis=(0, 1)), 0.0, atol=1e-14)
    assert jnp.abs(position.mean(axis=(0, 1))).max() > 1e-6 or plain.name == "gravity"
    # a translation is all that differs
    moved = sample.fields - plain.draw(jax.random.key(0)).fields
    np.testing.assert_allclose(moved, jnp.broadcast_to(moved[0, 0], moved.shape), atol=1e-14)


def test_residual_and_invariants_are_those_of_the_plain_equations(drawn):
    plain, given, sample = drawn
    own = sample.condition[..., : len(plain.conditions)]
    rough = sample.fields + 0.1
    np.testing.assert_array_equal(stacked_residual(given, rough, sample.condition), stacked_residual(plain, rough, own))
    for (name, here), (_, there) in zip(given.priors.invariants, plain.priors.invariants, strict=True):
        np.testing.assert_array_equal(here(rough, sample.condition), there(rough, own), name)
    for here, there in zip(given.priors.feasibilities, plain.priors.feasibilities, strict=True):
        np.testing.assert_array_equal(
            here.terms(rough, sample.fields, sample.condition), there.terms(rough, sample.fields, own)
        )
    np.testing.assert_array_equal(given.priors.project(rough, sample.condition), plain.priors.project(rough, own))


def test_the_given_frames_are_continued(drawn):
    _, given, sample = drawn
    wrong = jnp.zeros_like(sample.fields)
    np.testing.assert_allclose(given.resolve(wrong, sample.condition), sample.fields, atol=1e-9)
    known = sample.condition[..., -1:] > 0
    np.testing.assert_array_equal(imposed(wrong, sample.condition), jnp.where(known, sample.fields, 0.0))


def test_the_group_moves_the_given_frames_with_the_rest(drawn):
    plain, given, sample = drawn
    symmetry = given.priors.symmetry
    element = symmetry.draw(jax.random.key(2))
    fields, condition = symmetry.act(element, sample.fields, sample.condition)
    own = condition[..., : len(plain.conditions)]
    np.testing.assert_allclose(condition, given_condition(fields, own, 3, plain.time_axis), atol=1e-14)
    direct = plain.priors.symmetry.act(element, sample.fields, sample.condition[..., : len(plain.conditions)])
    np.testing.assert_array_equal(fields, direct[0])
    np.testing.assert_array_equal(own, direct[1])
    # components of the given vectors are told apart from the coupling
    width = len(plain.conditions)
    for group in plain.priors.symmetry.mixed:
        assert tuple(width + index for index in group) in symmetry.mixed_conditions
    assert symmetry.centre is None


def test_a_single_frame_is_held():
    sample = with_given_frames(make_equations("five_springs", num_frames=6), 1).draw(jax.random.key(0))
    np.testing.assert_array_equal(sample.condition[..., 5:-1], jnp.broadcast_to(sample.fields[0], sample.fields.shape))


@pytest.mark.parametrize("count", [0, 6, -1])
def test_counts_that_leave_nothing_are_refused(count):
    with pytest.raises(ValueError, match="given frames"):
        with_given_frames(make_equations("five_springs", num_frames=6), count)


def test_frames_are_given_once():
    given = with_given_frames(make_equations("five_springs", num_frames=6), 2)
    with pytest.raises(ValueError, match="no frame given before"):
        with_given_frames(given, 2)
    with pytest.raises(ValueError, match="an axis of time"):
        with_given_frames(make_equations("circle"), 1)
    assert given.given_frames == 2 and "given_frames" in given.offers
