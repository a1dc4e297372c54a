"""The driven reference case: energy, damping and noise from one noisy trajectory, forecast of the free motion.

    python -m experiments.driven_pendulum --size laptop --seeds 5

H = x1^2/2 + 2 cos x1 + x2^2/2 - 1, damping 0.1, driven by 0.1 sin t from (5, 0) for 50 s, 501 frames with noise 0.15;
the test is the undriven motion from (-3, 0) over 100 s, which passes over the hump and settles in one of two wells.
Source: Beckers, Seidman, Perdikaris, Pappas (2022), arXiv 2305.09017, and the toolbox published with it.
"""

import dataclasses
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.interpolate import CubicSpline

from experiments.configs.driven_pendulum import get_config
from experiments.data import driven as driven_generator
from experiments.evaluation import forecasts as evaluation
from experiments.study.command import RunContext, Study, main
from phdme_jax.app import figures
from phdme_jax.app.drawing import Curve, Labels
from phdme_jax.app.efforts import effort_slices
from phdme_jax.app.page import Picture, Section
from phdme_jax.app.rows import Measurement
from phdme_jax.files import RunFailed, config_digest
from phdme_jax.methods.baselines import phlearn as peers
from phdme_jax.methods.baselines import windows as network_training
from phdme_jax.methods.baselines.neural_dynamics import HamiltonianField, NeuralField, solve_field
from phdme_jax.methods.energy import prior as priors
from phdme_jax.methods.legacy import make_method
from phdme_jax.numerics import solve_reference
from phdme_jax.systems import make_system
from phdme_jax.systems.energy.base import System, parameter_values, vector_field

SYSTEM = "driven_pendulum"
FIELDS = ("position", "momentum")


class Data(NamedTuple):
    """One noisy driven trajectory and the undriven test.

    Attributes:
      states: observed, (time, field), noise included.
      times: evenly spaced.
      inputs: force at these times, (time, port).
      test: the truth, (time, field).
      test_times: evenly spaced.
    """

    states: np.ndarray
    times: np.ndarray
    inputs: np.ndarray
    test: np.ndarray
    test_times: np.ndarray


class Forecast(NamedTuple):
    """What a method says of the test: its mean, samples or None, seconds of learning, and rows of its own."""

    mean: np.ndarray
    samples: np.ndarray | None
    seconds: float
    rows: dict[str, Measurement]


@lru_cache
def pendulum(damping: float) -> System:
    """The system; the same record for the same damping."""
    return make_system(SYSTEM, damping=damping)


def solve(system: System, start: tuple[float, ...], times: np.ndarray, force: float) -> np.ndarray:
    """Reference trajectory under the force `force` sin t, by diffrax at 1e-9 / 1e-10; time is a third field."""
    values = parameter_values(system, jnp.float64)

    def field(extended: Any, _: Any) -> Any:
        inputs = force * jnp.sin(extended[2:])
        return jnp.append(vector_field(system.structure, system.density, extended[:2], values, inputs), 1.0)

    path, ok = jax.jit(partial(solve_reference, field))(jnp.array([*start, 0.0]), jnp.asarray(times), None)
    if not bool(ok):
        raise RunFailed("the reference solution of the pendulum failed; try a shorter duration")
    return np.asarray(path[:, :2])


def make_data(config: Any, seed: int) -> Data:
    """The published protocol; the seed draws the noise."""
    data, system = config.data, pendulum(config.system.damping)
    times = np.linspace(0.0, data.duration, data.num_frames)
    test_times = np.linspace(0.0, data.test_duration, data.test_frames)
    clean = solve(system, data.start, times, data.force)
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(5), seed), clean.shape, jnp.float64)
    inputs = data.force * np.sin(times)[:, None]
    test = solve(system, data.test_start, test_times, 0.0)
    return Data(clean + data.noise * np.asarray(noise), times, inputs, test, test_times)


def learn_energy(config: Any, data: Data, main: int) -> priors.Prior:
    """Energy, damping and noise by weak-form rows of the driven trajectory; `main` = 0 leaves the quadratic energy."""
    shapes = ("free", "free") if main else ("quadratic", "quadratic")
    return priors.fit_prior(
        pendulum(config.system.damping).structure, data.states[None], tuple(data.times.tolist()),
        main=max(main, 1), pair=0, margin=config.prior.margin, time_tests=config.prior.time_tests, space_tests=1,
        substeps=config.prior.substeps, centre=(0.0, 0.0), shapes=shapes, inputs=data.inputs[None],
    )  # fmt: skip


