"""What a fit accepts and what it refuses, in one sentence, before anything is learned."""

import jax
import numpy as np
import pytest

from phdme_jax import InputError, Trajectories, fit, make_options
from phdme_jax.forecasting.agreement import check_copies, project, rest_stiffness
from phdme_jax.forecasting.inputs import read_calibration, read_inputs
from phdme_jax.forecasting.offers import chosen_method, offered_methods
from phdme_jax.forecasting.options import check_seed
from phdme_jax.forecasting.structures import known_structure
from phdme_jax.systems.energy.vibrating_string import string_structure
from tests.forecasting.string_files import FRAMES, LENGTH, SPEED, STIFFNESS, change, tiny_options, waves


def read(source):
    return read_inputs(source, "vibrating_string", tiny_options())


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


def test_a_file_arrays_and_a_record_are_the_same_input(files):
    arrays = waves(1, 0)
    record = Trajectories(arrays["state"], arrays["time"], (arrays["grid"],))
    first, *others = [read(source) for source in (files / "data.npz", str(files / "data.npz"), arrays, record)]
    for other in others:
        assert other.observed.digests == first.observed.digests and other.units == first.units
        np.testing.assert_array_equal(other.trajectories.state, first.trajectories.state)
    single = read({**arrays, "state": arrays["state"].astype(np.float32), "time": arrays["time"].tolist()})
    assert single.trajectories.state.dtype == np.float64


def test_a_constant_strain_is_no_part_of_any_unit():
    data = waves(1, 0)
    strain = np.array([0.0, 50.0]) * data["state"].std(axis=(0, 1, 2))
    plain, stretched = read(data), read(data | {"state": data["state"] + strain})
    np.testing.assert_allclose(stretched.units.scale, plain.units.scale, rtol=1e-9)
    np.testing.assert_allclose(stretched.units.time, plain.units.time, rtol=1e-9)
    np.testing.assert_array_equal(plain.observed.centre, 0.0)
    for name in ("scale", "excursion"):
        np.testing.assert_allclose(getattr(stretched.observed, name), getattr(plain.observed, name), rtol=1e-9)
    assert stretched.notes == plain.notes


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
def test_bad_data_are_refused(defect, files):
    changes, words = BAD_DATA[defect]
    changes = {key: value(None) if key == "input" else value for key, value in changes.items()}
    path = files / change(files, f"{defect}.npz", **changes)
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files}
    for source, name in ((path, str(path)), (arrays, "trajectories")):
        with pytest.raises(InputError) as caught:
            chosen_method("phdme", read(source))
        text = str(caught.value)
        assert words in text and "\n" not in text and (text.startswith(f"{name}: ") or "time is not even" in text)


def test_even_frames_are_offered_and_needed_by_methods_that_learn_a_time_step():
    time = 0.1 * LENGTH / SPEED * np.array([0.0, 0.7, 2.0, 2.9, 4.0, 5.3])
    inputs = read(waves(2, 6, time, 8))
    assert inputs.options["structure"]["order"] == 2 and inputs.structure.grid.points == (8,)
    assert "8 grid points allow stencils of order 2" in inputs.notes[0]
    np.testing.assert_allclose(np.asarray(inputs.units.frames(time)) * inputs.units.time, time, rtol=1e-12)
    assert chosen_method("phdme_rollout", inputs).name == "phdme_rollout"
    assert {"phdme", "phdme_rollout"} <= set(offered_methods()) and "phdme_oracle" not in offered_methods()
    with pytest.raises(InputError, match="try --method phdme_rollout, which works with uneven times"):
        chosen_method("phdme", inputs)
    with pytest.raises(InputError, match="try --method phdme_rollout"):
        fit(waves(2, 6, time, 8), "vibrating_string", options=tiny_options())


def test_intervals_that_teach_nothing_are_counted():
    time = np.linspace(0.0, 1.0, 40) * LENGTH / SPEED
    paused = np.where(np.arange(40) >= 20, time + 2 * LENGTH / SPEED, time)
    assert not any("intervals" in note for note in read(waves(2, 6, time)).notes)
    assert any("1 of 39 intervals between frames are too long" in note for note in read(waves(2, 6, paused)).notes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grid": lambda grid: 2 * grid}, "its grid has 12 points from 0 to 1.3; expected that of the data"),
        ({"time": lambda time: time - 7}, "expected the same times"),
        ({"state": lambda state: waves(1, 0)["state"][[0, 0, 0, 0, 0]]}, "expected trajectories that trained nothing"),
    ],
)
def test_bad_calibration_files_are_refused(changes, words, files):
    inputs = read(files / "data.npz")
    path = files / change(files, "bad.npz", "calibration.npz", **changes)
    with pytest.raises(InputError, match=words):
        read_calibration(path, known_structure("vibrating_string").layout, inputs.structure, inputs.observed)


