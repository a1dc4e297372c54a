"""Scores of forecasts from sensors, and the seconds of one answer."""

import jax
import numpy as np

from experiments.evaluation.costs import draw_seconds
from experiments.evaluation.forecasts import coverage
from experiments.study.study import Answer
from phdme_jax.app.rows import Measurement
from phdme_jax.app.scores import accuracy, mean_and_error
from phdme_jax.methods.base import stage_key


def sensor_scores(answer: Answer) -> dict[str, Measurement]:
    """Errors, calibration, calls and seconds; nmse_start is that of the state that the readings began at."""
    assert answer.calibration is not None and answer.band_scores is not None
    truth, forecasts, model = answer.truth, answer.forecasts, answer.fitted.model
    rows = accuracy(truth, forecasts, answer.bench.world.system.structure.fields)
    rows |= coverage(truth, forecasts, answer.calibration, answer.band_scores)
    start = np.where(forecasts.ok[:, None, None], forecasts.mean[:, 0] - truth[:, 0], np.inf)
    rows["nmse_start"] = mean_and_error(np.mean(start**2 / truth[:, 0].var(axis=(0, 1)), axis=(1, 2)))
    return rows | {
        "nfe": Measurement(float(model.num_calls)),
        "backward_calls": Measurement(float(model.num_backward)),
        "seconds_per_sample": Measurement(forecasts.seconds, "s"),
        "seconds_per_forecast": Measurement(answer_seconds(answer), "s"),
    }


def answer_seconds(answer: Answer) -> float:
    """Seconds of one answer, all of its samples."""
    first = jax.tree.map(lambda leaf: leaf[:1], answer.bench.splits[answer.split].condition)
    return draw_seconds(answer.fitted, first, answer.bench.num_samples, stage_key(answer.bench.key, "costs"))
