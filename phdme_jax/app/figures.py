"""The pictures of a study: one function a picture, arrays in, a PNG out, its path returned.

Every picture has labelled axes with units, and the same bytes for the same arrays. Truth is black everywhere; a method
keeps the colour of its place in the list.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from phdme_jax.app import drawing
from phdme_jax.app.drawing import COLOURS, TRUTH, Curve, EffortSlice, Labels, styled
from phdme_jax.calibration import coverage_interval


@styled
def space_time_panel(
    path: Path | str,
    truth: ArrayLike,
    forecast: ArrayLike,
    time: ArrayLike,
    grid: ArrayLike,
    labels: Labels,
    spread: ArrayLike | None = None,
) -> Path:
    """Truth, forecast, forecast − truth and, if given, the forecast's spread over space and time; one row a field.

    Args:
      path: PNG to write.
      truth: reference trajectory, shape (time, grid, field).
      forecast: mean forecast, shape (time, grid, field).
      time: shape (time,).
      grid: positions, shape (grid,).
      labels: `x` for time, `y` for position, `panels` one for each field.
      spread: standard deviation or width of the band, shape (time, grid, field).

    Returns:
      The path.
    """
    truth, forecast = np.asarray(truth), np.asarray(forecast)
    columns = [("truth", truth), ("forecast", forecast), ("error", forecast - truth)]
    if spread is not None:
        columns.append(("spread", np.asarray(spread)))
    num_fields = truth.shape[-1]
    figure = drawing.new_figure(2.55 * len(columns) + 0.6, 2.05 * num_fields + 0.5)
    axes = figure.subplots(num_fields, len(columns), sharex=True, sharey=True, squeeze=False)
    for field in range(num_fields):
        shared = drawing.value_scale(np.stack([truth[..., field], forecast[..., field]]))
        for column, (name, values) in enumerate(columns):
            part = values[..., field]
            style = (shared, shared, drawing.error_scale(part), drawing.spread_scale(part))[column]
            image = drawing.draw_image(axes[field, column], time, grid, part.T, style)
            axes[field, column].set_title(f"{labels.panels[field]}: {name}")
            bar = figure.colorbar(image, ax=axes[field, column], shrink=0.92, aspect=18, pad=0.02)
            drawing.finish_bar(bar)
        axes[field, 0].set_ylabel(labels.y)
    for axis in axes[-1]:
        axis.set_xlabel(labels.x)
    return drawing.save(figure, path, labels.title)


@styled
def snapshot_panel(
    path: Path | str, truth: ArrayLike, forecast: ArrayLike, times: Sequence[float], labels: Labels
) -> Path:
    """Truth, forecast and forecast − truth of one field on a two-dimensional grid; one column a time.

    Args:
      path: PNG to write.
      truth: shape (time, grid_x, grid_y).
      forecast: shape (time, grid_x, grid_y).
      times: the times of the frames shown.
      labels: `x` and `y` for the two positions, `panels` holding the name of the field.

    Returns:
      The path.
    """
    truth, forecast = np.asarray(truth), np.asarray(forecast)
    figure = drawing.new_figure(1.9 * len(times) + 1.2, 6.2)
    axes = figure.subplots(3, len(times), sharex=True, sharey=True, squeeze=False)
    shared = drawing.value_scale(np.stack([truth, forecast]))
    error = forecast - truth
    rows = (("truth", truth, shared), ("forecast", forecast, shared), ("error", error, drawing.error_scale(error)))
    for row, (name, values, style) in enumerate(rows):
        for column, moment in enumerate(times):
            axis = axes[row, column]
            image = axis.imshow(values[column].T, origin="lower", interpolation="nearest", **style)
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            if row == 0:
                axis.set_title(f"time {moment:g}")
        axes[row, 0].set_ylabel(f"{name}\n{labels.y}")
        bar = figure.colorbar(image, ax=list(axes[row]), shrink=0.9, aspect=18, pad=0.02)
        bar.set_label("".join(labels.panels[:1]))
        drawing.finish_bar(bar)
    for axis in axes[-1]:
        axis.set_xlabel(labels.x)
    return drawing.save(figure, path, labels.title)


@styled
def energy_over_time(
    path: Path | str, time: ArrayLike, curves: Sequence[Curve], truth: ArrayLike | None, labels: Labels
) -> Path:
    """Energy of the truth and of the methods' forecasts over time, with bands where there are some.

    Args:
      path: PNG to write.
      time: shape (time,).
      curves: one a method, each mean of shape (time,).
      truth: energy of the reference, shape (time,), or None.
      labels: `x` and `y`.

    Returns:
      The path.
    """
    figure = drawing.new_figure(6.0, 3.2)
    axis = figure.subplots()
    for curve, colour in zip(curves, drawing.colours(len(curves)), strict=True):
        drawing.draw_curve(axis, np.asarray(time), curve, colour)
    if truth is not None:
        axis.plot(time, np.asarray(truth), color=TRUTH, linestyle="--", linewidth=1.3, label="truth", zorder=5)
    axis.set(xlabel=labels.x, ylabel=labels.y)
    axis.margins(x=0.01)
    drawing.legend_beside(axis)
    return drawing.save(figure, path, labels.title)


@styled
def effort_learned_vs_true(path: Path | str, slices: Sequence[EffortSlice], labels: Labels) -> Path:
    """The learned efforts ± 2 standard deviations against the true ones, with the range of the data shaded.

    Args:
      path: PNG to write.
      slices: one a panel.
      labels: `panels` one for each slice, or none.

    Returns:
      The path.
    """
    num_columns = min(len(slices), 3)
    num_rows = math.ceil(len(slices) / num_columns)
    figure = drawing.new_figure(3.1 * num_columns + 0.6, 2.6 * num_rows + 0.6)
    axes = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for axis, part in zip(axes, slices, strict=False):
        x, mean, width = np.asarray(part.x), np.asarray(part.mean), 2 * np.asarray(part.standard_deviation)
        axis.axvspan(*part.data_range, color="#F1F1EC", linewidth=0, label="range of the data", zorder=0)
        axis.fill_between(x, mean - width, mean + width, color=COLOURS[0], alpha=0.25, linewidth=0, label="± 2 sd")
        axis.plot(x, mean, color=COLOURS[0], label="learned")
        if part.truth is not None:
            axis.plot(x, np.asarray(part.truth), color=TRUTH, linestyle="--", linewidth=1.3, label="truth")
        axis.set(xlabel=part.x_label, ylabel=part.y_label)
        axis.margins(x=0)
    for axis in axes[len(slices) :]:
        axis.set_axis_off()
    for axis, name in zip(axes, labels.panels, strict=False):
        axis.set_title(name)
    drawing.legend_below(figure, axes[0])
    return drawing.save(figure, path, labels.title)


@styled
def coverage_curve(
    path: Path | str,
    nominal: ArrayLike,
    empirical: Mapping[str, ArrayLike],
    num_test: int,
    num_calibration: int,
    labels: Labels,
) -> Path:
    """Empirical against nominal coverage, with the interval a valid method stays in nine times out of ten.

    Args:
      path: PNG to write.
      nominal: levels that the calibration supports, shape (level,).
      empirical: method -> share of the test trajectories covered, shape (level,).
      num_test: number m of test trajectories.
      num_calibration: number n of calibration trajectories.
      labels: `x` and `y`, which have defaults.

    Returns:
      The path.
    """
    nominal = np.asarray(nominal)
    intervals = [coverage_interval(num_calibration, num_test, level, confidence=0.9) for level in nominal.tolist()]
    lower, upper = np.reshape(intervals, (-1, 2)).T
    figure = drawing.new_figure(5.4, 3.6)
    axis = figure.subplots()
    name = f"90 % of valid bands\n({num_test} test, {num_calibration} calibration trajectories)"
    axis.fill_between(nominal, lower, upper, color="#DADADA", linewidth=0, label=name)
    axis.plot([0, 1], [0, 1], color=TRUTH, linestyle="--", linewidth=1.0, label="nominal")
    looks = zip(drawing.colours(len(empirical)), drawing.marks(len(empirical)), strict=True)
    for (method, values), (colour, mark) in zip(empirical.items(), looks, strict=True):
        axis.plot(nominal, np.asarray(values), color=colour, marker=mark, markersize=3.5, label=method)
    edge = 0.02
    axis.set(xlim=(min(nominal.min(), 1) - edge, 1 + edge), ylim=(-edge, 1 + edge))
    axis.set(xlabel=labels.x or "nominal coverage", ylabel=labels.y or "empirical coverage")
    drawing.legend_beside(axis)
    return drawing.save(figure, path, labels.title)


@styled
def training_curve(
    path: Path | str, steps: Mapping[str, ArrayLike], losses: Mapping[str, ArrayLike], labels: Labels
) -> Path:
    """Losses over training steps; a logarithmic axis where all losses are positive.

    Args:
      path: PNG to write.
      steps: name -> steps, shape (record,).
      losses: name -> losses, shape (record,).
      labels: `x` and `y`, which have defaults.

    Returns:
      The path.
    """
    figure = drawing.new_figure(6.0, 3.0)
    axis = figure.subplots()
    for (name, values), colour in zip(losses.items(), drawing.colours(len(losses)), strict=True):
        axis.plot(np.asarray(steps[name]), np.asarray(values), color=colour, linewidth=1.2, label=name)
    drawing.log_if_positive(axis, np.concatenate([np.ravel(values) for values in losses.values()]), "y")
    axis.set(xlabel=labels.x or "step", ylabel=labels.y or "loss")
    axis.margins(x=0.01)
    drawing.legend_beside(axis)
    return drawing.save(figure, path, labels.title)


@styled
def metric_by_method(
    path: Path | str, values: Mapping[str, Sequence[float | None]], labels: Labels, floor: float | None = None
) -> Path:
    """A metric by method: a dot a seed, a bar at the mean, a line at the reference data's own value.

    Args:
      path: PNG to write.
      values: method -> values over seeds; None or non-finite where a seed failed, which is written beside the name.
      labels: `x` for the metric with its unit.
      floor: the metric of the reference data, or None; written, not drawn, where it is rounding far below all methods.

    Returns:
      The path.
    """
    figure = drawing.new_figure(6.0, 0.38 * len(values) + 1.3)
    axis = figure.subplots()
    names, everything = [], []
    for place, ((method, seeds), colour) in enumerate(zip(values.items(), drawing.colours(len(values)), strict=True)):
        finite = [float(value) for value in seeds if value is not None and math.isfinite(value)]
        everything += finite
        failed = len(seeds) - len(finite)
        names.append(f"{method}\n({failed} of {len(seeds)} failed)" if failed else method)
        axis.plot(finite, [place] * len(finite), "o", color=colour, alpha=0.75, markersize=5.5, markeredgewidth=0)
        if finite:
            axis.plot([np.mean(finite)], [place], "|", color=TRUTH, markersize=13, markeredgewidth=1.6)
    if floor is not None:
        far = 0.0 <= floor < 1e-6 * min(everything, default=0.0)
        everything += [] if far else [floor]
        line = axis.axvline(math.nan if far else floor, color=TRUTH, linestyle=":", linewidth=1.2)
        label = f"reference data: {floor:.1g}, off the axis" if far else "reference data"
        figure.legend([line], [label], loc="outside lower right")
    drawing.log_if_positive(axis, np.asarray(everything), "x")
    axis.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
    axis.set_xlabel(f"{labels.x} (dots: seeds, bar: mean)")
    axis.grid(axis="y", visible=False)
    return drawing.save(figure, path, labels.title)


@styled
def forecast_lines(path: Path | str, time: ArrayLike, truth: ArrayLike | None, forecast: Curve, labels: Labels) -> Path:
    """Truth, mean forecast, band and samples over time at a few sites, one panel each.

    Args:
      path: PNG to write.
      time: shape (time,).
      truth: shape (time, site), or None.
      forecast: mean, band and samples; means of shape (time, site).
      labels: `x`, `y` and `panels`, one for each site.

    Returns:
      The path.
    """
    from matplotlib.ticker import MaxNLocator

    time, mean = np.asarray(time), np.asarray(forecast.mean)
    num_sites = mean.shape[1]
    figure = drawing.new_figure(6.4, 1.55 * num_sites + 0.8)
    axes = figure.subplots(num_sites, 1, sharex=True, squeeze=False).ravel()
    for site, axis in enumerate(axes):
        optional = (forecast.lower, forecast.upper, forecast.samples)
        parts = [None if part is None else np.asarray(part)[..., site] for part in optional]
        drawing.draw_curve(axis, time, Curve(forecast.label, mean[:, site], *parts), COLOURS[0])
        if truth is not None:
            observed = np.asarray(truth)[:, site]
            axis.plot(time, observed, color=TRUTH, linestyle="--", linewidth=1.3, label="truth", zorder=5)
        axis.set_ylabel(labels.y)
        axis.set_title(labels.panels[site] if labels.panels else f"site {site}", loc="left")
        axis.margins(x=0.01)
        axis.yaxis.set_major_locator(MaxNLocator(4))
    axes[-1].set_xlabel(labels.x)
    drawing.legend_below(figure, axes[0])
    return drawing.save(figure, path, labels.title)


@styled
def accuracy_against_cost(
    path: Path | str, points: Mapping[str, tuple[Sequence[float], Sequence[float]]], labels: Labels
) -> Path:
    """An error against what a forecast costs, both logarithmic; one line a method through its settings.

    Args:
      path: PNG to write.
      points: method -> costs and errors of its settings, in order.
      labels: `x` and `y`, with units; `panels` are written beside the points of a line of several settings.

    Returns:
      The path.
    """
    figure = drawing.new_figure(6.4, 3.6)
    axis = figure.subplots()
    for (name, (costs, errors)), colour in zip(points.items(), drawing.colours(len(points)), strict=True):
        axis.plot(costs, errors, "o-", color=colour, label=name, markersize=5, linewidth=1.2)
        if len(costs) > 1:
            for cost, error, word in zip(costs, errors, labels.panels, strict=False):
                axis.annotate(word, (cost, error), (0, 5), textcoords="offset points", fontsize=7, ha="center")
    for which, column in (("x", 0), ("y", 1)):
        drawing.log_if_positive(axis, np.concatenate([np.ravel(pair[column]) for pair in points.values()]), which)
    axis.set(xlabel=labels.x, ylabel=labels.y)
    axis.margins(0.08)
    drawing.legend_beside(axis)
    return drawing.save(figure, path, labels.title)


@styled
def metric_over_setting(
    path: Path | str, curves: Mapping[str, Mapping[float, Sequence[float]]], labels: Labels
) -> Path:
    """A metric over the values of a setting: a dot a seed, a line through the means, one colour a method.

    Args:
      path: PNG to write.
      curves: method -> value of the setting -> the metric over seeds.
      labels: `x` for the setting, `y` for the metric.

    Returns:
      The path.
    """
    figure = drawing.new_figure(6.0, 3.4)
    axis = figure.subplots()
    settings = sorted({value for curve in curves.values() for value in curve})
    even = len(settings) < 2 or settings[0] <= 0
    place = {value: float(index) if even else value for index, value in enumerate(settings)}
    for (name, curve), colour in zip(curves.items(), drawing.colours(len(curves)), strict=True):
        ordered = sorted(curve)
        axis.plot([place[v] for v in ordered], [np.mean(curve[v]) for v in ordered], color=colour, label=name)
        dots = [(place[v], seed) for v in ordered for seed in curve[v]]
        axis.plot(*zip(*dots, strict=True), "o", color=colour, alpha=0.7, markersize=4.5, markeredgewidth=0)
    drawing.log_if_positive(axis, np.array([s for c in curves.values() for v in c.values() for s in v]), "y")
    if not even:
        axis.set_xscale("log")
    axis.set_xticks([place[value] for value in settings], [f"{value:g}" for value in settings])
    axis.minorticks_off()
    axis.set(xlabel=labels.x, ylabel=labels.y)
    drawing.legend_beside(axis)
    return drawing.save(figure, path, labels.title)
