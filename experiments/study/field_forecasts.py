"""Methods on fields, learned on one seed's data, as functions from initial states to forecasts."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from experiments.evaluation import forecasts as evaluation
from experiments.study.seed_run import SeedRun
from phdme_jax.app.rows import Measurement
from phdme_jax.forecasting.bands import Forecasts
from phdme_jax.methods.baselines import field_networks
from phdme_jax.methods.energy import generator as generators
from phdme_jax.methods.energy import prior as priors
from phdme_jax.methods.legacy import Method


def forecast_by_rollout(run: SeedRun, method: Method, initial: np.ndarray, key: Any) -> Forecasts:
    """Integrate the fitted energy: the mean rollout, and posterior samples where there is a posterior."""
    if method.energy == "independent":
        began = time.perf_counter()
        trajectories, ok = run.independent_rollouts(initial)
        return Forecasts(np.nan_to_num(trajectories), None, ok, (time.perf_counter() - began) / len(initial))
    prior = run.prior(method.energy)
    mean = priors.mean_rollouts(prior, initial, run.times)
    count = run.config.sampling.num_samples
    began = time.perf_counter()
    repeated = np.repeat(initial, count, axis=0)
    sampled = priors.sampled_rollouts(prior, repeated, run.times, key)
    seconds = (time.perf_counter() - began) / repeated.shape[0]
    samples = sampled.trajectory.reshape(initial.shape[0], count, *mean.trajectory.shape[1:])
    finite = evaluation.all_finite(mean.trajectory) & evaluation.all_finite(samples)
    return Forecasts(np.nan_to_num(mean.trajectory), np.nan_to_num(samples), finite, seconds)


def forecast_by_generator(run: SeedRun, generator: generators.Generator, initial: np.ndarray, key: Any) -> Forecasts:
    """Sample the trained generator; the forecast is the conditional mean that samples are drawn around."""
    began = time.perf_counter()
    count = run.config.sampling.num_samples
    known = generators.known_values(run.structure, run.times)
    samples = generators.sample_forecasts(generator, known, initial, count, key)
    seconds = (time.perf_counter() - began) / (initial.shape[0] * count)
    mean = generators.conditional_mean(generator, initial) * np.asarray(run.normaliser.scale)
    finite = evaluation.all_finite(samples) & evaluation.all_finite(mean)
    samples, mean = (np.nan_to_num(part.astype(np.float64)) for part in (samples, mean))
    return Forecasts(mean, samples, finite, seconds)


def forecast_by_network(run: SeedRun, network: field_networks.FieldNetwork, initial: np.ndarray) -> Forecasts:
    """Forecasts of a network without a distribution."""
    began = time.perf_counter()
    trajectories = field_networks.network_forecasts(network, run.normaliser, initial, len(run.times))
    seconds = (time.perf_counter() - began) / len(initial)
    return Forecasts(np.nan_to_num(trajectories), None, evaluation.all_finite(trajectories), seconds)


class Forecaster(NamedTuple):
    """A method that has learned: forecasts from initial states, the floor of its spread, what it cost to learn."""

    forecast: Callable[[np.ndarray, Any], Forecasts]
    floor: np.ndarray
    seconds: dict[str, Measurement]


def learn(run: SeedRun, method: Method) -> tuple[Forecaster, generators.Generator | None]:
    """Train or fit a method on the seed's data."""
    floor = 0.01 * np.asarray(run.normaliser.scale, np.float64)
    seconds = {}
    needs_energy = method.kind != "network" and (method.data == "rollouts" or method.physics)
    if method.energy in ("posterior", "quadratic") and needs_energy:
        seconds["fit_seconds"] = Measurement(run.prior(method.energy).seconds, "s")
    if method.kind == "rollout":
        return Forecaster(lambda initial, key: forecast_by_rollout(run, method, initial, key), floor, seconds), None
    if method.kind == "network":
        network = run.network(method)
        seconds["train_seconds"] = Measurement(sum(network.seconds.values()), "s")
        return Forecaster(lambda initial, key: forecast_by_network(run, network, initial), floor, seconds), None
    generator = run.generator(method)
    seconds["train_seconds"] = Measurement(sum(generator.seconds.values()), "s")
    return generator_forecaster(run, generator, seconds), generator


def generator_forecaster(run: SeedRun, generator: generators.Generator, seconds: dict[str, Measurement]) -> Forecaster:
    """The forecaster of a trained generator; the floor of its spread is the size of what its mean leaves."""
    floor = np.sqrt(np.mean(np.asarray(generator.arrays["scale"]) ** 2)) * np.asarray(run.normaliser.scale)
    return Forecaster(lambda initial, key: forecast_by_generator(run, generator, initial, key), floor, seconds)
