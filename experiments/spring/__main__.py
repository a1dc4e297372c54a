"""The spring study: energy and damping from one recording of a real spring, calibrated forecasts of another one.

python -m experiments.spring --data_dir ../shared/data --size laptop

Every method is an entry of `FORECASTERS`: learn from the training recording alone, then forecast any window of any
recording from what was measured up to its start image.
"""

import time
from collections.abc import Callable
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.configs.spring import get_config
from experiments.evaluation import forecasts as evaluation
from experiments.spring import figures as spring_figures
from experiments.spring.generator import sample_images, train_spring_generator, with_rest
from experiments.spring.prior import (
    SpringPrior,
    learn_spring,
    modal_displacement,
    preload_of,
    roll_candidates,
    spring_structure,
)
from experiments.spring.recording import SpringRecording, load_spring
from experiments.spring.windows import SpringForecast, Windows, cut, make_windows, start_states, window_errors
from experiments.study.command import RunContext, Study, main
from phdme_jax.app.page import Section
from phdme_jax.app.rows import Measurement
from phdme_jax.calibration import is_covered, minimum_calibration_size
from phdme_jax.files import InputError
from phdme_jax.forecasting.bands import Forecasts
from phdme_jax.gp.basis import Basis, Energy, density
from phdme_jax.methods.energy import generator as generators
from phdme_jax.training import metrics

SYSTEM = "spring"


Forecaster = Callable[[SpringRecording, Windows, Any], SpringForecast]


class SeedRun:
    """Everything one seed shares between methods, made when first asked for."""

    def __init__(self, context: RunContext, seed: int) -> None:
        self.context, self.seed, self.config = context, seed, context.config
        self.train, self.test = load_recordings(context)
        self.key = jax.random.fold_in(jax.random.key(11), seed)
        frames = self.config.forecast.frames
        windows = {
            "calibration": make_windows(self.train, self.config.calibration, frames),
            "train": make_windows(self.train, self.config.starts, frames),
            "test": make_windows(self.test, self.config.starts, frames),
        }
        self.images = min(part.truth.shape[1] for part in windows.values())
        self.windows = {split: cut(part, self.images) for split, part in windows.items()}
        self.fit_seconds: dict[bool, float] = {}
        self.train_seconds: dict[str, float] = {}
        self._priors: dict[bool, tuple[Basis, SpringPrior]] = {}

    def recording(self, split: str) -> SpringRecording:
        """The recording a split belongs to."""
        return self.test if split == "test" else self.train

    @cached_property
    def floor(self) -> np.ndarray:
        """One per cent of the training displacement's standard deviation, per field."""
        return 0.01 * self.train.displacement.std(keepdims=True)[0]

    @cached_property
    def stated(self) -> int:
        """Index of the stated start frame among the windows of the splits train and test."""
        return int(np.flatnonzero(self.windows["test"].starts == self.config.forecast.start_frame)[0])

    def prior(self, nonlinear: bool) -> tuple[Basis, SpringPrior]:
        """Energy and damping learned from the training recording, with the nonlinear part of the energy or without."""
        if nonlinear not in self._priors:
            options = {**self.config.prior, "draws": self.config.forecast.draws, "key": jax.random.fold_in(self.key, 1)}
            learn_spring(self.train, nonlinear=nonlinear, **options)  # compiles; the second run is timed
            began = time.perf_counter()
            self._priors[nonlinear] = learn_spring(self.train, nonlinear=nonlinear, **options)
            jax.block_until_ready(self._priors[nonlinear][1])
            self.fit_seconds[nonlinear] = time.perf_counter() - began
        return self._priors[nonlinear]

    def energy_of(self, recording: SpringRecording, states: np.ndarray) -> np.ndarray:
        """Energy of states (time, grid, field) of a recording, under the mean learned energy."""
        basis, prior = self.prior(True)
        mean = prior.posterior.mean
        energy = Energy(mean.box._replace(preload=preload_of(recording)), mean.stiffness, mean.weights)
        weights = spring_structure(recording.grid.size).weights()
        return np.asarray(density(basis, energy, jnp.asarray(states))) @ weights

    def measured_energy(self, split: str) -> np.ndarray:
        """Learned energy of the measured motion in the stated window; its momentum is smoothed data."""
        recording, begin = self.recording(split), self.windows[split].begin[self.stated]
        part = slice(begin, begin + self.images + 1)
        return self.energy_of(recording, np.stack([recording.momentum[part], recording.strain[part]], axis=-1))


