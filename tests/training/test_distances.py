"""Distances between sets: known values, floors, and what they must notice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.training import distances


def normal(count, size, seed, shift=0.0, scale=1.0):
    return shift + scale * jax.random.normal(jax.random.key(seed), (count, size))


@pytest.mark.slow
def test_sliced_wasserstein_of_a_shift_and_of_a_scale():
    """Between N(m, I) and N(0, I) it is |m| / sqrt(size); between N(0, s^2 I) and N(0, I) it is |s - 1|."""
    other = normal(4000, 3, 1)
    shifted = distances.sliced_wasserstein(other + jnp.array([2.0, 0.0, 0.0]), other, jax.random.key(0), 2000)
    np.testing.assert_allclose(shifted, 2.0 / np.sqrt(3), rtol=0.03)
    scaled = distances.sliced_wasserstein(1.5 * other, other, jax.random.key(0), 200)
    np.testing.assert_allclose(scaled, 0.5, rtol=0.03)
    assert distances.sliced_wasserstein(other[::-1], other, jax.random.key(0)) < 1e-12
    floor = distances.sliced_wasserstein(normal(4000, 3, 2), other, jax.random.key(0))
    assert 0.0 < floor < 0.06


def test_wasserstein_of_values_is_the_shift():
    other = normal(100, 5, 0)
    np.testing.assert_allclose(distances.wasserstein_of_values(other + 0.7, other), 0.7, rtol=1e-12)


def test_energy_distance_equals_the_double_sums_and_has_no_bias():
    left, right = normal(7, 4, 0), normal(7, 4, 1, 0.5)

    def apart(x, y):
        return np.sqrt(np.mean((np.asarray(x)[:, None] - np.asarray(y)[None]) ** 2, axis=-1))

    expected = 2 * apart(left, right).mean() - (apart(left, left).sum() + apart(right, right).sum()) / 42
    scale = np.sqrt(np.var(np.asarray(right), axis=0).mean())
    np.testing.assert_allclose(distances.energy_distance(left, right), expected / scale, rtol=1e-6)
    values = [float(distances.energy_distance(normal(40, 2, 2 * s), normal(40, 2, 2 * s + 1))) for s in range(40)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(40)


def test_answers_to_the_same_tasks_leave_their_own_pairs_out():
    left, right = normal(5, 3, 0), normal(5, 3, 1)
    apart = [np.sqrt(np.mean((np.asarray(left) - np.asarray(right)[k]) ** 2, axis=-1)) for k in range(5)]
    total = sum(row.sum() - row[k] for k, row in enumerate(apart))
    within = [np.sqrt(np.mean((np.asarray(x)[:, None] - np.asarray(x)) ** 2, axis=-1)).sum() for x in (left, right)]
    scale = np.sqrt(np.var(np.asarray(right), axis=0).mean())
    found = distances.energy_distance(left, right, paired=True)
    np.testing.assert_allclose(found, (2 * total - sum(within)) / 20 / scale, rtol=1e-6)


@pytest.mark.parametrize("distance", [distances.energy_distance, distances.mean_discrepancy])
def test_pairs_of_one_task_hide_no_distance(distance):
    """Nothing on average between two sets of answers; less than that where each answer's own pair counts."""

    def value(seed, paired):
        tasks = normal(20, 2, 3 * seed)
        sets = (tasks + 0.3 * normal(20, 2, 3 * seed + place) for place in (1, 2))
        return float(distance(*sets, paired=paired))

    paired, every = ([value(seed, kept) for seed in range(40)] for kept in (True, False))
    assert abs(np.mean(paired)) < 3 * np.std(paired) / np.sqrt(40)
    assert np.mean(every) < -6 * np.std(every) / np.sqrt(40)


@pytest.mark.slow
def test_mean_discrepancy_of_gaussians_is_that_of_their_closed_form():
    """With kernels of width s and X ~ N(m, I), Y ~ N(0, I): X - Y ~ N(m, 2 I), whose kernel has the mean

    E exp(-|X - Y|^2 / 2 s^2) = (s^2 / (s^2 + 2))^(d / 2) exp(-|m|^2 / 2 (s^2 + 2)).
    """
    count, size, mean = 1500, 3, np.array([1.0, -0.5, 0.0])
    right = normal(count, size, 1)
    within = np.sum((np.asarray(right)[:, None] - np.asarray(right)) ** 2, axis=-1)
    middle = np.median(within[~np.eye(count, dtype=bool)])

    def closed(shift):
        squares = middle * np.array([0.25, 1.0, 4.0])
        whole = (squares / (squares + 2)) ** (size / 2)
        return np.mean(2 * whole * (1 - np.exp(-(shift @ shift) / (2 * (squares + 2)))))

    discrepancy = jax.jit(distances.mean_discrepancy)
    assert abs(discrepancy(normal(count, size, 2), right)) < 3e-3
    for scale in (0.5, 1.0, 2.0):
        found = float(discrepancy(normal(count, size, 2) + scale * mean, right))
        np.testing.assert_allclose(found, closed(scale * mean), rtol=0.1, atol=3e-3)
    few = [float(discrepancy(normal(20, 2, 2 * s), normal(20, 2, 2 * s + 1))) for s in range(60)]
    assert abs(np.mean(few)) < 3 * np.std(few) / np.sqrt(60), "no bias"


