"""The user's files: round trips, and one clear sentence for every defect."""

import os
import pickle
import stat
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from phdme_jax.files import InputError, atomic_write, file_digest
from phdme_jax.forecasting.files import FileLayout, read_state, read_trajectories
from phdme_jax.forecasting.forecast_file import Forecast, write_forecast

STRING = FileLayout("vibrating_string", ("momentum", "strain"), num_grid_axes=1, num_ports=1)
PENDULUM = FileLayout("driven_pendulum", ("angle", "momentum"), num_grid_axes=0)
WATER = FileLayout("shallow_water_2d", ("height", "momentum_x", "momentum_y"), num_grid_axes=2)


def string_arrays(**changes):
    random = np.random.default_rng(0)
    arrays = {
        "state": random.normal(size=(3, 5, 9, 2)),
        "time": np.linspace(0.0, 1.0, 5),
        "grid": np.linspace(0.0, 10.0, 9),
    }
    arrays |= changes
    return {key: value for key, value in arrays.items() if value is not None}


def refused(tmp_path, *parts, layout=STRING, **changes):
    """The sentence with which string trajectories with these changes are refused."""
    path = tmp_path / "trajectories.npz"
    np.savez(path, **string_arrays(**changes))
    with pytest.raises(InputError) as caught:
        read_trajectories(path, layout)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ") and "\n" not in sentence
    for part in parts:
        assert part in sentence
    return sentence


def changed(shape_or_array, index, value):
    array = np.array(shape_or_array, dtype=float)
    array[index] = value
    return array


def test_trajectories_round_trip_in_every_dimension(tmp_path):
    path = tmp_path / "trajectories.npz"
    arrays = string_arrays(input=np.ones((3, 5, 1)))
    np.savez_compressed(path, **arrays, note=np.asarray("kept aside"))
    read = read_trajectories(path, STRING)
    for name in ("state", "time", "input"):
        np.testing.assert_array_equal(getattr(read, name), arrays[name])
    np.testing.assert_array_equal(read.grid[0], arrays["grid"])

    random = np.random.default_rng(1)
    pendulum = {"state": random.normal(size=(2, 4, 2)), "time": np.array([0.0, 0.1, 0.5, 0.6])}
    np.savez(path, **pendulum)
    np.testing.assert_array_equal(read_trajectories(pendulum, PENDULUM).state, pendulum["state"])
    read = read_trajectories(path, PENDULUM)
    assert read.grid == () and read.input is None and read.state.shape == (2, 4, 2)

    np.savez(path, state=np.zeros((1, 2, 4, 6, 3)), time=[0, 1], grid_x=np.arange(4), grid_y=np.arange(6) * 0.5)
    read = read_trajectories(path, WATER)
    assert [points.size for points in read.grid] == [4, 6]
    assert {array.dtype for array in (read.state, read.time, *read.grid)} == {np.dtype(np.float64)}


def test_an_even_grid_in_single_precision_is_even(tmp_path):
    path = tmp_path / "trajectories.npz"
    grid = np.linspace(0, 10, 401, dtype=np.float32)
    steps = np.diff(grid.astype(float))
    assert np.ptp(steps) / steps.mean() > 1e-6, "relative to the spacing it would be refused"
    np.savez(path, state=np.zeros((1, 2, 401, 2), np.float32), time=np.arange(2, dtype=np.float32), grid=grid)
    assert read_trajectories(path, STRING).grid[0].dtype == np.float64


def test_missing_file_folder_and_permissions(tmp_path):
    for path, part in ((tmp_path / "none.npz", "there is no such file"), (tmp_path, "this is a folder")):
        with pytest.raises(InputError, match=part):
            read_trajectories(path, STRING)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "the file is empty"),
        (b"time,state\n0,1\n", "not an .npz archive"),
        (pickle.dumps({"state": 1}), "not an .npz archive"),
    ],
)
def test_files_that_are_no_archives(tmp_path, content, part):
    path = tmp_path / "trajectories.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=part):
        read_trajectories(path, STRING)


