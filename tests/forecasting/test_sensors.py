"""Forecasts from what a few sensors read: posteriors in closed form, bands, sources, sentences."""

import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from phdme_jax import InputError, Sensors, conformalize, fit, forecast, load, save
from phdme_jax.calibration import conformal_rank
from phdme_jax.forecasting import bands
from phdme_jax.forecasting.conformalize import score_floor
from phdme_jax.forecasting.forecast import half_width
from phdme_jax.forecasting.forecaster import Forecaster, drawn_forecasts, starts_from
from phdme_jax.forecasting.sensed import forecast_sensed, readings_as_sensed, search_of, searched, synthetic_readings
from phdme_jax.forecasting.sensors import read_sensors
from phdme_jax.methods import draws
from phdme_jax.methods.base import Fitted
from phdme_jax.methods.sensors.searched import Search, SearchParams, make_searched, mean_window
from tests.forecasting.string_files import FRAMES, LEVEL, POINTS, tiny_options, waves

CALIBRATION = waves(5, 1)
# no larger than the motion that was fitted to
WAVES = waves(1, 2) | {"state": 0.4 * waves(1, 2)["state"]}
PLACES, WINDOW = np.array([2, 7, 9]), 5
NOISE = 0.05 * WAVES["state"].std(axis=(0, 1, 2))


@pytest.fixture(scope="module")
def fitted(tiny_fit, tmp_path_factory) -> Forecaster:
    folder = shutil.copytree(tiny_fit, tmp_path_factory.mktemp("fit") / "folder")
    return fit(waves(1, 0), "vibrating_string", options=tiny_options(), folder=folder)


@pytest.fixture(scope="module")
def forecaster(fitted) -> Forecaster:
    return conformalize(fitted, CALIBRATION, LEVEL)


def sensors(frames=range(WINDOW), **changes) -> Sensors:
    frames = list(frames)
    true = WAVES["state"][0][frames][:, PLACES]
    read = true + NOISE * np.random.default_rng(4).normal(size=true.shape)
    return replace(Sensors(read, WAVES["time"][frames], NOISE, index=PLACES), **changes)


def read(forecaster: Forecaster, source):
    return read_sensors(source, forecaster.observed, forecaster.structure.fields)


def test_of_one_frame_the_posterior_is_that_of_the_background_in_the_units_of_the_user(fitted):
    """A Gaussian of states and a linear observation: no motion is asked for, so the closed form is exact."""
    asked, scale = sensors(range(1)), fitted.setup.units.scale
    made = forecast(fitted, sensors=asked, num_samples=400)
    background = fitted.background
    mean = (np.asarray(background.mean) * scale).ravel()
    root = (np.asarray(background.root) * scale[:, None]).reshape(mean.size, -1)
    rows = (2 * PLACES[:, None] + np.arange(2)).ravel()
    variance = np.tile(NOISE**2, len(PLACES))
    gain = np.linalg.solve(root[rows] @ root[rows].T + np.diag(variance), root[rows] @ root.T).T
    expected = mean + gain @ (np.asarray(asked.readings)[0].ravel() - mean[rows])
    deviation = np.sqrt(np.diag(root @ root.T - gain @ root[rows] @ root.T).clip(0)).reshape(POINTS, 2)
    size = np.sqrt(np.mean(deviation**2, axis=0))
    np.testing.assert_allclose(made.mean[0] / size, expected.reshape(POINTS, 2) / size, atol=1e-3)
    np.testing.assert_allclose(made.samples[:, 0].mean(axis=0) / size, made.mean[0] / size, atol=0.25)
    np.testing.assert_allclose(made.samples[:, 0].std(axis=0) / size, deviation / size, atol=0.2)
    assert (made.samples[:, :, [0, -1], 0] == 0).all() and (made.lower < made.upper)[0, 1:-1].all()
    assert not made.calibrated and "the band is not calibrated for 90 %" in made.notes[0]


