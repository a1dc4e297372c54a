"""What the rows of studies of one-step models say: ratios to the teacher, the main finding, pictures of all methods."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from experiments.report.parts import ROUNDING, Rows, spread
from phdme_jax.app import drawing
from phdme_jax.app.drawing import Labels
from phdme_jax.app.rows import ResultRow
from phdme_jax.methods.table import METHODS, lineage

TEST, REFERENCE = "test", "reference"
SOLVED = {"solved": True}
LOSS = 2.0  # so many times the teacher's error of spread or spectrum is a loss of the distribution
RATIOS = ("residual_rms", "mmse", "smse", "spectrum_error")
TRAINING = ("train_seconds", "seconds_per_update", "memory")


def teacher_of(method: str) -> str | None:
    """The first teacher of a method that draws examples by itself; None for what has none or answers questions."""
    if method not in METHODS or METHODS[method].questions:
        return None
    first = lineage(method)[0].name
    return None if first == method else first


def derived_rows(part: Rows) -> list[ResultRow]:
    """Rows that stand in no run: ratios to the teacher within a seed, and the costs of training beside the test."""
    found: list[ResultRow] = []
    by_key = {(row.system, row.label, row.seed, row.metric): row for row in part.rows if row.split == TEST}
    for row in part.rows:
        if row.split == "train" and row.metric in TRAINING:
            found.append(dataclasses.replace(row, split=TEST))
        root = next((name for name in RATIOS if row.metric == name or row.metric.startswith(f"{name}_")), None)
        teacher = teacher_of(row.method)
        if row.split != TEST or root is None or teacher is None or row.metric == "residual_rms_unseen":
            continue
        below = by_key.get((row.system, teacher, row.seed, row.metric))
        if below is not None and row.value is not None and below.value:
            name = f"{root}_ratio{row.metric.removeprefix(root)}"
            found.append(dataclasses.replace(row, metric=name, value=row.value / below.value, stderr=None, unit="1"))
    return found


# ---- the main finding


class Student(NamedTuple):
    """What a method leaves of its teacher.

    Attributes:
      method: its name.
      teacher: whose.
      residuals: ratio of the residuals, one a seed.
      loss: largest mean ratio of the errors of spread and spectrum, over fields.
      of: metric of that ratio.
    """

    method: str
    teacher: str
    residuals: list[float]
    loss: float
    of: str

    @property
    def keeps(self) -> bool:
        """Whether it is as near to the spread and the spectrum of the data as its teacher, within a factor."""
        return self.loss <= LOSS

    def words(self) -> str:
        """Its name and the ratio of the residuals."""
        return f"{self.method} ({spread(self.residuals)})"


def students(part: Rows, system: str) -> list[Student]:
    """Students as they are, by the ratio of their residuals, the smallest first; `part` holds the derived rows."""
    found = []
    for method in dict.fromkeys(row.method for row in part.rows if row.system == system and not row.settings):
        teacher, ratios = teacher_of(method), list(part.values(system, "residual_rms_ratio", method).values())
        names = [row.metric for row in part.rows if row.system == system and row.method == method]
        errors = [name for name in dict.fromkeys(names) if name.startswith(("smse_ratio", "spectrum_error_ratio"))]
        losses = {name: list(part.values(system, name, method).values()) for name in errors}
        means = {name: fmean(values) for name, values in losses.items() if values}
        if teacher is not None and ratios and means:
            worst = max(means, key=means.__getitem__)
            found.append(Student(method, teacher, ratios, means[worst], worst))
    return sorted(found, key=lambda student: fmean(student.residuals))


def finding(part: Rows, system: str) -> tuple[bool | None, str]:
    """Whether a student lowers the residual of its teacher and keeps its spread, and sentences; None without rows."""
    ranked = students(part, system)
    if not ranked:
        return None, _questions(part, system)
    kept, lost = ([one for one in ranked if one.keeps is keeps] for keeps in (True, False))
    lowers, sentences = bool(kept) and fmean(kept[0].residuals) < 1, []
    if lowers:
        best = kept[0]
        names = [f"{name}{_calls(part, system, name)}" for name in (best.method, best.teacher)]
        sentences.append(
            f"{names[0]} leaves {spread(best.residuals)} of the residual of {names[1]}; its errors of spread and "
            f"spectrum are at most {best.loss:.2g} times as large."
        )
        kept = kept[1:]
    else:
        sentences.append("No student lowers the residual of its teacher and keeps its spread and spectrum.")
    if kept:
        sentences.append(f"Residuals of others that keep them: {', '.join(one.words() for one in kept)}.")
    for one in lost:
        sentences.append(
            f"{one.words()} is a loss: its {one.of.replace('_ratio', '').replace('_', ' ')} is {one.loss:.2g} times "
            "its teacher's."
        )
    return lowers, " ".join([*sentences, *_solved(part, system, ranked), _questions(part, system)]).strip()


def _solved(part: Rows, system: str, ranked: Sequence[Student]) -> list[str]:
    """What is left of the residual where the solution is computed anew, if rounding alone."""
    values = [list(part.values(system, "residual_rms", one.method, SOLVED).values()) for one in ranked]
    most = max((max(found) for found in values if found), default=None)
    plain = min(min(part.values(system, "residual_rms", one.method).values()) for one in ranked)
    if most is None or most > ROUNDING * plain:
        return []
    return [f"Computing the solution anew leaves rounding of every student's residual ({most:.1g})."]


def question_splits(part: Rows) -> list[str]:
    """Names of the splits that ask questions."""
    found = (row.split for row in part.rows if row.metric.startswith("relative_l2"))
    return list(dict.fromkeys(found))


def _questions(part: Rows, system: str) -> str:
    """The best answer to each question."""
    sentences = []
    for split in question_splits(part):
        asked = [row for row in part.rows if (row.system, row.split, row.metric) == (system, split, "crps")]
        unsolved = [variant for variant in variants_of(asked) if "solved" not in variant[1]]
        scored = [(variant, list(part.values(system, "crps", *variant, split).values())) for variant in unsolved]
        scored = [(variant, values) for variant, values in scored if values]
        told = [entry for entry in scored if "resolve" in METHODS[entry[0][0]].needs]
        told = told if len(told) < len(scored) else []
        ranked = sorted((entry for entry in scored if entry not in told), key=lambda entry: fmean(entry[1]))
        if not ranked:
            continue
        best, values = ranked[0]
        covered = list(part.values(system, "coverage", *best, split).values())
        band = f"; its bands hold {100 * fmean(covered):.0f} % of the examples" if covered else ""
        sentences.append(
            f"{split.replace('_', ' ').capitalize()}: {variant_name(*best)} has the least CRPS of {len(ranked)} "
            f"methods, {spread(values)}{band}."
        )
        sentences += [f"{variant_name(*one)}, which runs the solver, has {spread(values)}." for one, values in told]
    return " ".join(sentences)


def variants_of(rows: Iterable[ResultRow]) -> list[tuple[str, Mapping[str, Any]]]:
    """Methods with their settings, in the order of the methods and each once."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        settings = found.setdefault(row.method, [])
        if row.settings not in settings:
            settings.append(row.settings)
    return [(method, variant) for method, settings in found.items() for variant in settings]


