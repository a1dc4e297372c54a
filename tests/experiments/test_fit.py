"""Fit and forecast: units, initial states, refusals with exit code 2, and a tiny fit from file to forecast."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import evaluation, fit, fit_report, forecast
from experiments.files import InputError
from experiments.fit_inputs import (
    STRUCTURES,
    draw_initial_states,
    mode_matrix,
    read_inputs,
    rest_stiffness,
    stencil_order,
    string_units,
)
from experiments.results import read_rows
from experiments.saved import load_forecaster, save_forecaster
from phdme_jax.calibration import conformal_rank
from phdme_jax.systems.vibrating_string import KELVIN_VOIGT, VISCOUS, string_structure

LENGTH, SPEED, POINTS, FRAMES = 0.65, 310.0, 12, 14
STIFFNESS = (0.25, 4 * SPEED**2)  # momentum is not a velocity here: kappa_p is not one
TINY = (
    "--size=smoke", "--level=0.6", "--config.physics.residual_weight=0", "--config.prior.main=4",
    "--config.prior.time_tests=10", "--config.prior.space_tests=8", "--config.rollouts.count=16",
    "--config.network.propagator.width=8", "--config.network.unet.multipliers=1", "--config.sampling.num_samples=4",
    "--config.sampling.num_steps=2",
)  # fmt: skip


def waves(count: int, seed: int, time: np.ndarray | None = None, points: int = POINTS) -> dict[str, np.ndarray]:
    """Exact standing waves of a linear string with p_t = kappa_q q_z, q_t = kappa_p p_z and fixed ends."""
    random = np.random.default_rng(seed)
    if time is None:
        time = 7.0 + np.linspace(0, 1.0 * LENGTH / SPEED, FRAMES)
    grid = np.linspace(0, LENGTH, points)
    mode = np.arange(1, 4)[:, None, None]
    amplitude, phase = 1e-3 * random.normal(size=(count, 3, 1, 1)) / mode**2, random.uniform(0, 6.28, (count, 3, 1, 1))
    space, clock = mode * np.pi / LENGTH * grid, SPEED * mode * np.pi / LENGTH * (time[:, None] - time[0]) + phase
    # with s the deflection: q = s_z and kappa_p p = s_t
    strain = amplitude * mode * np.pi / LENGTH * np.cos(space) * np.cos(clock)
    momentum = -amplitude * SPEED * mode * np.pi / LENGTH * np.sin(space) * np.sin(clock) / STIFFNESS[0]
    state = np.stack([momentum.sum(1), strain.sum(1)], axis=-1)
    state[:, :, [0, -1], 0] = 0.0
    return {"state": state, "time": time, "grid": grid}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    np.savez(folder / "data.npz", **waves(1, 0))
    np.savez(folder / "calibration.npz", **waves(5, 1))
    fresh = waves(1, 2)
    np.savez(folder / "state.npz", state=fresh["state"][0, 0], grid=fresh["grid"])
    return folder


@pytest.fixture(scope="module")
def fitted(files, tmp_path_factory) -> Path:
    """Run folder of a finished, calibrated fit."""
    run = tmp_path_factory.mktemp("runs") / "run"
    assert fit.main(fit_arguments(files, run, "--calibration", str(files / "calibration.npz"))) == 0
    return run


def fit_arguments(files: Path, run: Path, *more: str, data: str = "data.npz") -> list[str]:
    return ["--data", str(files / data), "--structure", "vibrating_string", "--workdir", str(run), *TINY, *more]


def forecast_arguments(files: Path, run: Path, out: Path, *more: str, state: str = "state.npz") -> list[str]:
    return ["--run", str(run), "--initial", str(files / state), "--out", str(out), *more]


def sentence(capsys) -> str:
    """The one sentence of a refusal."""
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "Traceback" not in error
    return error


# Units and initial states


def test_rest_stiffness_of_exact_waves_in_any_units():
    data = waves(2, 3, points=40)
    structure = string_structure(40, LENGTH, 8)
    found = rest_stiffness(structure, data["state"], data["time"])
    np.testing.assert_allclose(found, STIFFNESS, rtol=1e-3)
    noise = 0.01 * data["state"].std((0, 1, 2)) * np.random.default_rng(0).normal(size=data["state"].shape)
    np.testing.assert_allclose(rest_stiffness(structure, data["state"] + noise, data["time"]), STIFFNESS, rtol=0.05)


def test_internal_dynamics_are_the_physical_ones():
    """The internal structure with internal efforts and parameters gives the internal rates, damping included."""
    random = np.random.default_rng(4)
    state = random.normal(size=(POINTS, 2)) * [3.0, 0.01]
    damping = {KELVIN_VOIGT: 0.7, VISCOUS: 11.0}
    physical = string_structure(POINTS, LENGTH, 4, damping=tuple(damping))
    internal = string_structure(POINTS, 10.0, 4, damping=tuple(damping))
    units = string_units(np.asarray(STIFFNESS), np.abs(state).max(0), LENGTH, 0.0)
    known = STRUCTURES["vibrating_string"]
    scale, energy = np.asarray(units.fields), known.energy_unit(units)
    efforts = state * STIFFNESS + 0.1 * state**3
    rates = physical.flow(jnp.asarray(efforts), {name: jnp.asarray(value) for name, value in damping.items()})
    inside = {name: jnp.asarray(value / known.parameter_units(units)[name]) for name, value in damping.items()}
    inner = internal.flow(jnp.asarray(efforts * scale / energy), inside)
    np.testing.assert_allclose(np.asarray(inner) * scale / units.time, rates, rtol=1e-10)
    # stiffnesses one, largest excursion 0.6
    np.testing.assert_allclose(np.asarray(STIFFNESS) * scale**2 / energy, 1.0, rtol=1e-12)
    assert np.abs(state / scale).max() == pytest.approx(0.6)


def test_initial_states_have_the_covariance_of_the_frames():
    structure = string_structure(POINTS, 10.0, 4)
    frames = waves(2, 5)["state"]
    frames = frames / np.abs(frames).max((0, 1, 2))
    options = {"modes": 6, "amplitude": (1.0, 1.0)}
    drawn = draw_initial_states(
        structure, frames, 40000, jax.random.key(0), shrinkage=0.0, frame_share=0.0, **options
    ).reshape(40000, -1)
    flat = frames.reshape(-1, frames.shape[2] * 2)
    np.testing.assert_allclose(drawn.T @ drawn / len(drawn), flat.T @ flat / len(flat), atol=0.012)
    # with full shrinkage modes are independent: momentum and strain no longer move together
    alone = draw_initial_states(structure, frames, 40000, jax.random.key(1), shrinkage=1.0, frame_share=0.0, **options)
    amplitudes = [alone[..., f] @ np.linalg.pinv(mode_matrix(p, POINTS, 6)).T for f, p in enumerate(structure.parity)]
    correlation = np.corrcoef(np.concatenate([amplitudes[0][:, :3], amplitudes[1][:, 1:4]], axis=1).T)
    assert np.abs(correlation - np.eye(6)).max() < 0.03
    assert (alone[:, [0, -1], 0] == 0).all()


def test_initial_states_may_be_scaled_frames():
    structure = string_structure(POINTS, 10.0, 4)
    frames = waves(2, 5)["state"]
    drawn = draw_initial_states(
        structure, frames, 50, jax.random.key(0), modes=8, shrinkage=0.5, frame_share=1.0, amplitude=(0.5, 1.2)
    ).reshape(50, -1)
    flat = frames.reshape(-1, drawn.shape[1])
    factors = drawn @ flat.T / (flat**2).sum(1)
    misfit = np.abs(drawn[:, None] - factors[..., None] * flat).max(-1)
    best = misfit.argmin(1)
    assert misfit.min(1).max() < 1e-9 * np.abs(flat).max()
    used = factors[np.arange(50), best]
    assert 0.5 <= used.min() < 0.6 and 1.1 < used.max() <= 1.2


@pytest.mark.parametrize(("points", "order"), [(64, 8), (17, 8), (16, 6), (13, 6), (12, 4), (9, 4), (8, 2), (5, 2)])
def test_stencil_order_falls_with_the_grid(points, order):
    orders = STRUCTURES["vibrating_string"].orders
    assert stencil_order(8, "mirror", points, orders) == order
    assert stencil_order(2, "mirror", points, orders) == 2
    assert stencil_order(8, "sbp", points, orders) == min(order, 4)


# Refusals of fit


def change(files: Path, name: str, source: str = "data.npz", **arrays) -> str:
    """A copy of a file with some arrays changed; a function is applied to the array."""
    with np.load(files / source) as archive:
        kept = {key: archive[key] for key in archive.files}
    kept |= {key: value(kept[key].copy()) if callable(value) else value for key, value in arrays.items()}
    np.savez(files / name, **kept)
    return name


def nan_at_one_place(state):
    state[0, 2, 3, 1] = np.nan
    return state


def moving_ends(state):
    state[..., 0, 0] = state[..., 5, 0]
    return state


BAD_DATA = {
    "nan": ({"state": nan_at_one_place}, "state holds nan at sample 0, time index 2, grid index 3, field strain"),
    "rank": ({"state": lambda state: state[0]}, "try state[None]"),
    "unsorted": ({"time": lambda time: time[::-1]}, "time does not increase strictly"),
    "one frame": ({"state": lambda s: s[:, :1], "time": lambda t: t[:1]}, "at least two frames"),
    "uneven grid": ({"grid": lambda grid: grid**2}, "not evenly spaced"),
    "shifted grid": ({"grid": lambda grid: grid + 1}, "expected 0 at the first end"),
    "few points": ({"state": lambda s: s[:, :, :7], "grid": lambda g: g[:7]}, "expected at least 8"),
    "uneven time": ({"time": lambda t: t[0] + (t - t[0]) ** 1.5}, "--method phdme_rollout"),
    "moving ends": ({"state": moving_ends}, "fixed ends"),
    "still": ({"state": lambda state: state * [0.0, 1.0]}, "momentum is zero everywhere"),
    "sign": ({"state": lambda state: state * [1.0, -1.0]}, "check the order of the fields, their signs and the units"),
    "input": ({"input": lambda _: np.ones((1, FRAMES, 1))}, "leave input out"),
}


@pytest.mark.parametrize("defect", BAD_DATA)
def test_bad_data_are_refused(defect, files, tmp_path, capsys):
    arrays, words = BAD_DATA[defect]
    arrays = {key: value(None) if key == "input" else value for key, value in arrays.items()}
    data = change(files, f"{defect}.npz", **arrays)
    assert fit.main(fit_arguments(files, tmp_path / "run", data=data)) == 2
    assert words in sentence(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--level", "1.5"), "a level strictly between 0 and 1, got 1.5"),
        (("--structure", "drum"), "unknown structure 'drum'; fit knows vibrating_string"),
        (("--method", "magic"), "fit has phdme, phdme_rollout"),
        (("--size", "huge"), "smoke, laptop, accelerator"),
        (("--seed", "-1"), "whole number of at least 0"),
        (("--speed", "9"), "unknown argument '--speed'"),
        (("--config.prior.mian=3",), "did you mean prior.main?"),
        (("--config.structure.closure=glue",), "expected a closure among"),
        (("--config.structure.damping=glue",), "expected damping among"),
        (("--config.rollouts.count=900000000",), "expected at most 8 GB"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(more, words, files, tmp_path, capsys):
    assert fit.main(fit_arguments(files, tmp_path / "run", *more)) == 2
    assert words in sentence(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"grid": lambda grid: 2 * grid}, "its grid has 12 points from 0 to 1.3; expected that of the data"),
        ({"time": lambda time: time - 7}, "expected the same times"),
        ({"state": lambda state: waves(1, 0)["state"][[0, 0, 0, 0, 0]]}, "expected trajectories that trained nothing"),
    ],
)
def test_bad_calibration_files_are_refused(arrays, words, files, tmp_path, capsys):
    name = change(files, "bad.npz", "calibration.npz", **arrays)
    assert fit.main(fit_arguments(files, tmp_path / "run", "--calibration", str(files / name))) == 2
    assert words in sentence(capsys)
    assert not (tmp_path / "run").exists()


def test_a_cut_off_file_ends_the_process_with_code_2(files, tmp_path):
    (files / "cut.npz").write_bytes((files / "data.npz").read_bytes()[:500])
    command = [sys.executable, "-m", "experiments.fit", *fit_arguments(files, tmp_path / "run", data="cut.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "the archive is cut off" in done.stderr
    assert not (tmp_path / "run").exists()


def test_ends_that_move_a_little_are_set_to_zero_and_told(files):
    def shaken(state):
        state[..., 0, 0] = 0.15 * state[..., :, 0].std()
        return state

    name = change(files, "shaken.npz", state=shaken)
    options = {"order": 4, "closure": "mirror", "damping": ()}
    inputs = read_inputs("vibrating_string", files / name, None, "phdme", options)
    assert (inputs.observed.state[:, :, [0, -1], 0] == 0).all()
    assert len(inputs.notes) == 1 and "momentum at the ends" in inputs.notes[0]
    with pytest.raises(InputError, match="fixed ends"):
        read_inputs("vibrating_string", files / change(files, "torn.npz", state=moving_ends), None, "phdme", options)


# A fit


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
        # the centre of the band is the mean of as many samples as calibration used
        np.testing.assert_allclose(made["mean"], made["samples"][:4].mean(0), rtol=1e-9, atol=1e-12)
        assert made["samples"][:, 1:, 1:-1].std(0).min() > 0


def test_the_loaded_forecaster_covers_as_it_was_calibrated(fitted, files):
    """At the quantile, k of the n calibration trajectories lie inside the band that the forecast command would draw."""
    forecaster = load_forecaster(fitted)
    with np.load(files / "calibration.npz") as archive:
        truth = archive["state"]
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(11), 0), 5)
    forecasts = forecast.as_forecasts(forecast.draw(forecaster, truth[:, 0], 4, key), 0.0)
    scores = evaluation.band_scores(truth, forecasts, forecaster.calibration.floor)
    inside = np.abs(truth - forecasts.mean) <= (1 + 1e-6) * forecast.half_width(forecaster, forecasts)
    rank = conformal_rank(5, 0.6)
    assert rank == 4 and inside.all(axis=(1, 2, 3)).sum() == rank
    assert np.sort(scores)[rank - 1] == pytest.approx(forecaster.calibration.quantile, rel=1e-6)


def test_samples_do_not_depend_on_how_many_are_drawn(fitted, files):
    forecaster, key = load_forecaster(fitted), jax.random.key(3)
    with np.load(files / "state.npz") as archive:
        state = archive["state"]
    few, _ = forecast.make_forecast(forecaster, state, 2, key)
    many, _ = forecast.make_forecast(forecaster, state, 7, key)
    np.testing.assert_array_equal(few.samples, many.samples[:2])
    np.testing.assert_array_equal(few.upper, many.upper)
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
    calibration = ("--calibration", str(files / "calibration.npz"))
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
        inside = (made["lower"] <= made["samples"]) & (made["samples"] <= made["upper"])
        assert inside[:, 1:, 1:-1].mean() == pytest.approx(0.6, abs=0.12)


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
        (lambda folder: edit_record(folder, format=99), "has format 99, and this version reads format 1"),
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
