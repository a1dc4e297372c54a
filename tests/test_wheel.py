"""What is installed: the library alone, with its types and its command, working where there is no source tree."""

import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest

import phdme_jax
from tests.forecasting.string_files import fit_arguments, forecast_arguments, waves

ROOT = Path(phdme_jax.__file__).parents[1]
PYTHON_API = """
import sys
import phdme_jax
from phdme_jax import forecast, load

forecaster = load(sys.argv[1])
made = forecast(forecaster, sys.argv[2], num_samples=6)
print(phdme_jax.__file__, len(made.samples), made.calibrated, float(abs(made.mean).max()))
"""


def run(*command: str | Path, folder: Path) -> str:
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_version_is_one():
    assert re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.M)[1] == phdme_jax.__version__
    assert f"\n## {phdme_jax.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.slow
def test_an_installed_wheel_fits_and_forecasts(tmp_path):
    source, outside = tmp_path / "source", tmp_path / "outside"
    outside.mkdir()
    for name in ("phdme_jax", "experiments"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "-w", tmp_path, source, folder=outside)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"phdme_jax", f"phdme_jax-{phdme_jax.__version__}.dist-info"}
    assert "phdme_jax/py.typed" in names and any(name.endswith("licenses/LICENSE") for name in names)

    # an empty environment that sees what the running one has installed, but not its link to the source tree
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", folder=outside)
    bin_folder = tmp_path / "venv" / "bin"
    python = bin_folder / "python"
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, folder=outside)
    (site,) = (tmp_path / "venv" / "lib").glob("*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")

    np.savez(outside / "data.npz", **waves(1, 0))
    np.savez(outside / "calibration.npz", **waves(5, 1))
    np.savez(outside / "state.npz", state=waves(1, 2)["state"][0, 0], grid=waves(1, 2)["grid"])
    fitted, made = outside / "run", outside / "forecast.npz"
    more = ("--calibration", "calibration.npz")
    assert "report: " in run(bin_folder / "phdme", "fit", *fit_arguments(outside, fitted, *more), folder=outside)
    run(bin_folder / "phdme", "forecast", *forecast_arguments(outside, fitted, made, "--samples", "6"), folder=outside)
    printed = run(python, "-c", PYTHON_API, fitted, "state.npz", folder=outside).split()
    assert Path(printed[0]).is_relative_to(site) and printed[1:3] == ["6", "True"]
    with np.load(made) as archive:
        assert float(printed[3]) == pytest.approx(np.abs(archive["mean"]).max(), rel=1e-12)
    missing = subprocess.run([python, "-c", "import experiments"], cwd=outside, capture_output=True, text=True)
    assert "No module named 'experiments'" in missing.stderr