@pytest.mark.slow
def test_through_the_learned_energy_the_posterior_is_that_of_the_linear_string(fitted):
    """In internal units both stiffnesses are one: the exact motion is a matrix exponential."""
    with jax.enable_x64(True):
        readings, energy, structure = read(fitted, sensors()), fitted.energy, fitted.structure
        noise = searched(fitted, readings).params.noise
        search = Search(structure, energy.model, None, energy.model.dynamics)
        params = SearchParams(fitted.background, noise, energy.params, energy.params)
        sensed = readings_as_sensed(fitted, readings)
        found = jax.tree.map(lambda leaf: leaf[0], draws.prepare(Fitted(make_searched(search), params, {}), sensed))
        zero = dict.fromkeys(structure.parameters, jnp.zeros(()))
        flow = jax.jacfwd(lambda x: structure.constrain(structure.flow(x, zero)))(jnp.zeros((POINTS, 2)))
    flow = np.asarray(flow).reshape(2 * POINTS, -1)
    times = fitted.energy.model.times[:WINDOW]
    root = np.asarray(fitted.background.root).reshape(2 * POINTS, -1)
    mean = np.asarray(fitted.background.mean).ravel()
    slope = np.concatenate([expm(flow * at) @ root for at in times])
    seen = np.asarray(sensed.mask[0]).ravel() > 0
    missed = (np.asarray(sensed.values[0]).ravel() - np.concatenate([expm(flow * at) @ mean for at in times]))[seen]
    weight = np.broadcast_to(np.asarray(noise).ravel(), (WINDOW, 2 * POINTS)).ravel()[seen] ** -2.0
    covariance = np.linalg.inv(np.eye(root.shape[1]) + (slope[seen].T * weight) @ slope[seen])
    z = covariance @ (slope[seen].T @ (weight * missed))
    expected, got = mean + root @ z, mean + root @ np.asarray(found.mode)
    assert np.linalg.norm(got - expected) < 0.05 * np.linalg.norm(expected)
    spreads = [np.sqrt(np.diag(root @ c @ root.T)) for c in (covariance, np.asarray(found.root @ found.root.T))]
    assert np.linalg.norm(spreads[1] - spreads[0]) < 0.1 * np.linalg.norm(spreads[0])


def test_the_search_goes_through_the_mean_of_the_forecaster(fitted):
    with jax.enable_x64(True):
        found = searched(fitted, read(fitted, sensors()))
        state = np.asarray(fitted.background.state(jnp.full(fitted.background.root.shape[-1], 0.3)))
        search = search_of(fitted)
        window = mean_window(search, found.params, jnp.asarray(state), fitted.fitted.model.times[:WINDOW])
        whole = draws.means(fitted.fitted, draws.prepare(fitted.fitted, starts_from(state[None], found.model.times)))
    assert search.propagator is not None
    np.testing.assert_allclose(window, whole[0, :WINDOW], atol=1e-6)


@pytest.mark.slow
def test_at_the_quantile_as_many_trajectories_are_covered_as_the_level_asks_for(forecaster):
    truth = CALIBRATION["state"]
    with jax.enable_x64(True):
        readings = read(forecaster, sensors())
        made = forecast_sensed(forecaster, readings, 4, jax.random.key(0))
        read_key, draw_key = jax.random.split(forecaster.setup.key("sensors"))
        fitted = searched(forecaster, readings)
        found = draws.prepare(fitted, synthetic_readings(forecaster, readings, truth, read_key))
        forecasts = drawn_forecasts(forecaster, fitted, found, 4, draw_key, lambda *_: _silent())
        scores = bands.band_scores(truth, forecasts, score_floor(forecaster))
    inside = np.abs(truth - forecasts.mean) <= (1 + 1e-6) * half_width(
        replace(forecaster, calibration=made.calibration), forecasts, closed=False
    )
    rank = conformal_rank(5, LEVEL)
    assert inside.all(axis=(1, 2, 3)).sum() == rank
    assert np.sort(scores)[rank - 1] == pytest.approx(made.calibration.quantile, rel=1e-3)


def test_readings_of_the_calibration_have_the_noise_that_was_stated(forecaster):
    with jax.enable_x64(True):
        readings = read(forecaster, sensors())
        keys = jax.random.split(jax.random.key(1), 40)
        many = [synthetic_readings(forecaster, readings, CALIBRATION["state"], key) for key in keys]
    values = np.stack([sensed.values for sensed in many]) * forecaster.setup.units.scale
    apart = (values - CALIBRATION["state"][:, :WINDOW])[:, :, :, PLACES]
    np.testing.assert_allclose(apart.std(axis=(0, 1, 2)), np.broadcast_to(NOISE, (3, 2)), rtol=0.08)
    assert not np.delete(values, PLACES, axis=3).any()


def _silent():
    from phdme_jax.training.loop import unwatched

    return unwatched(None, "samples", 0, 1)


def test_a_band_for_sensors_is_open_at_the_start_and_closed_at_the_ends(forecaster):
    made = forecast(forecaster, sensors=sensors(), num_samples=6)
    assert made.calibrated and made.level == LEVEL and made.samples.shape == (6, FRAMES, POINTS, 2)
    assert "calibrated for these sensors: they read 5 calibration trajectories" in " ".join(made.notes)
    assert (made.lower < made.upper)[:, 1:-1].all() and (made.upper - made.lower)[:, [0, -1], 0].max() == 0
    np.testing.assert_allclose(made.mean, 0.5 * (made.lower + made.upper), rtol=1e-9, atol=1e-12)


