"""The dam break: its layout, the order of its residuals, the square's symmetry, and what is asked of means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.base import stacked
from phdme_jax.systems.equations.dam_break import balances, box_balances, column, fields_of, frames_of

NOTHING = jnp.zeros((8, 8, 0))


@pytest.fixture(scope="module")
def rough():
    """Fields without any symmetry, of positive depths."""
    equations = make_equations("dam_break", num_points=8, num_frames=4)
    fields = 0.2 * jax.random.normal(jax.random.key(0), (3, 8, 8, 10))
    depths = np.array([name.startswith("depth") for name in equations.fields])
    return equations, fields + 1.5 * depths


def test_channels_are_frames_in_order_and_the_first_is_at_rest():
    equations = make_equations("dam_break", num_points=8, num_frames=3)
    assert equations.fields == (
        *("depth 1", "momentum x 1", "momentum y 1"),
        *("depth 2", "momentum x 2", "momentum y 2", "depth 0"),
    )
    fields = jnp.asarray(np.random.default_rng(0).normal(size=(8, 8, 7)))
    frames = frames_of(fields)
    assert frames.shape == (3, 8, 8, 3)
    for channel, (frame, quantity) in enumerate([(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (0, 0)]):
        np.testing.assert_array_equal(frames[frame, ..., quantity], fields[..., channel])
    np.testing.assert_array_equal(frames[0, ..., 1:], 0.0)
    np.testing.assert_array_equal(fields_of(frames), fields)


def test_a_column_has_the_area_of_its_circle():
    for radius in (0.3, 0.42, 0.7):
        depth = column(32, jnp.asarray(radius))
        np.testing.assert_allclose(25 * np.mean(depth - 1), np.pi * radius**2, rtol=2e-3)
        assert depth.min() == 1.0 and depth.max() == 2.0


def test_water_runs_outwards_and_has_not_met_the_walls_at_the_end():
    """So that walls and an open end are the same; along both axes alike."""
    equations = make_equations("dam_break")
    fields = jax.jit(equations.draw)(jax.random.key(3)).fields
    frames = np.asarray(frames_of(fields))
    np.testing.assert_allclose(frames[-1, [0, -1]], np.broadcast_to([1.0, 0.0, 0.0], (2, 32, 3)), atol=1e-9)
    assert (frames[-1, 16:, 15:17, 1].sum() > 0) and (frames[-1, :16, 15:17, 1].sum() < 0)
    np.testing.assert_allclose(frames[..., 1], np.swapaxes(frames[..., 2], 1, 2), atol=1e-14)
    assert frames[..., 0].min() > 0.4 and frames[-1, 15, 15, 0] < 1.0


def oblique_wave(count, num_frames, duration):
    """A wave at an angle to the axes, exact: u = 2 (sqrt h - 1) along it, h constant on s + (3 sqrt h - 2) t."""
    angle = 0.6
    place = 5 / count * (np.arange(count) - 0.5 * (count - 1))
    along = np.cos(angle) * place[:, None] + np.sin(angle) * place
    start = along + np.zeros((num_frames, 1, 1))
    for _ in range(200):
        depth = 1 + 0.3 * np.exp(-(start**2))
        start = along - (3 * np.sqrt(depth) - 2) * np.linspace(0.0, duration, num_frames)[:, None, None]
    speed = 2 * (np.sqrt(depth) - 1)
    return jnp.asarray(np.stack([depth, depth * speed * np.cos(angle), depth * speed * np.sin(angle)], axis=-1))


def test_both_residuals_have_order_two_on_an_exact_wave():
    def largest(count):
        frames = oblique_wave(count, count // 4 + 1, 0.4)
        inner = balances(frames, frames, 0.4)[:, 1:-1, 1:-1]
        return np.array([np.abs(part).max(axis=(0, 1, 2)) for part in (inner, box_balances(frames, 0.4))])

    coarse, fine = largest(32), largest(64)
    np.testing.assert_allclose(np.log2(coarse / fine), 2.0, atol=0.2)
    rates = np.abs(np.diff(oblique_wave(64, 17, 0.4), axis=0)).max(axis=(0, 1, 2)) * 40
    assert (fine < 0.02 * rates).all()


def test_residuals_are_named_by_quantity_and_interval_and_sum_to_what_is_gained(rough):
    equations, (fields, *_) = rough
    found = equations.residual(fields, NOTHING)
    assert list(found)[:4] == ["mass 1", "momentum x 1", "momentum y 1", "mass 2"] and len(found) == 9
    depth = np.asarray(frames_of(fields))[..., 0].mean(axis=(1, 2))
    for number in range(3):
        np.testing.assert_allclose(found[f"mass {number + 1}"].mean(), 3 * np.diff(depth)[number], atol=1e-13)
    np.testing.assert_allclose(equations.conserved(fields, NOTHING), depth[1:] - depth[0], atol=1e-14)


def moved_frames(element, values):
    """By NumPy's turns: (time, x, y, 3)."""
    if element % 2:
        values = np.swapaxes(values, 1, 2)[..., [0, 2, 1]]
    if element // 2 % 2:
        values = np.flip(values, 1) * [1, -1, 1]
    return np.flip(values, 2) * [1, 1, -1] if element // 4 else values


def as_frames(residuals):
    """Side by side before anything is compiled, which would sort them by their names."""
    return jnp.moveaxis(stacked(residuals).reshape(8, 8, -1, 3), 2, 0)