def variant_name(method: str, settings: Mapping[str, Any]) -> str:
    """Of a method and what is changed of its options, but for whether its solution is computed anew."""
    changes = [f"{key.split('.')[-1]}={value}" for key, value in settings.items() if key not in SOLVED]
    return f"{method} ({', '.join(changes)})" if changes else method


def _calls(part: Rows, system: str, method: str) -> str:
    counts = part.values(system, "nfe", method).values()
    return f" ({fmean(counts):.0f} call{'' if fmean(counts) == 1 else 's'})" if counts else ""


# ---- pictures


class Point(NamedTuple):
    """A method on a picture: means over seeds, and whether its solution was computed anew."""

    x: float
    y: float
    solved: bool


def points_of(part: Rows, system: str, metrics: tuple[str, str], split: str = TEST) -> dict[str, list[Point]]:
    """Variants with means over seeds and fields of two metrics, as they are and with the solution computed anew."""
    found: dict[str, list[Point]] = {}
    for method, settings in variants_of(row for row in part.rows if row.system == system):
        x, y = (_over_fields(part, system, metric, method, settings, split) for metric in metrics)
        if method != REFERENCE and x is not None and y is not None:
            found.setdefault(variant_name(method, settings), []).append(Point(x, y, "solved" in settings))
    return found


def floor_of(part: Rows, system: str, metric: str) -> float | None:
    """What sampling leaves of a metric, mean over fields."""
    return _over_fields(part, system, metric, REFERENCE, {}, TEST)


def _over_fields(
    part: Rows, system: str, metric: str, method: str, settings: Mapping[str, Any], split: str
) -> float | None:
    def is_field(name: str) -> bool:
        return name.startswith(f"{metric}_") and not name.startswith((f"{metric}_ratio", "residual_rms_unseen"))

    names = dict.fromkeys(row.metric for row in part.rows if row.system == system)
    wanted = [metric] if metric in names else [name for name in names if is_field(name)]
    values = [part.values(system, name, method, settings, split).values() for name in wanted]
    return fmean(value for found in values for value in found) if values and all(values) else None


@drawing.styled
def method_picture(
    path: Path,
    points: Mapping[str, Sequence[Point]],
    labels: Labels,
    floor: tuple[float | None, float | None] = (None, None),
) -> Path:
    """Methods by two numbers, both logarithmic: full marks as they are, hollow ones with the solution computed anew.

    Args:
      path: PNG to write.
      points: of each method, at least one.
      labels: of the axes.
      floor: what sampling leaves of both numbers, drawn as dotted lines; None draws none.
    Returns:
      the path.
    """
    figure = drawing.new_figure(7.4, max(3.6, 0.24 * len(points) + 1.6))
    axis = figure.subplots()
    above = [point.y for found in points.values() for point in found]
    drawn = [y for y in above if y > ROUNDING * max(above)]
    least = min(drawn) / 3.0
    for (name, found), colour, mark in zip(
        points.items(), drawing.colours(len(points)), drawing.marks(len(points)), strict=True
    ):
        for place, (x, y, solved) in enumerate(found):
            rounding = y <= ROUNDING * max(above)
            style: Any = {"markerfacecolor": "none" if solved else colour, "color": colour, "markersize": 6.0}
            shown = "v" if rounding else mark
            axis.plot([x], [least if rounding else y], shown, label=name if place == 0 else None, **style)
    finite = [[point.x for found in points.values() for point in found], [*drawn, *([least] if drawn != above else [])]]
    for which, values, line in zip("xy", finite, floor, strict=True):
        if line is not None and line > ROUNDING * max(values):
            (axis.axvline if which == "x" else axis.axhline)(line, color=drawing.TRUTH, linestyle=":", linewidth=1.2)
            values = [*values, line]
        drawing.log_if_positive(axis, np.asarray(values), which)
    axis.set(xlabel=labels.x, ylabel=labels.y)
    axis.margins(0.1)
    drawing.legend_beside(axis)
    return drawing.save(figure, path, labels.title)


def systems_of(parts: Iterable[Rows]) -> list[tuple[Rows, str]]:
    """Every part with each of its systems."""
    return [(part, system) for part in parts for system in part.systems()]
