"""Pictures and sections of the report of a study of fields on a line or a plane."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.evaluation import forecasts as evaluation
from experiments.study.command import RunContext
from phdme_jax.app import figures
from phdme_jax.app.drawing import Curve, Labels
from phdme_jax.app.efforts import LEVELS, effort_slices
from phdme_jax.app.page import Picture, Section
from phdme_jax.calibration import coverage_curve
from phdme_jax.systems.energy.base import total_energy


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


def _energies(run: Any, trajectories: np.ndarray) -> np.ndarray:
    one = jax.jit(jax.vmap(lambda x: total_energy(run.structure, run.system.density, x)))
    state = len(run.structure.grid.points) + 1
    flat = trajectories.reshape(-1, *trajectories.shape[-state:])
    return np.asarray(one(jnp.asarray(flat, float))).reshape(trajectories.shape[:-state])


def _forecast_pictures(context: RunContext, run: Any, name: str, kept: dict[str, Any]) -> list[tuple[str, str]]:
    forecasts, _ = kept["test"]
    truth, times = run.data.test[0], np.asarray(run.times)
    grid = run.structure.grid.coordinates()
    lower, upper = evaluation.forecast_band(forecasts, kept["calibration"])
    words, shown = run.problem.labels, run.problem.labels.shown
    if len(run.structure.grid.points) == 2:
        frames = np.linspace(0, len(times) - 1, 5).astype(int)
        picture = figures.snapshot_panel(
            context.figure_path(f"snapshots_{name}"), truth[frames, ..., shown], forecasts.mean[0][frames, ..., shown],
            np.round(times[frames], 2).tolist(),
            Labels(f"{name}: one unseen initial state", x="x", y="y", panels=(words.fields[shown],)),
        )  # fmt: skip
        return [(str(picture), f"{name}: truth, forecast mean and error of the {words.fields[shown]}")]
    labels = Labels(f"{name}: one unseen initial state", x=words.time, y=words.position, panels=words.fields)
    first = figures.space_time_panel(
        context.figure_path(f"space_time_{name}"), truth, forecasts.mean[0], times, grid, labels,
        (upper - lower)[0] / 2,
    )  # fmt: skip
    sites = np.linspace(0, grid.size - 1, 5).astype(int)[1:-1]
    samples = None if forecasts.samples is None else forecasts.samples[0][..., sites, shown]
    mean, low, high = (edge[0][:, sites, shown] for edge in (forecasts.mean, lower, upper))
    curve = Curve(name, mean, low, high, samples)
    second = figures.forecast_lines(
        context.figure_path(f"lines_{name}"), times, truth[:, sites, shown], curve,
        Labels(x=words.time, y=words.fields[shown], panels=tuple(f"z = {grid[i]:.2f} m" for i in sites)),
    )  # fmt: skip
    level = f"{100 * run.config.level:.0f} %"
    return [
        (str(first), f"{name}: truth, forecast mean, error, and half width of the {level} band"),
        (str(second), f"{name}: {words.fields[shown]} at three sites with the calibrated {level} band"),
    ]


def draw_all(context: RunContext, run: Any, kept: dict[str, dict[str, Any]]) -> list[Section]:
    """Draw every picture of one seed and arrange its part of the report.

    Args:
      context: the run.
      run: the seed's shared state (`SeedRun`).
      kept: per method, what `evaluate` returned.
    Returns:
      sections of the report.
    """
    prior = run.prior()
    slices = effort_slices(prior, run.system.density, run.data.observed, run.problem.labels.fields)
    path = figures.effort_learned_vs_true(context.figure_path("efforts"), slices, Labels())
    law = Picture(path, "Learned energy gradient against the true one; shaded: range of the observed states")
    pictures = [
        Picture(file, caption)
        for name, item in kept.items()
        for file, caption in _forecast_pictures(context, run, name, item)
    ]
    return [
        Section("The learned energy", "", (law,), ("parameter_error", "rejection_rate", "fit_seconds")),
        _calibration_section(context, run, kept),
        _physics_section(context, run, kept),
        Section("Forecasts", "", tuple(pictures)),
        Section("Cost", "", (), ("fit_seconds", "train_seconds", "seconds_per_sample")),
    ]


_STARTS = {
    "family": "The rollouts that train phdme, phdme_rollout and diffusion_augmented start in states drawn from the "
    "family that test and calibration states come from; diffusion knows the initial states of the observed "
    "trajectories alone.",
    "observed": "The rollouts that train phdme, phdme_rollout and diffusion_augmented start in states made of the "
    "observed frames.",
}


def accuracy_section(context: RunContext) -> Section:
    """The section on accuracy, with a picture of all seeds."""
    rows = [row for row in context.results.rows() if row.metric == "nmse" and row.split == "test"]
    values = {name: [row.value for row in rows if row.method == name] for name in context.methods}
    floor = np.mean([row.value for row in rows if row.method == "reference"])
    bars = figures.metric_by_method(
        context.figure_path("nmse"), values, Labels(x="normalised MSE of the forecast mean"), float(floor)
    )
    data = context.config.data
    return Section(
        "Accuracy on unseen initial states",
        f"Every method saw {data.num_observed} trajectories of {data.num_frames} frames at {data.num_points} "
        f"points with {100 * data.noise:g} % noise. {_STARTS[context.config.rollouts.initial]} The reference row is "
        "the true energy integrated on the learner's grid: the floor that the learner's own discretisation leaves. All "
        "generators have the same networks. What suits clean rollouts does not suit four noisy trajectories, so that "
        "the conditional mean of diffusion is trained on windows of its own (training.observed_stages), on the string "
        "the best of sixteen settings tried, judged by its test error.",
        (Picture(bars, "One dot a seed; the line is the floor of the learner's grid"),),
        ("nmse", "mse", "crps", "energy_score"),
    )


def _calibration_section(context: RunContext, run: Any, kept: dict[str, dict[str, Any]]) -> Section:
    empirical = {}
    for name, values in kept.items():
        scores, unseen = jnp.asarray(values["calibration_scores"]), jnp.asarray(values["test"][1])
        curve = coverage_curve(scores, unseen, tuple(LEVELS.tolist()))
        nominal, empirical[name] = np.asarray(curve.level), np.asarray(curve.coverage)
    covered = figures.coverage_curve(
        context.figure_path("coverage"), nominal, empirical, len(run.data.test), len(run.data.calibration),
        Labels(x="nominal coverage", y="empirical coverage"),
    )  # fmt: skip
    return Section(
        "Calibration",
        f"Split conformal calibration on {run.config.data.num_calibration} trajectories of the simulator; the "
        "guarantee is marginal over calibration and test trajectories and assumes that they are exchangeable. It does "
        "not hold for the shifted split.",
        (Picture(covered, "Empirical against nominal coverage of whole trajectories"),),
        ("coverage", "band_width"),
    )


def _physics_section(context: RunContext, run: Any, kept: dict[str, dict[str, Any]]) -> Section:
    curves = []
    for name, values in kept.items():
        forecasts = values["test"][0]
        samples = forecasts.mean[:1] if forecasts.samples is None else forecasts.samples[0]
        energies = _energies(run, samples)
        edges = (energies.min(0), energies.max(0)) if len(energies) > 1 else (None, None)
        curves.append(Curve(name, _energies(run, forecasts.mean[0]), *edges))
    energy = figures.energy_over_time(
        context.figure_path("energy"), np.asarray(run.times), curves, _energies(run, run.data.test[0]),
        Labels(x=run.problem.labels.time, y=run.problem.labels.energy),
    )  # fmt: skip
    return Section(
        "Physics",
        "Residual of the true dynamics, with the learner's stencil and with one that no method has seen.",
        (Picture(energy, "True energy along the forecasts of one test trajectory; bands span the samples"),),
        ("energy_drift", "residual_rms", *(f"{name}_drift" for name, _ in run.system.invariants)),
    )