def copied(state, index=3, of=1, change=0.0):
    state[index] = state[of] * (1 + change)
    return state


@pytest.mark.parametrize("change_", [0.0, 1e-4], ids=["bit for bit", "nearly"])
def test_what_is_told_twice_is_refused_with_its_place(change_, files):
    """Within the data, within the calibration set, and across both; data that are only alike are taken."""
    arrays, calibration = waves(6, 0), waves(12, 2)
    inputs, layout = read(arrays), known_structure("vibrating_string").layout

    def calibrate(state):
        read_calibration({**calibration, "state": state}, layout, inputs.structure, inputs.observed)

    calibrate(calibration["state"])
    with pytest.raises(
        InputError, match=r"^trajectories: .* trajectory 3 repeats 1; expected trajectories of their own"
    ):
        read({**arrays, "state": copied(arrays["state"].copy(), change=change_)})
    with pytest.raises(InputError, match=r"trajectory 7 repeats 2, 11 repeats 2; expected trajectories of their own"):
        calibrate(copied(copied(calibration["state"].copy(), 7, 2), 11, 7, change_))
    across = calibration["state"].copy()
    across[5] = arrays["state"][4] * (1 + change_)
    with pytest.raises(
        InputError, match=r"trajectory 5 repeats 4 of the data the prior learns from; .* trained nothing"
    ):
        calibrate(across)
    read({**arrays, "state": copied(arrays["state"].copy(), change=0.02)})


def test_small_motions_about_a_large_constant_are_no_copies():
    """Recordings that share a stretch fifty times their motion are as different as their motions are."""
    state = waves(4, 0)["state"] / waves(4, 0)["state"].std(axis=(0, 1, 2))
    projections = project(0.02 * state + np.array([0.0, 1.0]))
    check_copies("here", projections)
    with pytest.raises(InputError, match="2 repeats 0"):
        check_copies("here", projections[[0, 1, 0]])


def test_ends_that_move_a_little_are_set_to_zero_and_told(files):
    def shaken(state):
        state[..., 0, 0] = 0.15 * state[..., :, 0].std()
        return state

    inputs = read(files / change(files, "shaken.npz", state=shaken))
    assert (inputs.trajectories.state[:, :, [0, -1], 0] == 0).all()
    assert len(inputs.notes) == 2 and "momentum at the ends" in inputs.notes[1]


# Options


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prior": {"mian": 3}}, "unknown option 'prior.mian', did you mean prior.main?"),
        ({"prior": {"main": "3"}}, "the option prior.main expects a whole number such as 32"),
        ({"prior": {"main": 3.0}}, "the option prior.main expects a whole number such as 32"),
        ({"check_structure": 1}, "the option check_structure expects true or false, got 1"),
        ({"prior": {"margin": 0.5}}, "the option prior.margin expects at least 1.0, got 0.5"),
        ({"rollouts": {"count": 1}}, "the option rollouts.count expects at least 2, got 1"),
        (
            {"training": {"residual_stage": (0, 16, 1e-3)}},
            r"expects at least 1 in a list such as .*, got \[0, 16, 0.001\]",
        ),
        ({"structure": {"closure": "glue"}}, "expected a closure among"),
        ({"network": {"unet": {"channels": 12}}}, "the options lack network.p"),
        ({"sampling": None}, "unknown option 'sampling'"),
    ],
)
def test_options_that_cannot_be_are_refused(changes, words):
    options = make_options("smoke")
    for group, values in changes.items():
        options[group] = options[group] | values if isinstance(values, dict) and group != "network" else values
    with pytest.raises(InputError, match=words):
        read_inputs(waves(1, 0), "vibrating_string", options)


def test_sizes_are_whole_and_new_at_every_call():
    for size in ("smoke", "laptop", "accelerator"):
        options = make_options(size)
        options["sampling"]["num_samples"] = 3
        assert make_options(size)["sampling"]["num_samples"] > 3
        read_inputs(waves(1, 0), "vibrating_string", options)
    with pytest.raises(InputError, match="fit has smoke, laptop, accelerator"):
        fit(waves(1, 0), "vibrating_string", options="huge")


def test_precision_of_the_process_does_not_matter():
    with jax.enable_x64(False), pytest.raises(InputError, match="unknown method 'magic'"):
        fit(waves(1, 0), "vibrating_string", options=tiny_options(), method="magic")


@pytest.mark.parametrize("seed", [-1, 2**32, 10**30, 1.5, "3", None])
def test_a_seed_beyond_the_generators_is_refused(seed):
    assert check_seed(np.int64(2**32 - 1)) == 2**32 - 1
    with pytest.raises(InputError, match="expected a seed from 0 to 4294967295, a whole number, got "):
        check_seed(seed)
    if isinstance(seed, int):
        with pytest.raises(InputError, match="expected a seed"):
            fit({}, "vibrating_string", seed=seed)
