"""Units, initial states and stencils of a fit, and what it refuses with exit code 2."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.files import InputError
from phdme_jax.forecasting import fit
from phdme_jax.forecasting.inputs import (
    STRUCTURES,
    draw_initial_states,
    mode_matrix,
    read_inputs,
    rest_stiffness,
    stencil_order,
    string_units,
)
from phdme_jax.systems.energy.base import line_parity
from phdme_jax.systems.energy.vibrating_string import KELVIN_VOIGT, VISCOUS, string_structure
from tests.forecasting.string_files import (
    FRAMES,
    LENGTH,
    POINTS,
    STIFFNESS,
    change,
    fit_arguments,
    sentence,
    waves,
)


def test_rest_stiffness_of_exact_waves_in_any_units():
    data = waves(2, 3, points=40)
    structure = string_structure(40, LENGTH, 8)
    found, explained = rest_stiffness(structure, data["state"], data["time"])
    np.testing.assert_allclose(found, STIFFNESS, rtol=1e-3)
    assert explained > 0.999
    noise = 0.01 * data["state"].std((0, 1, 2)) * np.random.default_rng(0).normal(size=data["state"].shape)
    noisy, _ = rest_stiffness(structure, data["state"] + noise, data["time"])
    np.testing.assert_allclose(noisy, STIFFNESS, rtol=0.05)
    _, explained = rest_stiffness(structure, 100 * noise, data["time"])
    assert explained < 0.1


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
    parities = enumerate(line_parity(structure))
    amplitudes = [alone[..., f] @ np.linalg.pinv(mode_matrix(p, POINTS, 6)).T for f, p in parities]
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
