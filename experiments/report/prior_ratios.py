"""What the rows of studies of priors say: errors of each method over those of no prior, within a seed."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from experiments.report.parts import Rows, spread
from phdme_jax.app import drawing
from phdme_jax.app.rows import ResultRow

TEST, REFERENCE, BASE = "test", "reference", "diffusion"
RATIO = "_ratio"
LEAST = 1e-3  # ratios below are drawn here


def floor_values(part: Rows, system: str, metric: str) -> dict[int, float]:
    """What the data themselves have of a residual, by seed."""
    return part.values(system, metric, REFERENCE)


def derived_rows(part: Rows, metrics: Sequence[str], floored: Sequence[str] = ()) -> list[ResultRow]:
    """Ratios to the method without priors, rows that stand in no run.

    Args:
      part: the rows of a study.
      metrics: of which ratios are made.
      floored: those of them of which both are told from the data's own value first: what a scheme leaves of the truth
        is no error of a method, and less than that, of a blurred field, is one.
    Returns:
      rows of `METRIC_ratio`; none where the baseline has exactly the data's value.
    """
    base = {
        (row.system, row.seed, row.metric): row.value
        for row in part.rows
        if row.split == TEST and row.method == BASE and not row.settings
    }
    floors = {
        (row.system, row.seed, row.metric): row.value
        for row in part.rows
        if row.split == TEST and row.method == REFERENCE
    }
    found = []
    for row in part.rows:
        key = (row.system, row.seed, row.metric)
        below, floor = base.get(key), (floors.get(key) or 0.0) if row.metric in floored else 0.0
        if row.split != TEST or row.metric not in metrics or row.method in (BASE, REFERENCE) or row.value is None:
            continue
        if below is not None and below != floor:
            value = abs(row.value - floor) / abs(below - floor)
            found.append(dataclasses.replace(row, metric=row.metric + RATIO, value=value, stderr=None, unit="1"))
    return found


def ratios_of(part: Rows, system: str, metric: str) -> dict[str, list[float]]:
    """Ratios over seeds by label of the method, in order of appearance; `part` holds the derived rows."""
    found: dict[str, list[float]] = {}
    for row in part.rows:
        if (row.system, row.split, row.metric) == (system, TEST, metric + RATIO) and row.value is not None:
            found.setdefault(row.label, []).append(row.value)
    return found


def finding(part: Rows, system: str, metrics: Sequence[str]) -> str:
    """Sentences: of each metric what `priors` leaves, which is named before any row is there, and the least of all."""
    sentences = []
    for metric in metrics:
        ratios = ratios_of(part, system, metric)
        if not ratios:
            continue
        words = [f"{metric.replace('_', ' ')}: "]
        best = min(ratios, key=lambda label: fmean(ratios[label]))
        said = [f"priors {spread(ratios['priors'])}"] if "priors" in ratios else []
        said += [f"least of all {best} {spread(ratios[best])}"] if best != "priors" else []
        words.append(", ".join(said))
        sentences.append("".join(words))
    return "; ".join(sentences)


@drawing.styled
def ratio_picture(path: Path, ratios: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> Path:
    """Each method's errors over those without priors, logarithmic; a column of marks for each error.

    Args:
      path: PNG to write.
      ratios: metric -> method -> ratios over seeds.
      title: of the picture.
    Returns:
      the path.
    """
    methods = list(dict.fromkeys(method for found in ratios.values() for method in found))
    figure = drawing.new_figure(7.4, 0.34 * len(methods) + 1.6)
    axis = figure.subplots()
    styles = zip(drawing.colours(len(ratios)), drawing.marks(len(ratios)), strict=True)
    shift = np.linspace(-0.25, 0.25, len(ratios)) if len(ratios) > 1 else np.zeros(1)
    for (metric, found), (colour, mark), offset in zip(ratios.items(), styles, shift, strict=True):
        means = {method: fmean(values) for method, values in found.items()}
        drawn = {method: max(value, LEAST) for method, value in means.items()}
        at = [methods.index(method) + offset for method in drawn]
        style: Any = {"color": colour, "marker": mark, "linestyle": "none", "label": metric.replace("_", " ")}
        axis.plot(list(drawn.values()), at, **style)
    axis.axvline(1.0, color=drawing.TRUTH, linestyle=":", linewidth=1.2)
    axis.set(xscale="log", xlabel="error over that without priors", yticks=range(len(methods)), yticklabels=methods)
    axis.invert_yaxis()
    drawing.legend_beside(axis)
    return drawing.save(figure, path, title)