def test_a_single_array_is_named(tmp_path):
    path = tmp_path / "state.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match=r"single \.npy array; expected named arrays .*\(path, state=\.\.\."):
        read_state(path, STRING)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_truncated_or_corrupted_archive_never_gets_through(tmp_path, compressed):
    path = tmp_path / "trajectories.npz"
    (np.savez_compressed if compressed else np.savez)(path, **string_arrays())
    whole = path.read_bytes()
    for size in range(1, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError):
            read_trajectories(path, STRING)
    spoiled = bytearray(whole)
    spoiled[300:340] = bytes(40)
    path.write_bytes(bytes(spoiled))
    with pytest.raises(InputError, match="state cannot be read"):
        read_trajectories(path, STRING)


@pytest.mark.parametrize("name", ["state", "time", "grid"])
def test_missing_key(tmp_path, name):
    sentence = refused(tmp_path, f"the key '{name}' is missing", "expected state, time, grid", **{name: None})
    assert sentence.endswith("got " + ", ".join(key for key in ("state", "time", "grid") if key != name))


def test_misspelt_optional_key_is_not_ignored(tmp_path):
    refused(tmp_path, "the key 'inputs' is unknown; did you mean 'input'?", inputs=np.ones((3, 5, 1)))


def test_nothing_is_ever_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    refused(tmp_path, "state cannot be read", "never pickled", state=np.array([Trap()], dtype=object))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("array", "part"),
    [
        (np.zeros((3, 5, 9, 2), complex), "complex numbers"),
        (np.full((3, 5, 9, 2), "1.0"), "text"),
        (np.zeros((3, 5, 9, 2), bool), "booleans"),
        (np.zeros((3, 5, 9, 2), "datetime64[s]"), "dates"),
        (np.zeros((3, 5, 9), [("momentum", float), ("strain", float)]), "records"),
    ],
)
def test_arrays_that_are_not_real_numbers(tmp_path, array, part):
    refused(tmp_path, f"state holds {part}", "expected real numbers", state=array)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"state": np.zeros((5, 9, 2))}, ["3 axes", "expected 4, (sample, time, grid, field)", "state[None]"]),
        ({"state": np.zeros((3, 5, 9, 3))}, ["3 fields on its last axis", "expected 2 (momentum, strain)"]),
        ({"state": np.zeros((0, 5, 9, 2))}, ["no trajectories", "(0, 5, 9, 2)"]),
        ({"state": np.zeros((3, 1, 9, 2)), "time": np.zeros(1)}, ["at least two frames", "(3, 1, 9, 2)"]),
        ({"time": np.arange(6.0)}, ["time has 6 entries but state has 5 frames"]),
        ({"time": np.zeros((3, 5))}, ["time has shape (3, 5)", "shared by all samples"]),
        ({"time": np.array([0.0, 0.1, 0.1, 0.2, 0.3])}, ["time does not increase strictly", "0.1 at index 1"]),
        ({"time": np.array([0.0, 0.1, np.nan, 0.2, 0.3])}, ["time holds nan at time index 2"]),
        ({"grid": np.linspace(0, 10, 8)}, ["grid has shape (8,); expected (9,)"]),
        ({"grid": np.linspace(10, 0, 9)}, ["grid does not increase strictly"]),
        ({"grid": changed(np.linspace(0, 10, 9), 4, 5.001)}, ["grid is not evenly spaced", "1.249 to 1.251"]),
        ({"grid": np.geomspace(1, 10, 9)}, ["grid is not evenly spaced", "interpolate"]),
        ({"state": np.zeros((3, 5, 2, 2)), "grid": np.arange(2)}, ["grid has 2 points; expected at least 3"]),
        ({"input": np.zeros((3, 4, 1))}, ["input has shape (3, 4, 1)", "(sample, time, port) = (3, 5, 1)"]),
        ({"input": np.zeros((3, 5, 2))}, ["input has shape (3, 5, 2)", "(3, 5, 1)"]),
        ({"input": np.zeros((3, 5))}, ["input has shape (3, 5)"]),
        ({"input": changed(np.zeros((3, 5, 1)), (2, 1, 0), np.inf)}, ["inf at sample 2, time index 1, port 0"]),
    ],
)
def test_shapes_times_grids_and_inputs(tmp_path, changes, parts):
    refused(tmp_path, *parts, **changes)


