"""Sections of a study of forecasts of fields from their first frames."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.evaluation.field_forecasts import mean_forecast
from experiments.report.equations import cost_section, residual_section
from experiments.report.priors import invariant_section
from experiments.study.study import MakeSection, Shown
from phdme_jax.app import drawing
from phdme_jax.app.drawing import Labels
from phdme_jax.app.page import Picture, Section


@drawing.styled
def forecast_panels(
    path: Path, truth: np.ndarray, forecasts: dict[str, np.ndarray], axes: tuple[np.ndarray, np.ndarray], labels: Labels
) -> Path:
    """One field over space and time: the truth, and a row a method with its forecast and what that misses.

    Args:
      path: PNG to write.
      truth: shape (x, time).
      forecasts: by method, of the same shape.
      axes: positions and times.
      labels: of the axes, `x` for time and `y` for position.
    Returns:
      the path.
    """
    position, time = axes
    errors = {name: values - truth for name, values in forecasts.items()}
    shared, scale = drawing.value_scale(truth), drawing.error_scale(np.stack([*errors.values()]))
    figure = drawing.new_figure(7.2, 1.25 * (1 + len(forecasts)) + 0.5)
    grid = figure.subplots(1 + len(forecasts), 2, sharex=True, sharey=True, squeeze=False)
    images = [drawing.draw_image(grid[0, 0], time, position, truth, shared)]
    grid[0, 0].set_title("truth")
    grid[0, 1].set_axis_off()
    for row, (name, values) in zip(grid[1:], forecasts.items(), strict=True):
        images = [
            drawing.draw_image(row[0], time, position, values, shared),
            drawing.draw_image(row[1], time, position, errors[name], scale),
        ]
        row[0].set_title(f"{name}: forecast")
        row[1].set_title(f"{name}: error")
    for column, image in enumerate(images):
        drawing.finish_bar(figure.colorbar(image, ax=grid[:, column], shrink=0.5, aspect=30, pad=0.02, extend="both"))
        grid[-1, column].set_xlabel(labels.x)
    for row in grid:
        row[0].set_ylabel(labels.y)
    return drawing.save(figure, path, labels.title)


def forecast_section(shown: Shown) -> Sequence[Section]:
    """Accuracy of the forecasts, and one unseen example over space and time."""
    problem, split, case = shown.run.bench.task.problem, shown.context.asked, shown.run.case
    found = {name: mean_forecast(answers[split].forecasts)[0, ..., 0] for name, answers in shown.answers.items()}
    pictures: tuple[Picture, ...] = ()
    if found:
        path = shown.context.figure_path(f"{case}_forecasts")
        truth, grid = shown.run.bench.splits[split].truth[0, ..., 0], problem.grid
        labels = Labels(f"{case}: {problem.fields[0]} of one unseen example", x="time", y="position")
        forecast_panels(path, truth, found, (grid.coordinates(0), grid.coordinates(1)), labels)
        pictures = (Picture(path, "The mean forecast of each method from the given frames, and what it misses"),)
    text = (
        f"What is forecast from {problem.given_frames} given of {problem.grid.points[problem.time_axis]} frames, "
        "compared with the true continuation over the frames that are not given. rmse: of the mean of the samples, in "
        "the unit of the field; nmse: its square over the variance of the field; crps and energy_score: in units of "
        "its standard deviation, of a method without samples the distance from the truth. The reference row is the "
        "scheme that made the data; nmse_of_held_frame that of the last given frame, held."
    )
    metrics = ("rmse", "nmse", "crps", "energy_score", "spread_skill", "nmse_of_held_frame")
    return [Section(f"Forecasts, {case}", text, pictures, metrics)]


def field_forecast_sections() -> tuple[MakeSection, ...]:
    """Sections of a study of forecasts of fields."""
    return (forecast_section, residual_section, invariant_section, cost_section)
