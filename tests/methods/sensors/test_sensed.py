"""What sensors saw: layouts, noise, and sentences for what cannot be asked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.files import InputError
from phdme_jax.methods.base import Normaliser
from phdme_jax.methods.sensors.sensed import (
    SensorOptions,
    draw_places,
    normalised,
    read_window,
    sense,
    sensor_options,
)
from phdme_jax.systems import make_system

STRUCTURE = make_system("vibrating_string", num_points=12).structure


def test_a_layout_has_as_many_places_and_all_of_them_are_equally_likely():
    masks = jax.vmap(lambda key: draw_places(STRUCTURE, 3, key))(jax.random.split(jax.random.key(0), 4000))
    np.testing.assert_array_equal(masks.sum(axis=1), 3.0)
    np.testing.assert_array_equal(masks[..., 0], masks[..., 1])
    np.testing.assert_allclose(masks.mean(axis=0), 3 / 12, atol=0.03)


def test_readings_are_the_window_with_noise_at_the_places_alone():
    window, mask = jnp.ones((400, 12, 2)), draw_places(STRUCTURE, 5, jax.random.key(1))
    sensed = read_window(window, mask, jnp.array([0.1, 2.0]), jax.random.key(2))
    assert not np.asarray(sensed.values)[:, np.asarray(mask) == 0].any()
    seen = np.asarray(sensed.values)[:, np.asarray(mask[:, 0]) > 0]
    np.testing.assert_allclose(seen.mean(axis=(0, 1)), 1.0, atol=0.1)
    np.testing.assert_allclose(seen.std(axis=(0, 1)), [0.1, 2.0], rtol=0.05)


def test_normalised_readings_are_those_of_normalised_fields_and_zero_elsewhere():
    units = Normaliser(jnp.array([2.0, 3.0], "float32"), jnp.array([0.0, 5.0], "float32"))
    window, mask = jax.random.normal(jax.random.key(3), (4, 12, 2)), draw_places(STRUCTURE, 5, jax.random.key(4))
    sensed = read_window(window, mask, jnp.zeros(2), jax.random.key(5))
    found = normalised(sensed, units)
    np.testing.assert_allclose(found.values, mask * units.normalised(window), atol=1e-6)
    assert found.values.dtype == found.mask.dtype == units.scale.dtype


def test_sensors_are_written_into_the_window_that_forecasters_take():
    sensed = sense(STRUCTURE, 3, [(2,), (7,)], ["strain", "momentum"], [[1, 2, 3], [4, 5, 6]])
    assert float(sensed.mask.sum()) == 2 and sensed.values.shape == (3, 12, 2)
    np.testing.assert_array_equal(sensed.values[:, 2, 1], [1, 2, 3])
    np.testing.assert_array_equal(sensed.values[:, 7, 0], [4, 5, 6])


@pytest.mark.parametrize(
    ("places", "fields", "readings", "words"),
    [
        ([], [], np.zeros((0, 3)), "at least one sensor"),
        ([(2,)], ["strain"], [[1, 2]], "3 readings for each of 1 sensors"),
        ([(2,)], ["strain", "strain"], [[1, 2, 3]], "one field"),
        ([(12,)], ["strain"], [[1, 2, 3]], "places on a grid of \\(12,\\)"),
        ([(2, 1)], ["strain"], [[1, 2, 3]], "places on a grid"),
        ([(-1,)], ["strain"], [[1, 2, 3]], "counted from zero"),
        ([(2,)], ["height"], [[1, 2, 3]], "expected a field among"),
        ([(2,)], ["strain"], [[1, np.nan, 3]], "expected finite readings"),
        ([(2,), (2,)], ["strain", "strain"], [[1, 2, 3], [4, 5, 6]], "one sensor of a field at a place"),
    ],
)
def test_a_bad_layout_is_a_sentence(places, fields, readings, words):
    with pytest.raises(InputError, match=words):
        sense(STRUCTURE, 3, places, fields, readings)


def test_a_window_longer_than_the_trajectory_and_exact_readings_are_sentences():
    assert sensor_options({"sensors": {"window": 6}}, 6) == SensorOptions(window=6)
    with pytest.raises(InputError, match=r"sensors.window from 1 to 6"):
        sensor_options({"sensors": {"window": 7}}, 6)
    with pytest.raises(InputError, match=r"sensors.noise above zero"):
        sensor_options({"sensors": {"window": 6, "noise": 0.0}}, 6)
