"""From forecasts to numbers: the same code for every method."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.study.study import Answer, Run
from phdme_jax.app.rows import Measurement
from phdme_jax.app.scores import SCORED, accuracy, mean_and_error
from phdme_jax.calibration import is_covered
from phdme_jax.forecasting.bands import Calibration, Forecasts, forecast_band
from phdme_jax.gp.fit import dissipation_intervals
from phdme_jax.methods.base import Times
from phdme_jax.methods.energy.physics import dynamics_residual
from phdme_jax.methods.energy.posterior import PriorOptions, fit_energy
from phdme_jax.methods.table import METHODS
from phdme_jax.numerics.batching import in_chunks
from phdme_jax.numerics.stepping import rk4_step, rollout
from phdme_jax.systems.energy.base import System, parameter_values, total_energy, vector_field
from phdme_jax.training import metrics


def coverage(
    truth: np.ndarray,
    forecasts: Forecasts,
    calibration: Calibration,
    scores: np.ndarray,
    counted: np.ndarray | None = None,
) -> dict[str, Measurement]:
    """Empirical coverage and mean width of the calibrated band, the width in deviations of each field.

    Args:
      truth: trajectories of the split.
      forecasts: of them.
      calibration: of the band.
      scores: band scores of the split.
      counted: true where the width counts, shape of the truth; everywhere where None.
    Returns:
      measurements by name.
    """
    covered = np.asarray(is_covered(jnp.asarray(scores), calibration.quantile), float)
    lower, upper = forecast_band(forecasts, calibration)
    deviation = np.sqrt(np.asarray(metrics.reference_variance(jnp.asarray(truth))))
    where = True if counted is None else np.broadcast_to(counted, truth.shape)
    width = np.mean((upper - lower) / deviation, axis=tuple(range(1, truth.ndim)), where=where)
    return {"coverage": mean_and_error(covered), "band_width": mean_and_error(width)}


def physics(system: System, other: System, mean: np.ndarray, times: tuple[float, ...]) -> dict[str, Measurement]:
    """Largest rise of the true energy along a forecast, and residuals of the true dynamics.

    Args:
      system: the true energy on the learner's grid with the learner's stencil.
      other: the same with a stencil that no method has seen.
      mean: forecasts, (n, time, *grid, field).
      times: times of the frames.
    Returns:
      energy_drift (relative to the initial energy), residual_rms, residual_rms_unseen, and for each invariant of the
      system its largest relative change, such as mass_drift.
    """
    measure = _physics(system, other, times)
    rises, seen, unseen, *changes = in_chunks(measure, SCORED, np.asarray(mean, float))
    drifts = {f"{name}_drift": change for (name, _), change in zip(system.invariants, changes, strict=True)}
    return {
        "energy_drift": mean_and_error(rises),
        "residual_rms": mean_and_error(seen, "1/s"),
        "residual_rms_unseen": mean_and_error(unseen, "1/s"),
        **{name: mean_and_error(change) for name, change in drifts.items()},
    }


@lru_cache
def _physics(system: System, other: System, times: tuple[float, ...]) -> Callable[[Any], tuple[Any, ...]]:
    @jax.jit
    @jax.vmap
    def one(trajectory: Any) -> tuple[Any, ...]:
        energy = jax.vmap(partial(total_energy, system.structure, system.density))(trajectory)
        residuals = []
        for which in (system, other):
            values = parameter_values(which, trajectory.dtype)
            rate = partial(vector_field, which.structure, which.density, parameters=values)
            residuals.append(jnp.sqrt(jnp.mean(dynamics_residual(rate, trajectory, times) ** 2)))
        invariants = [jax.vmap(function)(trajectory) for _, function in system.invariants]
        drifts = [jnp.max(jnp.abs(values - values[0])) / jnp.abs(values[0]) for values in invariants]
        return metrics.energy_increase(energy) / energy[0], *residuals, *drifts

    return one


@lru_cache
def _true_roller(system: System, times: Times, substeps: int) -> Callable[[Any], Any]:
    @jax.jit
    @jax.vmap
    def roll(state: Any) -> Any:
        field = partial(
            vector_field, system.structure, system.density, parameters=parameter_values(system, state.dtype)
        )
        return rollout(lambda x, dt: (rk4_step(field, x, dt), dt), state, jnp.asarray(times), substeps)

    return roll


def true_rollout(system: System, initial: np.ndarray, times: Times, substeps: int) -> np.ndarray:
    """The true energy integrated on the learner's grid: what a perfect energy would reach there."""
    return in_chunks(_true_roller(system, times, 2 * substeps), SCORED, initial)


