"""Pictures and sections of the report of a study of known equations."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.study.command import RunContext
from phdme_jax.app import drawing, figures
from phdme_jax.app.drawing import Labels
from phdme_jax.app.page import Picture, Section
from phdme_jax.systems.equations.base import without_padding

SHOWN = 4
BODY_WORDS = (
    "Compliance error: compliance of the generated body, black and white and solved anew, over that of the "
    "optimised one, less one, median. Volume error: distance of its volume from the fraction asked for, over that "
    "fraction, mean. Rejection rate: share of bodies in several pieces, squares that touch at a corner being in one."
)


def _panels(names: list[str], height: float) -> tuple[Figure, list[Any]]:
    """A titled panel for each name, four to a row, on shared axes."""
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(2.3 * columns, height * rows))
    axes = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True)).ravel()
    for axis, name in zip(axes, names, strict=False):
        axis.set_title(name)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    return figure, list(axes[: len(names)])


@drawing.styled
def point_clouds(path: Path, clouds: dict[str, np.ndarray]) -> Path:
    """Generated points of the plane, one panel a method, with the unit circle."""
    figure, axes = _panels(list(clouds), 2.4)
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
    figure, axes = _panels(list(clouds), 1.9)
    for axis, points in zip(axes, clouds.values(), strict=True):
        residual = np.abs(np.sum(points**2, axis=1) - 1.0)
        angle = np.arctan2(points[:, 1], points[:, 0])
        shown = np.maximum(residual[:1000], 1e-10)
        axis.semilogy(angle[:1000], shown, ".", markersize=2, alpha=0.5, markeredgewidth=0)
        axis.axhline(max(float(residual.mean()), 1e-10), color=drawing.TRUTH, linewidth=0.7)
        axis.set_xticks([-np.pi, 0.0, np.pi], ["-π", "0", "π"])
    figure.supxlabel("angle", fontsize=8)
    return drawing.save(figure, path, "|x² + y² - 1|, at least 1e-10")


@drawing.styled
def line_samples(path: Path, grid: np.ndarray, drawn: dict[str, np.ndarray], labels: Labels) -> Path:
    """A few generated fields over a line, a column a method, five to a line of panels, a row a field."""
    names, count = list(drawn), len(labels.panels)
    columns = min(5, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(2.3 * columns, 2.1 * count * lines))
    axes = figure.subplots(count * lines, columns, sharex=True, squeeze=False)
    for row, field in enumerate(labels.panels):
        for other in range(row, count * lines, count):  # one scale a field
            for axis in axes[other]:
                axis.sharey(axes[row, 0])
            axes[other, 0].set_ylabel(field)
    for axis in axes.ravel():
        axis.label_outer()
    for place, name in enumerate(names):
        line, column = divmod(place, columns)
        axes[count * line, column].set_title(name)
        for row in range(count):
            axes[count * line + row, column].plot(grid, drawn[name][:SHOWN, :, row].T, linewidth=1.0)
    for axis in axes[-1]:
        axis.set_xlabel(labels.x)
    for axis in axes[count * (lines - 1) :, len(names) - columns * (lines - 1) :].ravel():
        axis.set_axis_off()
    return drawing.save(figure, path, labels.title)


@drawing.styled
def square_samples(path: Path, rows: dict[str, np.ndarray], title: str, symmetric: bool) -> Path:
    """Generated fields on a square, a row a method, on one scale of colours."""
    names = list(rows)
    figure = Figure(figsize=(1.55 * SHOWN + 1.6, 1.6 * len(names)))
    axes = figure.subplots(len(names), SHOWN, squeeze=False)
    limits = np.percentile(rows[names[0]], [0.5, 99.5])
    if symmetric:
        limits = np.array([-1.0, 1.0]) * np.abs(limits).max()
    image = None
    for line, name in zip(axes, names, strict=True):
        for axis, field in zip(line, rows[name], strict=False):
            image = axis.imshow(
                field.T, origin="lower", vmin=limits[0], vmax=limits[1], cmap="RdBu_r" if symmetric else "viridis"
            )
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(name, fontsize=7)
    if image is not None:
        figure.colorbar(image, ax=axes, shrink=0.6, extend="both")
    return drawing.save(figure, path, title)


def draw_all(context: RunContext, run: Any, drawn: dict[str, np.ndarray]) -> list[Section]:
    """Draw generated examples of one seed and arrange the rest of the report.

    Args:
      context: the run.
      run: the seed's shared state (`EquationRun`).
      drawn: generated fields by method.
    Returns:
      sections of the report.
    """
    shown = {"data": run.sets["test"].fields, **drawn}
    axes = len(run.equations.grid.points)
    labels, pictures = run.problem.labels, []
    if axes == 0:
        path = point_clouds(context.figure_path("points"), shown)
        pictures.append(Picture(path, "A thousand points of each method; the line is the unit circle"))
        path = residual_by_angle(context.figure_path("residual_by_angle"), shown)
        pictures.append(Picture(path, "Their residual over the angle; the line is the mean of all"))
    elif axes == 1:
        grid = run.equations.grid.coordinates()
        path = line_samples(context.figure_path("samples"), grid, shown, Labels(x="position", panels=labels))
        pictures.append(Picture(path, f"{SHOWN} examples of each method, one colour an example"))
    else:
        for channel, label in enumerate(labels):
            name = run.equations.fields[channel]
            fields = {key: without_padding(run.equations, part[:SHOWN], name) for key, part in shown.items()}
            symmetric = bool(fields["data"].min() < 0)
            path = square_samples(context.figure_path(f"samples_{name}"), fields, label, symmetric)
            pictures.append(Picture(path, f"{label}: {SHOWN} examples of each method"))
    distances = ("sliced_wasserstein", "wasserstein", "energy_distance", "spectrum_error", "angle_divergence")
    words = (
        "Distances between as many generated examples and unseen ones, channel by channel. The reference row is the "
        "distance of training examples from the same unseen ones: the floor that sampling leaves. The energy distance "
        "is unbiased and may be negative."
    )
    if run.equations.conditions:
        words += " Generated fields answer the tasks of the unseen examples and may be nearer to them than that."
    bodies = ("compliance_error", "volume_error", "rejection_rate")
    return [
        Section("Closeness to the data", words, (), distances),
        *([Section("Bodies", BODY_WORDS, (), bodies)] if run.problem.name == "topology" else []),
        Section("Examples", "", tuple(pictures)),
        Section("Cost", "", (), ("train_seconds", "seconds_per_sample", "nfe")),
    ]


def residual_section(context: RunContext) -> Section:
    """The section on the equations, with a picture of all seeds."""
    rows = [row for row in context.results.rows() if row.metric == "residual_mae" and row.split == "test"]
    values = {name: [row.value for row in rows if row.method == name] for name in context.methods}
    floor = float(np.mean([row.value for row in rows if row.method == "reference"]))
    path = figures.metric_by_method(context.figure_path("residual"), values, Labels(x="mean absolute residual"), floor)
    words = (
        "Mean absolute residual over places and equations, also in units of the solution's standard deviation; the "
        "reference row is that of the data. The re-solve error compares the generated solution with the one computed "
        "anew from the generated coefficient. A residual is worth nothing where the fields no longer look like the "
        "data: see the distances."
    )
    metrics = ("residual_mae", "relative_residual", "resolve_error")
    return Section("The equations", words, (Picture(path, "One dot a seed; the line is the data's own"),), metrics)
