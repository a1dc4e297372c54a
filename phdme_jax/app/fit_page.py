"""What a fit's report says: rows, pictures, sections, and the sentences it ends with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from phdme_jax.app import figures
from phdme_jax.app.drawing import Curve, EffortSlice, Labels
from phdme_jax.app.efforts import LEVELS, effort_slices
from phdme_jax.app.page import Picture, Section
from phdme_jax.app.rows import Measurement, ResultRow, ResultsWriter
from phdme_jax.app.scores import accuracy
from phdme_jax.calibration import coverage_curve, minimum_calibration_size
from phdme_jax.forecasting import bands
from phdme_jax.forecasting.bands import Forecasts
from phdme_jax.forecasting.conformalize import calibrate, calibration_forecasts, score_floor
from phdme_jax.forecasting.files import Trajectories
from phdme_jax.forecasting.forecast import central_band, half_width
from phdme_jax.forecasting.forecaster import Forecaster, energy_forecasts, forecasts_from
from phdme_jax.forecasting.inputs import FitInputs
from phdme_jax.forecasting.offers import TEACHER
from phdme_jax.forecasting.structures import known_structure
from phdme_jax.gp.sampling import num_steps
from phdme_jax.training.loop import Watch

SEEN = 8  # trajectories of the data that are forecast


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A fit and how it forecasts, physical units.

    Attributes:
      inputs: what it was fitted to.
      forecaster: calibrated where that was possible.
      seen: forecasts of the first trajectories of the data.
      calibration: trajectories that trained nothing, or None.
      unseen: forecasts of those, or None.
      scores: band scores of those, or None.
    """

    inputs: FitInputs
    forecaster: Forecaster
    seen: Forecasts
    calibration: Trajectories | None = None
    unseen: Forecasts | None = None
    scores: np.ndarray | None = None


def evaluate(forecaster: Forecaster, inputs: FitInputs, calibration: Trajectories | None, watch: Watch) -> Evaluation:
    """Forecasts of what was seen and of what trained nothing, on which the forecaster is calibrated if it can be.

    Args:
      forecaster: fitted, its level the one asked for.
      inputs: what it was fitted to.
      calibration: trajectories that trained nothing, or None.
      watch: shows the progress.
    Returns:
      the evaluation.
    """
    first = inputs.trajectories.state[:SEEN, 0]
    seen = bands.finite(forecasts_from(forecaster, first, forecaster.num_samples, forecaster.setup.key("seen")))
    if calibration is None:
        return Evaluation(inputs, forecaster, seen)
    truth = calibration.state
    unseen = calibration_forecasts(forecaster, truth, watch)
    scores = bands.band_scores(truth, unseen, score_floor(forecaster))
    if bands.supported(len(truth), forecaster.level):
        forecaster = calibrate(forecaster, truth, unseen, forecaster.level)
    return Evaluation(inputs, forecaster, seen, calibration, unseen, scores)


def record_rows(results: ResultsWriter, evaluation: Evaluation) -> None:
    """Writes the numbers: errors on what was seen and on the calibration trajectories, times, half-split coverage."""
    forecaster, inputs = evaluation.forecaster, evaluation.inputs
    setup, fields = forecaster.setup, forecaster.structure.fields

    def record(method: str, split: str, rows: dict[str, Measurement], count: int) -> None:
        results.record(setup.structure, method, setup.seed, split, rows, count)

    splits = [("train", inputs.trajectories.state[:SEEN], evaluation.seen)]
    if evaluation.calibration is not None and evaluation.unseen is not None:
        splits.append(("calibration", evaluation.calibration.state, evaluation.unseen))
    for split, truth, forecasts in splits:
        rows = accuracy(truth, forecasts, fields)
        rows["seconds_per_sample"] = Measurement(forecasts.seconds, "s")
        if split == "calibration":
            rows |= _band_rows(evaluation, truth, forecasts)
        record(setup.method, split, rows, len(truth))
        record(TEACHER, split, accuracy(truth, energy_forecasts(forecaster, truth[:, 0]), fields), len(truth))
    count, seconds = len(inputs.trajectories.state), dict(forecaster.fitted.seconds)
    fit_seconds = seconds.pop("fit")
    record(setup.method, "train", {"train_seconds": Measurement(sum(seconds.values()), "s")}, count)
    rows = {"fit_seconds": Measurement(fit_seconds, "s")}
    if "rejection_rate" in forecaster.fitted.found:
        rows["rejection_rate"] = Measurement(forecaster.fitted.found["rejection_rate"])
    record(TEACHER, "train", rows, count)


