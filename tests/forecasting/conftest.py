"""Files that tests of the fit and forecast commands share."""

from pathlib import Path

import numpy as np
import pytest

from tests.forecasting.string_files import waves


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    np.savez(folder / "data.npz", **waves(1, 0))
    np.savez(folder / "calibration.npz", **waves(5, 1))
    fresh = waves(1, 2)
    np.savez(folder / "state.npz", state=fresh["state"][0, 0], grid=fresh["grid"])
    return folder