def rollout_forecaster(run: SeedRun, nonlinear: bool) -> Forecaster:
    """Integrate the learned energy; samples are draws of energy, damping and start state."""
    basis, prior = run.prior(nonlinear)
    candidates = jax.tree.map(lambda best, draws: jnp.concatenate([best[None], draws]), prior.best, prior.draws)

    def forecast(recording: SpringRecording, windows: Windows, key: Any) -> SpringForecast:
        options = run.config.forecast
        states = start_states(recording, windows, run.train.amplitude_noise, options.draws, key)
        box = prior.posterior.mean.box._replace(preload=preload_of(recording))
        began, rolled = time.perf_counter(), []
        for window_states, times in zip(states, windows.times, strict=True):
            rolled.append(
                roll_candidates(
                    basis, box, candidates, jnp.asarray(window_states), jnp.asarray(times), options.substeps
                )
            )
        strain, energy, ok = (
            np.stack(parts)
            for parts in zip(*((r.trajectory[:, 1:, :, 1], r.energy, r.ok) for r in rolled), strict=True)
        )
        seconds = (time.perf_counter() - began) / (states.shape[0] * states.shape[1])
        values = modal_displacement(strain, recording.grid, recording.modes)[..., None]
        finite = np.isfinite(values).all(axis=(1, 2, 3, 4))
        values, energy = np.nan_to_num(values), np.nan_to_num(energy)
        return SpringForecast(
            Forecasts(values[:, 0], values[:, 1:], finite, seconds),
            energy[:, 0], energy[:, 1:], float(1 - ok[:, 1:].mean()),
        )  # fmt: skip

    return forecast


def generator_forecaster(run: SeedRun, name: str) -> Forecaster:
    """Sample the conditional generator trained on rollouts of the learned energy; the forecast is its mean."""
    trained = train_spring_generator(run, name)
    run.train_seconds[name] = sum(trained.generator.seconds.values())

    def forecast(recording: SpringRecording, windows: Windows, key: Any) -> SpringForecast:
        options = run.config.forecast
        measured = start_states(recording, windows, run.train.amplitude_noise, 0, key)[:, 0]
        since = windows.times - windows.times[:, :1]
        began = time.perf_counter()
        mean, drawn = sample_images(
            trained.generator, with_rest(measured, recording.rest_strain), since, options.draws, key
        )
        seconds = (time.perf_counter() - began) / (drawn.shape[0] * drawn.shape[1])
        finite = np.isfinite(drawn).all(axis=(1, 2, 3, 4)) & np.isfinite(mean).all(axis=(1, 2, 3))
        mean, drawn = np.nan_to_num(mean), np.nan_to_num(drawn)
        centre, values = (
            modal_displacement(part[..., 1:, :, 1], recording.grid, recording.modes)[..., None]
            for part in (mean, drawn)
        )
        energy = np.stack([run.energy_of(recording, one) for one in drawn])
        mean_energy = np.stack([run.energy_of(recording, one) for one in mean])
        forecasts = Forecasts(centre, values, finite, seconds)
        return SpringForecast(forecasts, mean_energy, energy, trained.rejected)

    return forecast


# A method is one line: what it learns from the training recording, and how it forecasts a window from its start state.
FORECASTERS: dict[str, Callable[[SeedRun], Forecaster]] = {
    "phdme": partial(generator_forecaster, name="phdme"),
    "phdme_rollout": partial(generator_forecaster, name="phdme_rollout"),
    "gp_rollout": partial(rollout_forecaster, nonlinear=True),
    "quadratic_hamiltonian": partial(rollout_forecaster, nonlinear=False),
}


def stated_rows(run: SeedRun, split: str, forecast: SpringForecast, calibration: Any) -> dict[str, Measurement]:
    """Metrics at the stated start: one window."""
    windows, one = run.windows[split], run.stated
    error, share = window_errors(windows, forecast)
    lower, upper = (edge[one] for edge in evaluation.forecast_band(forecast.displacement, calibration))
    truth, samples = windows.truth[one], forecast.displacement.samples
    assert samples is not None
    scores = evaluation.band_scores(windows.truth, forecast.displacement, calibration.floor)
    energy, measured = forecast.energy[one], run.measured_energy(split)
    drift = metrics.energy_increase(jnp.asarray(energy)) / energy[0]
    return {
        "nmse": Measurement(share[one]),
        "mse": Measurement(error[one], "length²"),
        "crps": Measurement(float(metrics.crps(jnp.asarray(truth), jnp.asarray(samples[one]))), "length"),
        "coverage": Measurement(float(is_covered(jnp.asarray(scores), calibration.quantile)[one])),
        "coverage_points": Measurement(float(np.mean((truth >= lower) & (truth <= upper)))),
        "band_width": Measurement(float(np.mean(upper - lower)), "length"),
        "energy_drift": Measurement(float(drift)),
        "energy_error": Measurement(float(np.sqrt(np.mean((energy - measured) ** 2)) / measured[0])),
        "rejection_rate": Measurement(forecast.rejected),
        "seconds_per_sample": Measurement(forecast.displacement.seconds, "s"),
    }


