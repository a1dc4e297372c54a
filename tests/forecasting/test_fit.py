"""A tiny fit from file to forecast: the run folder, the forecaster, and what a forecast refuses."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.evaluation import forecasts as evaluation
from phdme_jax.app import fit_page as fit_report
from phdme_jax.app.rows import read_rows
from phdme_jax.calibration import conformal_rank
from phdme_jax.files import InputError
from phdme_jax.forecasting import fit, forecast
from phdme_jax.forecasting.inputs import read_inputs, smoothest_part
from phdme_jax.forecasting.saved import load_forecaster, save_forecaster
from phdme_jax.systems.energy.vibrating_string import KELVIN_VOIGT, VISCOUS
from tests.forecasting.string_files import (
    FRAMES,
    LENGTH,
    POINTS,
    SPEED,
    STIFFNESS,
    change,
    fit_arguments,
    forecast_arguments,
    sentence,
    waves,
)


@pytest.fixture(scope="module")
def fitted(files, tmp_path_factory) -> Path:
    """Run folder of a finished, calibrated fit."""
    run = tmp_path_factory.mktemp("runs") / "run"
    extra = ("--calibration", str(files / "calibration.npz"), "--config.check_structure=true")
    assert fit.main(fit_arguments(files, run, *extra)) == 0
    return run


def test_data_of_the_structure_raise_no_doubt_about_it(fitted):
    assert "the data ask for" not in (fitted / "report.html").read_text()


def test_the_run_folder_is_complete(fitted):
    rows = {(row.method, row.split, row.metric): row.value for row in read_rows(fitted / "results.jsonl")}
    assert (fitted / "report.html").stat().st_size > 50_000
    assert {row[0] for row in rows} == {"phdme", "gp_rollout"} and {row[1] for row in rows} == {"train", "calibration"}
    # the linear string is easy: its energy alone forecasts unseen waves
    assert rows["gp_rollout", "calibration", "nmse"] < 0.02
    assert rows["phdme", "calibration", "band_width"] > 0


def test_learned_efforts_are_in_the_units_of_the_file(fitted, files):
    inputs = read_inputs(
        "vibrating_string", files / "data.npz", None, "phdme",
        {"order": 8, "closure": "mirror", "damping": (KELVIN_VOIGT, VISCOUS)},
    )  # fmt: skip
    part = fit_report.Fitted(inputs, load_forecaster(fitted), 0.0, None, None, None)
    for stiffness, piece in zip(STIFFNESS, fit_report.physical_efforts(part), strict=True):
        inside = (piece.x > 0.5 * piece.data_range[0]) & (piece.x < 0.5 * piece.data_range[1])
        slope = np.polyfit(piece.x[inside], piece.mean[inside], 1)[0]
        assert slope == pytest.approx(stiffness, rel=0.05)


def test_forecast_starts_at_the_state_and_keeps_the_ends(fitted, files, tmp_path, capsys):
    out = tmp_path / "forecast.npz"
    assert forecast.main(forecast_arguments(files, fitted, out, "--samples", "6")) == 0
    assert "calibrated 60 % band" in capsys.readouterr().out
    with np.load(out) as made, np.load(files / "state.npz") as state, np.load(files / "data.npz") as data:
        assert made["samples"].shape == (6, FRAMES, POINTS, 2)
        for name in ("mean", "lower", "upper"):
            np.testing.assert_array_equal(made[name][0], state["state"])
            assert (made[name][:, [0, -1], 0] == 0).all()
        assert (made["samples"][:, 0] == state["state"]).all()
        assert (made["samples"][:, :, [0, -1], 0] == 0).all()
        assert (made["lower"] <= made["mean"]).all() and (made["mean"] <= made["upper"]).all()
        assert (made["lower"] < made["upper"])[1:, 1:-1].all()
        np.testing.assert_array_equal(made["time"], data["time"])
        np.testing.assert_array_equal(made["grid"], data["grid"])
        assert bool(made["calibrated"]) and float(made["level"]) == 0.6
        # the centre of the band is what samples are drawn around
        np.testing.assert_allclose(made["mean"], 0.5 * (made["lower"] + made["upper"]), rtol=1e-9, atol=1e-12)
        deviations = made["samples"] - made["mean"]
        sizes, apart = (np.sqrt(np.mean(part**2, axis=(0, 1, 2))) for part in (made["mean"][None], deviations))
        between = made["samples"].std(axis=0)
        assert (apart < 0.5 * sizes).all() and (apart < 4 * np.sqrt(np.mean(between**2, axis=(0, 1)))).all()
        assert made["samples"][:, 1:, 1:-1].std(0).min() > 0


def test_the_loaded_forecaster_covers_as_it_was_calibrated(fitted, files):
    """At the quantile, k of the n calibration trajectories lie inside the band that the forecast command would draw."""
    forecaster = load_forecaster(fitted)
    with np.load(files / "calibration.npz") as archive:
        truth = archive["state"]
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(11), 0), 5)
    mean, samples = forecast.centre(forecaster, truth[:, 0]), forecast.draw(forecaster, truth[:, 0], 4, key)
    forecasts = forecast.as_forecasts(mean, samples, 0.0)
    scores = evaluation.band_scores(truth, forecasts, forecaster.calibration.floor)
    inside = np.abs(truth - forecasts.mean) <= (1 + 1e-6) * forecast.half_width(forecaster, forecasts)
    rank = conformal_rank(5, 0.6)
    assert rank == 4 and inside.all(axis=(1, 2, 3)).sum() == rank
    assert np.sort(scores)[rank - 1] == pytest.approx(forecaster.calibration.quantile, rel=1e-6)


def test_noise_in_waves_shorter_than_the_trained_ones_is_not_told_to_the_learned_step(fitted, files):
    forecaster = load_forecaster(fitted)
    with np.load(files / "calibration.npz") as archive:
        initial = archive["state"][:2, 0]
    noise = np.random.default_rng(0).normal(size=initial.shape) * 0.1 * initial.std(axis=(0, 1))
    short = noise - smoothest_part(forecaster.structure, noise, forecaster.modes)
    assert np.abs(short).max() > 0.01 * np.abs(noise).max()
    clean, noisy = (forecast.draw(forecaster, state, 2, jax.random.key(3)) for state in (initial, initial + short))
    np.testing.assert_allclose(noisy[:, :, 1:], clean[:, :, 1:], atol=1e-4 * np.abs(clean).max())
    np.testing.assert_array_equal(noisy[:, 0, 0], initial + short)


def test_samples_do_not_depend_on_how_many_are_drawn(fitted, files):
    forecaster, key = load_forecaster(fitted), jax.random.key(3)
    with np.load(files / "state.npz") as archive:
        state = archive["state"]
    few, _ = forecast.make_forecast(forecaster, state, 2, key)
    many, _ = forecast.make_forecast(forecaster, state, 7, key)
    np.testing.assert_array_equal(few.samples, many.samples[:2])
    np.testing.assert_array_equal(few.upper, many.upper)
    np.testing.assert_array_equal(few.mean, many.mean)
    other, _ = forecast.make_forecast(forecaster, state, 2, jax.random.key(4))
    assert np.abs(other.samples[:, 1:] - few.samples[:, 1:]).max() > 0


def test_times_between_frames_are_interpolated(fitted, files, tmp_path, capsys):
    time = waves(1, 0)["time"]
    wanted = np.sort(np.concatenate([time[[0, 4, 9, -1]], 0.5 * (time[4:5] + time[5:6])]))
    name = change(files, "wanted.npz", "state.npz", time=wanted)
    for state, out in (("state.npz", "frames.npz"), (name, "between.npz")):
        assert forecast.main(forecast_arguments(files, fitted, tmp_path / out, state=state)) == 0
    assert "interpolated" in capsys.readouterr().out
    with np.load(tmp_path / "frames.npz") as frames, np.load(tmp_path / "between.npz") as between:
        np.testing.assert_array_equal(between["time"], wanted)
        for key in ("mean", "lower", "upper"):
            np.testing.assert_allclose(between[key][[0, 1, 3, 4]], frames[key][[0, 4, 9, -1]], rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(between["mean"][0], frames["mean"][0])
        width, ends = between["upper"][2] - between["lower"][2], (frames["upper"] - frames["lower"])[[4, 5]]
        np.testing.assert_allclose(width, ends.mean(0), rtol=1e-9, atol=1e-12)


def test_the_same_command_goes_on_and_others_are_refused(fitted, files, capsys):
    before = (fitted / "results.jsonl").read_bytes(), (fitted / "forecaster" / "forecaster.json").stat().st_mtime_ns
    calibration = ("--calibration", str(files / "calibration.npz"), "--config.check_structure=true")
    assert fit.main(fit_arguments(files, fitted, *calibration)) == 0
    assert "calibrated: bands of 60 % on 5 trajectories" in capsys.readouterr().out
    after = (fitted / "results.jsonl").read_bytes(), (fitted / "forecaster" / "forecaster.json").stat().st_mtime_ns
    assert before == after
    other = change(files, "other.npz", state=lambda state: 2 * state)
    for arguments, words in (
        (fit_arguments(files, fitted, *calibration, "--seed", "1"), "seed is 0 there and 1 now"),
        (fit_arguments(files, fitted), "files.calibration"),
        (fit_arguments(files, fitted, *calibration, data=other), "files.data"),
    ):
        assert fit.main(arguments) == 2
        assert words in sentence(capsys)


def test_without_enough_calibration_the_band_is_that_of_the_samples(fitted, files, tmp_path, capsys):
    save_forecaster(tmp_path, dataclasses.replace(load_forecaster(fitted), calibration=None))
    assert forecast.main(forecast_arguments(files, tmp_path, tmp_path / "forecast.npz", "--samples", "9")) == 0
    assert "the band is not calibrated for 60 %" in capsys.readouterr().out
    with np.load(tmp_path / "forecast.npz") as made:
        assert not made["calibrated"]
        assert (made["lower"] <= made["mean"]).all() and (made["mean"] <= made["upper"]).all()
        inside = ((made["lower"] <= made["samples"]) & (made["samples"] <= made["upper"])).mean(axis=0)[1:, 1:-1]
        # five samples of nine are the central 60 %; the band is wider where the mean lies outside of them
        central = ((made["lower"] < made["mean"]) & (made["mean"] < made["upper"]))[1:, 1:-1]
        assert central.mean() > 0.1 and (np.abs(inside[central] - 5 / 9) < 1e-9).all() and (inside > 0.55).all()


def test_few_points_and_uneven_times_are_read(files):
    time = 0.1 * LENGTH / SPEED * np.array([0.0, 0.7, 2.0, 2.9, 4.0, 5.3])
    np.savez(files / "eight.npz", **waves(2, 6, time, 8))
    options = {"order": 8, "closure": "mirror", "damping": (KELVIN_VOIGT,)}
    inputs = read_inputs("vibrating_string", files / "eight.npz", None, "phdme_rollout", options)
    assert inputs.options["order"] == 2 and inputs.structure.grid.points == (8,)
    assert "8 grid points allow stencils of order 2" in inputs.notes[0]
    np.testing.assert_allclose(np.asarray(inputs.units.frames(time)) * inputs.units.time, time, rtol=1e-12)
    with pytest.raises(InputError, match="--method phdme_rollout"):
        read_inputs("vibrating_string", files / "eight.npz", None, "phdme", options)


@pytest.mark.slow
def test_few_points_uneven_times_and_too_little_calibration(files, tmp_path, capsys):
    """Eight points, uneven times, one trajectory, rollout-conditioned; the command says what it could not calibrate."""
    time = 0.1 * LENGTH / SPEED * np.array([0.0, 0.7, 2.0, 2.9, 4.0, 5.3])
    np.savez(files / "small.npz", **waves(1, 6, time, 8))
    np.savez(files / "one.npz", **waves(1, 7, time, 8))
    np.savez(files / "small_state.npz", state=waves(1, 8, time, 8)["state"][0, 0], grid=waves(1, 8, time, 8)["grid"])
    run = tmp_path / "run"
    more = ("--method", "phdme_rollout", "--calibration", str(files / "one.npz"))
    assert fit.main(fit_arguments(files, run, *more, data="small.npz")) == 0
    printed = capsys.readouterr().out
    assert "8 grid points allow stencils of order 2" in printed
    assert "not calibrated: 1 calibration trajectories are too few for 60 %, which takes at least 2" in printed
    out = tmp_path / "forecast.npz"
    assert forecast.main(forecast_arguments(files, run, out, state="small_state.npz")) == 0
    with np.load(out) as made:
        assert not made["calibrated"] and made["mean"].shape == (6, 8, 2)
        np.testing.assert_array_equal(made["time"], time)
        assert (made["samples"][:, :, [0, -1], 0] == 0).all()


# Refusals of forecast


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"grid": lambda grid: 2 * grid}, "is not the grid of the fitted forecaster"),
        ({"state": lambda state: state[:, :1]}, "expected 2 (momentum, strain)"),
        ({"state": lambda state: np.where(state > 0, np.inf, state)}, "not finite"),
        ({"state": lambda state: state + 0.5 * np.abs(state).max()}, "fixed ends"),
        ({"time": lambda _: np.array([6.0, 7.0])}, "does not go beyond"),
        ({"time": lambda _: np.array([7.0, 8.0])}, "does not go beyond"),
    ],
)
def test_bad_states_are_refused(arrays, words, fitted, files, tmp_path, capsys):
    arrays = {key: value(None) if key == "time" else value for key, value in arrays.items()}
    name = change(files, "bad_state.npz", "state.npz", **arrays)
    assert forecast.main(forecast_arguments(files, fitted, tmp_path / "out.npz", state=name)) == 2
    assert words in sentence(capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_larger_state_than_any_seen_is_told(fitted, files, tmp_path, capsys):
    name = change(files, "large.npz", "state.npz", state=lambda state: 20 * state)
    code = forecast.main(forecast_arguments(files, fitted, tmp_path / "out.npz", state=name))
    assert code == 0 and "times the largest value the fit has seen" in capsys.readouterr().out


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
        (lambda folder: (folder / "arrays.npz").unlink(), "arrays.npz: cannot be read"),
        (lambda folder: edit_record(folder, level=0.99), "is damaged or was changed"),
        (lambda folder: edit_record(folder, format=99), "has format 99, and this version reads format"),
        (lambda folder: (folder / "forecaster.json").write_text('{"format": 1'), "is damaged"),
        (lambda folder: (folder / "forecaster.json").write_text("[]"), "is damaged"),
        (lambda folder: (folder / "forecaster.json").unlink(), "holds no fitted forecaster"),
    ],
)  # fmt: skip
def test_damaged_forecasters_are_refused(damage, words, fitted, files, tmp_path, capsys):
    shutil.copytree(fitted / "forecaster", tmp_path / "forecaster")
    damage(tmp_path / "forecaster")
    assert forecast.main(forecast_arguments(files, tmp_path, tmp_path / "out.npz")) == 2
    assert words in sentence(capsys)
    assert not (tmp_path / "out.npz").exists()


def test_forecast_refuses_bad_arguments(files, tmp_path, capsys):
    """Nothing needs a fitted forecaster here: arguments are read first."""
    out = tmp_path / "out.npz"
    for more, words in (
        (("--samples", "none"), "expected a whole number of at least 1, got 'none'"),
        (("--samples", "0"), "expected a whole number of at least 1, got '0'"),
        (("--smaples", "3"), "unrecognized arguments: --smaples"),
        (("--out", str(tmp_path)), "is a folder"),
        ((), "holds no fitted forecaster; expected the --workdir of python -m experiments.fit"),
    ):
        assert forecast.main(forecast_arguments(files, tmp_path, out, *more)) == 2
        assert words in sentence(capsys)
    assert list(tmp_path.iterdir()) == []
