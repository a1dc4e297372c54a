"""Why a generator, if the learned energy can be integrated: accuracy against cost of a forecast.

The same test trajectories are forecast by the mean rollout, by sampled rollouts, and by trained generators with few or
many calls of their network. Calls shape the samples; the forecast itself is the conditional mean, whatever their
number. How close a generator comes to the posterior predictive of the rollouts, which is what it amortises, is the
energy distance between the samples of both.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.evaluation import forecasts as evaluation
from experiments.study.field_forecasts import forecast_by_generator, forecast_by_rollout
from experiments.study.seed_run import SeedRun
from phdme_jax.app.rows import Measurement
from phdme_jax.forecasting.bands import Forecasts
from phdme_jax.methods.energy import prior as priors
from phdme_jax.methods.energy.generator import Generator, known_values, with_sampler_steps
from phdme_jax.methods.legacy import make_method
from phdme_jax.training import metrics


def cost_rows(run: SeedRun, generators: dict[str, Generator]) -> None:
    """Write the rows of one seed: methods `gp_rollout_mean`, `gp_rollout_sampled`, `METHOD_calls_N`.

    Seconds are those of one forecast of one initial state, compilation apart: a mean rollout, or as many samples as
    the study draws.

    Args:
      run: the seed.
      generators: trained generators by method.
    """
    options = run.config.costs
    truth = run.data.test[: options.num_test]
    initial, key = truth[:, 0], jax.random.fold_in(run.key, 4)
    count = run.config.sampling.num_samples

    def record(name: str, forecasts: Forecasts, seconds: float, calls: int, others: Any) -> None:
        rows = evaluation.accuracy(truth, forecasts, run.structure.fields)
        rows = {metric: rows[metric] for metric in ("nmse", "crps", "energy_score", "spread_skill") if metric in rows}
        rows["seconds_per_forecast"] = Measurement(seconds, "s")
        rows["nfe"] = Measurement(float(calls))
        if others is not None:
            rows["energy_distance"] = predictive_distance(forecasts.samples, others, truth)
        run.context.results.record(run.problem.system, name, run.seed, "test", rows, len(truth))

    prior = run.prior()
    mean = priors.mean_rollouts(prior, initial, run.times)
    began = time.perf_counter()
    mean = priors.mean_rollouts(prior, initial, run.times)
    seconds = (time.perf_counter() - began) / len(initial)
    finite = evaluation.all_finite(mean.trajectory)
    calls = 4 * prior.substeps * (len(run.times) - 1)
    record("gp_rollout_mean", Forecasts(np.nan_to_num(mean.trajectory), None, finite, 0.0), seconds, calls, None)
    sampled = forecast_by_rollout(run, make_method("gp_rollout"), initial, key)
    again = forecast_by_rollout(run, make_method("gp_rollout"), initial, jax.random.fold_in(key, 1))
    record("gp_rollout_sampled", sampled, count * again.seconds, calls, again.samples)
    known = known_values(run.structure, run.times)
    for name, generator in generators.items():
        for steps in options.num_steps:
            shorter = with_sampler_steps(generator, steps, known, run.config.training.amplitude_draws)
            forecast_by_generator(run, shorter, initial[:1], key)  # compiles: slices are padded to one shape
            forecasts = forecast_by_generator(run, shorter, initial, key)
            record(f"{name}_calls_{steps}", forecasts, count * forecasts.seconds, steps, sampled.samples)


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
