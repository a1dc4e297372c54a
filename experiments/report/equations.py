"""Pictures and sections of the report of a study of known equations."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.evaluation.equations import drawn_fields
from experiments.report.answers import answer_section
from experiments.study.study import MakeSection, Shown
from phdme_jax.app import drawing, figures
from phdme_jax.app.drawing import Labels
from phdme_jax.app.page import Picture, Section
from phdme_jax.systems.equations.base import without_padding

SHOWN = 4


@drawing.styled
def line_samples(path: Path, grid: np.ndarray, drawn: dict[str, np.ndarray], labels: Labels) -> Path:
    """A few generated fields over a line, a column a method, five to a line of panels, a row a field."""
    names, count = list(drawn), len(labels.panels)
    columns = min(5, len(names))
    lines = -(-len(names) // columns)
    figure = drawing.new_figure(2.3 * columns, 2.1 * count * lines)
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
    figure = drawing.new_figure(1.55 * SHOWN + 1.6, 1.6 * len(names))
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


def sample_section(labels: tuple[str, ...], shown: Shown) -> Sequence[Section]:
    """A few generated fields of each method beside the data, on a line or a square.

    Args:
      labels: of the first channels, those that are shown.
      shown: of a case.
    """
    problem, context = shown.run.bench.task.problem, shown.context
    drawn = generated_fields(shown)
    if len(problem.grid.points) == 1:
        path = line_samples(
            context.figure_path(_file(shown, "samples")),
            problem.grid.coordinates(),
            drawn,
            Labels(x="position", panels=labels),
        )
        picture = Picture(path, f"{SHOWN} examples of each method, one colour an example")
        return [Section(_title(shown, "Examples"), "", (picture,))]
    pictures = [_of_channel(shown, drawn, name, label) for name, label in zip(problem.fields, labels, strict=False)]
    return [Section(_title(shown, "Examples"), "", tuple(pictures))]


def _of_channel(shown: Shown, drawn: dict[str, np.ndarray], name: str, label: str) -> Picture:
    problem = shown.run.bench.task.problem
    fields = {method: without_padding(problem, values[:SHOWN], name) for method, values in drawn.items()}
    path = shown.context.figure_path(_file(shown, f"samples_{name}".replace(" ", "_")))
    square_samples(path, fields, label, bool(fields["data"].min() < 0))
    return Picture(path, f"{label}: {SHOWN} examples of each method")


def last_sample_section(shown: Shown) -> Sequence[Section]:
    """A few generated fields on a square beside the data: the last three channels of the solution, and all others."""
    problem, drawn = shown.run.bench.task.problem, generated_fields(shown)
    solution, others = problem.fields[: problem.num_solution], problem.fields[problem.num_solution :]
    pictures = tuple(_of_channel(shown, drawn, name, name) for name in (*solution[-3:], *others))
    return [Section(_title(shown, "Examples"), "", pictures)]


def _title(shown: Shown, words: str) -> str:
    """Heading of a section, with the case where the study has several."""
    return f"{words}, {shown.run.case}" if len(shown.context.study.systems) > 1 else words


def _file(shown: Shown, name: str) -> str:
    return f"{shown.run.case}_{name}" if len(shown.context.study.systems) > 1 else name


def generated_fields(shown: Shown) -> dict[str, np.ndarray]:
    """The data of the split that is asked, and what each method generated for it."""
    split = shown.context.asked
    drawn = {name: drawn_fields(answers[split]) for name, answers in shown.answers.items() if split in answers}
    return {"data": shown.run.bench.splits[split].truth, **drawn}


DISTANCES = ("sliced_wasserstein", "wasserstein", "energy_distance", "spectrum_error", "angle_divergence")


def closeness_section(shown: Shown) -> Sequence[Section]:
    """Distances between what was generated and the data."""
    text = (
        "Distances between as many generated examples and unseen ones, channel by channel. The reference row is the "
        "distance of training examples from the same unseen ones: the floor that sampling leaves. The energy distance "
        "is unbiased and may be negative."
    )
    if shown.run.bench.task.problem.conditions:
        text += " Generated fields answer the tasks of the unseen examples and may be nearer to them than that."
    return [Section(_title(shown, "Closeness to the data"), text, (), DISTANCES)]


def cost_section(shown: Shown) -> Sequence[Section]:
    """Seconds and calls of the network."""
    text = (
        "nfe: calls of the network a sample; backward_calls: gradients through it, apart from these. train_seconds: "
        "with the teacher and its pairs; seconds_per_update: of the last stage; memory: the most bytes of a compiled "
        "update, its data included, left out where the backend does not tell."
    )
    metrics = ("train_seconds", "seconds_per_update", "memory", "seconds_per_sample", "nfe", "backward_calls")
    return [Section(_title(shown, "Cost"), text, (), metrics)]


def residual_section(shown: Shown) -> Sequence[Section]:
    """How well the equations are obeyed, with a picture of all seeds."""
    context = shown.context
    wanted = (shown.run.case, "residual_mae", context.asked)
    rows = [row for row in context.results.rows() if (row.system, row.metric, row.split) == wanted and not row.settings]
    values = {name: [row.value for row in rows if row.method == name] for name in context.methods}
    values = {name: seeds for name, seeds in values.items() if seeds}  # methods that answer questions have none
    floor = float(np.mean([row.value for row in rows if row.method == "reference"]))
    pictures: tuple[Picture, ...] = ()
    if values:
        path = context.figure_path(_file(shown, "residual"))
        path = figures.metric_by_method(path, values, Labels(x="mean absolute residual"), floor)
        pictures = (Picture(path, "Methods as they are, one dot a seed; the line is the data's own"),)
    words = (
        "Mean absolute residual over places and equations, also in units of the solution's standard deviation; the "
        "reference row is that of the data. The re-solve error compares the generated solution with the one computed "
        "anew from the generated coefficient. A residual is worth nothing where the fields no longer look like the "
        "data: see the distances."
    )
    metrics = ("residual_mae", "relative_residual", "resolve_error")
    return [Section(_title(shown, "The equations"), words, pictures, metrics)]


def equation_sections(*examples: MakeSection) -> tuple[MakeSection, ...]:
    """The sections of a study of known equations, those on its examples in between."""
    return (residual_section, closeness_section, *examples, answer_section, cost_section)
