"""Scores of forecasts from sensors, what the true energy would answer, and the seconds of one answer."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.evaluation.costs import draw_seconds
from experiments.evaluation.forecasts import coverage
from experiments.study.study import Answer, Run
from phdme_jax.app.rows import Measurement
from phdme_jax.app.scores import accuracy, mean_and_error
from phdme_jax.forecasting.bands import Forecasts
from phdme_jax.methods.base import Fitted, stage_key
from phdme_jax.methods.draws import draw_forecasts
from phdme_jax.methods.energy.dynamics import rollout_model, true_dynamics
from phdme_jax.methods.sensors.assimilation import DRAWS
from phdme_jax.methods.sensors.background import fit_background
from phdme_jax.methods.sensors.searched import Search, SearchParams, make_searched
from phdme_jax.methods.sensors.sensed import sensor_options


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


def reference_rows(run: Run) -> None:
    """What the true energy answers: the same background, a search through its rollouts, Laplace's approximation there.

    Where that is exact, and states are distributed as the background, no method has a smaller expected CRPS.
    """
    bench, task, times = run.bench, run.bench.task, run.bench.task.times
    structure, options = task.problem.structure, bench.options
    dynamics = true_dynamics(task.problem, options["prior"]["substeps"])
    search = Search(structure, rollout_model(dynamics, times, len(structure.fields)), None, dynamics)
    background = fit_background(np.asarray(task.starts(stage_key(task.key, "starts"), DRAWS).state))
    noise = sensor_options(options, len(times)).noise * np.asarray(bench.scale, np.float64)
    params = SearchParams(background, jnp.broadcast_to(noise, background.mean.shape), (), ())
    fitted, key = Fitted(make_searched(search), params, {}), stage_key(bench.key, "costs")
    for split in (name for name, asked in bench.splits.items() if name != asked.calibrated_by):
        truth = bench.splits[split].truth
        drawn = draw_forecasts(fitted, bench.splits[split].condition, bench.num_samples, key)
        assert drawn.mean is not None
        found = accuracy(truth, Forecasts(drawn.mean, drawn.samples, drawn.ok, drawn.seconds), structure.fields)
        run.record("reference", split, {name: found[name] for name in ("crps", "nmse", "spread_skill")}, len(truth))
