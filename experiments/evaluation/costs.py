"""Why a generator, if the learned energy can be integrated: accuracy against cost of a forecast.

The same test trajectories are forecast by the mean rollout, by sampled rollouts, and by trained generators with few or
many calls of their network. Calls shape the samples; the forecast itself is the conditional mean, whatever their
number. How close a generator comes to the posterior predictive of the rollouts, which is what it amortises, is the
energy distance between the samples of both.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from experiments.evaluation.forecasts import accuracy
from experiments.study.study import Run
from phdme_jax.app.rows import Measurement
from phdme_jax.forecasting.bands import Forecasts, all_finite
from phdme_jax.methods.base import Fitted, stage_key
from phdme_jax.methods.draws import Draws, draw_forecasts, means, prepare, samples
from phdme_jax.training import metrics

COSTED = ("phdme", "phdme_rollout")
REPEATS = 3
Settings = tuple[tuple[str, Any], ...]
SCORES = ("nmse", "crps", "energy_score", "spread_skill")


def cost_rows(run: Run) -> None:
    """Write the rows of one seed: `gp_rollout` forecasting by its mean or by samples, generators by their calls.

    Seconds are those of one forecast of one initial state, compilation apart: a mean rollout, or as many samples as
    the study draws.
    """
    methods = [name for name in COSTED if name in run.learned]
    if not methods or not run.config.costs.num_steps:
        return
    bench, costs, split = run.bench, run.config.costs, run.bench.splits[run.context.asked]
    truth, first = split.truth[: costs.num_test], jax.tree.map(lambda leaf: leaf[:1], split.condition)
    condition = jax.tree.map(lambda leaf: leaf[: costs.num_test], split.condition)
    count, key = bench.num_samples, stage_key(bench.key, "costs")

    def record(method: str, settings: Settings, drawn: Draws, seconds: float, calls: int, others: Any) -> None:
        assert drawn.mean is not None
        scores = accuracy(truth, Forecasts(drawn.mean, drawn.samples, drawn.ok, drawn.seconds), ())
        rows = {name: scores[name] for name in SCORES if name in scores}
        rows |= {"seconds_per_forecast": Measurement(seconds, "s"), "nfe": Measurement(float(calls))}
        if others is not None:
            rows["energy_distance"] = predictive_distance(drawn.samples, others, truth)
        run.changed(settings).record(method, run.context.asked, rows, len(truth))

    rollout = run.fitted("gp_rollout")
    rolled = draw_forecasts(rollout, condition, count, key)
    mean, seconds = with_seconds(lambda: means(rollout, prepare(rollout, condition)))
    alone = Draws(np.nan_to_num(mean), None, all_finite(mean), 0.0)
    record("gp_rollout", (("forecast", "mean"),), alone, seconds / len(truth), rollout.model.num_calls, None)
    others_key = jax.random.fold_in(key, 1)
    others, seconds = with_seconds(lambda: samples(rollout, prepare(rollout, condition), count, others_key))
    record("gp_rollout", (("forecast", "samples"),), rolled, seconds / len(truth), rollout.model.num_calls, others)
    for name in methods:
        for steps in costs.num_steps:
            sampling = {**bench.options["sampling"], "num_steps": steps}
            fitted = run.fit(name, {**bench.options, "sampling": sampling})
            draw_forecasts(fitted, first, count, key)  # compiles: slices are padded to one shape
            drawn = draw_forecasts(fitted, condition, count, key)
            record(name, (("sampling.num_steps", steps),), drawn, count * drawn.seconds, steps, rolled.samples)


def with_seconds(compute: Callable[[], Any]) -> tuple[Any, float]:
    """What is computed, and the seconds that it took."""
    began = time.perf_counter()
    return compute(), time.perf_counter() - began


def draw_seconds(fitted: Fitted, condition: PyTree, num_samples: int, key: Any) -> float:
    """Seconds in which all samples of some conditions are drawn, compilation apart; the least of a few."""
    draw_forecasts(fitted, jax.tree.map(lambda leaf: leaf[:1], condition), num_samples, key)  # compiles
    draws = (
        partial(draw_forecasts, fitted, condition, num_samples, jax.random.fold_in(key, n)) for n in range(REPEATS)
    )
    return min(with_seconds(draw)[1] for draw in draws)


def predictive_distance(samples: Any, others: np.ndarray, truth: np.ndarray) -> Measurement:
    """Energy distance between two sets of sampled trajectories of the same initial states, mean over the states.

        D^2 = 2 E|X - Y| - E|X - X'| - E|Y - Y'|,   |.| root mean square over a trajectory in units of its fields' size

    Unbiased: about zero, and as often below it, for two sets from one distribution.

    Args:
      samples: (n, sample, time, *grid, field).
      others: the same from the distribution to compare with.
      truth: gives the size of the fields, (n, time, *grid, field).
    Returns:
      mean and standard error.
    """
    scale = jnp.sqrt(metrics.reference_variance(jnp.asarray(truth)))
    pairs = zip(samples, others, strict=True)
    values = [float(_energy_distance(jnp.asarray(x) / scale, jnp.asarray(y) / scale)) for x, y in pairs]
    return Measurement(float(np.mean(values)), "1", float(np.std(values, ddof=1) / np.sqrt(len(values))))


@jax.jit
def _energy_distance(left: Any, right: Any) -> Any:
    left, right = (jnp.reshape(x, (x.shape[0], -1)) for x in (left, right))

    def distances(x: Any, y: Any) -> Any:
        return jnp.sqrt(jnp.mean((x[:, None] - y[None]) ** 2, axis=-1))

    def within(x: Any) -> Any:
        return jnp.sum(distances(x, x)) / (x.shape[0] * (x.shape[0] - 1))

    return 2 * jnp.mean(distances(left, right)) - within(left) - within(right)
