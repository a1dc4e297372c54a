"""Rows, pictures and sections of a fit's report."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from experiments.evaluation import forecasts as evaluation
from phdme_jax.app import figures
from phdme_jax.app.drawing import Curve, EffortSlice, Labels
from phdme_jax.app.efforts import LEVELS, effort_slices
from phdme_jax.app.page import Picture, Section
from phdme_jax.app.rows import Measurement, ResultsWriter
from phdme_jax.calibration import coverage_curve
from phdme_jax.forecasting.bands import Forecasts
from phdme_jax.forecasting.forecast import half_width
from phdme_jax.forecasting.inputs import STRUCTURES, FitInputs
from phdme_jax.forecasting.saved import Forecaster, is_calibrated
from phdme_jax.methods.energy import prior as priors


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What a fit leaves for its report, physical units.

    Attributes:
      inputs: the checked files.
      forecaster: the forecaster.
      rejected: share of the rollouts that were dropped.
      seen: forecasts of the first trajectories of the data.
      unseen: forecasts of the calibration trajectories, or None.
      scores: band scores of those, or None.
    """

    inputs: FitInputs
    forecaster: Forecaster
    rejected: float
    seen: Forecasts
    unseen: Forecasts | None
    scores: np.ndarray | None


def mean_rollout(fitted: Fitted, initial: np.ndarray) -> Forecasts:
    """Forecasts by the posterior-mean energy alone, without diffusion: the baseline of every table."""
    scale = np.asarray(fitted.inputs.units.fields)
    times = fitted.inputs.units.frames(fitted.inputs.observed.time)
    trajectory = priors.mean_rollouts(fitted.forecaster.prior, initial / scale, times).trajectory * scale
    return Forecasts(np.nan_to_num(trajectory), None, np.isfinite(trajectory).all(axis=(1, 2, 3)), 0.0)


def record_rows(results: ResultsWriter, fitted: Fitted, seed: int) -> None:
    """Writes the numbers: errors on what was seen and on the calibration trajectories, times, half-split coverage."""
    forecaster, inputs = fitted.forecaster, fitted.inputs
    name, method = forecaster.name, forecaster.generator.method.name
    splits = [("train", inputs.observed.state[:8], fitted.seen)]
    if inputs.calibration is not None and fitted.unseen is not None:
        splits.append(("calibration", inputs.calibration.state, fitted.unseen))
    for split, truth, forecasts in splits:
        rows = evaluation.accuracy(truth, forecasts, forecaster.structure.fields)
        rows["seconds_per_sample"] = Measurement(forecasts.seconds, "s")
        if split == "calibration" and is_calibrated(forecaster.calibration):
            width = 2 * half_width(forecaster, forecasts) / np.sqrt(np.var(truth, axis=(0, 1, 2)))
            rows["band_width"] = Measurement(float(width.mean()))
        if split == "calibration" and fitted.scores is not None:
            rows |= _half_split(fitted.scores, forecaster.level)
        results.record(name, method, seed, split, rows, len(truth))
        baseline = evaluation.accuracy(truth, mean_rollout(fitted, truth[:, 0]), forecaster.structure.fields)
        results.record(name, "gp_rollout", seed, split, baseline, len(truth))
    rows = {"train_seconds": Measurement(sum(forecaster.generator.seconds.values()), "s")}
    results.record(name, method, seed, "train", rows, len(inputs.observed.state))
    rows = {
        "fit_seconds": Measurement(forecaster.prior.seconds, "s"),
        "rejection_rate": Measurement(fitted.rejected),
    }
    results.record(name, "gp_rollout", seed, "train", rows, len(inputs.observed.state))


def _half_split(scores: np.ndarray, level: float) -> dict[str, Measurement]:
    """Coverage on every other calibration trajectory of the band calibrated on the rest."""
    if not evaluation.supported(len(scores[::2]), level) or len(scores) < 2:
        return {}
    curve = coverage_curve(jnp.asarray(scores[::2]), jnp.asarray(scores[1::2]), (level,))
    return {"coverage_half_split": Measurement(float(curve.coverage[0]))}


def physical_efforts(fitted: Fitted) -> list[EffortSlice]:
    """The learned efforts along each field, physical units."""
    inputs, units = fitted.inputs, fitted.inputs.units
    labels = field_labels(fitted)
    energy = STRUCTURES[inputs.name].energy_unit(units)
    slices = effort_slices(fitted.forecaster.prior, None, inputs.observed.state / np.asarray(units.fields), labels)
    return [
        dataclasses.replace(
            part,
            x=np.asarray(part.x) * unit,
            mean=np.asarray(part.mean) * energy / unit,
            standard_deviation=np.asarray(part.standard_deviation) * energy / unit,
            data_range=(part.data_range[0] * unit, part.data_range[1] * unit),
        )
        for part, unit in zip(slices, units.fields, strict=True)
    ]


def field_labels(fitted: Fitted) -> tuple[str, ...]:
    """Names of the fields; their units are the user's."""
    return fitted.inputs.structure.fields