def test_the_eight_moves_of_the_square_move_residuals_solutions_and_nothing_else(rough):
    equations, (fields, *_) = rough
    act, resolve = jax.jit(equations.priors.symmetry.act), jax.jit(equations.resolve)
    parts = [
        jax.jit(lambda one, part=part: as_frames(part(one, NOTHING))) for part in (equations.residual, equations.unseen)
    ]
    before, solved = [np.asarray(part(fields)) for part in parts], frames_of(resolve(fields, NOTHING))
    images = []
    for element in range(8):
        moved, condition = act(jnp.asarray(element), fields, NOTHING)
        assert condition.shape == NOTHING.shape
        np.testing.assert_array_equal(frames_of(moved), moved_frames(element, np.asarray(frames_of(fields))))
        after = [part(moved) for part in parts]
        np.testing.assert_allclose(after[0], moved_frames(element, before[0]), atol=1e-12)
        corners = [one[:, :-1, :-1] for one in (after[1], before[1])]
        np.testing.assert_allclose(corners[0], moved_frames(element, corners[1]), atol=1e-12)
        np.testing.assert_allclose(
            frames_of(resolve(moved, NOTHING)), moved_frames(element, np.asarray(solved)), atol=1e-12
        )
        images.append(np.asarray(moved))
    assert all(np.abs(images[i] - images[j]).max() > 0.1 for i in range(8) for j in range(i))
    # a move after a move is one of the eight
    twice = np.asarray(act(jnp.asarray(3), jnp.asarray(images[5]), NOTHING)[0])
    assert sum(np.abs(twice - image).max() < 1e-14 for image in images) == 1
    drawn = jax.vmap(equations.priors.symmetry.draw)(jax.random.split(jax.random.key(1), 4000))
    np.testing.assert_allclose(np.bincount(drawn, minlength=8) / 4000, 1 / 8, atol=0.03)


def test_a_true_example_is_its_own_image():
    equations = make_equations("dam_break", num_points=12, num_frames=3)
    fields = jax.jit(equations.draw)(jax.random.key(2)).fields
    for element in range(8):
        moved, _ = equations.priors.symmetry.act(jnp.asarray(element), fields, NOTHING)
        np.testing.assert_allclose(moved, fields, atol=1e-13)


def test_feasibilities_are_linear_in_the_prediction_and_the_residual_of_a_clean_example(rough):
    equations, (first, second, clean) = rough
    whole = as_frames(equations.residual(clean, NOTHING))
    shared = [as_frames(equations.residual(one, NOTHING))[..., 0] for one in (first, second)]
    mass, momentum = equations.priors.feasibilities
    assert (mass.form, momentum.form) == ("linear", "multilinear")
    np.testing.assert_allclose(mass.terms(clean, clean, NOTHING), whole[..., 0], atol=1e-13)
    np.testing.assert_allclose(momentum.terms(clean, clean, NOTHING), whole[..., 1:], atol=1e-13)
    np.testing.assert_allclose(mass.terms(first, clean, NOTHING), shared[0], atol=1e-13)
    for terms in (mass.terms, momentum.terms):
        both, none = terms(first + second, clean, NOTHING), terms(0 * first, clean, NOTHING)
        np.testing.assert_allclose(
            both + none, terms(first, clean, NOTHING) + terms(second, clean, NOTHING), atol=1e-12
        )
    # it is not the residual of the prediction
    assert np.abs(momentum.terms(first, clean, NOTHING) - momentum.terms(first, first, NOTHING)).max() > 0.01


def test_one_factor_of_each_product_is_the_clean_examples_in_turn(rough):
    """Of a clean flow with h = 1.7, u = 0.3, v = -0.2 after the first frame, inside and between later ones."""
    equations, (fields, *_) = rough
    flow = np.zeros((4, 8, 8, 3)) + np.array([1.7, 1.7 * 0.3, -1.7 * 0.2])
    found = equations.priors.feasibilities[1].terms(fields, fields_of(jnp.asarray(flow)), NOTHING)[1:, 1:-1, 1:-1]
    frames = np.asarray(frames_of(fields))[1:]
    h, m, n = np.moveaxis(0.5 * (frames[1:] + frames[:-1]), -1, 0)
    cross = 0.5 * (0.3 * n - 0.2 * m)

    def slope(values, axis):
        return np.gradient(values, 5 / 8, axis=axis)[:, 1:-1, 1:-1]

    change = 3 * np.diff(frames, axis=0)[:, 1:-1, 1:-1]
    expected = [
        change[..., 1] + slope(0.3 * m + 1.7 * h / 2, 1) + slope(cross, 2),
        change[..., 2] + slope(cross, 1) + slope(-0.2 * n + 1.7 * h / 2, 2),
    ]
    np.testing.assert_allclose(found, np.stack(expected, -1), atol=1e-12)


def test_the_projection_gives_all_frames_one_mean_depth_and_leaves_momenta(rough):
    equations, (fields, *_) = rough
    ((_, mass),) = equations.priors.invariants
    found = equations.priors.project(fields, NOTHING)
    assert np.ptp(mass(fields, NOTHING)) > 1e-3
    np.testing.assert_allclose(mass(found, NOTHING), np.mean(mass(fields, NOTHING)), atol=1e-14)
    np.testing.assert_array_equal(frames_of(found)[..., 1:], frames_of(fields)[..., 1:])
    np.testing.assert_array_equal(mass(fields, NOTHING)[0], np.mean(fields[..., -1]))


def test_an_empty_box_is_refused():
    for options in ({"num_points": 3}, {"num_frames": 1}, {"duration": 0.0}):
        with pytest.raises(ValueError, match="expected at least 4 points, 2 frames"):
            make_equations("dam_break", **options)
