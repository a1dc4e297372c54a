"""The study of fields on a line or a plane: PHDME from few observed trajectories to calibrated forecasts.

A system is one module with a `Problem` and a configuration; see `experiments.vibrating_string`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.evaluation import costs as field_costs
from experiments.evaluation import forecasts as evaluation
from experiments.report import fields as field_figures
from experiments.study.command import RunContext, Study
from experiments.study.field_forecasts import Forecaster, learn
from experiments.study.seed_run import Problem, SeedRun, learner_system
from phdme_jax.app.page import Section
from phdme_jax.app.rows import Measurement
from phdme_jax.calibration import minimum_calibration_size
from phdme_jax.forecasting.bands import Forecasts
from phdme_jax.methods.energy import generator as generators
from phdme_jax.methods.legacy import METHODS, Method, make_method
from phdme_jax.systems.energy.base import parameter_values

__all__ = ["Problem", "SeedRun", "evaluate", "learner_system", "make_study", "reference_rows", "run_study"]

SPLITS = ("test", "shifted")
COSTED = ("phdme", "phdme_rollout")


def check(problem: Problem, context: RunContext) -> None:
    """Refuse a configuration that cannot be built or calibrated before anything is written."""
    parts = (context.config[name].to_dict() for name in ("network", "training", "physics"))
    generators.check_options(*parts)
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
    name = name or method.name
    if forecaster.seconds:
        count = len(run.data.observed)
        run.context.results.record(run.problem.system, name, run.seed, "train", forecaster.seconds, count)
    return {**evaluate_forecaster(run, forecaster, name), "generator": generator}


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
        if forecasts.samples is not None:
            one = evaluation.physics(run.system, unseen, forecasts.samples[:, 0], run.times)
            rows |= {f"sample_{metric}": one[metric] for metric in ("energy_drift", "residual_rms")}
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
        trained = {name: kept[name]["generator"] for name in COSTED if name in kept}
        if trained:
            field_costs.cost_rows(run, trained)
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
    methods = {name: one for name, one in METHODS.items() if problem.inversion or one.energy != "independent"}
    return Study(
        name=problem.system,
        title=problem.title,
        get_config=get_config,
        run=partial(run_study, problem),
        methods=tuple(methods),
        # a trial leaves out what only a comparison needs
        trial_methods=tuple(name for name, one in methods.items() if one.kind != "network" and one.energy != "true"),
        sizes=sizes,
        check=partial(check, problem),
    )