def report_sections(workdir: Path, fitted: Fitted) -> list[Section]:
    """Draws the pictures and arranges the page.

    Args:
      workdir: the run folder.
      fitted: what the fit left.
    Returns:
      sections of the report.
    """
    forecaster = fitted.forecaster
    efforts = figures.effort_learned_vs_true(workdir / "figures" / "efforts.png", physical_efforts(fitted), Labels())
    sections = [
        Section(
            "What was fitted",
            _fit_text(fitted),
            (Picture(efforts, "Learned energy gradient of each field; shaded: range of the observed states"),),
            ("nmse", "mse", "crps"),
        ),
        Section(
            "Forecast of the first trajectory of the file",
            "The fit has seen this trajectory; the picture shows that the forecaster reproduces it, not how well it "
            "forecasts others. Errors on trajectories that trained nothing are in the rows of the split calibration, "
            "where such trajectories were given.",
            _forecast_pictures(workdir, fitted),
        ),
        Section(
            "Calibration", _calibration_text(fitted), _coverage_picture(workdir, fitted), ("coverage", "band_width")
        ),
        Section("Cost", "", (), ("fit_seconds", "train_seconds", "seconds_per_sample")),
    ]
    if forecaster.calibration is None:
        sections[2] = dataclasses.replace(sections[2], metrics=())
    return sections


def _fit_text(fitted: Fitted) -> str:
    inputs, units = fitted.inputs, fitted.inputs.units
    prior, options = fitted.forecaster.prior, inputs.options
    count, frames, points, _ = inputs.observed.state.shape
    parameter_units = STRUCTURES[inputs.name].parameter_units(units)
    damping = ", ".join(
        f"{name} {float(value) * parameter_units[name]:.3g}" for name, value in prior.posterior.parameters.items()
    )
    text = (
        f"{count} trajectories of {frames} frames at {points} grid points, fitted as {inputs.name} with stencils of "
        f"order {options['order']} ({options['closure']} closure) and {prior.substeps} integration steps "
        f"between frames. Learned dissipation, in the units of the file: {damping or 'none'}. Internally, one unit of "
        f"time is {units.time:.4g} and one of length {units.length:.4g}. {100 * fitted.rejected:.3g} % of the rollouts "
        "of sampled energies were dropped because they left the range of the data or gained energy.\n\n"
        "Initial states of the rollouts were drawn from a Gaussian over the leading sines and cosines whose covariance "
        "is that of all observed frames, or are observed frames themselves, scaled at random."
    )
    return "\n\n".join([text, *(f"Note: {note}." for note in inputs.notes)])


def _calibration_text(fitted: Fitted) -> str:
    forecaster, given = fitted.forecaster, fitted.inputs.calibration
    level = f"{100 * forecaster.level:g} %"
    if given is None:
        return f"No calibration file was given, so the bands of {level} promise no coverage."
    if not is_calibrated(forecaster.calibration):
        return f"{len(given.state)} calibration trajectories do not suffice for a band of {level}: not calibrated."
    return (
        f"Split conformal calibration on {len(given.state)} whole trajectories: a new trajectory lies inside its "
        f"{level} band at all frames, points and fields at once with at least that probability, over calibration and "
        "new trajectory together, as long as the new one is exchangeable with those (same experiment, same "
        "instrument). The picture calibrates on every other calibration trajectory and counts on the rest."
    )


def _coverage_picture(workdir: Path, fitted: Fitted) -> tuple[Picture, ...]:
    if fitted.scores is None or not is_calibrated(fitted.forecaster.calibration):
        return ()
    one, other = fitted.scores[::2], fitted.scores[1::2]
    if len(other) == 0:
        return ()
    curve = coverage_curve(jnp.asarray(one), jnp.asarray(other), tuple(LEVELS.tolist()))
    if curve.level.size == 0:
        return ()
    path = figures.coverage_curve(
        workdir / "figures" / "coverage.png", np.asarray(curve.level),
        {fitted.forecaster.generator.method.name: np.asarray(curve.coverage)}, len(other), len(one), Labels(),
    )  # fmt: skip
    return (Picture(path, "Empirical against nominal coverage of whole trajectories, half against half"),)


def _forecast_pictures(workdir: Path, fitted: Fitted) -> tuple[Picture, ...]:
    forecaster, forecasts = fitted.forecaster, fitted.seen
    truth, mean, time = fitted.inputs.observed.state[0], forecasts.mean[0], forecaster.time
    assert forecasts.samples is not None
    level = f"{100 * forecaster.level:g} %"
    if is_calibrated(forecaster.calibration):
        half, kind = half_width(forecaster, forecasts)[0], f"calibrated {level} band"
        lower, upper = mean - half, mean + half
    else:
        tails = ((1 - forecaster.level) / 2, (1 + forecaster.level) / 2)
        lower, upper = np.quantile(forecasts.samples[0], tails, axis=0)
        half, kind = (upper - lower) / 2, f"central {level} of the samples, not calibrated"
    labels = Labels(title="seen trajectory", x="time", y="position", panels=field_labels(fitted))
    first = figures.space_time_panel(
        workdir / "figures" / "space_time.png", truth, mean, time, forecaster.grid, labels, half
    )
    sites = np.linspace(0, forecaster.grid.size - 1, 5).astype(int)[1:-1]
    field = len(field_labels(fitted)) - 1
    positions = tuple(f"position {forecaster.grid[site]:.4g}" for site in sites)
    parts = (part[..., sites, field] for part in (mean, lower, upper, forecasts.samples[0]))
    second = figures.forecast_lines(
        workdir / "figures" / "lines.png", time, truth[:, sites, field], Curve("forecast", *parts),
        Labels(x="time", y=field_labels(fitted)[field], panels=positions),
    )  # fmt: skip
    return (
        Picture(first, f"Seen trajectory: truth, forecast mean, error, and half width of the {kind}"),
        Picture(second, f"Seen trajectory at three positions: {kind}"),
    )