def forecast_energy(context: RunContext, data: Data, seed: int, main: int) -> Forecast:
    """Roll the mean energy and posterior samples out on the test."""
    config, prior = context.config, learn_energy(context.config, data, main)
    times, key = tuple(data.test_times.tolist()), jax.random.fold_in(jax.random.key(6), seed)
    starts = np.repeat(np.array([config.data.test_start]), config.sampling.num_samples, axis=0)
    mean = priors.mean_rollouts(prior, starts[:1], times)
    drawn = priors.sampled_rollouts(prior, starts, times, key)
    rows = {"parameter_error": _damping_error(config, prior), "rejection_rate": Measurement(float(1 - drawn.ok.mean()))}
    if main and seed == context.seeds[0]:
        _draw_energy(context, data, prior)
    return Forecast(np.asarray(mean.trajectory[0]), np.asarray(drawn.trajectory), prior.seconds, rows)


def _damping_error(config: Any, prior: priors.Prior) -> Measurement:
    (learned,) = prior.posterior.parameters.values()
    return Measurement(abs(float(learned) / config.system.damping - 1))


def forecast_generator(context: RunContext, data: Data, seed: int, name: str) -> Forecast:
    """Train a generator on driven rollouts of the learned energy and sample the undriven test."""
    config, prior = context.config, learn_energy(context.config, data, context.config.prior.main)
    prior = dataclasses.replace(prior, substeps=config.generator.substeps)
    train_key, sample_key = jax.random.split(jax.random.fold_in(jax.random.key(9), seed))
    began = time.perf_counter()
    generator, rejected = driven_generator.train_driven(
        make_method(name), prior, data.states, config, np.random.default_rng([seed, 9]), train_key,
        config_digest(config.to_dict()), context.workdir / "training" / f"{name}_{seed}",
    )  # fmt: skip
    seconds = time.perf_counter() - began
    starts, still = np.array([config.data.test_start]), np.zeros((1, len(generator.times), data.inputs.shape[1]))
    count = config.sampling.num_samples
    means, drawn = driven_generator.sample_driven(generator, prior, starts, still, count, sample_key)
    mean = CubicSpline(generator.times, means[0])(data.test_times)
    samples = CubicSpline(generator.times, drawn[0], axis=1)(data.test_times)
    rows = {"parameter_error": _damping_error(config, prior), "rejection_rate": Measurement(rejected)}
    return Forecast(mean, samples, prior.seconds + seconds, rows)


def _draw_energy(context: RunContext, data: Data, prior: priors.Prior) -> None:
    density = pendulum(context.config.system.damping).density
    slices = effort_slices(prior, density, data.states, FIELDS)
    figures.effort_learned_vs_true(context.figure_path("efforts"), slices, Labels())


def forecast_network(
    context: RunContext, data: Data, seed: int, name: str, make: Callable[[Any, Any], Any]
) -> Forecast:
    """Train a network and solve it on the test."""
    key = jax.random.fold_in(jax.random.key(8), seed)
    observed = (data.states, data.times, data.inputs)
    path = context.workdir / "training" / f"{name}_{seed}.eqx"
    field, seconds = network_training.train(make, observed, context.config.baselines.training, key, path)
    test_times = jnp.asarray(data.test_times)
    still = jnp.zeros((len(test_times), data.inputs.shape[1]))
    start = jnp.asarray(context.config.data.test_start, jnp.float64)
    mean = np.asarray(jax.jit(partial(solve_field, field))(start, test_times, still))
    rows: dict[str, Measurement] = {}
    if isinstance(field, HamiltonianField):
        true = context.config.system.damping
        rows["parameter_error"] = Measurement(abs(float(field.parameters()["viscous_damping"]) / true - 1))
    return Forecast(mean, None, seconds, rows)


def forecast_peer(context: RunContext, data: Data, seed: int) -> Forecast:
    """The public package on the same trajectory."""
    config = context.config
    problem = peers.Driven(
        data.states, data.times, lambda instant: config.data.force * np.sin(instant), np.array(config.data.test_start),
        data.test_times,
    )  # fmt: skip
    found = peers.forecast_phlearn(problem, config.baselines.phlearn, seed)
    rows = {"parameter_error": Measurement(abs(found.damping / config.system.damping - 1))}
    return Forecast(found.mean, None, found.seconds, rows)


