"""Two masses between springs from made recordings: their ratio is found, nothing leaks from the second half."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from experiments import oscillators
from experiments.configs.oscillators import get_config
from experiments.study.command import RunContext
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
        force = np.array([-1.4 * first + 1.5 * (second - first), -1.5 * (second - first) - 1.3 * second])
        return np.concatenate([state[2:], (force - DAMPING * state[2:]) / MASSES])

    start = [90.0, -60.0, 0.0, 20.0]
    path = solve_ivp(rate, (0, 3 * times[-1]), start, t_eval=3 * times, rtol=1e-10, atol=1e-10).y.T
    write_recording(folder, "double_oscillator", np.round(path[:, :2]) + 7, 2.4 * path[:, 2:], times)
    single = 80 * np.cos(2 * times)
    write_recording(folder, "oscillator", np.round(single), -160 * np.sin(2 * times), times)
    return folder


def test_the_ratio_of_the_masses_and_the_second_half_are_found(data_dir, tmp_path):
    config = get_config("smoke")
    recording = oscillators.load(data_dir, "double_oscillator")
    masses = oscillators.find_masses(config, recording)
    assert masses[1] == pytest.approx(2.0, rel=0.05)
    results = ResultsWriter(tmp_path / "results.jsonl", "oscillators")
    context = RunContext("oscillators", "smoke", tmp_path, config, (0,), ("gp_rollout",), data_dir, results)
    forecast = oscillators.evaluate(context, recording, masses, 0, "gp_rollout")
    assert forecast.mean.shape == recording.truth[recording.scored].shape
    values = {row.metric: row.value for row in results.rows()}
    assert values["nmse_position"] < 0.02
    # with masses alike the same energy cannot hold both modes
    alike = oscillators.forecast_energy(context, recording, (1.0, 1.0), 0, quadratic=False)
    truth = recording.truth[recording.scored]
    error = np.mean((alike.mean - truth)[:, :2] ** 2, axis=0) / truth[:, :2].var(axis=0)
    assert error.mean() > 5 * values["nmse_position"]


def test_nothing_of_the_second_half_is_learned_from(data_dir, tmp_path):
    path = data_dir / "schmidt_lipson" / oscillators.FILES["double_oscillator"]
    table = np.loadtxt(path, comments="%")
    split = len(table) // 2
    table[split:, 2:] *= -3.0
    write_recording(tmp_path, "double_oscillator", table[:, 2:4], table[:, 4:], table[:, 1])
    one, other = (oscillators.load(folder, "double_oscillator") for folder in (data_dir, tmp_path))
    np.testing.assert_array_equal(one.states[one.learned], other.states[other.learned])
    assert one.learned.stop - 1 == split - oscillators.REACH - 1
    # the frames just before the split do depend on what follows, and are left out
    assert np.abs(one.states[split - 1] - other.states[split - 1]).max() > 0.01


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
    start = recording.learned.stop - 1
    found = recording.as_recorded(recording.states[start:, :2])
    assert len(recording.states[start:]) == len(recording.forecast_times)
    np.testing.assert_allclose(found, recording.truth[recording.scored], atol=1e-3)
    # which the slopes themselves are not
    assert np.abs(recording.states[recording.scored, 2:] - recording.truth[recording.scored, 2:]).max() > 0.1


def test_elongations_and_back(data_dir):
    states = oscillators.load(data_dir, "double_oscillator").states
    fields = oscillators.to_fields(states, 2)
    np.testing.assert_allclose(fields[:, :3].sum(axis=1), 0.0, atol=1e-12)
    np.testing.assert_allclose(oscillators.from_fields(fields, 2), states, atol=1e-12)
    np.testing.assert_array_equal(oscillators.from_fields(oscillators.to_fields(states[:, :2], 1), 1), states[:, :2])


def test_positions_are_about_the_rest_in_units_where_velocities_are_their_slopes(data_dir):
    recording = oscillators.load(data_dir, "oscillator")
    inner = slice(2, -2)
    slopes = np.gradient(recording.states[:, 0], recording.times)[inner]
    np.testing.assert_allclose(slopes, recording.states[inner, 1], atol=0.15)
    assert abs(recording.states[:, 0].max() + recording.states[:, 0].min()) < 0.05


@pytest.mark.parametrize("content", [None, "words", "0 0 1\n"], ids=["missing", "garbled", "short"])
def test_a_file_that_is_no_recording_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "schmidt_lipson").mkdir()
        (tmp_path / "schmidt_lipson" / oscillators.FILES["oscillator"]).write_text(content)
    with pytest.raises(InputError, match=r"real_linear_h_1\.txt"):
        oscillators.load(tmp_path, "oscillator")
