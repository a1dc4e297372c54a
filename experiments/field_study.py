"""The study of fields on a line or a plane: PHDME from few observed trajectories to calibrated forecasts.

A system is one module with a `Problem` and a configuration; see `experiments.vibrating_string`.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import evaluation, field_figures, field_networks, generators, priors
from experiments.evaluation import Forecasts
from experiments.results import Measurement
from experiments.run import RunContext, Section, Study
from experiments.seed_run import Problem, SeedRun, learner_system
from phdme_jax.calibration import minimum_calibration_size
from phdme_jax.methods import METHODS, make_method
from phdme_jax.methods.base import Method
from phdme_jax.systems.base import parameter_values

__all__ = ["Problem", "SeedRun", "evaluate", "learner_system", "make_study", "reference_rows", "run_study"]

SPLITS = ("test", "shifted")


def check(problem: Problem, context: RunContext) -> None:
    """Refuse a configuration that cannot be built or calibrated before anything is written."""
    generators.check_options(context.config.network.to_dict(), context.config.training.to_dict())
    for changes in ({}, {"order": 4}):
        system = learner_system(problem, context.config, **changes)
        state = jnp.zeros((*system.structure.grid.points, len(system.structure.fields)))
        jax.eval_shape(system.structure.flow, state, parameter_values(system, state.dtype))
    least = minimum_calibration_size(context.config.level)
    given = context.config.data.num_calibration
    if given < least:
        raise ValueError(
            f"expected at least {least} calibration trajectories for level {context.config.level}, got {given}; "
            f"raise --config.data.num_calibration or lower --config.level"
        )
    if context.config.rollouts.initial not in ("family", "observed"):
        raise ValueError(f"expected rollouts.initial family or observed, got {context.config.rollouts.initial!r}")


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


def forecast_by_generator(
    run: SeedRun, generator: generators.Generator, initial: np.ndarray, key: Any
) -> Forecasts:
    """Sample the trained generator; the forecast is the samples' mean."""
    began = time.perf_counter()
    count = run.config.sampling.num_samples
    known = generators.known_values(run.structure, run.times)
    samples = generators.sample_forecasts(generator, known, initial, count, key)
    seconds = (time.perf_counter() - began) / (initial.shape[0] * count)
    finite = evaluation.all_finite(samples)
    samples = np.nan_to_num(samples.astype(np.float64))
    return Forecasts(samples.mean(axis=1), samples, finite, seconds)


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
    if method.energy in ("posterior", "quadratic") and (method.kind == "rollout" or method.data == "rollouts"):
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


def generator_forecaster(
    run: SeedRun, generator: generators.Generator, seconds: dict[str, Measurement]
) -> Forecaster:
    """The forecaster of a trained generator; the floor of its spread is the size of what its mean leaves."""
    floor = np.sqrt(np.mean(np.asarray(generator.arrays["scale"]) ** 2)) * np.asarray(run.normaliser.scale)
    return Forecaster(lambda initial, key: forecast_by_generator(run, generator, initial, key), floor, seconds)


def evaluate(run: SeedRun, method: Method, name: str | None = None) -> dict[str, Any]:
    """Learn, forecast every split, calibrate, write the rows; returns what the figures need.

    Args:
      run: the seed.
      method: the method.
      name: of the method in the rows, where it is not its own.
    Returns:
      forecasts and scores by split, the calibration, and the generator of a generative method.
    """
    forecaster, generator = learn(run, method)
    kept = evaluate_forecaster(run, forecaster, name or method.name)
    if forecaster.seconds:
        run.context.results.record(
            run.problem.system, name or method.name, run.seed, "train", forecaster.seconds, len(run.data.observed)
        )
    return {**kept, "generator": generator}


def evaluate_forecaster(run: SeedRun, forecaster: Forecaster, name: str) -> dict[str, Any]:
    """Forecast every split, calibrate, write the rows under a name."""
    data, fields = run.data, run.structure.fields

    def forecast(split: str, initial: np.ndarray) -> Forecasts:
        # the splits share no draws, as exchangeable scores must not
        key = jax.random.fold_in(jax.random.fold_in(run.key, 3), ("calibration", *SPLITS).index(split))
        return forecaster.forecast(initial, key)

    calibration_forecasts = forecast("calibration", data.calibration[:, 0])
    calibration = evaluation.calibrate(data.calibration, calibration_forecasts, forecaster.floor, run.config.level)
    kept: dict[str, Any] = {"calibration": calibration}
    kept["calibration_scores"] = evaluation.band_scores(data.calibration, calibration_forecasts, forecaster.floor)
    unseen = learner_system(run.problem, run.config, order=4)
    for split in SPLITS:
        truth = getattr(data, split)
        forecasts = forecast(split, truth[:, 0])
        rows = evaluation.accuracy(truth, forecasts, fields)
        covered, scores = evaluation.coverage(truth, forecasts, calibration)
        rows |= covered | evaluation.physics(run.system, unseen, forecasts.mean, run.times)
        rows["seconds_per_sample"] = Measurement(forecasts.seconds, "s")
        run.context.results.record(run.problem.system, name, run.seed, split, rows, truth.shape[0])
        kept[split] = (forecasts, scores)
    return kept


def reference_rows(run: SeedRun) -> None:
    """Residual and energy of the reference data themselves, and what the true energy reaches on the learner's grid."""
    unseen = learner_system(run.problem, run.config, order=4)
    for split in SPLITS:
        truth = getattr(run.data, split)
        rows = evaluation.physics(run.system, unseen, truth, run.times)
        exact = evaluation.true_rollout(run.system, truth[:, 0], run.times, run.config.prior.substeps)
        floor = evaluation.accuracy(truth, Forecasts(exact, None, np.ones(len(truth), bool), 0.0), run.structure.fields)
        rows |= {name: floor[name] for name in ("nmse", "mse")}
        run.context.results.record(run.problem.system, "reference", run.seed, split, rows, truth.shape[0])
    posterior = run.prior().posterior
    (name, true_value), *_ = run.system.values
    error = abs(float(posterior.parameters[name]) / true_value - 1)
    rows = {"parameter_error": Measurement(error), "rejection_rate": Measurement(run.rollouts().rejected)}
    run.context.results.record(run.problem.system, "gp_rollout", run.seed, "train", rows, run.data.observed.shape[0])


def run_study(problem: Problem, context: RunContext) -> list[Section]:
    """The whole study: every seed and method, rows, figures, sections."""
    sections: list[Section] = []
    for seed in context.seeds:
        run = SeedRun(problem, context, seed)
        reference_rows(run)
        kept = {}
        for name in context.methods:
            method = make_method(name)
            kept[name] = evaluate(run, method)
            print(f"seed {seed}: {name} done", flush=True)
        if seed == context.seeds[0]:
            sections = field_figures.draw_all(context, run, kept)
    return [field_figures.accuracy_section(context), *sections]


def make_study(problem: Problem, get_config: Callable[[str], Any], sizes: tuple[str, ...]) -> Study:
    """The study of a problem.

    Args:
      problem: the system and its labels.
      get_config: size -> configuration.
      sizes: sizes it has.
    Returns:
      what the command line needs.
    """
    return Study(
        name=problem.system,
        title=problem.title,
        get_config=get_config,
        run=partial(run_study, problem),
        methods=tuple(name for name, one in METHODS.items() if problem.inversion or one.energy != "independent"),
        sizes=sizes,
        check=partial(check, problem),
    )
