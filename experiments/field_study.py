"""The study of fields on a line or a plane: PHDME from few observed trajectories to calibrated forecasts.

A system is one module with a `Problem` and a configuration; see `experiments.vibrating_string`.
"""

import dataclasses
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import evaluation, field_figures, generators, priors
from experiments.configs.fit import STARTS_FROM_FRAMES
from experiments.evaluation import Forecasts
from experiments.field_data import FieldData, frame_times, load_or_make
from experiments.fit_inputs import draw_initial_states
from experiments.results import Measurement
from experiments.run import RunContext, Section, Study, config_digest
from phdme_jax.calibration import minimum_calibration_size
from phdme_jax.gp import independent
from phdme_jax.methods import METHODS, make_method
from phdme_jax.methods.base import Method, fit_normaliser
from phdme_jax.methods.forecaster import Example
from phdme_jax.systems import make_system
from phdme_jax.systems.base import System, parameter_values

SPLITS = ("test", "shifted")


@dataclasses.dataclass(frozen=True)
class Problem:
    """A system as its study sees it.

    Attributes:
      system: name in the registry and in results.
      title: of the report.
      labels: how axes are called.
      inversion: how the two-process baseline inverts the operator; None leaves that method out.
    """

    system: str
    title: str
    labels: field_figures.FieldLabels
    inversion: independent.Inversion | None


def learner_system(problem: Problem, config: Any, **changes: Any) -> System:
    """The true energy on the learner's grid, of which learners use the structure only.

    The same record for the same arguments, so that compiled functions are found again.
    """
    options = {**config.system, "num_points": config.data.num_points, **config.structure, **changes}
    return _system(problem.system, tuple(sorted(options.items())))


@lru_cache
def _system(name: str, options: tuple[tuple[str, Any], ...]) -> System:
    return make_system(name, **dict(options))


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


