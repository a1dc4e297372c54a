"""Pictures: readable files, the same bytes again, honest scales, the interval of the coverage curve by simulation."""

import os
import subprocess
import sys
import warnings

import matplotlib
import matplotlib.image
import numpy as np
import pytest

from phdme_jax.app import drawing, figures
from phdme_jax.app.figures import Curve, EffortSlice, Labels

TIME = np.linspace(0, 20, 41)
GRID = np.linspace(0, 10, 17)
WAVE = np.sin(np.pi * GRID / 10)[None, :, None] * np.cos(TIME)[:, None, None] * np.array([1.0, 3e-4])
LINE = np.exp(-0.1 * TIME)


def draw(name, path):
    """One picture of every kind, from the same small arrays."""
    match name:
        case "space_time_panel":
            labels = Labels("Wave", "time [s]", "position [m]", ("momentum [kg/s]", "strain [1]"))
            return figures.space_time_panel(path, WAVE, 0.9 * WAVE, TIME, GRID, labels, spread=np.abs(WAVE))
        case "snapshot_panel":
            height = 1 + 0.1 * np.random.default_rng(0).normal(size=(3, 8, 8))
            labels = Labels("Water", "x [m]", "y [m]", ("height [m]",))
            return figures.snapshot_panel(path, height, height + 0.01, [0, 1, 2], labels)
        case "energy_over_time":
            curves = [Curve("phdme", LINE, LINE - 0.1, LINE + 0.1), Curve("diffusion", LINE**2)]
            return figures.energy_over_time(path, TIME, curves, LINE, Labels("Energy", "time [s]", "energy [J]"))
        case "effort_learned_vs_true":
            part = EffortSlice(TIME, LINE, 0.1 * LINE, LINE**1.1, (5, 15), "strain [1]", "stress [N]")
            return figures.effort_learned_vs_true(path, [part] * 4, Labels("Efforts", panels=("a", "b", "c", "d")))
        case "effort_of_one_slice":
            part = EffortSlice(TIME, LINE, 0.1 * LINE, LINE**1.1, (5, 15), "strain [1]", "stress [N]")
            return figures.effort_learned_vs_true(path, [part], Labels("Efforts"))
        case "coverage_curve":
            levels = np.linspace(0.1, 0.95, 9)
            return figures.coverage_curve(path, levels, {"phdme": levels, "fno": levels**2}, 50, 99, Labels("Coverage"))
        case "training_curve":
            return figures.training_curve(path, {"train": TIME}, {"train": LINE}, Labels("Training"))
        case "metric_by_method":
            values = {"phdme": [1e-3, 2e-3, None], "fno": [0.1, 0.2, 0.3], "hnn": [None, float("nan")]}
            return figures.metric_by_method(path, values, Labels("Error", "mse [m²]"), floor=1e-5)
        case "forecast_lines":
            mean = np.stack([LINE, 2 * LINE], -1)
            curve = Curve("phdme", mean, mean - 0.1, mean + 0.1, np.stack([mean] * 3))
            labels = Labels("Forecast", "time [s]", "p [kg/s]", ("at 1 m", "at 5 m"))
            return figures.forecast_lines(path, TIME, mean, curve, labels)
    raise ValueError(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "space_time_panel",
        "snapshot_panel",
        "energy_over_time",
        "effort_learned_vs_true",
        "effort_of_one_slice",
        "coverage_curve",
        "training_curve",
        "metric_by_method",
        "forecast_lines",
    ],
)
def test_every_picture_is_drawn_within_its_page_and_reproducibly(tmp_path, name):
    before = dict(matplotlib.rcParams)
    path = draw(name, tmp_path / "figures" / f"{name}.png")
    assert path == tmp_path / "figures" / f"{name}.png"
    assert dict(matplotlib.rcParams) == before
    image = matplotlib.image.imread(path)
    assert image.shape[1] >= 500 and image.shape[0] >= 300
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    assert np.all(border == 1.0), "ink on the border means that a label is cut off"
    assert np.mean(np.any(image[..., :3] < 0.9, axis=-1)) > 0.01
    assert draw(name, tmp_path / "again.png").read_bytes() == path.read_bytes()


def test_truth_and_forecast_share_their_scale_and_errors_are_symmetric():
    scale = drawing.value_scale(np.array([-1.0, 0.5]))
    assert (scale["norm"].vmin, scale["norm"].vmax) == (-1.0, 1.0), "zero keeps the neutral colour"
    scale = drawing.value_scale(np.array([1.0, 1.5, np.nan]))
    assert (scale["norm"].vmin, scale["norm"].vmax) == (1.0, 1.5)
    scale = drawing.error_scale(np.array([-0.1, 0.3]))
    assert (scale["norm"].vmin, scale["norm"].vmax) == (-0.3, 0.3)
    assert drawing.spread_scale(np.array([0.1, 0.3]))["norm"].vmin == 0.0


def test_failed_forecasts_do_not_stop_a_picture(tmp_path):
    broken = np.where(TIME > 10, np.nan, LINE)
    wide = np.full_like(TIME, np.inf)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curves = [Curve("fno", broken, -wide, wide), Curve("phdme", LINE)]
        figures.energy_over_time(tmp_path / "a.png", TIME, curves, LINE, Labels("Energy", "time [s]", "energy [J]"))
        figures.training_curve(tmp_path / "b.png", {"train": TIME}, {"train": broken}, Labels())
        panel = Labels("", "time [s]", "position [m]", ("momentum [kg/s]", "strain [1]"))
        figures.space_time_panel(tmp_path / "c.png", WAVE, np.full_like(WAVE, np.nan), TIME, GRID, panel)


@pytest.mark.parametrize(("floor", "shown"), [(6e-16, False), (1e-4, True)])
def test_a_floor_of_rounding_does_not_stretch_the_axis(tmp_path, monkeypatch, floor, shown):
    drawn = []
    monkeypatch.setattr(figures.drawing, "save", lambda figure, path, title: drawn.append(figure))
    figures.metric_by_method(tmp_path / "a.png", {"fno": [0.1], "hnn": [0.2]}, Labels("Residual"), floor)
    (axis,) = drawn[0].axes
    assert (axis.get_xlim()[0] < floor) == shown and axis.get_xlim()[0] < 0.1
    assert axis.get_xscale() == ("log" if shown else "linear")
    assert ("off the axis" in drawn[0].legends[0].get_texts()[0].get_text()) != shown


def test_the_users_settings_neither_change_a_picture_nor_are_changed(tmp_path):
    plain = draw("space_time_panel", tmp_path / "plain.png").read_bytes()
    settings = {"text.usetex": True, "savefig.bbox": "tight", "xtick.direction": "in", "axes.linewidth": 3.0}
    with matplotlib.rc_context(settings):
        assert draw("space_time_panel", tmp_path / "theirs.png").read_bytes() == plain
        assert {name: matplotlib.rcParams[name] for name in settings} == settings


def test_a_backend_that_is_not_here_is_not_asked_for():
    environment = {**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    code = "import phdme_jax.app.figures, experiments.report.equations"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
