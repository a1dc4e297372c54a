"""A tiny forecaster by the Python API: what it learned, its bands, saving and loading, what it refuses."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from phdme_jax import InitialState, InputError, conformalize, fit, forecast, load, save
from phdme_jax.app import figures
from phdme_jax.app.fit_page import Evaluation, physical_efforts, report_sections
from phdme_jax.calibration import conformal_rank
from phdme_jax.files import RunFailed
from phdme_jax.forecasting import bands
from phdme_jax.forecasting.conformalize import score_floor
from phdme_jax.forecasting.fit import fit_energy, make_task
from phdme_jax.forecasting.forecast import half_width
from phdme_jax.forecasting.forecaster import Forecaster, Setup, energy_forecasts, forecasts_from
from phdme_jax.forecasting.inputs import read_inputs
from phdme_jax.forecasting.structure_check import StructureCheck
from phdme_jax.methods.energy.initial_states import smoothest_part
from phdme_jax.training.stages import Trainer
from tests.disk import full_disk
from tests.forecasting.string_files import FRAMES, LEVEL, POINTS, STIFFNESS, tiny_options, waves

STATE = waves(1, 2)["state"][0, 0]
CALIBRATION = waves(5, 1)
again = partial(fit, waves(1, 0), "vibrating_string", options=tiny_options())


@pytest.fixture(scope="module")
def folder(tiny_fit, tmp_path_factory) -> Path:
    """Where the fit has kept what takes long."""
    return shutil.copytree(tiny_fit, tmp_path_factory.mktemp("fit") / "folder")


@pytest.fixture(scope="module")
def fitted(folder) -> Forecaster:
    return again(folder=folder)


@pytest.fixture(scope="module")
def forecaster(fitted) -> Forecaster:
    return conformalize(fitted, CALIBRATION, LEVEL)


def leaves(forecaster: Forecaster) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves((forecaster.energy.params, forecaster.fitted.params))]


def test_what_was_noticed_stands_in_the_notes(forecaster, monkeypatch):
    assert "12 grid points allow stencils of order 4" in forecaster.notes[0]
    # the linear string is easy: its energy alone forecasts far better than a generator that was hardly trained
    assert "times that of the learned energy integrated in time; try the method phdme_rollout" in forecaster.notes[-1]
    warning = "the data ask for the opposite sign of J"
    monkeypatch.setattr("phdme_jax.forecasting.fit.check_structure", lambda *_: StructureCheck(True, {}, (warning,)))
    inputs = read_inputs(waves(1, 0), "vibrating_string", tiny_options(check_structure="true"))
    *_, notes = fit_energy(inputs, make_task(inputs, forecaster.setup), Trainer())
    assert warning in notes


def test_what_is_recorded_is_what_ran(fitted, folder):
    record = json.loads((folder / "fit.json").read_text())["options"]
    assert record["structure"]["order"] == 4 and record["network"]["propagator"]["least_radius"] == 6
    ran = fitted.setup.options
    # waves travel at speed one along ten units: their reach between frames in grid points, and two more
    reach = np.diff(fitted.setup.units.frames(fitted.observed.time)).max() / (10 / (POINTS - 1))
    assert ran["network"]["propagator"]["radius"] == max(6, int(np.ceil(reach)) + 2)
    assert ran["prior"]["substeps"] >= 4 and fitted.energy.model.dynamics.substeps == ran["prior"]["substeps"]
    assert "least_radius" not in ran["network"]["propagator"] and "least_substeps" not in ran["prior"]


def test_starts_of_rollouts_are_the_same_in_any_units_of_time_and_length():
    def starts(unit):
        data = waves(2, 0)
        changed = {"time": data["time"] * unit, "grid": data["grid"] * unit}
        inputs = read_inputs(data | changed, "vibrating_string", tiny_options())
        setup = Setup(inputs.name, "phdme_rollout", 0, inputs.options, inputs.units)
        return make_task(inputs, setup).starts(jax.random.key(0), 20).state * inputs.units.scale

    expected = starts(1.0)
    for unit in (1e-9, 1e9):
        np.testing.assert_allclose(starts(unit) / expected.std((0, 1)), expected / expected.std((0, 1)), atol=1e-6)


def test_stages_that_the_frames_cannot_hold_are_merged_before_they_are_recorded():
    stages = "((1,100,16,1e-2),(20,50,8,1e-3),(30,40,8,1e-3))"
    options = tiny_options(**{"training.propagator_stages": stages})
    recorded = read_inputs(waves(1, 0), "vibrating_string", options).options["training"]["propagator_stages"]
    assert recorded == ((1, 100, 16, 1e-2), (FRAMES - 1, 50, 8, 1e-3))


def test_the_same_call_goes_on_and_another_is_refused(fitted, folder):
    before = (folder / "energy.npz").stat().st_mtime_ns
    for first, second in zip(leaves(fitted), leaves(again(folder=folder)), strict=True):
        np.testing.assert_array_equal(first, second)
    assert (folder / "energy.npz").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="seed is 0 there and 1 now"):
        again(folder=folder, seed=1)
    with pytest.raises(InputError, match="trajectories is"):
        fit(waves(1, 9), "vibrating_string", options=tiny_options(), folder=folder)
    with jax.default_prng_impl("rbg"), pytest.raises(InputError, match="JAX_DEFAULT_PRNG_IMPL is absent there and rbg"):
        again(folder=folder)


def test_learned_efforts_are_in_the_units_of_the_file(forecaster):
    inputs = read_inputs(waves(1, 0), "vibrating_string", tiny_options())
    for stiffness, part in zip(STIFFNESS, physical_efforts(forecaster, inputs), strict=True):
        inside = (part.x > 0.5 * part.data_range[0]) & (part.x < 0.5 * part.data_range[1])
        assert np.polyfit(part.x[inside], part.mean[inside], 1)[0] == pytest.approx(stiffness, rel=0.05)


def test_at_the_quantile_as_many_trajectories_are_covered_as_the_level_asks_for(forecaster):
    truth = CALIBRATION["state"]
    forecasts = forecasts_from(forecaster, truth[:, 0], 4, forecaster.setup.key("calibration"))
    scores = bands.band_scores(truth, forecasts, score_floor(forecaster))
    inside = np.abs(truth - forecasts.mean) <= (1 + 1e-6) * half_width(forecaster, forecasts)
    rank = conformal_rank(5, LEVEL)
    assert rank == 4 and inside.all(axis=(1, 2, 3)).sum() == rank
    assert np.sort(scores)[rank - 1] == pytest.approx(forecaster.calibration.quantile, rel=1e-6)


def check_forecast(made, state):
    """Begins at the state with a closed band, keeps the ends, and holds its mean."""
    for name in ("mean", "lower", "upper"):
        np.testing.assert_array_equal(getattr(made, name)[0], state)
        assert (getattr(made, name)[:, [0, -1], 0] == 0).all()
    assert (made.samples[:, 0] == state).all() and (made.samples[:, :, [0, -1], 0] == 0).all()
    assert (made.lower <= made.mean).all() and (made.mean <= made.upper).all()


def test_a_calibrated_band_is_centred_on_what_samples_are_drawn_around(forecaster):
    made = forecast(forecaster, STATE, num_samples=6)
    check_forecast(made, STATE)
    assert made.calibrated and made.level == LEVEL and made.samples.shape == (6, FRAMES, POINTS, 2)
    assert made.notes[0] == "the band rests on the first 4 samples drawn, as in calibration"
    assert (made.lower < made.upper)[1:, 1:-1].all()
    np.testing.assert_array_equal(made.time, waves(1, 0)["time"])
    np.testing.assert_allclose(made.mean, 0.5 * (made.lower + made.upper), rtol=1e-9, atol=1e-12)
    deviations, between = made.samples - made.mean, made.samples.std(axis=0)
    sizes, apart = (np.sqrt(np.mean(part**2, axis=(0, 1, 2))) for part in (made.mean[None], deviations))
    assert (apart < 0.5 * sizes).all() and (apart < 4 * np.sqrt(np.mean(between**2, axis=(0, 1)))).all()
    assert made.samples[:, 1:, 1:-1].std(0).min() > 0


def test_without_calibration_the_band_is_that_of_the_samples(fitted):
    made = forecast(replace(fitted, level=LEVEL), STATE, num_samples=9)
    check_forecast(made, STATE)
    assert not made.calibrated and "the band is not calibrated for 60 %" in made.notes[0]
    inside = ((made.lower <= made.samples) & (made.samples <= made.upper)).mean(axis=0)[1:, 1:-1]
    # five samples of nine are the central 60 %; the band is wider where the mean lies outside of them
    central = ((made.lower < made.mean) & (made.mean < made.upper))[1:, 1:-1]
    assert central.mean() > 0.1 and (np.abs(inside[central] - 5 / 9) < 1e-9).all() and (inside > 0.55).all()


def test_samples_do_not_depend_on_how_many_are_drawn(forecaster):
    few, many = (forecast(forecaster, STATE, count, seed=3) for count in (2, 7))
    np.testing.assert_array_equal(few.samples, many.samples[:2])
    np.testing.assert_array_equal(few.upper, many.upper)
    np.testing.assert_array_equal(few.mean, many.mean)
    other = forecast(forecaster, STATE, 2, seed=4)
    assert np.abs(other.samples[:, 1:] - few.samples[:, 1:]).max() > 0


def test_times_between_frames_are_interpolated(forecaster):
    time = waves(1, 0)["time"]
    wanted = np.sort(np.concatenate([time[[0, 4, 9, -1]], 0.5 * (time[4:5] + time[5:6])]))
    frames, between = forecast(forecaster, STATE), forecast(forecaster, STATE, times=wanted)
    assert "interpolated" in between.notes[0]
    np.testing.assert_array_equal(between.time, wanted)
    for name in ("mean", "lower", "upper"):
        found, expected = getattr(between, name), getattr(frames, name)
        np.testing.assert_allclose(found[[0, 1, 3, 4]], expected[[0, 4, 9, -1]], rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(found[0], STATE)
    width, ends = between.upper[2] - between.lower[2], (frames.upper - frames.lower)[[4, 5]]
    np.testing.assert_allclose(width, ends.mean(0), rtol=1e-9, atol=1e-12)


def test_noise_in_waves_shorter_than_the_trained_ones_is_not_told_to_the_learned_step(forecaster):
    initial = CALIBRATION["state"][:2, 0]
    noise = np.random.default_rng(0).normal(size=initial.shape) * 0.1 * initial.std(axis=(0, 1))
    short = noise - smoothest_part(forecaster.structure, noise, forecaster.setup.options["initial"]["modes"])
    assert np.abs(short).max() > 0.01 * np.abs(noise).max()
    clean, noisy = (
        forecasts_from(forecaster, state, 2, jax.random.key(3)).samples for state in (initial, initial + short)
    )
    np.testing.assert_allclose(noisy[:, :, 1:], clean[:, :, 1:], atol=1e-4 * np.abs(clean).max())
    np.testing.assert_array_equal(noisy[:, 0, 0], initial + short)


def test_the_verbs_need_no_settings_of_jax_and_leave_them(forecaster):
    made = forecast(forecaster, STATE)
    with jax.enable_x64(False):
        other = forecast(forecaster, STATE)
        assert not jax.config.jax_enable_x64
    np.testing.assert_array_equal(made.samples, other.samples)


def test_a_state_is_a_file_arrays_a_record_or_the_state_alone(forecaster, files):
    grid, time = waves(1, 2)["grid"], waves(1, 2)["time"][:3]
    made = forecast(forecaster, STATE, times=time)
    record = InitialState(STATE, (grid,), time)
    for state in (files / "state.npz", str(files / "state.npz"), {"state": STATE, "grid": grid}):
        np.testing.assert_array_equal(forecast(forecaster, state, times=time).samples, made.samples)
    np.testing.assert_array_equal(forecast(forecaster, record).samples, made.samples)


def test_the_report_shows_the_spread_of_the_samples_and_a_band_that_is_closed_at_the_start(
    forecaster, fitted, tmp_path, monkeypatch
):
    shown = {}
    monkeypatch.setattr(figures, "space_time_panel", lambda *given: shown.update(spread=given[-1]) or given[0])
    monkeypatch.setattr(figures, "forecast_lines", lambda path, time, truth, curve, labels: shown.update(curve=curve))
    inputs = read_inputs(waves(1, 0), "vibrating_string", tiny_options())
    for found in (forecaster, fitted):
        seen = forecasts_from(found, inputs.trajectories.state[:, 0], 4, jax.random.key(0))
        report_sections(tmp_path, Evaluation(inputs, found, seen))
        np.testing.assert_allclose(shown["spread"], seen.samples[0].std(axis=0, ddof=1), rtol=1e-12)
        curve = shown["curve"]
        np.testing.assert_array_equal(curve.lower[0], curve.mean[0])
        np.testing.assert_array_equal(curve.upper[0], curve.mean[0])
        assert (curve.upper > curve.lower)[1:].all()


# Saving and loading


@pytest.fixture(scope="module")
def saved(forecaster, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save(forecaster, folder)
    return folder


def test_what_is_loaded_forecasts_the_same(forecaster, saved):
    loaded = load(saved)
    for first, second in zip(leaves(forecaster), leaves(loaded), strict=True):
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)
    assert loaded.notes == forecaster.notes and loaded.setup == forecaster.setup
    assert loaded.energy.found == forecaster.energy.found and loaded.fitted.seconds == forecaster.fitted.seconds
    made, other = forecast(forecaster, STATE, 6), forecast(loaded, STATE, 6)
    np.testing.assert_array_equal(made.samples, other.samples)
    np.testing.assert_array_equal(made.upper, other.upper)
    # a fit may also be calibrated when it comes back
    assert conformalize(loaded, CALIBRATION, LEVEL).calibration.quantile == forecaster.calibration.quantile
    with np.load(saved / "forecaster" / "arrays.npz") as archive:
        assert "energy/factor" in archive.files and "generator/energy/factor" not in archive.files


def test_without_space_the_forecaster_that_was_there_stays(forecaster, fitted, tmp_path):
    save(fitted, tmp_path)
    with full_disk(1000), pytest.raises(RunFailed, match=r"arrays\.npz: cannot be written"):
        save(forecaster, tmp_path)
    assert not load(tmp_path).is_calibrated


COMPILED = """
import sys, jax, phdme_jax
seen = []
jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: seen.append("backend_compile" in name))
forecaster = phdme_jax.load(sys.argv[1])
loading = sum(seen)
phdme_jax.forecast(forecaster, sys.argv[2])
print(loading, sum(seen))
"""


@pytest.mark.slow
def test_loading_compiles_nothing_and_a_forecast_little(saved, files):
    """Beside a learned step, a mean and samples: boundary values, and the random keys."""
    command = [sys.executable, "-c", COMPILED, str(saved), str(files / "state.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loading, all_in_all = map(int, done.stdout.split())
    assert loading == 0 and all_in_all < 12


def test_a_forecaster_without_calibration_is_saved_too(fitted, tmp_path):
    save(fitted, tmp_path)
    assert not load(tmp_path).is_calibrated and not forecast(load(tmp_path), STATE).calibrated


def damage_arrays(folder: Path) -> None:
    content = bytearray((folder / "arrays.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "arrays.npz").write_bytes(content)


def edit_record(folder: Path, **changes) -> None:
    record = json.loads((folder / "forecaster.json").read_text())
    (folder / "forecaster.json").write_text(json.dumps(record | changes))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_arrays, "is damaged or was changed"),
        (lambda folder: (folder / "arrays.npz").unlink(), "arrays.npz: there is no such file"),
        (lambda folder: edit_record(folder, level=0.99), "is damaged or was changed"),
        (lambda folder: edit_record(folder, format=99), "has format 99, and this version reads format"),
        (lambda folder: (folder / "forecaster.json").write_text('{"format": 1'), "is damaged"),
        (lambda folder: (folder / "forecaster.json").write_text("[]"), "is damaged"),
        (lambda folder: (folder / "forecaster.json").unlink(), "holds no fitted forecaster"),
    ],
)
def test_damaged_forecasters_are_refused(damage, words, saved, tmp_path):
    shutil.copytree(saved / "forecaster", tmp_path / "forecaster")
    damage(tmp_path / "forecaster")
    with pytest.raises(InputError, match=words):
        load(tmp_path)


# Refusals


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grid": 2 * waves(1, 2)["grid"]}, "is not the grid of the fitted forecaster"),
        ({"state": STATE[:, :1]}, r"expected 2 \(momentum, strain\)"),
        ({"state": np.where(STATE > 0, np.inf, STATE)}, "not finite"),
        ({"state": STATE + 0.5 * np.abs(STATE).max()}, "fixed ends"),
        ({"time": [6.0, 7.0]}, "does not go beyond"),
        ({"time": [7.0, 8.0]}, "does not go beyond"),
        ({"times": [7.0]}, "did you mean 'time'"),
    ],
)
def test_bad_states_are_refused(changes, words, forecaster):
    with pytest.raises(InputError, match=words):
        forecast(forecaster, {"state": STATE, "grid": waves(1, 2)["grid"]} | changes)


def test_a_larger_state_than_any_seen_is_told(forecaster):
    assert "times as far from rest as the fit has seen" in forecast(forecaster, 20 * STATE).notes[0]


def test_a_forecast_that_goes_where_nothing_was_seen_is_told(forecaster):
    """From a state that does not: what the fit has seen is made larger and smaller than what the forecast reaches."""

    def told(excursion):
        other = replace(forecaster, observed=replace(forecaster.observed, excursion=excursion))
        return [note for note in forecast(other, STATE).notes if "as far from rest" in note]

    usual = forecast(forecaster, STATE)
    reach = np.abs(usual.mean - forecaster.observed.centre).max(axis=1)
    assert told(reach.max(axis=0)) == []
    begins = np.maximum(reach[0] / 1.2, 1e-12)
    small = np.where(reach.max(axis=0) > 1.3 * begins, begins, np.inf)
    (note,) = told(small)
    far = (reach / small).max(axis=1) > 1.25
    assert note.startswith(f"from t = {usual.time[np.argmax(far)]:.6g} on ")


@pytest.mark.slow
def test_a_string_that_is_stretched_beforehand_is_forecast_as_one_that_is_not(fitted, forecaster):
    strain = np.array([0.0, 50.0]) * waves(1, 0)["state"].std(axis=(0, 1, 2))

    def stretched(data):
        return data | {"state": data["state"] + strain}

    other = fit(stretched(waves(1, 0)), "vibrating_string", options=tiny_options())
    np.testing.assert_allclose(other.observed.centre, strain, rtol=1e-12)
    assert other.notes == fitted.notes
    np.testing.assert_allclose(score_floor(other), score_floor(fitted), rtol=0.02)
    other = conformalize(other, stretched(CALIBRATION), LEVEL)
    assert other.calibration.quantile == pytest.approx(forecaster.calibration.quantile, rel=0.02)
    made, plain = forecast(other, STATE + strain), forecast(forecaster, STATE)
    # that of the energy alone too
    rolled, alone = (
        energy_forecasts(*pair).mean for pair in ((other, STATE[None] + strain), (forecaster, STATE[None]))
    )
    width = (plain.upper - plain.lower).mean(axis=(0, 1))
    np.testing.assert_allclose((made.upper - made.lower).mean(axis=(0, 1)), width, rtol=0.02)
    assert (np.abs(made.mean - strain - plain.mean) < 0.02 * width).all()
    assert (np.abs(rolled - strain - alone) < 1e-3 * CALIBRATION["state"].std(axis=(0, 1, 2))).all()
    assert made.notes == plain.notes and "from rest" in forecast(other, STATE).notes[0]


@pytest.mark.parametrize(
    ("trajectories", "level", "words"),
    [
        (CALIBRATION | {"grid": 2 * CALIBRATION["grid"]}, LEVEL, "its grid has 12 points from 0 to 1.3; expected that"),
        (CALIBRATION | {"time": CALIBRATION["time"] - 7}, LEVEL, "expected the same times"),
        (CALIBRATION | {"state": waves(1, 0)["state"][[0] * 5]}, LEVEL, "expected trajectories that trained nothing"),
        (CALIBRATION, 1.5, "strictly between 0 and 1, got 1.5"),
        (CALIBRATION, 0.9, "5 calibration trajectories are too few for a level of 0.9, which takes at least 9"),
    ],
)
def test_bad_calibration_is_refused(trajectories, level, words, fitted):
    with pytest.raises(InputError, match=words):
        conformalize(fitted, trajectories, level)