def _band_rows(evaluation: Evaluation, truth: np.ndarray, forecasts: Forecasts) -> dict[str, Measurement]:
    """Width of the calibrated band; coverage on every other calibration trajectory of one calibrated on the rest."""
    forecaster, scores, rows = evaluation.forecaster, evaluation.scores, {}
    if forecaster.is_calibrated:
        width = 2 * half_width(forecaster, forecasts) / np.sqrt(np.var(truth, axis=(0, 1, 2)))
        rows["band_width"] = Measurement(float(width.mean()))
    if scores is not None and bands.supported(len(scores[::2]), forecaster.level) and len(scores) > 1:
        curve = coverage_curve(jnp.asarray(scores[::2]), jnp.asarray(scores[1::2]), (forecaster.level,))
        rows["coverage_half_split"] = Measurement(float(curve.coverage[0]))
    return rows


def headline(forecaster: Forecaster, rows: Sequence[ResultRow], num_calibration: int) -> list[str]:
    """What came out, in sentences: what was learned, its error beside that of the energy alone, coverage."""
    setup = forecaster.setup
    found = {(row.method, row.split, row.metric): row for row in rows if row.seed == setup.seed}
    split = "calibration" if num_calibration else "train"
    own, energy = found[setup.method, split, "nmse"], found[TEACHER, split, "nmse"]
    which = "calibration trajectories, which trained nothing" if num_calibration else "trajectories it has seen"
    observed, count = forecaster.observed, len(forecaster.observed.digests)
    return [
        f"Learned the energy of {setup.structure} from {count} trajector{'y' if count == 1 else 'ies'} "
        f"({observed.time.size} frames at {observed.grid.size} points), and {setup.method} from rollouts of it.",
        f"Mean squared error over variance on {own.n} {which}: {_number(own.value)}; the learned energy alone, "
        f"integrated in time: {_number(energy.value)}.",
        _calibration_sentence(forecaster, num_calibration, found.get((setup.method, split, "coverage_half_split"))),
    ]


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3g}"


def _calibration_sentence(forecaster: Forecaster, num_calibration: int, coverage: ResultRow | None) -> str:
    share = f"{100 * forecaster.level:g} %"
    if not num_calibration:
        return f"Not calibrated: no calibration trajectories were given, so bands of {share} promise no coverage."
    if forecaster.calibration is None:
        least, given = minimum_calibration_size(forecaster.level), f"{num_calibration} were given"
        return f"Not calibrated: bands of {share} take at least {least} calibration trajectories, and {given}."
    if not forecaster.is_calibrated:
        return f"Not calibrated: too many forecasts of the {num_calibration} calibration trajectories diverged."
    text = f"Calibrated: bands of {share} on {num_calibration} trajectories, whole trajectories at a time"
    if coverage is None or coverage.value is None:
        enough = 2 * minimum_calibration_size(forecaster.level) - 1
        return f"{text}; with {enough} or more the coverage would be checked, half against half."
    return f"{text}; calibrated on one half, they held {100 * coverage.value:.0f} % of the other."


def physical_efforts(forecaster: Forecaster, inputs: FitInputs) -> list[EffortSlice]:
    """The learned efforts along each field, physical units."""
    units, fields = forecaster.setup.units, forecaster.structure.fields
    energy = known_structure(forecaster.setup.structure).energy_unit(units)
    states = inputs.trajectories.state / units.scale
    return [
        replace(
            part,
            x=np.asarray(part.x) * unit,
            mean=np.asarray(part.mean) * energy / unit,
            standard_deviation=np.asarray(part.standard_deviation) * energy / unit,
            data_range=(part.data_range[0] * unit, part.data_range[1] * unit),
        )
        for part, unit in zip(effort_slices(forecaster.energy, None, states, fields), units.fields, strict=True)
    ]


def report_sections(workdir: Path, evaluation: Evaluation) -> list[Section]:
    """Draws the pictures and arranges the page.

    Args:
      workdir: the run folder.
      evaluation: what there is to show.
    Returns:
      sections of the report.
    """
    forecaster = evaluation.forecaster
    slices = physical_efforts(forecaster, evaluation.inputs)
    efforts = figures.effort_learned_vs_true(workdir / "figures" / "efforts.png", slices, Labels())
    band_metrics = () if forecaster.calibration is None else ("coverage", "band_width")
    return [
        Section(
            "What was fitted",
            _fit_text(evaluation),
            (Picture(efforts, "Learned energy gradient of each field; shaded: range of the observed states"),),
            ("nmse", "mse", "crps"),
        ),
        Section(
            "Forecast of the first trajectory of the file",
            "The fit has seen this trajectory; the picture shows that the forecaster reproduces it, not how well it "
            "forecasts others. Errors on trajectories that trained nothing are in the rows of the split calibration, "
            "where such trajectories were given.",
            _forecast_pictures(workdir, evaluation),
        ),
        Section("Calibration", _calibration_text(evaluation), _coverage_picture(workdir, evaluation), band_metrics),
        Section("Cost", "", (), ("fit_seconds", "train_seconds", "seconds_per_sample")),
    ]