def evaluate(run: SeedRun, method: str) -> dict[str, Any]:
    """Forecast every window, calibrate on those of the training recording, write the rows."""
    forecaster = FORECASTERS[method](run)
    kept: dict[str, Any] = {}
    for index, (split, windows) in enumerate(run.windows.items()):
        kept[split] = forecaster(run.recording(split), windows, jax.random.fold_in(run.key, 100 + index))
    truth = run.windows["calibration"].truth
    calibration = evaluation.calibrate(truth, kept["calibration"].displacement, run.floor, run.config.level)
    kept["calibrated"], kept["scores"] = calibration, {}
    for split, windows in run.windows.items():
        kept["scores"][split] = evaluation.band_scores(windows.truth, kept[split].displacement, run.floor)
    for split in ("train", "test"):
        _, share = window_errors(run.windows[split], kept[split])
        covered = np.asarray(is_covered(jnp.asarray(kept["scores"][split]), calibration.quantile), float)
        starts = {
            "nmse_start_min": Measurement(share.min()),
            "nmse_start_median": Measurement(float(np.median(share))),
            "nmse_start_max": Measurement(share.max()),
            "coverage_starts": Measurement(covered.mean()),
        }
        record = partial(run.context.results.record, SYSTEM, method, run.seed, split)
        record(stated_rows(run, split, kept[split], calibration), 1)
        record(starts, share.size)
    return kept


def reference_rows(run: SeedRun) -> None:
    """What the measured motion itself shows: how much its learned energy rises, and the zero forecast's error."""
    for split in ("train", "test"):
        energy, truth = run.measured_energy(split), run.windows[split].truth[run.stated]
        rows = {
            "energy_drift": Measurement(float(metrics.energy_increase(jnp.asarray(energy)) / energy[0])),
            "nmse_of_zero": Measurement(float(np.mean(truth**2) / truth.var())),
        }
        run.context.results.record(SYSTEM, "reference", run.seed, split, rows, 1)


def run_study(context: RunContext) -> list[Section]:
    """The whole study: every seed and method, rows, figures, sections."""
    sections: list[Section] = []
    for seed in context.seeds:
        run, kept = SeedRun(context, seed), {}
        reference_rows(run)
        for name in context.methods:
            kept[name] = evaluate(run, name)
            print(f"seed {seed}: {name} done", flush=True)
        for name, value in run.train_seconds.items():
            context.results.record(SYSTEM, name, seed, "train", {"train_seconds": Measurement(value, "s")}, 1)
        for name, nonlinear in (("gp_rollout", True), ("quadratic_hamiltonian", False)):
            if name in kept:
                seconds = {"fit_seconds": Measurement(run.fit_seconds[nonlinear], "s")}
                context.results.record(SYSTEM, name, seed, "train", seconds, 1)
        if seed == context.seeds[0]:
            sections = spring_figures.draw_all(context, run, kept)
    return sections


@lru_cache
def _load(data_dir: Path, name: str, modes: int, grid_points: int, clock: Any) -> SpringRecording:
    return load_spring(data_dir, name, modes=modes, grid_points=grid_points, clock=clock)


def load_recordings(context: RunContext) -> tuple[SpringRecording, SpringRecording]:
    """The training and the test recording; read once.

    Raises:
      InputError: no folder of data was named.
      ValueError: a file is missing or garbled.
    """
    if context.data_dir is None:
        raise InputError("this study needs measured data; say --data_dir DIR, a folder that holds spring/rightdown.txt")
    options = dict(context.config.data)
    names = options.pop("train"), options.pop("test")
    train, test = (_load(context.data_dir, name, **options) for name in names)
    return train, test


def check(context: RunContext) -> None:
    """Refuse data and windows that cannot be used before anything is written."""
    config = context.config
    generators.check_options(config.network.to_dict(), config.training.to_dict(), config.physics.to_dict())
    train, test = load_recordings(context)
    first, last, step = config.starts
    if config.forecast.start_frame not in range(first, last + 1, step):
        raise ValueError(
            f"expected forecast.start_frame among the starts {first} to {last} by {step}, got "
            f"{config.forecast.start_frame}; change --config.starts"
        )
    for recording, starts in ((train, config.calibration), (train, config.starts), (test, config.starts)):
        count = make_windows(recording, starts, config.forecast.frames).starts.size
        least = minimum_calibration_size(config.level)
        if starts is config.calibration and count < least:
            raise ValueError(f"expected {least} calibration windows for level {config.level}, got {count}; add starts")


STUDY = Study(
    name=SYSTEM,
    title="A real spring: learned from one recording, forecast on another",
    get_config=get_config,
    run=run_study,
    methods=tuple(FORECASTERS),
    sizes=("smoke", "laptop"),
    check=check,
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