def test_a_file_arrays_a_record_positions_and_single_fields_say_the_same(forecaster, tmp_path):
    asked = sensors()
    made = forecast(forecaster, sensors=asked)
    np.savez(tmp_path / "sensors.npz", **{key: value for key, value in asked.named().items() if value is not None})
    single = Sensors(
        np.asarray(asked.readings).reshape(WINDOW, -1),
        asked.time,
        np.tile(NOISE, 3),
        position=np.repeat(WAVES["grid"][PLACES], 2),
        field=np.tile([0, 1], 3),
    )
    save(forecaster, tmp_path)
    for other in (
        forecast(forecaster, sensors=tmp_path / "sensors.npz"),
        forecast(forecaster, sensors=asked.named()),
        forecast(forecaster, sensors=single),
        forecast(load(tmp_path), sensors=asked),
    ):
        np.testing.assert_array_equal(other.samples, made.samples)
        np.testing.assert_array_equal(other.upper, made.upper)
    many = forecast(forecaster, sensors=asked, num_samples=7, times=WAVES["time"][:3])
    np.testing.assert_allclose(many.samples[:4], made.samples[:, :3], rtol=1e-9)


def test_what_readings_say_that_cannot_be_is_told(fitted):
    wrong = sensors(readings=np.asarray(sensors().readings) * np.array([3.0, -3.0]))
    notes = " ".join(forecast(fitted, sensors=wrong, num_samples=2).notes)
    assert "times their noise away from the nearest motion that was found" in notes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"readings": np.zeros((0, 3, 2)), "time": np.zeros(0)},
            "of shape (0, 3, 2) are none; a forecast needs at least",
        ),
        ({"readings": np.zeros((WINDOW, 0, 2)), "index": np.zeros(0)}, "a forecast needs at least one reading"),
        ({"readings": np.full((WINDOW, 3, 2), np.nan)}, "readings holds nan at (0, 0, 0)"),
        ({"readings": np.zeros((WINDOW, 3, 3))}, "have 3 fields; expected 2 (momentum, strain)"),
        ({"readings": np.zeros((WINDOW, 3))}, "there is no field; expected (time, sensor, field)"),
        ({"field": [0, 1, 1]}, "there is a field for each sensor; expected"),
        ({"readings": np.zeros((WINDOW, 3)), "field": [0, 1, 2]}, "a number from 0 to 1 (momentum, strain)"),
        ({"index": None}, "as position or as index, got none"),
        ({"position": WAVES["grid"][PLACES]}, "got position and index"),
        ({"index": [2, 7, 12]}, "index of sensor 2 is 12; expected whole numbers from 0 to 11"),
        ({"index": [2, 7.5, 9]}, "index of sensor 1 is 7.5"),
        ({"index": [2, 7]}, "index has shape (2,); expected (3,)"),
        ({"index": None, "position": [0.0, 0.1, 0.2]}, "expected places of the grid, the nearest is 0.118182"),
        ({"index": [2, 7, 7]}, "two sensors read momentum at 0.413636; expected one"),
        ({"time": WAVES["time"][:WINDOW] - 7}, "lies outside of the fit, 7 to"),
        ({"time": WAVES["time"][:WINDOW] + 1e-5}, "is that of no frame of the fit"),
        ({"time": WAVES["time"][[0, 1, 1, 2, 3]]}, "time does not increase strictly"),
        ({"time": WAVES["time"][[0, 1, 1, 2, 3]] + 1e-9 * np.arange(5)}, "two times are those of one frame"),
        ({"time": WAVES["time"][:3]}, "time has shape (3,); expected (5,)"),
        ({"noise": np.zeros(2)}, "expected standard deviations above zero"),
        (
            {"noise": np.array(0.1)},
            "noise has shape (); expected (2,), the standard deviation of the readings of each field",
        ),
    ],
)
def test_bad_sensors_are_one_sentence(fitted, changes, words):
    with pytest.raises(InputError) as refused:
        forecast(fitted, sensors=sensors(**changes))
    assert words in str(refused.value) and str(refused.value).startswith("sensors: ")


def test_a_forecast_is_from_a_state_or_from_sensors(fitted):
    with pytest.raises(InputError, match="sensors: the key 'noise' is missing"):
        forecast(fitted, sensors=sensors().named() | {"noise": None})
    for given, words in (({}, "got neither"), ({"state": WAVES["state"][0, 0], "sensors": sensors()}, "got both")):
        with pytest.raises(InputError, match=words):
            forecast(fitted, **given)
    with pytest.raises(InputError, match="times: asks for times from 0 to 1"):
        forecast(fitted, sensors=sensors(), times=[0.0, 1.0])
