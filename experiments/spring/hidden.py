"""The spring with most of its tracked points hidden, an extra of the study's bench.

Of each window some stretches of the spring are read, over the last images up to its start; the motion after it is
forecast and scored in the middles of the hidden stretches alone, against the truth of the study, displacement in the
first modes. Energy, background and noise are those of the training recording, and so is the calibrated band.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments.evaluation.costs import draw_seconds
from experiments.spring.bench import SPLITS, SpringWorld, asked_config, draw_states
from experiments.spring.hidden_models import (
    Instrument,
    Measured,
    Params,
    Readings,
    interpolate_images,
    make_interpolated,
    make_measured,
    make_searched,
)
from experiments.spring.hidden_readings import draw_layouts, make_readings, stretch_middles, tracked_pixels
from experiments.spring.prior import REST, basis_of
from experiments.spring.recording import sine_modes
from experiments.spring.scores import LEARNED
from experiments.spring.windows import Windows
from experiments.study.study import Run
from phdme_jax.app.rows import Measurement
from phdme_jax.app.scores import mean_and_error
from phdme_jax.calibration import is_covered
from phdme_jax.forecasting import bands
from phdme_jax.forecasting.bands import Calibration, Forecasts
from phdme_jax.methods.base import Fitted, stage_key
from phdme_jax.methods.draws import draw_forecasts
from phdme_jax.methods.sensors.background import fit_background
from phdme_jax.training import metrics

DRAWS = 4096  # states that the background is made of
SEARCHED, INTERPOLATED = "fourdvar", "interpolate_then_roll"
SAMPLES = 100  # the number that keys of samples are made from, beside those of SPLITS


@dataclass(frozen=True)
class HiddenOptions:
    """The group `hidden`.

    Attributes:
      stretches: that the picture is cut into.
      counts: of stretches that are read.
      window: images that are read, the start the last one.
      deviation: standard deviation of a reading [length].
      modes: that states may differ in before any reading.
      steps: of Gauss-Newton through the mean energy.
      sample_steps: of Gauss-Newton through the energy of a sample, from there.
      degree: of the polynomial in time through interpolated images.
    """

    stretches: int
    counts: tuple[int, ...]
    window: int
    deviation: float
    modes: int
    steps: int
    sample_steps: int
    degree: int


class Questions(NamedTuple):
    """What is asked of one split.

    Attributes:
      windows: those with enough images up to their start.
      readings: what search and interpolation are told, leaves with a leading axis.
      measured: what the study's own forecast is told, the same.
      places: that are hidden and scored.
      truth: displacement there at the images after the start [length].
    """

    windows: Windows
    readings: Readings
    measured: Measured
    places: Float[np.ndarray, "window place"]
    truth: Float[np.ndarray, "window scored place 1"]


class HiddenAnswer(NamedTuple):
    """What one method answers for the windows of one split.

    Attributes:
      forecasts: at the hidden places.
      calibration: of the band, on the calibration windows with as many stretches read.
      scores: of the band, a number for each window.
      seconds: of one answer, all of its samples.
    """

    forecasts: Forecasts
    calibration: Calibration
    scores: Float[np.ndarray, " window"]
    seconds: float


def at_places(
    amplitude: Float[np.ndarray, "window *axes mode"], places: Float[np.ndarray, "window place"]
) -> Float[np.ndarray, "window *axes place 1"]:
    """Displacement at the places of each window."""
    pairs = zip(amplitude, places, strict=True)
    return np.stack([curve @ sine_modes(where, curve.shape[-1]).T for curve, where in pairs])[..., None]


def make_questions(run: Run, split: str, visible: int) -> Questions:
    """What is asked of a split where so many stretches are read."""
    world: SpringWorld = run.bench.world
    options, recording, windows = HiddenOptions(**run.config.hidden), world.recording(split), world.windows[split]
    enough = windows.begin + 1 >= options.window
    windows = Windows(*(leaf[enough] for leaf in windows))
    key = jax.random.fold_in(jax.random.fold_in(stage_key(run.bench.key, "questions"), SPLITS[split]), visible)
    layouts = draw_layouts(visible, options.stretches, len(windows.begin), key)
    assert run.context.data_dir is not None
    tracked = tracked_pixels(run.context.data_dir, recording)
    readings = make_readings(recording, tracked, windows, layouts, options.window)
    told = run.bench.splits[split].condition
    measured = Measured(told.state[enough], told.errors[enough], windows.times - windows.times[:, :1])
    places = np.stack([stretch_middles(options.stretches)[layout == 0.0] for layout in layouts])
    scored = windows.begin[:, None] + np.arange(1, windows.times.shape[1])
    truth = at_places(recording.amplitude[scored][..., : recording.modes], places)
    return Questions(windows, readings, measured, places, truth)


def make_instrument(run: Run) -> Instrument:
    """The static part; steps of the integrator are no longer than those of the study's forecasts."""
    options, world, times = HiddenOptions(**run.config.hidden), run.bench.world, run.bench.task.times
    longest = max(float(np.diff(recording.time).max()) for recording in (world.train, world.test))
    return Instrument(
        basis_of(run.fitted(LEARNED).params.best.mean),
        world.train.grid.size,
        options.window,
        world.train.modes,
        int(np.ceil(run.config.forecast.substeps * max(1.0, longest / (times[1] - times[0])))),
        options.steps,
        options.sample_steps,
        options.degree,
    )


