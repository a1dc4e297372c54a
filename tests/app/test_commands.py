"""`phdme fit` and `phdme forecast` from file to forecast: the run folder, what they print, what they refuse."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from phdme_jax import __version__, load
from phdme_jax.app import fit_command, forecast_command
from phdme_jax.app.main import main
from phdme_jax.app.rows import read_rows
from tests.forecasting.string_files import (
    FRAMES,
    LENGTH,
    POINTS,
    SPEED,
    change,
    fit_arguments,
    forecast_arguments,
    sentence,
    waves,
)


@pytest.fixture(scope="module")
def run(files, tiny_fit, tmp_path_factory) -> Path:
    """Run folder of a finished, calibrated fit, which the command took over where Python left it."""
    run = tmp_path_factory.mktemp("runs") / "run"
    shutil.copytree(tiny_fit, run / "fit")
    began = (run / "fit" / "energy.npz").stat().st_mtime_ns
    assert main(["fit", *fit_arguments(files, run, "--calibration", str(files / "calibration.npz"))]) == 0
    assert (run / "fit" / "energy.npz").stat().st_mtime_ns == began
    return run


def test_the_run_folder_is_complete(run):
    rows = {(row.method, row.split, row.metric): row.value for row in read_rows(run / "results.jsonl")}
    assert (run / "report.html").stat().st_size > 50_000
    assert {row[0] for row in rows} == {"phdme", "gp_rollout"} and {row[1] for row in rows} == {"train", "calibration"}
    # the linear string is easy: its energy alone forecasts unseen waves
    assert rows["gp_rollout", "calibration", "nmse"] < 0.02
    assert rows["phdme", "calibration", "band_width"] > 0
    config = json.loads((run / "config.json").read_text())
    assert config["config"]["structure"]["order"] == 4 and config["level"] == 0.6


def test_the_same_command_ends_with_its_headline_and_others_are_refused(run, files, capsys):
    kept = [run / "results.jsonl", run / "forecaster" / "forecaster.json", run / "forecaster" / "arrays.npz"]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in kept]
    calibration = ("--calibration", str(files / "calibration.npz"))
    assert main(["fit", *fit_arguments(files, run, *calibration)]) == 0
    assert before == [(path.read_bytes(), path.stat().st_mtime_ns) for path in kept]
    printed = capsys.readouterr().out
    lines = printed.split("\n\n")[1].strip().split("\n")
    assert 3 <= len(lines) <= 6 and lines[0].startswith("Learned the energy of vibrating_string from 1 trajectory")
    rows = {(row.method, row.metric): row.value for row in read_rows(run / "results.jsonl") if row.split != "train"}
    for method in ("phdme", "gp_rollout"):
        assert f"{rows[method, 'nmse']:.3g}" in lines[1]
    held = f"they held {100 * rows['phdme', 'coverage_half_split']:.0f} % of the other"
    assert "Calibrated: bands of 60 % on 5 trajectories" in lines[2] and held in lines[2]
    assert f"report: {run / 'report.html'}" in lines[-1]
    other = change(files, "other.npz", state=lambda state: 2 * state)
    for arguments, words in (
        (fit_arguments(files, run, *calibration, "--seed", "1"), "seed is 0 there and 1 now"),
        (fit_arguments(files, run), "files.calibration"),
        (fit_arguments(files, run, *calibration, data=other), "files.data"),
    ):
        assert main(["fit", *arguments]) == 2
        assert words in sentence(capsys)


def test_lost_numbers_are_told_and_made_anew_only_when_removed(run, files, tmp_path, capsys, monkeypatch):
    copy = shutil.copytree(run, tmp_path / "run")
    arguments = ["fit", *fit_arguments(files, copy, "--calibration", str(files / "calibration.npz"))]
    (copy / "results.jsonl").write_bytes(b"")
    assert main(arguments) == 2
    assert "has lost rows that were written to it" in sentence(capsys) and (copy / "results.jsonl").read_bytes() == b""
    (copy / "results.jsonl").unlink()

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(fit_command, "record_rows", interrupted)
    monkeypatch.setattr(fit_command, "_run", lambda *arguments: SimpleNamespace(forecaster=None))
    assert main(arguments) == 130
    assert not (copy / "sections.json").exists(), "the run has not ended: part of its rows may be missing"


def test_measurements_in_the_folder_of_the_run_are_not_taken_for_its_own(files, tmp_path, capsys):
    (tmp_path / "fit").mkdir()
    for name in ("energy.npz", "rollouts.npz"):
        shutil.copy(files / "data.npz", tmp_path / "fit" / name)
    assert main(["fit", *fit_arguments(tmp_path / "fit", tmp_path, data="rollouts.npz")]) == 2
    assert "energy.npz: was not written by this run, which keeps its own there; move" in sentence(capsys)
    for name in ("energy.npz", "rollouts.npz"):
        assert (tmp_path / "fit" / name).read_bytes() == (files / "data.npz").read_bytes()


def test_the_forecast_file_is_what_python_forecasts(run, files, tmp_path, capsys):
    from phdme_jax import forecast

    out = tmp_path / "forecast.npz"
    assert main(["forecast", *forecast_arguments(files, run, out, "--samples", "6", "--seed", "3")]) == 0
    assert "6 samples, calibrated 60 % band" in capsys.readouterr().out
    made = forecast(load(run), files / "state.npz", 6, seed=3)
    with np.load(out) as archive:
        for name in ("mean", "lower", "upper", "samples", "time"):
            np.testing.assert_array_equal(archive[name], getattr(made, name))
        np.testing.assert_array_equal(archive["grid"], waves(1, 2)["grid"])
        assert bool(archive["calibrated"]) and archive["samples"].shape == (6, FRAMES, POINTS, 2)


def sensor_file(folder: Path) -> Path:
    """What two sensors read of the first four frames of a small motion."""
    true = waves(1, 2)
    readings = 0.4 * true["state"][0][:4, [3, 8]]
    noise = 0.05 * readings.std(axis=(0, 1))
    np.savez(folder / "sensors.npz", readings=readings, time=true["time"][:4], noise=noise, index=np.array([3, 8]))
    return folder / "sensors.npz"


def test_a_forecast_from_a_file_of_sensors_is_what_python_forecasts(run, tmp_path, capsys):
    from phdme_jax import forecast

    sensors, out = sensor_file(tmp_path), tmp_path / "forecast.npz"
    assert main(["forecast", "--run", str(run), "--sensors", str(sensors), "--out", str(out), "--samples", "4"]) == 0
    printed = capsys.readouterr().out
    assert "4 samples, calibrated 60 % band" in printed and "note: calibrated for these sensors" in printed
    made = forecast(load(run), sensors=sensors, num_samples=4)
    with np.load(out) as archive:
        for name in ("mean", "lower", "upper", "samples", "time"):
            np.testing.assert_array_equal(archive[name], getattr(made, name))


def test_bad_sensors_write_nothing_and_are_never_written_over(run, files, tmp_path, capsys):
    sensors = sensor_file(tmp_path)
    kept = sensors.read_bytes()
    name = change(tmp_path, "bad.npz", "sensors.npz", time=lambda time: time + 1e-5)
    out, state = str(tmp_path / "out.npz"), ("--initial", str(files / "state.npz"))
    for more, words in (
        (("--sensors", str(tmp_path / name), "--out", out), "bad.npz: time 7.00001 is that of no frame of the fit"),
        (("--sensors", str(sensors), "--out", str(sensors)), "which would be lost; choose another --out"),
        (("--sensors", str(sensors), "--out", out, *state), "argument --initial: not allowed with argument --sensors"),
        (("--out", out), "one of the arguments --initial --sensors is required"),
    ):
        assert main(["forecast", "--run", str(run), *more]) == 2
        assert words in sentence(capsys)
    assert sensors.read_bytes() == kept and not Path(out).exists()


def test_times_of_the_file_are_forecast(run, files, tmp_path, capsys):
    wanted = waves(1, 0)["time"][[0, 3]] + np.array([0.0, 1e-5])
    name = change(files, "wanted.npz", "state.npz", time=wanted)
    assert main(["forecast", *forecast_arguments(files, run, tmp_path / "out.npz", state=name)]) == 0
    assert "interpolated" in capsys.readouterr().out
    with np.load(tmp_path / "out.npz") as archive:
        np.testing.assert_array_equal(archive["time"], wanted)


@pytest.mark.parametrize("arrays", [{"grid": lambda grid: 2 * grid}, {"time": lambda _: np.array([6.0, 7.0])}])
def test_a_bad_state_writes_nothing(arrays, run, files, tmp_path, capsys):
    arrays = {key: value(None) if key == "time" else value for key, value in arrays.items()}
    name = change(files, "bad_state.npz", "state.npz", **arrays)
    assert main(["forecast", *forecast_arguments(files, run, tmp_path / "out.npz", state=name)]) == 2
    assert "bad_state.npz: " in sentence(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_few_points_uneven_times_and_too_little_calibration(files, tmp_path, capsys):
    """Eight points, uneven times, one trajectory, rollout-conditioned; the command says what it could not calibrate."""
    time = 0.1 * LENGTH / SPEED * np.array([0.0, 0.7, 2.0, 2.9, 4.0, 5.3])
    np.savez(files / "small.npz", **waves(1, 6, time, 8))
    np.savez(files / "single.npz", **waves(1, 7, time, 8))
    np.savez(files / "small_state.npz", state=waves(1, 8, time, 8)["state"][0, 0], grid=waves(1, 8, time, 8)["grid"])
    run = tmp_path / "run"
    more = ("--method", "phdme_rollout", "--calibration", str(files / "single.npz"))
    assert fit_command.main(fit_arguments(files, run, *more, data="small.npz")) == 0
    printed = capsys.readouterr().out
    assert "8 grid points allow stencils of order 2" in printed
    assert "Not calibrated: bands of 60 % take at least 2 calibration trajectories, and 1 were given" in printed
    out = tmp_path / "forecast.npz"
    assert forecast_command.main(forecast_arguments(files, run, out, state="small_state.npz")) == 0
    with np.load(out) as made:
        assert not made["calibrated"] and made["mean"].shape == (6, 8, 2)
        np.testing.assert_array_equal(made["time"], time)
        assert (made["samples"][:, :, [0, -1], 0] == 0).all()


def test_a_forecast_is_never_written_over_what_was_given(run, files, tmp_path, capsys, monkeypatch):
    own, other = tmp_path / "run", tmp_path / "folder"
    shutil.copytree(run, own)
    other.mkdir()
    shutil.copy(files / "state.npz", tmp_path / "state.npz")
    (tmp_path / "symbolic.npz").symlink_to("state.npz")
    (tmp_path / "hard.npz").hardlink_to(tmp_path / "state.npz")
    monkeypatch.chdir(tmp_path)
    kept = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    outs = ("state.npz", "folder/../state.npz", "symbolic.npz", "hard.npz", "run/config.json", "run/fit/energy.npz")
    for out in outs:
        assert main(["forecast", *forecast_arguments(tmp_path, own, Path(out))]) == 2
        assert "which would be lost; choose another --out" in sentence(capsys)
    assert kept == {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    for _ in range(2):  # a forecast of its own may be written again
        assert main(["forecast", *forecast_arguments(tmp_path, own, own / "forecast.npz")]) == 0


# Refusals that need no fit


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--level", "1.5"), "a level strictly between 0 and 1, got 1.5"),
        (("--structure", "drum"), "unknown structure 'drum'; fit knows vibrating_string"),
        (("--method", "magic"), "unknown method 'magic'; fit has phdme, phdme_rollout"),
        (("--method", "phdme_oracle"), "unknown method 'phdme_oracle'"),
        (("--size", "huge"), "smoke, laptop, accelerator"),
        (("--seed", "-1"), "whole number of at least 0"),
        (("--seed", "9" * 20), "whole number of at most 4294967295"),
        (("--seed", "9" * 5000), "whole number of at most 4294967295"),
        (("--workdir", ""), "argument --workdir: expected a path, got ''"),
        (("--workdir", os.fsdecode(b"l\xe4ufe")), r"l\udce4ufe: is no name in UTF-8; choose another folder"),
        (("--data", "a" * 300), "argument --data: expected a path, got 'aaa"),
        (("--calibration", "~nobody-of-that-name/x.npz"), "argument --calibration: expected a path"),
        (("--speed", "9"), "unknown argument '--speed'"),
        (("--config.prior.mian=3",), "did you mean prior.main?"),
        (("--config.structure.closure=glue",), "expected a closure among"),
        (("--config.structure.damping=glue",), "expected damping among"),
        (("--config.rollouts.count=900000000",), "expected at most 8 GB"),
        (("--config.physics.residual_target=rollout",), "expected physics.residual_target among"),
        (("--config.network.unet.channels=12",), "expected channels in multiples of groups"),
        (("--config.training.real_fraction=0.5",), "try physics.residual_target=zero"),
    ],
)
def test_bad_arguments_are_refused(more, words, files, tmp_path, capsys):
    assert main(["fit", *fit_arguments(files, tmp_path / "run", *more)]) == 2
    assert words in sentence(capsys)
    assert not (tmp_path / "run").exists()


def test_bad_data_and_bad_calibration_write_nothing(files, tmp_path, capsys):
    uneven = change(files, "uneven.npz", time=lambda t: t[0] + (t - t[0]) ** 1.5)
    short = change(files, "short.npz", "calibration.npz", time=lambda time: time - 7)
    for arguments, words in (
        (fit_arguments(files, tmp_path / "run", data=uneven), "try --method phdme_rollout"),
        (fit_arguments(files, tmp_path / "run", "--calibration", str(files / short)), "expected the same times"),
    ):
        assert main(["fit", *arguments]) == 2
        assert words in sentence(capsys)
    assert not (tmp_path / "run").exists()


def test_forecast_refuses_bad_arguments(files, tmp_path, capsys):
    out = tmp_path / "out.npz"
    for more, words in (
        (("--samples", "none"), "expected a whole number of at least 1, got 'none'"),
        (("--samples", "0"), "expected a whole number of at least 1, got '0'"),
        (("--samples", "9" * 400), "expected a whole number of at most 1000000000, got '999"),
        (("--seed", "9" * 20), "expected a whole number of at most 4294967295"),
        (("--out", ""), "argument --out: expected a path, got ''"),
        (("--run", ""), "argument --run: expected a path, got ''"),
        (("--initial", ""), "argument --initial: expected a path, got ''"),
        (("--smaples", "3"), "unrecognized arguments: --smaples"),
        (("--out", str(tmp_path)), "is a folder"),
        ((), "holds no fitted forecaster; expected that of a fit"),
    ):
        assert main(["forecast", *forecast_arguments(files, tmp_path, out, *more)]) == 2
        assert words in sentence(capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_home_folder_is_expanded(files, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(files / "cache"))
    monkeypatch.chdir(tmp_path)
    arguments = ["--run", "~/run", "--initial", "~/state.npz", "--out", "~/out.npz"]
    assert main(["forecast", *arguments]) == 2 and f"{tmp_path}/run: holds no fitted" in sentence(capsys)
    assert main(["report", "~/run"]) == 2 and f"{tmp_path}/run: holds no results" in sentence(capsys)
    assert main(["fit", *fit_arguments(files, Path("~/run"), "--data", "~/none.npz")]) == 2
    assert f"{tmp_path}/none.npz: there is no such file" in sentence(capsys)
    assert list(tmp_path.iterdir()) == []


def test_the_old_name_of_the_command_in_a_process_of_its_own(files, tmp_path):
    (files / "cut.npz").write_bytes((files / "data.npz").read_bytes()[:500])
    command = [sys.executable, "-m", "experiments.fit", *fit_arguments(files, tmp_path / "run", data="cut.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "the archive is cut off" in done.stderr
    assert not (tmp_path / "run").exists()


def test_help_says_the_name_that_was_used(capsys):
    for program in ("phdme fit", "python -m experiments.fit"):
        with pytest.raises(SystemExit) as ended:
            fit_command.main(["--help"], program)
        assert ended.value.code == 0 and f"usage: {program} " in capsys.readouterr().out
    assert main(["--version"]) == 0 and capsys.readouterr().out == f"phdme {__version__}\n"
    assert main(["fti"]) == 2 and "unknown command 'fti'; phdme has fit, forecast, report" in capsys.readouterr().err
    assert main([]) == 2 and "usage: phdme COMMAND" in capsys.readouterr().out


def imported(code: str) -> set[str]:
    """What a process of its own has imported after some code."""
    code += "\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_library_is_light():
    assert not {"jax", "numpy", "matplotlib", "tqdm"} & imported("import phdme_jax")
    assert not [name for name in imported("from phdme_jax import *") if name.startswith("phdme_jax.app")]


# what takes a tenth of a second and more to import
HEAVY = {"diffrax", "equinox", "orbax.checkpoint", "scipy.stats", "scipy.interpolate", "matplotlib", "tensorboardX"}


@pytest.mark.parametrize(
    "module", ["phdme_jax.app.forecast_command", "phdme_jax.app.fit_command", "experiments.driven_pendulum"]
)
def test_commands_start_without_what_they_may_not_use(module):
    assert not HEAVY & imported(f"import {module}")