def test_a_collapsed_set_is_far_although_its_mean_is_right():
    other = normal(500, 6, 0)
    collapsed = jnp.zeros_like(other)
    assert distances.energy_distance(collapsed, other) > 0.3
    assert distances.sliced_wasserstein(collapsed, other, jax.random.key(0)) > 0.9


@pytest.mark.parametrize("shape", [(32,), (16, 16)])
def test_spectrum_has_its_power_where_the_wave_is(shape):
    middles = [(np.arange(size) + 0.5) / size for size in shape]
    wave = np.cos(3 * np.pi * middles[0]).reshape(-1, *(1 for _ in shape[1:])) * np.ones(shape)
    power = np.asarray(distances.radial_spectrum(jnp.asarray(wave[None])))
    assert np.argmax(power) == 3
    np.testing.assert_allclose(power[3], np.sum(wave**2), rtol=1e-12)
    np.testing.assert_allclose(np.delete(power, 3), 0.0, atol=1e-12)


def test_spectrum_error_of_ten_times_the_power_is_one():
    waves = jax.random.normal(jax.random.key(0), (20, 16))
    np.testing.assert_allclose(distances.spectrum_error(np.sqrt(10.0) * waves, waves), 1.0, rtol=1e-6)
    assert distances.spectrum_error(waves, waves) == 0.0


def test_sets_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="same shape"):
        distances.energy_distance(normal(5, 2, 0), normal(6, 2, 0))


def test_a_constant_added_and_another_unit_change_nothing_in_single_precision():
    left, right = (np.asarray(normal(64, 50, seed, 0.5 * seed), np.float32) for seed in (0, 1))
    key = jax.random.key(0)
    measures = {
        "energy": distances.energy_distance,
        "sliced": lambda one, other: distances.sliced_wasserstein(one, other, key),
        "spectrum": distances.spectrum_error,
    }
    for name, measure in measures.items():
        expected = measure(jnp.asarray(left), jnp.asarray(right))
        found = measure(*(jnp.asarray(part * np.float32(1e-20)) for part in (left, right)))
        np.testing.assert_allclose(found, expected, rtol=1e-4, err_msg=name)
        if name != "spectrum":
            found = measure(*(jnp.asarray(part + np.float32(1e4)) for part in (left, right)))
            np.testing.assert_allclose(found, expected, rtol=2e-3, err_msg=name)


def test_fields_that_are_all_the_same_are_at_no_distance_from_themselves_and_infinitely_far_from_others():
    same, other, key = jnp.ones((8, 5)), normal(8, 5, 0), jax.random.key(0)
    for value in (0.0, 3.0):
        constant = value * same
        assert distances.energy_distance(constant, constant) == 0.0
        assert distances.sliced_wasserstein(constant, constant, key) == 0.0
        assert distances.spectrum_error(constant, constant) == 0.0
        assert distances.energy_distance(other, constant) == jnp.inf
        assert distances.sliced_wasserstein(other, constant, key) == jnp.inf
    assert distances.spectrum_error(other, 0.0 * same) == jnp.inf


def test_the_energy_distance_of_one_field_is_refused():
    with pytest.raises(ValueError, match="at least two"):
        distances.energy_distance(normal(1, 5, 0), normal(1, 5, 1))


def test_distances_have_the_slope_of_their_differences_and_none_where_sets_coincide():
    left, right = normal(6, 4, 0), normal(6, 4, 1, 0.5)
    key, step = jax.random.key(0), 1e-6 * normal(6, 4, 2)
    for paired in (False, True):
        measure = lambda x: distances.energy_distance(x, right, paired)  # noqa: E731
        slope = jnp.sum(jax.grad(measure)(left) * step)
        np.testing.assert_allclose(slope, (measure(left + step) - measure(left - step)) / 2, rtol=1e-5)
    for measure in (distances.energy_distance, lambda x, y: distances.sliced_wasserstein(x, y, key)):
        assert jnp.all(jnp.isfinite(jax.grad(measure)(right, right)))