class SeedRun:
    """Everything one seed shares between methods, made when first asked for."""

    def __init__(self, problem: Problem, context: RunContext, seed: int) -> None:
        self.problem, self.context, self.seed, self.config = problem, context, seed, context.config
        self.times = frame_times(self.config.data)
        self.system = learner_system(problem, self.config)
        self.structure = self.system.structure
        self.data: FieldData = load_or_make(problem.system, self.config, seed, context.workdir)
        self.key = jax.random.fold_in(jax.random.key(7), seed)
        self.normaliser = fit_normaliser(jnp.asarray(self.data.observed, jnp.float32))
        self._priors: dict[str, priors.Prior] = {}
        self._rollouts: priors.Rollouts | None = None

    def prior(self, energy: str = "posterior") -> priors.Prior:
        """The fitted energy, general or quadratic."""
        if energy not in self._priors:
            options = dict(self.config.prior)
            if energy == "quadratic":
                options |= {"shapes": ("quadratic",) * len(self.structure.fields), "pair": 0}
            self._priors[energy] = priors.fit_prior(self.structure, self.data.observed, self.times, **options)
        return self._priors[energy]

    def independent_rollouts(self, initial: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rollouts of the two-process baseline: rates by local polynomials, damping known.

        The published study has 81 sites on its one trajectory, spread over all frames; so has each trajectory here.
        """
        observed = jnp.asarray(self.data.observed)
        smoothed, rates = jax.vmap(lambda x: independent.local_polynomial_rates(x, self.times))(observed)
        num, frames, points, fields = observed.shape
        flat = [jnp.reshape(array, (num * frames, points, fields)) for array in (smoothed, rates)]
        each = np.asarray(independent.published_sites(frames, points))
        sites = np.concatenate([each + np.array([frames * index, 0]) for index in range(num)])
        spacing, inversion = self.structure.grid.spacing[0], self.problem.inversion
        assert inversion is not None
        learn = jax.jit(lambda x, r, s: independent.fit_independent(x, r, s, spacing, inversion))
        fitted = learn(*flat, jnp.asarray(sites))
        values = parameter_values(self.system, jnp.float64)
        flow, substeps = self.structure.flow, self.config.prior.substeps

        @jax.jit
        @jax.vmap
        def roll(state: Any) -> Any:
            return independent.roll_out_independent(flow, fitted, values, state, jnp.asarray(self.times), substeps)

        return priors.in_chunks(roll, 32, np.asarray(initial, np.float64))

    def rollout_starts(self, key: Any) -> np.ndarray:
        """Initial states of the rollouts: from the family that test states come from, or from the observed frames."""
        options = self.config.rollouts
        if options.initial == "observed":
            return draw_initial_states(
                self.structure, self.data.observed, options.count, key, **STARTS_FROM_FRAMES
            )
        keys = jax.random.split(key, options.count)
        return np.asarray(jax.jit(jax.vmap(self.system.initial_state(self.config.data.family)))(keys))

    def rollouts(self) -> priors.Rollouts:
        """Posterior rollouts from drawn initial states, cached in the run folder."""
        path = self.context.workdir / "data" / f"rollouts_{self.seed}.npz"
        self._rollouts = self._rollouts or priors.load_rollouts(path)
        if self._rollouts is None:
            initial = self.rollout_starts(jax.random.fold_in(self.key, 1))
            self._rollouts = priors.make_rollouts(self.prior(), initial, self.times, jax.random.fold_in(self.key, 2))
            priors.save_arrays(path, self._rollouts._asdict())
        return self._rollouts

    def example(self, states: np.ndarray, weights: Any, means: Any) -> Example:
        """Normalised training arrays."""
        scale = np.asarray(self.normaliser.scale)
        state: Any = (states / scale).astype(np.float32)
        if weights is None:
            weights = np.ones((state.shape[0], state.shape[1] - 1, *state.shape[2:]), np.float32)
        mean: Any = np.repeat(state[:, :1], state.shape[1], axis=1) if means is None else means / scale
        return Example(state, weights, mean.astype(np.float32))

    def generator(self, method: Method) -> generators.Generator:
        """The method's trained generator."""
        config = self.config
        prior = self.prior() if method.data == "rollouts" or method.mean == "rollout" else None
        empty = generators.make_generator(
            method, prior, self.structure, self.times, config.network.to_dict(), config.sampling.to_dict()
        )
        observed = self.example(self.data.observed, None, None)
        if method.data == "rollouts":
            rolled = self.rollouts()
            synthetic = self.example(rolled.states, rolled.weights, rolled.means)
            if method.mean == "rollout":
                means: Any = generators.conditional_mean(
                    generators.with_arrays(empty, normaliser=self.normaliser), self.data.observed[:, 0]
                )
                observed = observed._replace(mean=means)
        else:
            synthetic = observed
        return generators.train_generator(
            empty,
            self.structure,
            synthetic,
            observed if method.data == "rollouts" else None,
            self.normaliser,
            training=config.training.to_dict(),
            physics=config.physics.to_dict(),
            key=jax.random.fold_in(self.key, 100 + sorted(METHODS).index(method.name)),
            digest=config_digest(config.to_dict()),
            workdir=self.context.workdir / "training" / f"{method.name}_{self.seed}",
        )


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


def evaluate(run: SeedRun, method: Method) -> dict[str, Any]:
    """Forecast every split, calibrate, write the rows; returns what the figures need."""
    data, fields = run.data, run.structure.fields
    writer = run.context.results
    generator = run.generator(method) if method.kind == "generative" else None

    def forecast(split: str, initial: np.ndarray) -> Forecasts:
        # the splits share no draws, as exchangeable scores must not
        key = jax.random.fold_in(jax.random.fold_in(run.key, 3), ("calibration", *SPLITS).index(split))
        if generator is None:
            return forecast_by_rollout(run, method, initial, key)
        return forecast_by_generator(run, generator, initial, key)

    calibration_forecasts = forecast("calibration", data.calibration[:, 0])
    floor = 0.01 * np.asarray(run.normaliser.scale, np.float64)
    if generator is not None:
        floor = np.sqrt(np.mean(np.asarray(generator.arrays["scale"]) ** 2)) * np.asarray(run.normaliser.scale)
    calibration = evaluation.calibrate(data.calibration, calibration_forecasts, floor, run.config.level)
    kept: dict[str, Any] = {"calibration": calibration, "generator": generator}
    kept["calibration_scores"] = evaluation.band_scores(data.calibration, calibration_forecasts, floor)
    unseen = learner_system(run.problem, run.config, order=4)
    for split in SPLITS:
        truth = getattr(data, split)
        forecasts = forecast(split, truth[:, 0])
        rows = evaluation.accuracy(truth, forecasts, fields)
        covered, scores = evaluation.coverage(truth, forecasts, calibration)
        rows |= covered | evaluation.physics(run.system, unseen, forecasts.mean, run.times)
        rows["seconds_per_sample"] = Measurement(forecasts.seconds, "s")
        writer.record(run.problem.system, method.name, run.seed, split, rows, truth.shape[0])
        kept[split] = (forecasts, scores)
    seconds: dict[str, Measurement] = {}
    if method.data == "rollouts" and method.energy != "independent":
        seconds["fit_seconds"] = Measurement(run.prior(method.energy).seconds, "s")
    if generator is not None:
        seconds["train_seconds"] = Measurement(sum(generator.seconds.values()), "s")
    if seconds:
        writer.record(run.problem.system, method.name, run.seed, "train", seconds, data.observed.shape[0])
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