def test_an_input_where_there_is_no_port(tmp_path):
    closed = FileLayout("vibrating_string", ("momentum", "strain"), num_ports=0)
    refused(tmp_path, "leave input out", layout=closed, input=np.zeros((3, 5, 1)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_located(tmp_path, value):
    state = changed(np.zeros((3, 5, 9, 2)), (2, 3, 7, 1), value)
    place = "sample 2, time index 3, grid index 7, field strain"
    refused(tmp_path, f"state holds {value} at {place}", "1 of 270", state=state)


def test_hostile_headers_and_archives_that_would_fill_the_memory(tmp_path, monkeypatch):
    path = tmp_path / "trajectories.npz"

    def with_header(header):
        np.savez(path, **string_arrays(state=None))
        body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("state.npy", body)
        with pytest.raises(InputError) as caught:
            read_trajectories(path, STRING)
        assert str(caught.value).startswith(f"{path}: state") and "\n" not in str(caught.value)
        return str(caught.value)

    assert "cannot be read" in with_header(b"{'descr': '<f8', 'shape': ((((3,), \n")
    huge = b"{'descr': '<f8', 'fortran_order': False, 'shape': (100000000000000000000000,), }\n"
    assert "state, time, grid take 8e+14 GB, expected at most " in with_header(huge)
    # small on the disk, large in memory: refused by what its header announces
    monkeypatch.setattr("phdme_jax.forecasting.archives.LARGEST_FILE", 8e5)
    np.savez_compressed(path, **string_arrays(state=np.zeros((10, 100, 101, 2), np.uint8)))
    with pytest.raises(InputError, match=r"take 0\.00162 GB, expected at most 0\.0008 GB; keep fewer trajectories"):
        read_trajectories(path, STRING)
    # every array below the limit, all of them above it
    np.savez_compressed(path, **string_arrays(state=np.zeros((1, 5, 5001, 2)), grid=np.zeros(5001)))
    monkeypatch.setattr("phdme_jax.forecasting.archives.LARGEST_FILE", 4.2e5)
    with pytest.raises(InputError, match=r"state, time, grid take 0\.000441 GB, expected at most 0\.00042 GB"):
        read_trajectories(path, STRING)
    monkeypatch.setattr("phdme_jax.forecasting.archives.free_memory", lambda: 3e5)
    with pytest.raises(InputError, match=r"expected at most 0\.0003 GB"):
        read_trajectories(path, STRING)


def test_an_archive_is_read_with_one_copy_and_what_is_no_array_not_at_all(tmp_path):
    path, state = tmp_path / "trajectories.npz", np.zeros((20, 5, 5001, 2))

    def peak():
        tracemalloc.start()
        try:
            read_trajectories(path, STRING)
        finally:
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()

    peaks = []
    np.savez(path, **string_arrays(state=state, grid=np.linspace(0, 1, 5001)))
    peak()
    np.savez(path, **string_arrays(state=None))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("state", bytes(20_000_000))
    with pytest.raises(InputError, match="state cannot be read"):
        peak()
    assert peaks[0] < 1.25 * state.nbytes and peaks[1] < 1_000_000


def test_arrays_are_checked_as_files_are():
    for changes, words in (
        ({"state": [[1.0], [1.0, 2.0]]}, "trajectories: "),
        ({"state": np.array([object()])}, "state holds objects"),
        ({"time": None}, "the key 'time' is missing"),
        ({"inputs": np.ones((3, 5, 1))}, "did you mean 'input'"),
        ({"state": np.zeros((5, 9, 2))}, r"trajectories: state has 3 axes \(shape \(5, 9, 2\)\)"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            read_trajectories(string_arrays() | changes, STRING)
        assert "\n" not in str(caught.value)


def test_state_round_trip_and_defects(tmp_path):
    path = tmp_path / "state.npz"
    grid = np.linspace(0, 10, 9)
    state = np.random.default_rng(2).normal(size=(9, 2))
    np.savez(path, state=state, grid=grid)
    read = read_state(path, STRING, expected_grid=(grid,))
    np.testing.assert_array_equal(read.state, state)
    assert read.time is None
    np.savez(path, state=state, grid=grid, time=[0.0, 0.5])
    np.testing.assert_array_equal(read_state(path, STRING).time, [0.0, 0.5])

    with pytest.raises(InputError, match="not the grid of the fitted forecaster; expected 17 points from 0 to 10"):
        read_state(path, STRING, expected_grid=(np.linspace(0, 10, 17),))
    with pytest.raises(InputError, match="got 9 points from 0 to 10"):
        read_state(path, STRING, expected_grid=(np.linspace(0, 11, 9),))
    np.savez(path, state=state, grid=grid, time=[])
    with pytest.raises(InputError, match="time is empty"):
        read_state(path, STRING)
    np.savez(path, state=state[None], grid=grid)
    with pytest.raises(InputError, match=r"state has 3 axes \(shape \(1, 9, 2\)\); expected 2, \(grid, field\)"):
        read_state(path, STRING)
    np.savez(path, state=np.array([1.0, np.nan]))
    with pytest.raises(InputError, match="state holds nan at field momentum"):
        read_state(path, PENDULUM)


def forecast(**changes):
    mean = np.random.default_rng(3).normal(size=(4, 9, 2))
    fields = {
        "mean": mean,
        "lower": mean - 1,
        "upper": mean + 1,
        "samples": np.stack([mean, mean + 0.5]).astype(np.float32),
        "time": np.arange(4.0),
        "grid": (np.linspace(0, 10, 9),),
        "level": 0.9,
        "calibrated": True,
    }
    made = Forecast(**fields)
    for name, value in changes.items():  # past the check of types that only tests have
        object.__setattr__(made, name, value)
    return made


def test_forecast_round_trip_without_pickle(tmp_path):
    path = tmp_path / "deep" / "forecast.npz"
    wanted = forecast()
    assert write_forecast(path, wanted) == path
    with np.load(path, allow_pickle=False) as archive:
        assert set(archive.files) == {"mean", "lower", "upper", "samples", "time", "grid", "level", "calibrated"}
        for name in ("mean", "lower", "upper", "samples", "time"):
            np.testing.assert_array_equal(archive[name], getattr(wanted, name))
        assert float(archive["level"]) == 0.9 and bool(archive["calibrated"]) is True
        assert archive["samples"].dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"lower": np.zeros((4, 9, 1))}, "expected mean, lower and upper of shape"),
        ({"samples": np.zeros((2, 3, 9, 2))}, "expected samples of shape"),
        ({"lower": np.full((4, 9, 2), 9.0)}, "lower <= upper"),
        ({"mean": np.full((4, 9, 2), np.nan)}, "NaN"),
        ({"upper": np.full((4, 9, 2), np.inf)}, "calibrated forecast has a finite band"),
        ({"level": 90}, "between 0 and 1"),
    ],
)
def test_a_forecast_that_makes_no_sense_is_not_written(tmp_path, changes, part):
    path = tmp_path / "forecast.npz"
    with pytest.raises(ValueError, match=part):
        write_forecast(path, forecast(**changes))
    assert list(tmp_path.iterdir()) == []


