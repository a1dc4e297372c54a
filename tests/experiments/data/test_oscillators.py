"""Two masses between springs from made recordings: their ratio is found, nothing leaks from the second half."""

from functools import partial

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from experiments.data import oscillators
from experiments.oscillators import STUDY, check, errors
from experiments.study.command import main
from experiments.study.runner import SeedRun, evaluate
from experiments.study.study import Context
from phdme_jax.app.rows import ResultsWriter
from phdme_jax.files import InputError

MASSES, STIFFNESS, DAMPING = np.array([1.0, 2.0]), np.array([1.4, 1.5, 1.3]), 0.01


def write_recording(folder, name, positions, velocities, times):
    (folder / "schmidt_lipson").mkdir(exist_ok=True)
    table = np.column_stack([np.zeros_like(times), times, positions, velocities])
    np.savetxt(folder / "schmidt_lipson" / oscillators.FILES[name], table, header="x v", comments="% ")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A chain in counts of a camera, written as the recordings are, its velocities damped as theirs."""
    folder = tmp_path_factory.mktemp("data")
    times = np.arange(400) / 30

    def rate(_, state):
        first, second = state[:2]
        springs = STIFFNESS * np.array([first, second - first, -second])
        return np.concatenate([state[2:], (springs[1:] - springs[:-1] - DAMPING * state[2:]) / MASSES])

    start = [90.0, -60.0, 0.0, 20.0]
    path = solve_ivp(rate, (0, 3 * times[-1]), start, t_eval=3 * times, rtol=1e-10, atol=1e-10).y.T
    noise = np.random.default_rng(0).normal(0.0, 0.5, (400, 2))
    write_recording(folder, "double_oscillator", np.round(path[:, :2] + noise) + 7, 2.4 * path[:, 2:], times)
    single = 80 * np.cos(2 * times)
    write_recording(folder, "oscillator", np.round(single), -160 * np.sin(2 * times), times)
    return folder


@pytest.mark.slow
def test_the_ratio_of_the_masses_and_the_second_half_are_found(data_dir, tmp_path, monkeypatch):
    config, results = STUDY.get_config("smoke"), ResultsWriter(tmp_path / "results.jsonl", "oscillators")
    config.prior.update({"main": 6, "time_tests": 60, "iterations": 150, "draws": 2})
    context = Context(STUDY, "smoke", tmp_path, config, (0,), ("gp_rollout",), data_dir, results)
    run = SeedRun(context, "double_oscillator", 0)
    assert run.bench.world.masses == (1.0, pytest.approx(2.0, rel=0.05))
    answer = evaluate(run, "gp_rollout")["test"]
    assert answer.forecasts.mean.shape == answer.truth.shape
    for extra in STUDY.extras:
        extra(run)
    values = {(row.method, row.metric): row.value for row in results.rows()}
    assert values["gp_rollout", "nmse_position"] < 0.02
    assert values["gp_rollout", "mass_ratio"] == run.bench.world.masses[1]
    assert values["reference", "nmse_position"] == 0.0 < values["reference", "nmse"]
    # with masses alike the same energy cannot hold both modes
    alike = run.bench.world._replace(masses=(1.0, 1.0))
    monkeypatch.setattr(oscillators, "measure", lambda *_: alike)
    worse = SeedRun(context, "double_oscillator", 0).answers("gp_rollout")["test"]
    found = errors(worse.truth[0], worse.forecasts.mean[0])
    assert found["nmse_position"].value > 5 * values["gp_rollout", "nmse_position"]


def test_nothing_of_the_second_half_is_learned_from(data_dir, tmp_path):
    path = data_dir / "schmidt_lipson" / oscillators.FILES["double_oscillator"]
    table = np.loadtxt(path, comments="%")
    split = len(table) // 2
    table[split:, 2:] *= -3.0
    write_recording(tmp_path, "double_oscillator", table[:, 2:4], table[:, 4:], table[:, 1])
    one, other = (oscillators.load(folder, "double_oscillator") for folder in (data_dir, tmp_path))
    np.testing.assert_array_equal(one.states[one.learned], other.states[other.learned])
    assert one.start == split - oscillators.REACH - 1
    # the frames just before the split do depend on what follows, and are left out
    assert np.abs(one.states[split - 1] - other.states[split - 1]).max() > 0.01


def test_a_validation_run_sees_nothing_of_the_second_half(data_dir, tmp_path):
    path = data_dir / "schmidt_lipson" / oscillators.FILES["double_oscillator"]
    table = np.loadtxt(path, comments="%")
    table[len(table) // 2 :, 2:] *= -3.0
    write_recording(tmp_path, "double_oscillator", table[:, 2:4], table[:, 4:], table[:, 1])
    one, other = (oscillators.load(folder, "double_oscillator", validates=True) for folder in (data_dir, tmp_path))
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)
    assert (len(one.times), one.split) == (200, 150)


def test_velocities_of_the_file_are_found_again_in_positions(data_dir, tmp_path):
    path = data_dir / "schmidt_lipson" / oscillators.FILES["double_oscillator"]
    table = np.loadtxt(path, comments="%")
    positions = table[:, 2:4]
    # a smoothing of the slopes over eleven frames that nobody is told, in arbitrary units
    kernel = np.convolve([1.0, 2.0, 3.0, 2.0, 1.0], [1.0, 1.0, 0.0, -1.0, -1.0])
    padded = np.pad(positions, ((4, 4), (0, 0)), mode="edge")
    velocities = np.stack([np.convolve(part, kernel, mode="valid") for part in padded.T], axis=1)
    write_recording(tmp_path, "double_oscillator", positions, velocities, table[:, 1])
    recording = oscillators.load(tmp_path, "double_oscillator")
    found = recording.as_recorded(recording.states[recording.start :, :2])
    np.testing.assert_allclose(found, recording.truth[recording.scored], atol=1e-3)
    # which the slopes themselves are not
    assert np.abs(recording.states[recording.scored, 2:] - recording.truth[recording.scored, 2:]).max() > 0.1


def test_elongations_and_back(data_dir):
    states = oscillators.load(data_dir, "double_oscillator").states
    chain, single = oscillators.system_of((1.0, 2.0)), oscillators.system_of((1.0,))
    fields = oscillators.to_fields(chain, states)
    np.testing.assert_allclose(fields[:, :3].sum(axis=1), 0.0, atol=1e-12)
    np.testing.assert_allclose(fields[:, 3:], states[:, 2:])
    np.testing.assert_allclose(oscillators.from_fields(chain, fields), states, atol=1e-12)
    assert oscillators.to_fields(single, states[:, :2]) is not None
    np.testing.assert_array_equal(oscillators.from_fields(single, states[:, :2]), states[:, :2])


def test_positions_are_about_the_rest_in_units_where_velocities_are_their_slopes(data_dir):
    recording = oscillators.load(data_dir, "oscillator")
    inner = slice(2, -2)
    slopes = np.gradient(recording.states[:, 0], recording.times)[inner]
    np.testing.assert_allclose(slopes, recording.states[inner, 1], atol=0.15)
    assert abs(recording.states[:, 0].max() + recording.states[:, 0].min()) < 0.05


@pytest.mark.parametrize("content", [None, "words", "0 0 1\n"], ids=["missing", "garbled", "short"])
def test_a_file_that_is_no_recording_is_refused_before_anything_is_written(tmp_path, capsys, content):
    data, workdir = tmp_path / "data", tmp_path / "run"
    (data / "schmidt_lipson").mkdir(parents=True)
    if content is not None:
        (data / "schmidt_lipson" / oscillators.FILES["oscillator"]).write_text(content)
    assert main(STUDY, ["--size", "smoke", "--workdir", str(workdir), "--data_dir", str(data)]) == 2
    assert "real_linear_h_1.txt" in capsys.readouterr().err and not workdir.exists()


def two_trials(table):
    half = len(table) // 2
    table[half:, 0] += 1
    table[half:, 1] -= table[half, 1]
    return table


def backwards(table):
    table[200:, 1] = table[200:, 1][::-1]
    return table


def at_rest_in_time(table):
    table[:, 1] = 3.0
    return table


def one_row_twice(table):
    return np.insert(table, 150, table[150], axis=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (two_trials, r"holds the trials \[0.0, 1.0\]"),
        (lambda table: np.delete(table, slice(100, 103), axis=0), "from 3.3 to 3.43333 after row 100, .* 1 steps are"),
        (lambda table: np.delete(table, [50, 300], axis=0), "after row 50, .* 2 steps are others"),
        (one_row_twice, "from 5 to 5 after row 151"),
        (backwards, "after row 200"),
        (lambda table: table[::-1], "from 13.3 to 13.2667 after row 1, and by -0.0333"),
        (at_rest_in_time, "from 3 to 3 after row 1, and by 0 usually"),
    ],
)
def test_rows_that_are_not_one_even_recording_are_refused_with_their_place(data_dir, tmp_path, change, words):
    table = change(np.loadtxt(data_dir / "schmidt_lipson" / oscillators.FILES["oscillator"], comments="%"))
    np.savetxt(tmp_path / "table.txt", table)
    with pytest.raises(InputError, match=words):
        oscillators.read_table(tmp_path / "table.txt", 4)


def test_a_cut_file_is_refused_and_one_of_another_system_read(data_dir, tmp_path):
    source = (data_dir / "schmidt_lipson" / oscillators.FILES["oscillator"]).read_bytes()
    expected = oscillators.load(data_dir, "oscillator")
    path = tmp_path / "schmidt_lipson" / oscillators.FILES["oscillator"]
    path.parent.mkdir()
    path.write_bytes(b"\xef\xbb\xbf" + source.replace(b"\n", b"\r\n"))
    np.testing.assert_array_equal(oscillators.load(tmp_path, "oscillator").states, expected.states)
    path.write_bytes(source.rstrip())  # no end of the last line is no cut
    np.testing.assert_array_equal(oscillators.load(tmp_path, "oscillator").states, expected.states)
    path.write_bytes(b"\n".join(source.split(b"\n")[:250])[:-4])  # inside the last number
    with pytest.raises(InputError, match="is cut short"):
        oscillators.load(tmp_path, "oscillator")


def test_a_recording_of_another_oscillator_or_none_is_refused(data_dir, tmp_path):
    (tmp_path / "schmidt_lipson").mkdir()
    text = (data_dir / "schmidt_lipson" / oscillators.FILES["oscillator"]).read_text()
    (tmp_path / "schmidt_lipson" / oscillators.FILES["double_oscillator"]).write_text(text)
    with pytest.raises(InputError, match="has shape"):
        oscillators.load(tmp_path, "double_oscillator")
    context = partial(Context, STUDY, "smoke", tmp_path, STUDY.get_config("smoke"), (0,), ())
    with pytest.raises(InputError, match="--data_dir DIR"):
        check(context(data_dir=None, results=None))


def test_a_recording_that_does_not_move_is_refused(tmp_path):
    path = tmp_path / "schmidt_lipson" / oscillators.FILES["oscillator"]
    path.parent.mkdir()
    rows = np.stack([np.zeros(200), 0.01 * np.arange(200), np.ones(200), np.zeros(200)], axis=1)
    np.savetxt(path, rows)
    with pytest.raises(InputError, match="does not move"):
        oscillators.load(tmp_path, "oscillator")
