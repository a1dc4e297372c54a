"""Advection: the exact solution, the order and size of its residuals, what is kept, and the law of its first frames."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.advection import solve_advection, without_highest_wave
from phdme_jax.systems.equations.periodic import random_waves

NOTHING = jnp.zeros(())


def travelling(profile, num_points, num_frames, speed, duration):
    places, times = np.arange(num_points) / num_points, np.linspace(0.0, duration, num_frames)
    return jnp.asarray(profile(places[:, None] - speed * times))[..., None]


def test_frames_are_the_first_one_on_its_way_and_whole_places_copy_it():
    def wave(x):
        return 0.3 + np.sin(2 * np.pi * (3 * x + 0.2)) - 0.5 * np.cos(2 * np.pi * 7 * x)

    truth = travelling(wave, 16, 9, 0.7, 1.3)[..., 0]
    np.testing.assert_allclose(solve_advection(truth[:, 0], 9, 0.7 * 1.3), truth, atol=1e-13)
    rough = jax.random.normal(jax.random.key(0), (16,))
    found = solve_advection(rough, 4, 15 / 16)
    for frame in range(4):
        np.testing.assert_allclose(found[:, frame], np.roll(rough, 5 * frame), atol=1e-13)


def test_residuals_have_order_two_and_the_errors_of_speed_that_are_written():
    """Places and frames are refined together, at half a place a frame."""

    def fields(count, profile):
        return travelling(profile, count, count + 1, 0.4, 1.25)

    def sizes(count, profile):
        equations = make_equations("advection", num_points=count, num_frames=count + 1, duration=1.25, speed=0.4)
        found = [part(fields(count, profile), NOTHING)["balance"] for part in (equations.residual, equations.unseen)]
        assert all(not one[:, 0].any() for one in found)
        return np.array([np.sqrt(np.mean(np.square(one[:, 1:]))) for one in found])

    coarse, fine = (sizes(count, lambda x: np.exp(np.sin(2 * np.pi * x))) for count in (64, 128))
    np.testing.assert_allclose(np.log2(coarse / fine), 2.0, atol=0.1)
    # u_t = 2 pi c in size, times the error of the speed
    found = sizes(128, lambda x: np.sqrt(2) * np.sin(2 * np.pi * x))
    expected = 0.4 * 2 * np.pi * (2 * np.pi / 128) ** 2 / 12 * np.array([1 - 0.25, 2 + 0.25])
    np.testing.assert_allclose(found, expected, rtol=0.01)


def test_whole_places_a_frame_leave_nothing_to_the_box():
    equations = make_equations("advection", num_points=32, num_frames=17, duration=1.0, speed=0.5)
    fields = jax.vmap(equations.draw)(jax.random.split(jax.random.key(0), 30)).fields
    for one in fields:
        np.testing.assert_allclose(equations.residual(one, NOTHING)["balance"], 0.0, atol=1e-11)


@pytest.mark.slow
def test_examples_keep_mean_and_energy_and_the_highest_wave_would_not():
    equations = make_equations("advection", num_points=32, num_frames=12)
    (_, mean), (_, energy) = equations.priors.invariants
    fields = jax.vmap(equations.draw)(jax.random.split(jax.random.key(1), 64)).fields
    assert np.abs(fields.mean(axis=(1, 2, 3))).max() > 0.05
    for one in fields:
        np.testing.assert_allclose(mean(one, NOTHING), np.mean(one[:, 0]), atol=1e-14)
        np.testing.assert_allclose(energy(one, NOTHING), 0.5 * np.mean(one[:, 0] ** 2), atol=1e-14)
    alternating = jnp.asarray(np.tile([1.0, -1.0], 16))
    rough = jax.random.normal(jax.random.key(2), (32,))
    spectrum = np.fft.rfft(without_highest_wave(rough + 3 * alternating))
    np.testing.assert_allclose(spectrum[-1], 0.0, atol=1e-13)
    np.testing.assert_allclose(spectrum[:-1], np.fft.rfft(rough)[:-1], atol=1e-13)
    kept = solve_advection(alternating, 12, 0.2)
    assert np.ptp(np.mean(kept**2, axis=0)) > 0.1


def test_the_projection_reaches_one_mean_and_energy_and_leaves_shapes():
    equations = make_equations("advection", num_points=16, num_frames=5)
    rough = jax.random.normal(jax.random.key(3), (16, 5, 1)) + jnp.arange(5.0)[:, None]
    fields = equations.priors.project(rough, NOTHING)
    for _, invariant in equations.priors.invariants:
        np.testing.assert_allclose(invariant(fields, NOTHING), invariant(fields, NOTHING)[0], atol=1e-12)
    np.testing.assert_allclose(np.mean(fields), np.mean(rough), atol=1e-12)
    for frame in range(5):
        assert np.corrcoef(fields[:, frame, 0], rough[:, frame, 0])[0, 1] > 1 - 1e-12
    still = rough.at[:, 2].set(1.0)
    assert np.isfinite(equations.priors.project(still, NOTHING)).all()


def test_every_translation_moves_solution_and_residuals():
    equations = make_equations("advection", num_points=8, num_frames=6)
    rough, channel = jax.random.normal(jax.random.key(4), (2, 8, 6, 1))
    for shift in range(8):
        moved, condition = equations.priors.symmetry.act(jnp.asarray(shift), rough, channel)
        np.testing.assert_array_equal(condition, np.roll(channel, shift, axis=0))
        np.testing.assert_allclose(
            equations.resolve(moved, NOTHING), np.roll(equations.resolve(rough, NOTHING), shift, 0), atol=1e-13
        )
        for part in (equations.residual, equations.unseen):
            expected = np.roll(part(rough, NOTHING)["balance"], shift, axis=0)
            np.testing.assert_allclose(part(moved, NOTHING)["balance"], expected, atol=1e-12)
    drawn = jax.vmap(equations.priors.symmetry.draw)(jax.random.split(jax.random.key(5), 2000))
    np.testing.assert_allclose(np.bincount(drawn, minlength=8) / 2000, 1 / 8, atol=0.03)


def test_the_feasibility_is_the_residual_of_the_prediction_alone():
    equations = make_equations("advection", num_points=8, num_frames=6)
    (balance,) = equations.priors.feasibilities
    rough, clean = jax.random.normal(jax.random.key(6), (2, 8, 6, 1))
    found = balance.terms(rough, clean, NOTHING)
    assert balance.form == "linear"
    np.testing.assert_array_equal(found, equations.residual(rough, NOTHING)["balance"])


@pytest.fixture(scope="module")
def states():
    keys = jax.random.split(jax.random.key(7), 20000)
    return np.asarray(jax.jit(jax.vmap(lambda key: random_waves(32, 8, key)))(keys))


def test_first_frames_are_two_waves_of_eight_or_one_in_ten_is_not(states):
    power = np.abs(np.fft.rfft(states, axis=1) / 32) ** 2
    pure = power[:, 9:].sum(axis=1) + power[:, 0] < 1e-20
    np.testing.assert_allclose(pure.mean(), 0.81, atol=0.01)
    present = power[pure][:, 1:9] > 1e-9
    assert present.sum(axis=1).max() == 2
    # a number is missed by both draws in (7 / 8)^2 of the states; A^2 / 4 is on average 1 / 12
    np.testing.assert_allclose(present.mean(axis=0), 1 - (7 / 8) ** 2, atol=0.02)
    np.testing.assert_allclose(power[pure].sum(axis=1).mean(), 2 / 12, rtol=0.05)
    # of one sign, but for windows: absolute values, of either sign
    below, above = (states <= 1e-9).all(axis=1).mean(), (states >= -1e-9).all(axis=1).mean()
    np.testing.assert_allclose([below, above], 0.05, atol=0.007)


def test_no_place_is_preferred_and_windows_are_as_long_as_written(states):
    """A window that stays where it is leaves a tenth less energy at the ends than in the middle."""
    energy = np.mean(states**2, axis=0)
    np.testing.assert_allclose(energy / energy.mean(), 1.0, atol=0.035)
    # the mean length of a window is that of the bounds' means, 0.725 - 0.275
    expected = 1 - 0.1 * (1 - 0.45)
    power = np.abs(np.fft.rfft(states, axis=1) / 32) ** 2
    pure = power[:, 9:].sum(axis=1) + power[:, 0] < 1e-20
    np.testing.assert_allclose(energy.mean() / np.mean(states[pure] ** 2), expected, atol=0.03)


def test_an_empty_grid_is_refused():
    for options in ({"num_points": 2}, {"num_frames": 1}, {"duration": 0.0}, {"highest_wave": 0}):
        with pytest.raises(ValueError, match="expected at least 4 points, 2 frames"):
            make_equations("advection", **options)
