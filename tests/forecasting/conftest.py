"""What tests of the product and of its commands share: files, and one tiny fit."""

from pathlib import Path

import numpy as np
import pytest

from phdme_jax import fit
from tests.forecasting.string_files import tiny_options, waves


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    np.savez(folder / "data.npz", **waves(1, 0))
    np.savez(folder / "calibration.npz", **waves(5, 1))
    fresh = waves(1, 2)
    np.savez(folder / "state.npz", state=fresh["state"][0, 0], grid=fresh["grid"])
    return folder


@pytest.fixture(scope="session")
def tiny_fit(tmp_path_factory) -> Path:
    """Folder in which a fit of `waves(1, 0)` has kept what takes long: the same call ends at once there."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if base.name.startswith("popen-") else base) / "tiny_fit"
    if not shared.exists():
        own = tmp_path_factory.mktemp("tiny_fit")
        fit(waves(1, 0), "vibrating_string", options=tiny_options(), folder=own)
        if not shared.exists():
            own.rename(shared)
    return shared
