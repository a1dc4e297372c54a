"""Sections of a study whose examples share one question: moments, obedience, pictures of mean and deviation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.evaluation.equations import drawn_fields
from experiments.report.equations import cost_section
from experiments.study.study import MakeSection, Shown
from phdme_jax.app import drawing
from phdme_jax.app.page import Picture, Section

MOMENTS = ("mmse", "smse", "mmse_absolute", "smse_absolute")
OBEDIENCE = ("constraint_error", "conserved_error", "residual_mae", "residual_rms", "residual_rms_unseen")


@drawing.styled
def moment_panels(path: Path, drawn: dict[str, np.ndarray], title: str) -> Path:
    """Mean and deviation over examples on (x, time), a row each, a column a method, a scale of colours a row."""
    names = list(drawn)
    figure = drawing.new_figure(1.5 * len(names) + 1.2, 3.4)
    axes = figure.subplots(2, len(names), squeeze=False)
    for row, label in enumerate(("mean", "deviation")):
        values = [drawn[name].mean(axis=0) if row == 0 else drawn[name].std(axis=0) for name in names]
        low, high = float(values[0].min()), float(values[0].max())
        for axis, name, value in zip(axes[row], names, values, strict=True):
            image = axis.imshow(value.T, origin="lower", vmin=low, vmax=high, cmap="viridis")
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(name, fontsize=7)
        axes[row, 0].set_ylabel(label, fontsize=7)
        figure.colorbar(image, ax=list(axes[row]), shrink=0.8, extend="both")
    return drawing.save(figure, path, title)


def moment_section(shown: Shown) -> Sequence[Section]:
    """How far mean and deviation of the answers are from those of the right answer."""
    run = shown.run
    text = (
        "All examples share one question, and truths are draws of its right answer. Errors of mean and standard "
        "deviation at each place, squares averaged: in units of the variance, and (absolute) in square units of the "
        "field. The reference row is that of other draws of the right answer; flow matching is not told the question."
    )
    pictures = []
    for split, one in run.bench.splits.items():
        for index, field in enumerate(run.bench.task.problem.fields):
            methods = {name: drawn_fields(found[split]) for name, found in shown.answers.items() if split in found}
            drawn = {name: values[..., index] for name, values in {"data": one.truth, **methods}.items()}
            path = shown.context.figure_path(f"{run.case}_{field}")
            moment_panels(path, drawn, f"{run.case}: {field}")
            pictures.append(Picture(path, f"{run.case}, {field}: mean and deviation, place across and time up"))
    return [Section(f"Moments, {run.case}", text, tuple(pictures), MOMENTS)]


def obedience_section(shown: Shown) -> Sequence[Section]:
    """What answers miss of the question, of what is conserved, and of the equations."""
    text = (
        "Constraint error: the largest miss of a value that was given, in units of the field's deviation. Conserved "
        "error: the same of what is conserved. Residuals of the equations, the reference row that of the data."
    )
    return [Section(f"Constraints, {shown.run.case}", text, (), OBEDIENCE)]


def given_sections() -> tuple[MakeSection, ...]:
    """The sections of such a study."""
    return (moment_section, obedience_section, cost_section)
