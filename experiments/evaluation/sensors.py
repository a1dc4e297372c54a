"""Scores of forecasts from sensors, and the seconds of one answer."""

import time

import jax
import numpy as np

from experiments.evaluation.forecasts import coverage
from experiments.study.study import Answer
from phdme_jax.app.rows import Measurement
from phdme_jax.app.scores import accuracy, mean_and_error
from phdme_jax.methods.base import stage_key
from phdme_jax.methods.draws import draw_forecasts

REPEATS = 3


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
    """Seconds of one answer, all of its samples, compilation apart; the least of a few."""
    split, key = answer.bench.splits[answer.split], stage_key(answer.bench.key, "costs")
    first, count = jax.tree.map(lambda leaf: leaf[:1], split.condition), answer.bench.num_samples
    draw_forecasts(answer.fitted, first, count, key)  # compiles
    seconds = []
    for index in range(REPEATS):
        began = time.perf_counter()
        draw_forecasts(answer.fitted, first, count, jax.random.fold_in(key, index))
        seconds.append(time.perf_counter() - began)
    return min(seconds)
