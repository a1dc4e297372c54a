"""Scores of forecasts of fields from their first frames: closeness to the true continuation, equations, what is kept.

Only frames that are not given are compared with the truth. Residual and invariants are those of one sample, or of the
forecast of a method without a distribution, with the given frames in their places.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.data.equations import FieldSet, resolver
from experiments.evaluation.equations import CHUNK, costs, generated_set, physics_scores, residual_excess
from experiments.evaluation.invariants import invariant_errors
from experiments.study.study import Answer, Run
from phdme_jax.app.rows import Measurement
from phdme_jax.app.scores import accuracy
from phdme_jax.forecasting.bands import Forecasts
from phdme_jax.numerics.batching import in_chunks, num_workers
from phdme_jax.systems.equations.base import Equations
from phdme_jax.systems.given_frames import imposed

ACCURACY = ("nmse", "crps", "energy_score", "spread_skill")


def mean_forecast(forecasts: Forecasts) -> np.ndarray:
    """Mean of the samples of each condition; the forecast itself of a method without a distribution."""
    return forecasts.mean if forecasts.samples is None else forecasts.samples.mean(axis=1)


def continuation_scores(equations: Equations, truth: np.ndarray, forecasts: Forecasts) -> dict[str, Measurement]:
    """Scores over the frames that are not given.

        rmse = root mean square of what the mean forecast misses, over examples, frames, places and fields

    and, of `app.scores.accuracy`, nmse, crps and energy_score in units of the field's standard deviation (of a single
    forecast both are distances from the truth), and spread_skill where there are several samples.

    Args:
      equations: whose first frames are given.
      truth: fields, (sample, *grid, field), physical units.
      forecasts: of them.
    Returns:
      measurements by name; rmse in the unit of the fields, where they share one.
    Source: Zhou, Wang, Yu (2025), arXiv 2409.00730, for the root mean square.
    """
    later, samples = _later(equations, truth, 1), forecasts.samples
    asked = None if samples is None else _later(equations, samples, 2)
    few = Forecasts(_later(equations, mean_forecast(forecasts), 1), asked, forecasts.ok, forecasts.seconds)
    found = accuracy(later, few, equations.fields)
    units = set(equations.units)
    rmse = _root(found["mse"], units.pop() if len(units) == 1 else "")
    return {"rmse": rmse, **{name: found[name] for name in ACCURACY if name in found}}


def _later(equations: Equations, fields: np.ndarray, leading: int) -> np.ndarray:
    """The frames that are not given, of fields with some axes before those of the grid."""
    assert equations.time_axis is not None
    places = np.arange(equations.given_frames, equations.grid.points[equations.time_axis])
    return np.take(fields, places, axis=leading + equations.time_axis)


def _root(square: Measurement, unit: str) -> Measurement:
    """Root of a mean square, with the error that follows to first order."""
    if square.value is None or not np.isfinite(square.value):
        return Measurement(square.value, unit)
    value = float(np.sqrt(square.value))
    return Measurement(value, unit, square.stderr / (2 * value) if square.stderr is not None and value > 0 else None)


def obedience_scores(equations: Equations, forecast: FieldSet) -> dict[str, Measurement]:
    """Residuals and deviations of invariants, with the given frames in their places; see `physics_scores`."""
    plain = dataclasses.replace(equations, resolve=None)  # the true continuation is what forecasts are compared with
    whole = FieldSet(_with_given(*forecast), forecast.condition)
    return physics_scores(plain, whole) | invariant_errors(plain, whole)


def _with_given(fields: np.ndarray, condition: np.ndarray) -> np.ndarray:
    return np.asarray(imposed(jnp.asarray(fields), jnp.asarray(condition)))


def forecast_scores(answer: Answer) -> dict[str, Measurement]:
    """All scores of forecasts of fields, and residual_excess over the truth."""
    equations = answer.bench.task.problem
    rows = continuation_scores(equations, answer.truth, answer.forecasts)
    forecast = generated_set(answer)
    excess = residual_excess(equations, FieldSet(_with_given(*forecast), forecast.condition), answer.truth)
    return rows | obedience_scores(equations, forecast) | {"residual_excess": excess} | costs(answer)


def forecast_reference_rows(run: Run) -> None:
    """Scores of the scheme that made the data, from the given frames, with residual and invariants of the data.

    And nmse_of_held_frame, that of the last given frame held for the rest of the time.
    """
    equations, asked = run.bench.task.problem, run.context.asked
    data = FieldSet(run.bench.splits[asked].truth, run.bench.splits[asked].condition)
    solved = in_chunks(resolver(equations), CHUNK, np.zeros_like(data.fields), data.condition, workers=num_workers())
    rows = continuation_scores(equations, data.fields, _single(solved)) | obedience_scores(equations, data)
    width = data.fields.shape[-1]
    held = continuation_scores(equations, data.fields, _single(data.condition[..., -1 - width : -1]))
    run.record("reference", asked, rows | {"nmse_of_held_frame": held["nmse"]}, len(data.fields))


def _single(fields: Any) -> Forecasts:
    return Forecasts(np.asarray(fields), None, np.ones(len(fields), bool), 0.0)
