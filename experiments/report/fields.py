"""Pictures and sections of the report of a study of fields on a line or a plane."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.study.study import Answer, MakeSection, Shown
from phdme_jax.app import figures
from phdme_jax.app.drawing import Curve, Labels
from phdme_jax.app.efforts import LEVELS, effort_slices
from phdme_jax.app.page import Picture, Section
from phdme_jax.calibration import coverage_curve
from phdme_jax.forecasting.bands import forecast_band, spread
from phdme_jax.systems.energy.base import System, total_energy


@dataclasses.dataclass(frozen=True)
class FieldLabels:
    """How the axes of the pictures are called.

    Attributes:
      fields: each field with its unit.
      shown: index of the field that is drawn over time.
      position: of the grid.
      time: of the frames.
      energy: of the whole field.
    """

    fields: tuple[str, ...]
    shown: int
    position: str = "position [m]"
    time: str = "time [s]"
    energy: str = "energy [J]"


def field_sections(labels: FieldLabels) -> tuple[MakeSection, ...]:
    """The sections of a study of fields, in order."""
    return (
        accuracy_section,
        partial(energy_section, labels),
        calibration_section,
        partial(physics_section, labels),
        partial(forecast_section, labels),
        cost_section,
    )


_STARTS = {
    "family": "The rollouts that train phdme, phdme_rollout and diffusion_augmented start in states drawn from the "
    "family that test and calibration states come from; diffusion knows the initial states of the observed "
    "trajectories alone.",
    "observed": "The rollouts that train phdme, phdme_rollout and diffusion_augmented start in states made of the "
    "observed frames.",
}


def accuracy_section(shown: Shown) -> Sequence[Section]:
    """Accuracy, with a picture of all seeds."""
    context, data = shown.context, shown.context.config.data
    found = (row for row in context.results.rows() if not row.settings)
    rows = [row for row in found if (row.metric, row.split) == ("nmse", context.asked)]
    values = {name: [row.value for row in rows if row.method == name] for name in context.methods}
    floor = np.mean([row.value for row in rows if row.method == "reference"])
    bars = figures.metric_by_method(
        context.figure_path("nmse"), values, Labels(x="normalised MSE of the forecast mean"), float(floor)
    )
    text = (
        f"Every method saw {data.num_observed} trajectories of {data.num_frames} frames at {data.num_points} "
        f"points with {100 * data.noise:g} % noise. {_STARTS[context.config.rollouts.initial]} The reference row is "
        "the true energy integrated on the learner's grid: the floor that the learner's own discretisation leaves. All "
        "generators have the same networks. What suits clean rollouts does not suit four noisy trajectories, so that "
        "the conditional mean of diffusion is trained on windows of its own (training.observed_stages), on the string "
        "the best of sixteen settings tried, judged by its error on the validation split."
    )
    picture = Picture(bars, "One dot a seed; the line is the floor of the learner's grid")
    return [Section("Accuracy on unseen initial states", text, (picture,), ("nmse", "mse", "crps", "energy_score"))]


def energy_section(labels: FieldLabels, shown: Shown) -> Sequence[Section]:
    """The learned energy against the true one."""
    run, world = shown.run, shown.run.bench.world
    if "gp_rollout" not in run.learned:
        return []
    slices = effort_slices(run.fitted("gp_rollout"), world.system.density, world.data.observed, labels.fields)
    path = figures.effort_learned_vs_true(shown.context.figure_path("efforts"), slices, Labels())
    law = Picture(path, "Learned energy gradient against the true one; shaded: range of the observed states")
    return [Section("The learned energy", "", (law,), ("parameter_error", "rejection_rate", "fit_seconds"))]


def coverage_picture(shown: Shown, labels: Labels) -> Path:
    """Empirical against nominal coverage of every method, calibrated anew at each level; "coverage" in the run."""
    splits, asked, empirical = shown.run.bench.splits, shown.context.asked, {}
    for name, answers in shown.answers.items():
        scores, unseen = (jnp.asarray(answers[split].band_scores) for split in ("calibration", asked))
        curve = coverage_curve(scores, unseen, tuple(LEVELS.tolist()))
        nominal, empirical[name] = np.asarray(curve.level), np.asarray(curve.coverage)
    num_test, num_calibration = (len(splits[name].truth) for name in (asked, "calibration"))
    path = shown.context.figure_path("coverage")
    return figures.coverage_curve(path, nominal, empirical, num_test, num_calibration, labels)


def calibration_section(shown: Shown) -> Sequence[Section]:
    """Empirical against nominal coverage."""
    covered, splits = coverage_picture(shown, Labels()), shown.run.bench.splits
    text = (
        f"Split conformal calibration on {len(splits['calibration'].truth)} trajectories of the simulator; the "
        "guarantee is marginal over calibration and test trajectories and assumes that they are exchangeable. It does "
        "not hold for the shifted split."
    )
    picture = Picture(covered, "Empirical against nominal coverage of whole trajectories")
    return [Section("Calibration", text, (picture,), ("coverage", "band_width"))]


def energies(system: System, trajectories: np.ndarray) -> np.ndarray:
    """True energy along trajectories (..., time, *grid, field)."""
    energy = jax.jit(jax.vmap(lambda state: total_energy(system.structure, system.density, state)))
    state = len(system.structure.grid.points) + 1
    flat = trajectories.reshape(-1, *trajectories.shape[-state:])
    return np.asarray(energy(jnp.asarray(flat, float))).reshape(trajectories.shape[:-state])


def physics_section(labels: FieldLabels, shown: Shown) -> Sequence[Section]:
    """Energy along the forecasts of one unseen trajectory."""
    system, curves = shown.run.bench.world.system, []
    for name, answers in shown.answers.items():
        forecasts = answers[shown.context.asked].forecasts
        samples = forecasts.mean[:1] if forecasts.samples is None else forecasts.samples[0]
        sampled = energies(system, samples)
        edges = (sampled.min(0), sampled.max(0)) if len(sampled) > 1 else (None, None)
        curves.append(Curve(name, energies(system, forecasts.mean[0]), *edges))
    picture = figures.energy_over_time(
        shown.context.figure_path("energy"),
        np.asarray(shown.run.bench.task.times),
        curves,
        energies(system, shown.run.bench.splits[shown.context.asked].truth[0]),
        Labels(x=labels.time, y=labels.energy),
    )
    return [
        Section(
            "Physics",
            "Residual of the true dynamics, with the learner's stencil and with one that no method has seen.",
            (Picture(picture, "True energy along the forecasts of one test trajectory; bands span the samples"),),
            ("energy_drift", "residual_rms", *(f"{name}_drift" for name, _ in system.invariants)),
        )
    ]


def forecast_section(labels: FieldLabels, shown: Shown) -> Sequence[Section]:
    """One unseen initial state, forecast by every method."""
    axes = len(shown.run.bench.task.problem.structure.grid.points)
    draw: Callable[..., list[Picture]] = _plane_pictures if axes == 2 else _line_pictures
    asked = {name: answers[shown.context.asked] for name, answers in shown.answers.items()}
    pictures = [picture for name, answer in asked.items() for picture in draw(shown, labels, name, answer)]
    return [Section("Forecasts", "", tuple(pictures))]


def _plane_pictures(shown: Shown, labels: FieldLabels, name: str, answer: Answer) -> list[Picture]:
    times, index = np.asarray(shown.run.bench.task.times), labels.shown
    frames = np.linspace(0, len(times) - 1, 5).astype(int)
    path = figures.snapshot_panel(
        shown.context.figure_path(f"snapshots_{name}"),
        answer.truth[0][frames, ..., index],
        answer.forecasts.mean[0][frames, ..., index],
        np.round(times[frames], 2).tolist(),
        Labels(f"{name}: one unseen initial state", x="x", y="y", panels=(labels.fields[index],)),
    )
    return [Picture(path, f"{name}: truth, forecast mean and error of the {labels.fields[index]}")]


def _line_pictures(shown: Shown, labels: FieldLabels, name: str, answer: Answer) -> list[Picture]:
    forecasts, truth, times = answer.forecasts, answer.truth[0], np.asarray(shown.run.bench.task.times)
    grid, index = shown.run.bench.task.problem.structure.grid.coordinates(), labels.shown
    first = figures.space_time_panel(
        shown.context.figure_path(f"space_time_{name}"),
        truth,
        forecasts.mean[0],
        times,
        grid,
        Labels(f"{name}: one unseen initial state", x=labels.time, y=labels.position, panels=labels.fields),
        spread(forecasts)[0],
    )
    assert answer.calibration is not None
    lower, upper = forecast_band(forecasts, answer.calibration)
    sites = np.linspace(0, grid.size - 1, 5).astype(int)[1:-1]
    samples = None if forecasts.samples is None else forecasts.samples[0][..., sites, index]
    mean, low, high = (np.array(edge[0][:, sites, index]) for edge in (forecasts.mean, lower, upper))
    low[0], high[0] = mean[0], mean[0]  # the initial state is given
    second = figures.forecast_lines(
        shown.context.figure_path(f"lines_{name}"),
        times,
        truth[:, sites, index],
        Curve(name, mean, low, high, samples),
        Labels(x=labels.time, y=labels.fields[index], panels=tuple(f"z = {grid[i]:.2f} m" for i in sites)),
    )
    level = f"{100 * shown.context.config.level:.0f} %"
    return [
        Picture(first, f"{name}: truth, forecast mean, error, and spread (standard deviation) of the samples"),
        Picture(second, f"{name}: {labels.fields[index]} at three sites with the calibrated {level} band"),
    ]


def cost_section(shown: Shown) -> Sequence[Section]:
    """Seconds."""
    del shown
    return [Section("Cost", "", (), ("fit_seconds", "train_seconds", "seconds_per_sample"))]
