"""Points on the unit circle, generated with and without the residual of their equation.

`python -m experiments.circle --size laptop --seeds 3`, 10 to 20 minutes a seed on one core: the residual of `pidm_me`
is about a twenty-seventh of that of `diffusion`, the angles are as even.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.equations import RANGES, about_equations, check_equations, equation_bench, equations_of
from experiments.evaluation import equations as scores
from experiments.report import equations as report
from experiments.study.command import main
from experiments.study.study import Answer, Run, Shown, Study
from phdme_jax.app import drawing
from phdme_jax.app.page import Picture, Section
from phdme_jax.app.rows import Measurement
from phdme_jax.methods.presets import INFORMED, MLP, equation_groups, equation_stages


def _size(num_train: int, num_test: int, width: int, stages: dict[str, Any], mean: float, sample: float) -> Any:
    informed = {"mean_weight": mean, "sample_weight": sample, **INFORMED, "least_log_likelihood": -27.63}
    return lambda: {
        "equations": {},
        "data": {"num_train": num_train, "num_test": num_test, "kinds": ("linear", "linear")},
        "network": {**MLP, "width": width},
        "stages": stages,
        "informed": informed,
        **equation_groups(),
    }


SIZES = {
    "smoke": _size(2000, 500, 32, equation_stages(300, 128, 1e-3), 0.1, 0.005),
    "laptop": _size(10000, 5000, 128, equation_stages(31600, 128, 5e-4), 1.0, 1.0),
}


def angle_divergence(points: np.ndarray, bins: int = 50) -> Measurement:
    """Kullback-Leibler divergence of the angles of points (n, 2) from uniform, of histograms with that many bins.

    Source: Bastek, Sun, Kochmann (2024), arXiv 2403.14404, section 3.3 (there with another number of bins).
    """
    count, _ = np.histogram(np.arctan2(points[:, 1], points[:, 0]), bins=bins, range=(-np.pi, np.pi))
    share = count / count.sum()
    kept = share > 0
    return Measurement(float(np.sum(share[kept] * np.log(share[kept] * bins))))


def angle_scores(answer: Answer) -> Mapping[str, Measurement]:
    """How even the angles are."""
    return {"angle_divergence": angle_divergence(scores.generated_set(answer).fields)}


def reference_angles(run: Run) -> None:
    """How even the angles of the data are."""
    points = run.bench.splits[run.context.asked].truth
    run.record("reference", run.context.asked, {"angle_divergence": angle_divergence(points)}, len(points))


@drawing.styled
def point_clouds(path: Path, clouds: dict[str, np.ndarray]) -> Path:
    """Generated points of the plane, one panel a method, with the unit circle."""
    figure, axes = drawing.panels(list(clouds), 2.4)
    angle = np.linspace(0, 2 * np.pi, 200)
    for axis, points in zip(axes, clouds.values(), strict=True):
        axis.plot(np.cos(angle), np.sin(angle), color=drawing.TRUTH, linewidth=0.7)
        axis.plot(points[:1000, 0], points[:1000, 1], ".", markersize=2.5, alpha=0.5, markeredgewidth=0)
        axis.set_aspect("equal")
        axis.set_xlim(-1.5, 1.5)
        axis.set_ylim(-1.5, 1.5)
    return drawing.save(figure, path, "")


@drawing.styled
def residual_by_angle(path: Path, clouds: dict[str, np.ndarray]) -> Path:
    """Residual of the unit circle over the angle, one panel a method, with its mean: uneven angles show as gaps."""
    figure, axes = drawing.panels(list(clouds), 1.9)
    for axis, points in zip(axes, clouds.values(), strict=True):
        residual = np.abs(np.sum(points**2, axis=1) - 1.0)
        angle = np.arctan2(points[:, 1], points[:, 0])
        shown = np.maximum(residual[:1000], 1e-10)
        axis.semilogy(angle[:1000], shown, ".", markersize=2, alpha=0.5, markeredgewidth=0)
        axis.axhline(max(float(residual.mean()), 1e-10), color=drawing.TRUTH, linewidth=0.7)
        axis.set_xticks([-np.pi, 0.0, np.pi], ["-π", "0", "π"])
    figure.supxlabel("angle", fontsize=8)
    return drawing.save(figure, path, "|x² + y² - 1|, at least 1e-10")


def point_section(shown: Shown) -> Sequence[Section]:
    """Points and their residuals."""
    clouds = report.generated_fields(shown)
    path = point_clouds(shown.context.figure_path("points"), clouds)
    other = residual_by_angle(shown.context.figure_path("residual_by_angle"), clouds)
    pictures = (
        Picture(path, "A thousand points of each method; the line is the unit circle"),
        Picture(other, "Their residual over the angle; the line is the mean of all"),
    )
    return [Section("Examples", "", pictures)]


STUDY = Study(
    name="circle",
    title="Points on the unit circle",
    sizes=SIZES,
    problem=equations_of,
    bench=equation_bench,
    scores=(scores.equation_scores, angle_scores),
    sections=report.equation_sections(point_section),
    metrics=("residual_mae", "angle_divergence", "nfe"),
    baseline="diffusion",
    about=about_equations,
    check=check_equations,
    ranges=RANGES,
    extras=(scores.reference_rows, reference_angles, scores.followed_flow_rows),
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
