"""Numbers of the spring study: the stated start, all starts, and the measured motion itself."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.evaluation.forecasts import interval_rows
from experiments.spring.prior import REST, SpringPrior, total_energy
from experiments.spring.recording import with_rest
from experiments.study.study import Answer, Run
from phdme_jax.app.rows import Measurement
from phdme_jax.calibration import is_covered
from phdme_jax.forecasting.bands import forecast_band
from phdme_jax.gp.sampling import Rollout
from phdme_jax.methods.base import Dynamics, Start, Times
from phdme_jax.methods.table import METHODS
from phdme_jax.training import metrics

LEARNED = "gp_rollout"  # the method whose mean energy measures that of observed motions


class Energies(NamedTuple):
    """Energy along a forecast of the stated window.

    Attributes:
      times: since the start [s].
      mean: of the mean forecast.
      samples: of the samples.
      rejected: share of the samples that left the region where the energy is known or did not stay finite; for a
        generator that of the rollouts that it was trained on.
    """

    times: Float[np.ndarray, " time"]
    mean: Float[np.ndarray, " time"]
    samples: Float[np.ndarray, "sample time"]
    rejected: float

    def at(self, times: Float[np.ndarray, " wanted"]) -> "Energies":
        """The same at other times, by cubic splines."""
        from scipy.interpolate import CubicSpline

        mean, samples = (CubicSpline(self.times, curve, axis=-1)(times) for curve in (self.mean, self.samples))
        return Energies(times, mean, samples, self.rejected)


def measured_energy(run: Run, split: str) -> Float[np.ndarray, " image"]:
    """Energy of the measured motion at the images of the stated window, under the mean learned energy."""
    return total_energy(run.fitted(LEARNED).params.best, run.bench.world.measured_states(split))


def forecast_energies(answer: Answer) -> Energies:
    """Energies of a forecast of the stated window, its samples those of the forecast.

    A rollout's is that of the energy which it follows, a sample's that of its own draw; states that a network generates
    are measured by the mean learned energy.
    """
    fitted, bench, model = answer.fitted, answer.bench, answer.fitted.model
    stated, times = bench.world.stated, np.asarray(model.times)
    start = jax.tree.map(lambda leaf: jnp.asarray(leaf[stated]), bench.splits[answer.split].condition)
    if isinstance(fitted.params, SpringPrior):
        assert model.dynamics is not None
        key = bench.sample_key(answer.split, METHODS[answer.method])
        keys = jax.random.split(key, (len(answer.truth), bench.num_samples))[stated]
        mean, samples = _roll(model.dynamics, model.times, fitted.params, start, keys)
        return Energies(times, np.asarray(mean.energy), np.asarray(samples.energy), float(1 - np.mean(samples.ok)))
    drawn = answer.run.drawn(answer.method, answer.split)
    assert drawn.mean is not None and drawn.samples is not None
    learned, rest = answer.run.fitted(LEARNED).params.best, np.asarray(start.state[:, REST])
    mean, samples = (total_energy(learned, with_rest(fields[stated], rest)) for fields in (drawn.mean, drawn.samples))
    return Energies(times, mean, samples, fitted.found["rejection_rate"])


@partial(jax.jit, static_argnums=(0, 1))
def _roll(dynamics: Dynamics, times: Times, params: SpringPrior, start: Start, keys: Array) -> tuple[Rollout, Rollout]:
    """The mean energy's rollout, and one of a sample for each key."""
    samples = jax.vmap(lambda key: dynamics.sample(params, start, key, times, dynamics.substeps))(keys)
    return dynamics.rollout(params, start, times, dynamics.substeps), samples


def window_errors(answer: Answer) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared error of each window [length^2], and its share of the window's own variance."""
    error = np.mean((answer.truth - answer.forecasts.mean) ** 2, axis=(1, 2, 3))
    error = np.where(answer.forecasts.ok, error, np.inf)
    return error, error / answer.truth.var(axis=(1, 2, 3))


def is_inside(answer: Answer) -> np.ndarray:
    """Of each window, whether the whole forecast lies inside the band."""
    assert answer.calibration is not None and answer.band_scores is not None
    return np.asarray(is_covered(jnp.asarray(answer.band_scores), answer.calibration.quantile), float)


def stated_scores(answer: Answer) -> dict[str, Measurement]:
    """Scores of the stated window."""
    world, forecasts = answer.bench.world, answer.forecasts
    assert answer.calibration is not None and forecasts.samples is not None
    stated, windows = world.stated, world.windows[answer.split]
    error, share = window_errors(answer)
    lower, upper = (edge[stated] for edge in forecast_band(forecasts, answer.calibration))
    truth, samples = answer.truth[stated], forecasts.samples[stated]
    energies, measured = forecast_energies(answer), measured_energy(answer.run, answer.split)
    at_images = energies.at(windows.times[stated] - windows.times[stated, 0]).mean
    drift = metrics.energy_increase(jnp.asarray(energies.mean)) / energies.mean[0]
    values = {
        "nmse": (share[stated], "1"),
        "mse": (error[stated], "length²"),
        "crps": (metrics.crps(jnp.asarray(truth), jnp.asarray(samples)), "length"),
        "coverage": (is_inside(answer)[stated], "1"),
        "coverage_points": (np.mean((truth >= lower) & (truth <= upper)), "1"),
        "band_width": (np.mean(upper - lower), "length"),
        "energy_drift": (drift, "1"),
        "energy_error": (np.sqrt(np.mean((at_images - measured) ** 2)) / measured[0], "1"),
        "rejection_rate": (energies.rejected, "1"),
        "seconds_per_sample": (forecasts.seconds, "s"),
    }
    return {name: Measurement(float(value), unit, n=1) for name, (value, unit) in values.items()}


def start_scores(answer: Answer) -> dict[str, Measurement]:
    """Scores over all windows, of which the stated one is among the most favourable."""
    _, share = window_errors(answer)
    return {
        "nmse_start_min": Measurement(float(share.min())),
        "nmse_start_median": Measurement(float(np.median(share))),
        "nmse_start_max": Measurement(float(share.max())),
        "coverage_starts": Measurement(float(is_inside(answer).mean())),
    }


def damping_rows(run: Run) -> None:
    """Posterior interval of each damping, hyperparameters drawn with it: quantiles of the draws."""
    for name in run.learned:
        params = run.fitted(name).params
        if isinstance(params, SpringPrior):
            drawn = params.draws.parameters
            intervals = {damping: tuple(np.quantile(drawn[damping], [0.05, 0.95]).tolist()) for damping in drawn}
            run.record(name, "train", interval_rows(intervals), len(params.draws.objective))


def reference_rows(run: Run) -> None:
    """What the measured motion itself shows: how much its learned energy rises, and the zero forecast's error."""
    stated = run.bench.world.stated
    for split in (name for name in run.bench.splits if name != "calibration"):
        energy, truth = measured_energy(run, split), run.bench.splits[split].truth[stated]
        rows = {
            "energy_drift": Measurement(float(metrics.energy_increase(jnp.asarray(energy)) / energy[0])),
            "nmse_of_zero": Measurement(float(np.mean(truth**2) / truth.var())),
        }
        run.record("reference", split, rows, 1)