def _fit_text(evaluation: Evaluation) -> str:
    forecaster = evaluation.forecaster
    setup, observed = forecaster.setup, forecaster.observed
    units, structure = setup.units, setup.options["structure"]
    intervals = {
        name: f" (90 %: {low:.3g} to {high:.3g})" for name, (low, high) in forecaster.dissipation_intervals.items()
    }
    found = forecaster.dissipation.items()
    damping = ", ".join(f"{name} {value:.3g}{intervals.get(name, '')}" for name, value in found)
    rejected = 100 * forecaster.fitted.found.get("rejection_rate", 0.0)
    steps = num_steps(setup.options["prior"]["substeps"])
    text = (
        f"{len(observed.digests)} trajectories of {observed.time.size} frames at {observed.grid.size} grid points, "
        f"fitted as {setup.structure} with stencils of order {structure['order']} ({structure['closure']} closure) and "
        f"{steps} integration steps between frames. Learned dissipation, in the units of "
        f"the file: {damping or 'none'}. Internally, one unit of time is {units.time:.4g} and one of length "
        f"{units.length:.4g}. {rejected:.3g} % of the rollouts of sampled energies were dropped because they left the "
        "range of the data or gained energy.\n\n"
        "Initial states of the rollouts were drawn from a Gaussian over the leading sines and cosines whose covariance "
        "is that of all observed frames, or are observed frames themselves, scaled at random."
    )
    return "\n\n".join([text, *(f"Note: {note}." for note in forecaster.notes)])


def _calibration_text(evaluation: Evaluation) -> str:
    forecaster, given = evaluation.forecaster, evaluation.calibration
    if given is None or not forecaster.is_calibrated:
        return _calibration_sentence(forecaster, 0 if given is None else len(given.state), None)
    return (
        f"Split conformal calibration on {len(given.state)} whole trajectories: a new trajectory lies inside its "
        f"{100 * forecaster.level:g} % band at all frames, points and fields at once with at least that probability, "
        "over calibration and new trajectory together, as long as the new one is exchangeable with those (same "
        "experiment, same instrument). The picture calibrates on every other calibration trajectory and counts on the "
        "rest."
    )


def _coverage_picture(workdir: Path, evaluation: Evaluation) -> tuple[Picture, ...]:
    if evaluation.scores is None or not evaluation.forecaster.is_calibrated or len(evaluation.scores) < 2:
        return ()
    first, second = evaluation.scores[::2], evaluation.scores[1::2]
    curve = coverage_curve(jnp.asarray(first), jnp.asarray(second), tuple(LEVELS.tolist()))
    if curve.level.size == 0:
        return ()
    empirical = {evaluation.forecaster.setup.method: np.asarray(curve.coverage)}
    path = workdir / "figures" / "coverage.png"
    figures.coverage_curve(path, np.asarray(curve.level), empirical, len(second), len(first), Labels())
    return (Picture(path, "Empirical against nominal coverage of whole trajectories, half against half"),)


def _forecast_pictures(workdir: Path, evaluation: Evaluation) -> tuple[Picture, ...]:
    forecaster, forecasts, fields = evaluation.forecaster, evaluation.seen, evaluation.forecaster.structure.fields
    assert forecasts.mean is not None and forecasts.samples is not None
    time, grid = forecaster.observed.time, forecaster.observed.grid
    truth, mean, samples = evaluation.inputs.trajectories.state[0], forecasts.mean[0], forecasts.samples[0]
    level = f"{100 * forecaster.level:g} %"
    if forecaster.is_calibrated:
        half, kind = half_width(forecaster, forecasts)[0], f"calibrated {level} band"
        lower, upper = mean - half, mean + half
    else:
        (lower, upper), kind = central_band(mean, samples, forecaster.level), f"central {level}, not calibrated"
    labels = Labels(title="seen trajectory", x="time", y="position", panels=fields)
    panels = workdir / "figures" / "space_time.png"
    figures.space_time_panel(panels, truth, mean, time, grid, labels, bands.spread(forecasts)[0])
    sites, field = np.linspace(0, grid.size - 1, 5).astype(int)[1:-1], len(fields) - 1
    positions = tuple(f"position {grid[site]:.4g}" for site in sites)
    curve = Curve("forecast", *(values[..., sites, field] for values in (mean, lower, upper, samples)))
    lines = workdir / "figures" / "lines.png"
    figures.forecast_lines(
        lines, time, truth[:, sites, field], curve, Labels(x="time", y=fields[field], panels=positions)
    )
    return (
        Picture(panels, "Seen trajectory: truth, forecast mean, error, and spread (standard deviation) of the samples"),
        Picture(lines, f"Seen trajectory at three positions: {kind}"),
    )