def make_params(run: Run) -> Params:
    """Energy, background and noise, all of the training recording; states before any reading have either sign."""
    config, options = asked_config(run.context, run.config), HiddenOptions(**run.config.hidden)
    last = config.prior.last_frame if run.context.validates else None
    recording, key = replace(run.bench.world.train, modes=options.modes), stage_key(run.bench.key, "starts")
    states = draw_states(recording, DRAWS, config.generator.start_scale, config.generator.rest_scale, key, last)
    background = fit_background(np.concatenate([states, -states])[..., :REST], 2 * options.modes)
    return Params(run.fitted(LEARNED).params, background, jnp.full(1, options.deviation))


@lru_cache(maxsize=8)
def hidden_answers(run: Run, visible: int) -> tuple[Questions, Mapping[str, HiddenAnswer]]:
    """What is asked of the split that the run reports, and what every method answers."""
    params, instrument = make_params(run), make_instrument(run)
    asked = {split: make_questions(run, split, visible) for split in ("calibration", run.context.asked)}
    models = {
        SEARCHED: (make_searched(instrument), "readings"),
        INTERPOLATED: (make_interpolated(instrument), "readings"),
        LEARNED: (make_measured(instrument), "measured"),
    }
    answers = {name: _answer(run, Fitted(model, params, {}), told, asked) for name, (model, told) in models.items()}
    return asked[run.context.asked], answers


def _answer(run: Run, fitted: Fitted, told: str, asked: Mapping[str, Questions]) -> HiddenAnswer:
    assert run.bench.scale is not None and run.bench.level is not None
    floor, forecasts = 0.01 * np.asarray(run.bench.scale, np.float64), {}
    for split, questions in asked.items():
        key = jax.random.fold_in(stage_key(run.bench.key, "samples"), SAMPLES + SPLITS[split])
        drawn = draw_forecasts(fitted, getattr(questions, told), run.bench.num_samples, key)
        assert drawn.mean is not None and drawn.samples is not None
        mean, samples = (at_places(amplitude, questions.places) for amplitude in (drawn.mean, drawn.samples))
        forecasts[split] = Forecasts(mean, samples, drawn.ok, drawn.seconds)
    calibration = bands.calibrate(asked["calibration"].truth, forecasts["calibration"], floor, run.bench.level)
    questions = asked[run.context.asked]
    scores = bands.band_scores(questions.truth, forecasts[run.context.asked], floor)
    first = jax.tree.map(lambda leaf: leaf[:1], getattr(questions, told))
    seconds = draw_seconds(fitted, first, run.bench.num_samples, stage_key(run.bench.key, "costs"))
    return HiddenAnswer(forecasts[run.context.asked], calibration, scores, seconds)


def hidden_scores(truth: Float[np.ndarray, "window scored place 1"], answer: HiddenAnswer) -> dict[str, Measurement]:
    """Scores over the hidden places, means over the windows."""
    forecasts = answer.forecasts
    assert forecasts.samples is not None
    share = np.where(forecasts.ok, _share(truth, forecasts.mean), np.inf)
    crps = jax.vmap(metrics.crps)(jnp.asarray(truth), jnp.asarray(forecasts.samples))
    lower, upper = bands.forecast_band(forecasts, answer.calibration)
    inside = np.mean((truth >= lower) & (truth <= upper), axis=(1, 2, 3))
    covered = np.asarray(is_covered(jnp.asarray(answer.scores), answer.calibration.quantile), float)
    return {
        "nmse": mean_and_error(share),
        "nmse_start_median": Measurement(float(np.median(share))),
        "nmse_start_max": Measurement(float(share.max())),
        "crps": mean_and_error(np.asarray(crps), "length"),
        "coverage": mean_and_error(covered),
        "coverage_points": mean_and_error(inside),
        "band_width": mean_and_error(np.mean(upper - lower, axis=(1, 2, 3)), "length"),
        "seconds_per_forecast": Measurement(answer.seconds, "s"),
    }


def _share(truth: np.ndarray, forecast: np.ndarray) -> Float[np.ndarray, " window"]:
    """Mean squared error of each window over its variance."""
    return np.mean((truth - forecast) ** 2, axis=(1, 2, 3)) / truth.var(axis=(1, 2, 3))


def still_curves(run: Run, questions: Questions) -> Float[np.ndarray, "window scored place 1"]:
    """Persistence: the last image that was read, interpolated in space, held still."""
    params, modes = make_params(run), run.bench.world.train.modes
    amplitude = jax.vmap(lambda readings: interpolate_images(params, readings)[0][-1])(questions.readings)
    held = at_places(np.asarray(amplitude)[:, None, :modes], questions.places)
    return np.broadcast_to(held, questions.truth.shape)


def hidden_rows(run: Run) -> None:
    """Rows of every number of stretches that are read; the trivial forecasts stand with the reference."""
    for visible in run.config.hidden.counts:
        split = f"sensors_{visible}" + ("_validation" if run.context.validates else "")
        questions, answers = hidden_answers(run, visible)
        for name, answer in answers.items():
            run.record(name, split, hidden_scores(questions.truth, answer), len(questions.truth))
        trivial = {
            "nmse_of_persistence": mean_and_error(_share(questions.truth, still_curves(run, questions))),
            "nmse_of_zero": mean_and_error(_share(questions.truth, np.zeros_like(questions.truth))),
        }
        run.record("reference", split, trivial, len(questions.truth))
