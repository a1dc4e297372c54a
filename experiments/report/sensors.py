"""Pictures and sections of the report of forecasts from sensors."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from experiments.report.fields import FieldLabels
from experiments.study.study import Answer, MakeSection, Shown
from phdme_jax.app import drawing, figures
from phdme_jax.app.drawing import Labels
from phdme_jax.app.page import Picture, Section
from phdme_jax.app.rows import ResultRow
from phdme_jax.forecasting.bands import spread


def sensor_sections(labels: FieldLabels) -> tuple[MakeSection, ...]:
    """The sections of a study of forecasts from sensors, in order."""
    return accuracy_section, partial(forecast_section, labels), calibration_section, cost_section


def _middle(shown: Shown) -> str:
    """Split of the middle number of sensors."""
    counts = list(shown.context.config.asked.counts)
    suffix = "_validation" if shown.context.validates else ""
    return f"sensors_{counts[len(counts) // 2]}{suffix}"


def cost_points(rows: Iterable[ResultRow], split: str, calls: int) -> dict[str, dict[int, tuple[float, float]]]:
    """Seconds of an answer and its CRPS, means over seeds, of each method by its calls; only of what has both.

    Args:
      rows: of a run.
      split: whose rows.
      calls: of the network where a row's settings say nothing of them.
    Returns:
      method -> calls -> (seconds, CRPS).
    """
    found: dict[tuple[str, int], dict[str, list[float]]] = {}
    for row in rows:
        if row.split == split and row.value is not None:
            key = (row.method, row.settings.get("sensors.num_calls", calls))
            found.setdefault(key, {}).setdefault(row.metric, []).append(row.value)
    points: dict[str, dict[int, tuple[float, float]]] = {}
    for (method, number), values in found.items():
        if {"seconds_per_forecast", "crps"} <= set(values):
            pair = float(np.mean(values["seconds_per_forecast"])), float(np.mean(values["crps"]))
            points.setdefault(method, {})[number] = pair
    return points


def accuracy_section(shown: Shown) -> Sequence[Section]:
    """What the rows mean, and accuracy against seconds."""
    config, split = shown.context.config, _middle(shown)
    found = cost_points(shown.context.results.rows(), split, config.sensors.num_calls)
    points = {
        method: ([cost for cost, _ in pairs.values()], [error for _, error in pairs.values()])
        for method, pairs in found.items()
    }
    pictures: tuple[Picture, ...] = ()
    if points:
        most = max(found.values(), key=len)
        labels = Labels(x="seconds an answer", y="CRPS / deviation of the field", panels=tuple(map(str, most)))
        path = figures.accuracy_against_cost(shown.context.figure_path("cost"), points, labels)
        pictures = (
            Picture(path, f"{split}: accuracy against the seconds of one answer, all of its samples; numbers: calls"),
        )
    text = (
        f"Readings of all fields at so many places, other ones for every trajectory, over the first "
        f"{config.sensors.window} of {config.data.num_frames} frames with {100 * config.sensors.noise:g} % noise; the "
        "whole trajectory is asked for. num_calls: calls of the network that finds the state behind the readings; "
        "with none Laplace's approximation is left as it is. All methods but diffusion_sensors share the energy "
        "and what is believed of states before any reading."
    )
    return [Section("Accuracy", text, pictures, ("crps", "energy_score", "nmse", "nmse_start", "spread_skill"))]


def forecast_section(labels: FieldLabels, shown: Shown) -> Sequence[Section]:
    """One unseen trajectory, forecast by every method from the same readings."""
    pictures, split = [], _middle(shown)
    for name, answers in shown.answers.items():
        answer: Answer = answers[split]
        times, grid = np.asarray(answer.bench.task.times), answer.bench.task.problem.structure.grid.coordinates()
        path = figures.space_time_panel(
            shown.context.figure_path(f"space_time_{name}"),
            answer.truth[0],
            answer.forecasts.mean[0],
            times,
            grid,
            Labels(f"{name}: one unseen trajectory", x=labels.time, y=labels.position, panels=labels.fields),
            spread(answer.forecasts)[0],
        )
        pictures.append(Picture(path, f"{name}: truth, forecast mean, error, and spread (standard deviation)"))
    if shown.answers:
        pictures.insert(0, Picture(_start_picture(labels, shown, split), "What the readings began at, by every method"))
    return [Section("Forecasts", "", tuple(pictures))]


@drawing.styled
def _draw_starts(
    path: Path,
    grid: np.ndarray,
    truth: np.ndarray,
    readings: tuple[np.ndarray, np.ndarray],
    samples: Mapping[str, np.ndarray],
    labels: Labels,
) -> Path:
    """Samples of the first frame, a panel a method, with the truth and the readings."""
    names = list(samples)
    figure = drawing.new_figure(2.4 * len(names), 2.2)
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axis, name in zip(axes, names, strict=True):
        axis.plot(grid, truth, linewidth=4.0, color="0.75", label="truth")
        drawn = axis.plot(grid, samples[name].T, linewidth=0.8, color="tab:blue", alpha=0.6)
        drawn[0].set_label("samples")
        axis.plot(*readings, "o", markersize=4, color="tab:red", label="readings")
        axis.set_title(name)
        axis.set_xlabel(labels.x)
    axes[0].set_ylabel(labels.y)
    drawing.legend_below(figure, axes[0])
    return drawing.save(figure, path, labels.title)


def _start_picture(labels: FieldLabels, shown: Shown, split: str) -> Path:
    answers, index = {name: found[split] for name, found in shown.answers.items()}, labels.shown
    first = next(iter(answers.values()))
    condition = first.bench.splits[split].condition
    grid, mask = first.bench.task.problem.structure.grid.coordinates(), condition.mask[0, :, index] > 0
    drawn = {name: answer.forecasts.samples for name, answer in answers.items()}
    samples = {name: found[0, :, 0, :, index] for name, found in drawn.items() if found is not None}
    readings = (grid[mask], condition.values[0, 0, mask, index])
    words = Labels(x=labels.position, y=labels.fields[index])
    return _draw_starts(
        shown.context.figure_path("starts"), grid, first.truth[0, 0, :, index], readings, samples, words
    )


def calibration_section(shown: Shown) -> Sequence[Section]:
    """What the band promises."""
    text = (
        f"Split conformal calibration on {shown.context.config.asked.num_calibration} trajectories with as many "
        "sensors; a whole trajectory, all fields, places and frames, is inside or not."
    )
    return [Section("Calibration", text, (), ("coverage", "band_width"))]


def cost_section(shown: Shown) -> Sequence[Section]:
    """Seconds and calls."""
    del shown
    text = "seconds_per_forecast: one answer with all of its samples, alone on the machine's cores."
    return [Section("Cost", text, (), ("train_seconds", "seconds_per_forecast", "nfe", "backward_calls"))]
