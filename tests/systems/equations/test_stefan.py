"""Melting from a wall: the front of the closed form, what comes in and is kept, and residuals away from the front."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.stefan import cell_means, fitted_amplitude, melting_at, melting_with

NOTHING = jnp.zeros(())


def at_points(melting, places, time):
    """The closed form, u(x, t)."""
    behind = 1.0 - float(melting.amplitude) * erf(places / (2 * np.sqrt(time)))
    return np.where(places <= 2 * float(melting.front) * np.sqrt(time), behind, 0.0)


def drawn(count, threshold=None, **options):
    equations = make_equations("stefan", num_points=count, num_frames=count, threshold=threshold, **options)
    return equations, jax.jit(equations.draw)(jax.random.key(1)).fields


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.8])
def test_the_front_has_the_value_and_travels_at_the_speed_that_the_equation_asks_for(threshold):
    """u(front) = u*, and u* dx / dt = -u_x there: what melts is what comes."""
    melting = melting_at(jnp.asarray(threshold))
    time = 0.07
    front = 2 * float(melting.front) * np.sqrt(time)
    np.testing.assert_allclose(at_points(melting, front, time), threshold, rtol=1e-12)
    ahead, before = (2 * float(melting.front) * np.sqrt(time + step) for step in (1e-6, -1e-6))
    slope = (at_points(melting, front, time) - at_points(melting, front - 1e-6, time)) / 1e-6
    np.testing.assert_allclose(threshold * (ahead - before) / 2e-6, -slope, rtol=1e-4)
    np.testing.assert_allclose(melting_with(melting.amplitude).front, melting.front, rtol=1e-12)


def test_means_over_cells_are_integrals_and_sums_of_values_at_points_miss_half_a_jump():
    melting, times = melting_at(jnp.asarray(0.6)), np.array([0.0, 0.02, 0.05])
    means = cell_means(melting, 16, times)
    inside = (np.arange(16 * 4000) + 0.5) / (16 * 4000)
    for frame in (1, 2):
        expected = at_points(melting, inside, times[frame]).reshape(16, 4000).mean(axis=1)
        np.testing.assert_allclose(means[:, frame], expected, atol=1e-4)
    assert not means[:, 0].any()
    # the figure of the docstring
    places, several = np.linspace(0.0, 1.0, 64), np.linspace(0.02, 0.1, 400)
    sums = np.array([np.trapezoid(at_points(melting, places, time), dx=1 / 63) for time in several])
    missed = np.abs(sums - 2 * float(melting.amplitude) * np.sqrt(several / np.pi))
    np.testing.assert_allclose(missed.max(), 0.5 * 0.6 / 63, rtol=0.05)


def test_what_came_in_is_there_and_a_front_that_stands_still_or_values_that_are_lost_are_told():
    equations, fields = drawn(32, 0.65)
    amplitude = float(melting_at(jnp.asarray(0.65)).amplitude)
    np.testing.assert_allclose(fitted_amplitude(0.1, fields[..., 0]), amplitude, rtol=1e-12)
    came_in = 2 * amplitude * np.sqrt(np.linspace(0.0, 0.1, 32) / np.pi)
    np.testing.assert_allclose(fields[..., 0].mean(axis=0), came_in, atol=1e-14)
    np.testing.assert_allclose(equations.conserved(fields, NOTHING), 0.0, atol=1e-14)
    lost = equations.conserved(fields.at[12:, 20].add(-0.1), NOTHING)
    np.testing.assert_allclose(lost, np.where(np.arange(31) == 19, -0.1 * 20 / 32, 0.0), atol=1e-14)
    # no residual sees the front, the balance does
    width = int(np.sum(fields[:, 20, 0] > 0))
    stopped = fields.at[width:, 21:].set(0.0)
    before = np.abs(equations.residual(fields, NOTHING)["balance"]).max()
    assert np.abs(equations.residual(stopped, NOTHING)["balance"])[:width].max() <= before
    assert np.abs(equations.conserved(stopped, NOTHING)).max() > 0.02


def test_away_from_the_front_the_residual_has_order_four_and_the_unseen_one_two():
    def largest(count):
        equations, fields = drawn(count, 0.6)
        box = (slice(0, count // 10), slice(count // 2, None))
        return np.array(
            [
                float(jnp.abs(part(fields, NOTHING)["balance"][box]).max())
                for part in (equations.residual, equations.unseen)
            ]
        )

    own, unseen = np.log2(largest(60) / largest(120))
    assert abs(own - 4.0) < 0.2 and abs(unseen - 2.0) < 0.2
    # the figures of the docstring
    equations, fields = drawn(64)
    found = equations.residual(fields, NOTHING)["balance"]
    assert np.abs(found).max() < 0.04 and np.sqrt(np.mean(found**2)) < 8e-4
    assert not found[:, :3].any()


def test_another_speed_another_wall_and_noise_are_seen():
    equations, fields = drawn(32, 0.6)

    def size(other):
        return float(jnp.abs(equations.residual(other, NOTHING)["balance"])[:, 16:].max())

    melting = melting_at(jnp.asarray(0.6))
    slower = cell_means(melting, 32, 0.7 * np.linspace(0.0, 0.1, 32))[..., None]
    # u(x, s t) has u_t = s u_xx
    assert size(fields) < 1e-3 and size(slower) > 0.2 and size(fields - 0.05) > 5.0
    noise = 0.25 + 0.1 * jax.random.normal(jax.random.key(0), (32, 32, 1))
    assert np.mean(equations.residual(noise, NOTHING)["balance"] != 0) > 0.3


def test_the_solution_is_found_from_what_is_beside_the_wall():
    equations, fields = drawn(32)
    changed = fields.at[12:].set(7.0)
    np.testing.assert_allclose(equations.resolve(changed, NOTHING), fields, atol=1e-12)
    bounded = equations.resolve(jnp.full_like(fields, -3.0), NOTHING)
    np.testing.assert_allclose(bounded, drawn(32, 0.5)[1], atol=1e-9)


def test_late_frames_and_fronts_that_melt_at_once_are_refused():
    with pytest.raises(ValueError, match="expected at least 12 points, 8 frames"):
        make_equations("stefan", duration=2.0)
    with pytest.raises(ValueError, match="expected a threshold on"):
        make_equations("stefan", threshold=0.2)
