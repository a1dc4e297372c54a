"""Small files in PDEBench's layout are read back as the means and times that they hold, and others are refused."""

import jax
import numpy as np
import pytest

from experiments.data.pdebench import read_depths, read_series
from phdme_jax.files import InputError
from phdme_jax.systems import make_equations

h5py = pytest.importorskip("h5py")
ADVECTION = make_equations("advection", num_points=8, num_frames=5, duration=0.08)
BURGERS = make_equations("viscous_burgers", num_points=8, num_frames=5, duration=0.08)
DAM = make_equations("dam_break", num_points=4, num_frames=3, duration=0.2)


def series_file(path, tensor, num_times=None, interval=0.01):
    """As the published program writes it: single precision, middles of cells, one time too many."""
    count = tensor.shape[2]
    with h5py.File(path, "w") as file:
        file["tensor"] = tensor.astype(np.float32)
        file["x-coordinate"] = ((np.arange(count) + 0.5) / count).astype(np.float32)
        file["t-coordinate"] = (interval * np.arange(num_times or tensor.shape[1] + 1)).astype(np.float32)
    return path


def dam_file(path, samples, length=5.0):
    """Groups of one sample each, depths of (time, x, y, 1)."""
    with h5py.File(path, "w") as file:
        for number, frames in enumerate(samples):
            group = file.create_group(f"{number:04}")
            group["data"] = frames[..., None].astype(np.float32)
            for axis, name in ((1, "x"), (2, "y")):
                count = frames.shape[axis]
                group[f"grid/{name}"] = length * ((np.arange(count) + 0.5) / count - 0.5)
            group["grid/t"] = 0.01 * np.arange(len(frames))
    return path


@pytest.fixture
def tensor():
    """Values that say where they stand: sample, time and place."""
    sample, time, place = np.ogrid[:3, :11, :32]
    return 100.0 * sample + time + place / 64


def test_series_are_means_of_cells_at_every_second_time(tmp_path, tensor):
    path = series_file(tmp_path / "advection.hdf5", tensor)
    for equations in (ADVECTION, BURGERS):
        fields = read_series(path, equations)
        assert fields.shape == (3, 8, 5, 1) and fields.dtype == float
        sample, place, time = np.ogrid[:3, :8, :5]
        np.testing.assert_allclose(fields[..., 0], 100.0 * sample + 2 * time + (4 * place + 1.5) / 64, atol=1e-5)
    np.testing.assert_array_equal(read_series(path, ADVECTION, 2), read_series(path, ADVECTION)[:2])


def test_what_the_equations_solve_is_read_back(tmp_path):
    """A field of the equations, written as a file of the same grid, has no time and place exchanged."""
    fields = np.asarray(BURGERS.draw(jax.random.key(0)).fields)
    path = series_file(tmp_path / "burgers.hdf5", np.swapaxes(fields[None, ..., 0], 1, 2), num_times=5, interval=0.02)
    np.testing.assert_allclose(read_series(path, BURGERS)[0], fields, atol=1e-6)


def test_depths_are_means_of_cells_in_the_order_of_the_channels(tmp_path):
    time, x, y = np.ogrid[:21, :8, :8]
    frames = 1.0 + time / 100 + x / 8 + y**2 / 64
    found = read_depths(dam_file(tmp_path / "dam.h5", [frames, 2 * frames]), DAM, 0.2)
    assert found.shape == (2, 4, 4, 3)
    blocks = frames.reshape(21, 4, 2, 4, 2).mean(axis=(2, 4))
    for channel, number in enumerate((10, 20, 0)):
        np.testing.assert_allclose(found[0, ..., channel], blocks[number], rtol=1e-6)
    np.testing.assert_allclose(found[1], 2 * found[0], rtol=1e-6)
    assert found[0, 3, 0, 2] > found[0, 0, 3, 2] + 0.01


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda one: one[:, :, :20], "no whole number makes 0.125"),
        (lambda one: one[:, :8], "expected at least 9 times, got 8"),
        (lambda one: np.where(one == one[1, 4, 9], np.nan, one), "example 1 has values that are not finite"),
        (lambda one: one[..., None], "expected a tensor of samples"),
    ],
    ids=["places", "times", "finite", "shape"],
)
def test_series_that_do_not_fit_are_refused_in_one_sentence(tmp_path, tensor, change, words):
    with pytest.raises(InputError, match=words):
        read_series(series_file(tmp_path / "file.hdf5", change(tensor)), ADVECTION)


def test_times_that_no_stride_makes_and_too_many_examples_are_refused(tmp_path, tensor):
    with pytest.raises(InputError, match=r"has times 0\.015 apart, of which no whole number makes 0\.02"):
        read_series(series_file(tmp_path / "file.hdf5", tensor, interval=0.015), ADVECTION)
    with pytest.raises(InputError, match="holds 3 examples, 4 were asked for"):
        read_series(series_file(tmp_path / "other.hdf5", tensor), ADVECTION, 4)
    longer = series_file(tmp_path / "longer.hdf5", tensor, num_times=20)
    with pytest.raises(InputError, match="expected a tensor of samples, 20 times or one fewer"):
        read_series(longer, ADVECTION)


def test_other_files_are_refused_in_one_sentence(tmp_path, tensor):
    with pytest.raises(InputError, match="there is no such file"):
        read_series(tmp_path / "none.hdf5", ADVECTION)
    (tmp_path / "text.hdf5").write_text("no numbers")
    with pytest.raises(InputError, match="is no HDF5 file"):
        read_series(tmp_path / "text.hdf5", ADVECTION)
    dam = dam_file(tmp_path / "dam.h5", [np.ones((21, 8, 8))])
    with pytest.raises(InputError, match="expected arrays named 'tensor'"):
        read_series(dam, ADVECTION)
    with pytest.raises(InputError, match="expected arrays named 't-coordinate/data'"):
        read_depths(series_file(tmp_path / "series.hdf5", tensor), DAM, 0.2, 1)
    with pytest.raises(InputError, match=r"no whole number makes 1\.25"):
        read_depths(dam_file(tmp_path / "wide.h5", [np.ones((21, 8, 8))], length=6.0), DAM, 0.2)
    with pytest.raises(InputError, match="expected at least 51 times, got 21"):
        read_depths(dam, DAM, 0.5)
    with h5py.File(dam, "a") as file:
        del file["0000/grid/y"]
        file["0000/grid/y"] = np.arange(5.0)
    with pytest.raises(InputError, match=r"expected 0000/data of the shape \(21, 8, 5, 1\)"):
        read_depths(dam, DAM, 0.2)