def _hamiltonian(context: RunContext) -> Callable[[Any, Any], Any]:
    structure = pendulum(context.config.system.damping).structure
    return lambda scale, key: HamiltonianField(structure, scale, **context.config.baselines.network, key=key)


def _neural(context: RunContext) -> Callable[[Any, Any], Any]:
    return lambda scale, key: NeuralField(scale, 1, **context.config.baselines.network, key=key)


# A method is one line: how it learns from the observed trajectory and forecasts the test.
FORECASTERS: dict[str, Callable[[RunContext, Data, int], Forecast]] = {
    "phdme_rollout": lambda context, data, seed: forecast_generator(context, data, seed, "phdme_rollout"),
    "gp_rollout": lambda context, data, seed: forecast_energy(context, data, seed, context.config.prior.main),
    "quadratic_hamiltonian": lambda context, data, seed: forecast_energy(context, data, seed, 0),
    "hnn": lambda context, data, seed: forecast_network(context, data, seed, "hnn", _hamiltonian(context)),
    "neural_ode": lambda context, data, seed: forecast_network(context, data, seed, "neural_ode", _neural(context)),
    **({"phlearn": forecast_peer} if peers.INSTALLED else {}),
}


def evaluate(context: RunContext, data: Data, seed: int, name: str) -> Forecast:
    """Learn, forecast, write the rows."""
    forecast = FORECASTERS[name](context, data, seed)
    error = float(np.mean((forecast.mean - data.test) ** 2))
    share = float(np.mean(np.mean((forecast.mean - data.test) ** 2, axis=0) / data.test.var(axis=0)))
    rows = {"mse": Measurement(error), "nmse": Measurement(share), **forecast.rows}
    if forecast.samples is not None:
        scored = evaluation.Forecasts(forecast.mean[None], forecast.samples[None], np.ones(1, bool), 0.0)
        accuracy = evaluation.accuracy(data.test[None], scored, FIELDS)
        rows |= {metric: Measurement(accuracy[metric].value) for metric in ("crps", "energy_score", "spread_skill")}
    context.results.record(SYSTEM, name, seed, "test", rows, 1)
    seconds = {"fit_seconds": Measurement(forecast.seconds, "s")}
    context.results.record(SYSTEM, name, seed, "train", seconds, 1)
    return forecast


def run_study(context: RunContext) -> list[Section]:
    """Every seed and method, rows and figures."""
    pictures = []
    for seed in context.seeds:
        data = make_data(context.config, seed)
        for name in context.methods:
            forecast = evaluate(context, data, seed, name)
            print(f"seed {seed}: {name} done", flush=True)
            if seed == context.seeds[0]:
                pictures.append(_draw_forecast(context, data, name, forecast))
    if "gp_rollout" in context.methods:
        pictures.insert(0, Picture(context.figure_path("efforts"), "Learned energy gradient against the true one"))
    data = context.config.data
    words = (
        f"One trajectory of {data.num_frames} frames with noise {data.noise:g}, driven by {data.force:g} sin t; the "
        f"test is the undriven motion from {tuple(data.test_start)} over {data.test_duration:g} s. Networks choose the "
        "length of their training windows by the error on the last fifth of the observations."
    )
    metrics = ("mse", "nmse", "crps", "spread_skill", "parameter_error", "fit_seconds", "rejection_rate")
    return [Section("Forecast of the free motion", words, tuple(pictures), metrics)]


def _draw_forecast(context: RunContext, data: Data, name: str, forecast: Forecast) -> Picture:
    curve = Curve(name, forecast.mean, samples=forecast.samples)
    path = figures.forecast_lines(
        context.figure_path(f"lines_{name}"), data.test_times, data.test, curve,
        Labels(x="time [s]", y="state", panels=FIELDS),
    )  # fmt: skip
    return Picture(path, f"{name}: forecast of the test, first seed")


STUDY = Study(
    name=SYSTEM,
    title="The driven pendulum: learned from one noisy trajectory",
    get_config=get_config,
    run=run_study,
    methods=tuple(FORECASTERS),
    sizes=("smoke", "laptop"),
    num_seeds=5,
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
