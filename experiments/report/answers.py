"""Pictures of answers to questions about fields on two axes: what was seen, what was answered, how far off it is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.study.study import Answer, Shown
from phdme_jax.app import drawing
from phdme_jax.app.page import Picture, Section
from phdme_jax.methods.equations.questions import Question
from phdme_jax.numerics.bound import Bound
from phdme_jax.numerics.grid import Grid
from phdme_jax.systems.equations.base import Equations, stacked_residual, without_padding

SHOWN = 3  # methods
DECADES = 4  # of the residual
DRAWN = ("sample", "another sample", "mean")
FEW = 0.1  # of the places with a value: they are drawn as dots, larger than a place


class Asked(NamedTuple):
    """One field of one example, and what was observed to tell it.

    Attributes:
      truth: values, (x, y).
      observed: values of the same field or, where nothing of it was seen, of another, (x, y); not a number elsewhere.
      label: of what was observed.
      same: whether it is the same field.
    """

    truth: np.ndarray
    observed: np.ndarray
    label: str
    same: bool


class Answered(NamedTuple):
    """What one method says of it, each (x, y).

    Attributes:
      drawn: two samples and the mean of all.
      deviation: standard deviation over all samples.
      residual: root of the sum of the squared equations, of the first sample.
    """

    drawn: tuple[np.ndarray, ...]
    deviation: np.ndarray
    residual: np.ndarray


@drawing.styled
def answer_picture(path: Path, asked: Asked, answers: Mapping[str, Answered], title: str) -> Path:
    """Truth and observation, then a row a method: two samples, mean, deviation and residual; one scale for all rows.

    Args:
      path: PNG to write.
      asked: the field that was asked for.
      answers: of each method, at least one.
      title: heading.
    Returns:
      the path.
    """
    from matplotlib.colors import LogNorm

    figure = drawing.new_figure(10.4, 1.45 * len(answers) + 1.25)
    axes = figure.subplots(len(answers), 4 + len(DRAWN), squeeze=False)
    values = drawing.value_scale(asked.truth)
    deviation = drawing.spread_scale(np.stack([answer.deviation for answer in answers.values()]))
    most = max(float(answer.residual.max()) for answer in answers.values()) or 1.0
    residual = {"cmap": "magma", "norm": LogNorm(most * 10.0**-DECADES, most, clip=True)}
    seen = values if asked.same else drawing.value_scale(asked.observed)
    _draw(axes[0, 0], asked.truth, values, "truth")
    observed = _draw(axes[0, 1], asked.observed, seen, asked.label)
    for axis in axes[1:, :2].ravel():
        axis.set_axis_off()
    for row, (name, answer) in enumerate(answers.items()):
        fields = (*answer.drawn, answer.deviation, answer.residual)
        scales = (*[values] * len(DRAWN), deviation, residual)
        titles = (*DRAWN, "deviation", "residual") if row == 0 else [""] * len(fields)
        images = [_draw(*cell) for cell in zip(axes[row, 2:], fields, scales, titles, strict=True)]
        axes[row, 2].set_ylabel(name)
    _bar(figure, images[0], axes[:, 2:5], "both", aspect=40)
    _bar(figure, images[-2], axes[:, 5])
    _bar(figure, images[-1], axes[:, 6], "min", few=False)
    if not asked.same:
        _bar(figure, observed, axes[:, 1])
    return drawing.save(figure, path, title)


def _bar(figure: Any, image: Any, above: Any, extend: str = "neither", aspect: int = 12, few: bool = True) -> None:
    """A colour bar below some axes, with a few numbers on it."""
    from matplotlib.ticker import MaxNLocator

    bar = figure.colorbar(image, ax=above, location="bottom", extend=extend, aspect=aspect)
    bar.ax.tick_params(labelsize=7, length=2)
    if few:
        bar.locator = MaxNLocator(3)
        bar.update_ticks()


def _draw(axis: Any, field: np.ndarray, scale: Mapping[str, Any], title: str) -> Any:
    axis.set_facecolor("0.88")  # of places without a value
    image = axis.imshow(field.T, origin="lower", aspect="auto", interpolation="nearest", **scale)
    seen = np.isfinite(field)
    if seen.mean() < FEW:
        axis.scatter(*np.nonzero(seen), s=16, c=field[seen], edgecolors="0.3", linewidths=0.4, clip_on=False, **scale)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    axis.set_title(title, fontsize=8.5)
    axis.grid(False)
    return image


def _measure(axis: Any, grid: Grid) -> None:
    """The ends of a grid on the edges of its picture."""
    last = [count - 1 for count in grid.points]
    axis.set(xticks=[0, last[0]], yticks=[0, last[1]])
    axis.set_xticklabels(["0", f"{grid.lengths[0]:g}"])
    axis.set_yticklabels(["0", f"{grid.lengths[1]:g}"])
    axis.set_xlabel("first axis", fontsize=7, labelpad=-6)
    axis.set_ylabel("second axis", fontsize=7, labelpad=-6)
    axis.tick_params(labelsize=7, length=2)


@drawing.styled
def own_answer_picture(path: Path, problem: Equations, question: Question, samples: np.ndarray, index: int) -> Path:
    """What was read, two samples, their mean and deviation, of one field of a question without a known truth.

    Args:
      path: PNG to write.
      problem: equations on two axes.
      question: what was read.
      samples: of the answer, (sample, *grid, field).
      index: of the field.
    Returns:
      the path.
    """
    mask, name = np.asarray(question.mask), problem.fields[index]
    told = _telling(mask, index)
    seen = _field(problem, np.where(mask > 0, np.asarray(question.values), np.nan), problem.fields[told])
    drawn = (samples[0], samples[min(1, len(samples) - 1)], samples.mean(axis=0))
    fields = [_field(problem, values, name) for values in drawn]
    spread = _field(problem, samples.std(axis=0, ddof=1) if len(samples) > 1 else np.zeros_like(samples[0]), name)
    figure = drawing.new_figure(8.0, 2.7)
    axes = figure.subplots(1, 2 + len(DRAWN))
    scale, deviation = drawing.value_scale(np.stack(fields)), drawing.spread_scale(spread)
    label = "read" if told == index else f"read: {_words(problem.fields[told])}"
    observed = _draw(axes[0], seen, scale if told == index else drawing.value_scale(seen), label)
    if seen.shape == problem.grid.points:
        _measure(axes[0], problem.grid)
    images = [_draw(*cell) for cell in zip(axes[1:-1], fields, [scale] * len(DRAWN), DRAWN, strict=True)]
    last = _draw(axes[-1], spread, deviation, "deviation")
    _bar(figure, images[0], axes[1:-1], "both", aspect=40)
    _bar(figure, last, axes[-1])
    if told != index:
        _bar(figure, observed, axes[0])
    return drawing.save(figure, path, _words(name))


def answer_section(shown: Shown) -> Sequence[Section]:
    """Scores of the answers, and one example of each question by the methods with the best ones."""
    bench, problem = shown.run.bench, shown.run.bench.task.problem
    asked = [name for name, split in bench.splits.items() if split.questions and name not in bench.calibrating]
    pictures: list[Picture] = []
    for split in asked:
        answers = {name: found[split] for name, found in shown.answers.items() if split in found}
        best = [name for name in _in_order(shown, split) if name in answers and answers[name].forecasts.ok[0]][:SHOWN]
        if best and len(problem.grid.points) == 2:
            pictures += _pictures(shown, split, {name: answers[name] for name in best})
    if not asked:
        return []
    text = (
        "What was not observed is asked for: forward from all of the cause, inverse from all of the solution, "
        "reconstruction from some places of all fields. Coverage is the share of examples whose hidden places all lie "
        "in the calibrated band, its width in deviations of the field. Spread over skill is one where the spread of "
        "the samples is as large as the error of their mean."
    )
    metrics = ("relative_l2", "crps", "spread_skill", "coverage", "band_width", "constraint_error")
    return [Section("Answers", text, tuple(pictures), metrics)]


def _in_order(shown: Shown, split: str) -> list[str]:
    """Methods as they are by their mean CRPS over seeds, the best first; those that failed are left out."""
    found: dict[str, list[float | None]] = {}
    for row in shown.context.results.rows():
        if (row.system, row.split, row.metric) == (shown.run.case, split, "crps") and not row.settings:
            found.setdefault(row.method, []).append(row.value)
    means = {name: fmean(values) for name, values in found.items() if None not in values}  # type: ignore[arg-type]
    return sorted(means, key=means.__getitem__)


def _pictures(shown: Shown, split: str, answers: Mapping[str, Answer]) -> list[Picture]:
    """A picture of the first example for each field that was not wholly observed."""
    problem, pictures = shown.run.bench.task.problem, []
    for index, field in enumerate(problem.fields):
        asked = _asked(problem, shown.run.bench.splits[split], index)
        if asked is None:
            continue
        answered = {name: _answered(problem, answer, field) for name, answer in answers.items()}
        path = shown.context.figure_path(f"answers_{split}_{field}")
        words = f"{split.replace('_', ' ')}: {_words(field)}"
        caption = (
            f"{words} of one example, by the methods of the least CRPS; truth, samples and mean on one scale, "
            f"the residual of the first sample over {DECADES} decades; grey: not observed"
        )
        pictures.append(Picture(answer_picture(path, asked, answered, words), caption))
    return pictures


def _telling(mask: np.ndarray, index: int) -> int:
    """The field itself where something of it was observed, else the one of which most was."""
    return index if mask[..., index].any() else int(np.argmax(mask.mean(axis=tuple(range(mask.ndim - 1)))))


def _asked(problem: Equations, split: Any, index: int) -> Asked | None:
    mask, truth = split.condition.mask[0], split.truth[0]
    if mask[..., index].all():
        return None
    told = _telling(mask, index)
    seen = np.where(mask > 0, split.condition.values[0], np.nan)
    found = [_field(problem, values, problem.fields[at]) for values, at in ((truth, index), (seen, told))]
    label = "observed" if told == index else f"observed: {_words(problem.fields[told])}"
    return Asked(found[0], found[1], label, told == index)


def _answered(problem: Equations, answer: Answer, field: str) -> Answered:
    samples = answer.forecasts.samples
    assert samples is not None
    first = samples[0]
    condition = answer.bench.splits[answer.split].condition.condition[0]
    balance = np.asarray(jax.jit(Bound(stacked_residual, problem))(first[0], condition))
    drawn = (first[0], first[min(1, len(first) - 1)], first.mean(axis=0))
    spread = first.std(axis=0, ddof=1) if len(first) > 1 else np.zeros_like(first[0])
    fields = tuple(_field(problem, values, field) for values in (*drawn, spread))
    return Answered(fields[:3], fields[3], np.sqrt((balance**2).sum(axis=-1)))


def _field(problem: Equations, fields: np.ndarray, name: str) -> np.ndarray:
    return without_padding(problem, fields[None], name)[0]


def _words(name: str) -> str:
    return name.replace("_", " ")