def test_an_uncalibrated_forecast_may_have_an_infinite_band(tmp_path):
    wide = np.full((4, 9, 2), np.inf)
    write_forecast(tmp_path / "forecast.npz", forecast(lower=-wide, upper=wide, calibrated=False))


def test_writing_is_all_or_nothing(tmp_path):
    path = tmp_path / "kept.bin"
    path.write_bytes(b"before")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write(b"half")
        raise RuntimeError("killed")
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept.bin"]


def test_paths_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "forecast.npz"):
        with pytest.raises(InputError, match="cannot be written"):
            write_forecast(path, forecast())


def test_what_is_no_regular_file_is_neither_read_nor_replaced(tmp_path):
    pipe, null = tmp_path / "pipe.npz", tmp_path / "null.npz"
    os.mkfifo(pipe)
    null.symlink_to(os.devnull)
    for path in (pipe, null, Path("/dev/zero")):
        for read in (read_trajectories, read_state):
            with pytest.raises(InputError, match=r"this is a pipe or a device; expected an \.npz file"):
                read(path, STRING)
        with pytest.raises(InputError, match="this is a pipe or a device"):
            file_digest(path)
    for path in (pipe, null):
        with pytest.raises(InputError, match="cannot be written"):
            write_forecast(path, forecast())
    assert stat.S_ISFIFO(pipe.stat().st_mode) and null.is_symlink() and not null.is_file()
    assert sorted(tmp_path.iterdir()) == [null, pipe]


def test_a_link_stays_and_its_file_is_written(tmp_path):
    link, target = tmp_path / "link.npz", tmp_path / "elsewhere" / "real.npz"
    link.symlink_to(target)
    for _ in range(2):  # a link to nothing yet, then to a file
        assert write_forecast(link, forecast()) == link
        assert link.is_symlink() and zipfile.is_zipfile(target)
        assert [path.name for path in target.parent.iterdir()] == ["real.npz"]
        target.write_bytes(b"old")


def test_file_digest_is_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_digest(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(InputError, match="there is no such file"):
        file_digest(tmp_path / "none")