def field_scores(answer: Answer) -> dict[str, Measurement]:
    """All scores of forecasts of fields: errors, calibration, physics of the mean and of one sample, seconds."""
    world, forecasts, times = answer.bench.world, answer.forecasts, answer.bench.task.times
    assert answer.calibration is not None and answer.band_scores is not None
    rows = accuracy(answer.truth, forecasts, world.system.structure.fields)
    rows |= coverage(answer.truth, forecasts, answer.calibration, answer.band_scores)
    rows |= physics(world.system, world.unseen, forecasts.mean, times)
    if forecasts.samples is not None:
        sampled = physics(world.system, world.unseen, forecasts.samples[:, 0], times)
        rows |= {f"sample_{metric}": sampled[metric] for metric in ("energy_drift", "residual_rms")}
    rows["seconds_per_sample"] = Measurement(forecasts.seconds, "s")
    return rows


def reference_rows(run: Run) -> None:
    """Residual and energy of the reference data, and what the true energy reaches on the learner's grid."""
    world, times = run.bench.world, run.bench.task.times
    for split, truth in ((name, asked.truth) for name, asked in run.bench.splits.items() if name != "calibration"):
        rows = physics(world.system, world.unseen, truth, times)
        exact = true_rollout(world.system, truth[:, 0], times, world.substeps)
        forecasts = Forecasts(exact, None, np.ones(len(truth), bool), 0.0)
        floor = accuracy(truth, forecasts, world.system.structure.fields)
        run.record("reference", split, rows | {name: floor[name] for name in ("nmse", "mse")}, len(truth))


def interval_rows(intervals: Mapping[str, tuple[float, float]]) -> dict[str, Measurement]:
    """Ends of posterior intervals of dissipation parameters, named after them where there are several."""
    return {
        word if len(intervals) == 1 else f"{word}_{name}": Measurement(float(end))
        for name, ends in intervals.items()
        for word, end in zip(("parameter_low", "parameter_high"), ends, strict=True)
    }


INTERVAL_DRAWS = 20


def interval_coverage_rows(run: Run) -> None:
    """How often the posterior interval of the dissipation holds the true one, over fits to fresh draws of the data.

    Trajectories and noise are drawn anew for each fit, other ones than those of any seed; on the first seed alone.
    """
    if run.seed != run.context.seeds[0]:
        return
    world, options = run.bench.world, PriorOptions(**run.bench.options["prior"])
    structure, true, inside = run.bench.task.problem.structure, dict(world.system.values), []
    for index in range(INTERVAL_DRAWS):
        train = world.observe_anew(jax.random.fold_in(jax.random.key(20261128), index))
        intervals = dissipation_intervals(fit_energy(structure, train, options)[1])
        inside.append(np.mean([low <= true[name] <= high for name, (low, high) in intervals.items()]))
    run.record("gp_rollout", "train", {"interval_coverage": mean_and_error(np.asarray(inside))}, len(inside))


def learning_rows(run: Run) -> None:
    """Learned dissipation: its error and posterior interval; and how many rollouts of the energy were dropped."""
    (name, true_value), *_ = run.bench.world.system.values
    rollout = run.fitted("gp_rollout")
    rows = {"parameter_error": Measurement(abs(rollout.found[name] / true_value - 1))}
    rows |= interval_rows(dissipation_intervals(rollout.params))
    for method in run.learned:
        if METHODS[method].teacher == "gp_rollout" and "rejection_rate" in run.fitted(method).found:
            rows["rejection_rate"] = Measurement(run.fitted(method).found["rejection_rate"])
    run.record("gp_rollout", "train", rows, len(run.bench.task.train().fields))
