"""The stages between observed trajectories and a calibrated forecaster, shared by every study.

    observe -> fit_prior -> make_rollouts -> train_generator -> forecast -> calibrate

Each stage is a function of its arguments; what takes long is cached in the run folder and resumed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.files import atomic_write
from experiments.loop import LoopOptions, train
from phdme_jax.diffusion import schedule as schedules
from phdme_jax.diffusion.loss import residual_weights
from phdme_jax.diffusion.networks import Condition, Network
from phdme_jax.diffusion.preconditioning import precondition
from phdme_jax.diffusion.propagator import Propagator, init_propagator, propagate
from phdme_jax.diffusion.unet import make_unet
from phdme_jax.gp import basis as gp_basis
from phdme_jax.gp import fit as gp_fit
from phdme_jax.gp import observations as gp_rows
from phdme_jax.gp import sampling as gp_sampling
from phdme_jax.methods.base import Method, Normaliser
from phdme_jax.methods.forecaster import Example, PhysicsTerms, generate, propagator_loss, residual_loss
from phdme_jax.methods.physics import learned_rate, residual_variance
from phdme_jax.systems.base import Structure
from phdme_jax.training import MixedData, make_optimizer

Times = tuple[float, ...]
CHUNK = 64


@dataclass(frozen=True)
class Prior:
    """A fitted energy: the posterior, its basis, and the structure it belongs to."""

    structure: Structure
    basis: gp_basis.Basis
    posterior: gp_fit.EnergyPosterior
    substeps: int
    seconds: float


class Rollouts(NamedTuple):
    """Posterior rollouts.

    Attributes:
      states: trajectories of sampled energies, (n, time, grid, field), float32.
      means: rollouts of the mean energy from the same states.
      weights: weights of the squared residual on the trajectories.
      rejected: share of rollouts that were dropped.
    """

    states: np.ndarray
    means: np.ndarray
    weights: np.ndarray
    rejected: float


def in_chunks(function: Callable[..., Any], size: int, *arrays: Any) -> Any:
    """Apply a vmapped, jitted function to slices of at most `size` along the first axis; one shape, one trace."""
    count = arrays[0].shape[0]
    results = []
    for start in range(0, count, size):
        index = np.minimum(np.arange(start, start + size), count - 1)
        wanted = slice(0, count - start)
        results.append(jax.tree.map(lambda leaf: np.asarray(leaf)[wanted], function(*(a[index] for a in arrays))))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *results)


def fit_prior(
    structure: Structure,
    states: np.ndarray,
    times: Times,
    *,
    main: int,
    pair: int,
    margin: float,
    time_tests: int,
    space_tests: int,
    substeps: int,
    centre: tuple[float, ...],
    shapes: tuple[str, ...] = (),
) -> Prior:
    """Fit the energy to observed states by weak-form rows in time and marginal likelihood, float64.

    Args:
      structure: operators.
      states: observed trajectories, (sample, time, grid, field).
      times: observation times.
      main: basis sines per field.
      pair: basis sines per field of each pair, 0 for a separable energy.
      margin: half width of the basis' box in units of the largest excursion.
      time_tests: test functions in time.
      space_tests: test functions over the grid.
      substeps: integration steps between frames in rollouts.
      centre: state at rest.
      shapes: what is known of the energy per field, see `Basis`.
    Returns:
      the prior.
    """
    basis = gp_basis.Basis(len(structure.fields), main, pair, shapes)
    box = gp_basis.make_box(jnp.asarray(states), jnp.asarray(centre, float), margin)

    @jax.jit
    def build(states: Any, box: gp_basis.Box) -> gp_rows.Observations:
        parts = [
            gp_rows.integral_rows(
                basis, box, structure.flow, structure.parameters, trajectory, times, time_tests, space_tests
            )
            for trajectory in states
        ]
        return gp_rows.concatenate([*parts, gp_rows.anchor_rows(basis, box, len(structure.parameters))])

    start = gp_fit.initial_hyperparameters(basis, box, len(structure.parameters))
    learn = jax.jit(lambda rows, box, start: gp_fit.fit(basis, box, rows, start, structure.parameters))
    compiled = learn.lower(rows := build(jnp.asarray(states), box), box, start).compile()
    began = time.perf_counter()
    posterior = jax.block_until_ready(compiled(rows, box, start))
    return Prior(structure, basis, posterior, substeps, time.perf_counter() - began)


def save_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write arrays to an `.npz` in one go: whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as stream:
        np.savez(stream, **arrays)


@lru_cache
def _roller(basis: gp_basis.Basis, structure: Structure, times: Times, substeps: int, sampled: bool) -> Callable:
    """Jitted, batched rollouts of a posterior's mean, or of one sample per state; one trace per static record."""
    weights = structure.weights()

    @jax.jit
    def roll(posterior: gp_fit.EnergyPosterior, states: Any, keys: Any = None) -> gp_sampling.Rollout:
        grid = jnp.asarray(weights, states.dtype)
        frames = jnp.asarray(times, states.dtype)

        def one(state: Any, key: Any) -> gp_sampling.Rollout:
            energy = posterior.mean if key is None else gp_sampling.sample_energy(posterior, key)
            return gp_sampling.roll_out(
                basis, structure.flow, grid, energy, posterior.parameters, state, frames, substeps
            )

        return jax.vmap(one)(states, keys) if sampled else jax.vmap(lambda state: one(state, None))(states)

    return roll


def mean_rollouts(prior: Prior, initial: np.ndarray, times: Times) -> gp_sampling.Rollout:
    """Rollouts of the posterior-mean energy from initial states (n, grid, field), in float64."""
    roll = _roller(prior.basis, prior.structure, times, prior.substeps, False)
    return in_chunks(partial(roll, prior.posterior), CHUNK, np.asarray(initial, np.float64))


def sampled_rollouts(prior: Prior, initial: np.ndarray, times: Times, key: Any) -> gp_sampling.Rollout:
    """Rollouts of one posterior sample for each initial state, in float64."""
    roll = _roller(prior.basis, prior.structure, times, prior.substeps, True)
    keys = jax.random.split(key, initial.shape[0])
    return in_chunks(partial(roll, prior.posterior), CHUNK, np.asarray(initial, np.float64), keys)


@lru_cache
def _variance(basis: gp_basis.Basis, structure: Structure, times: Times) -> Callable:
    @jax.jit
    def variance(posterior: gp_fit.EnergyPosterior, trajectories: Any) -> Any:
        one = partial(residual_variance, basis, structure.flow, posterior)
        return jax.lax.map(lambda trajectory: one(trajectory, times), trajectories)

    return variance


def make_rollouts(prior: Prior, initial: np.ndarray, times: Times, key: Any) -> Rollouts:
    """Draw and roll out one energy per initial state; rejected rollouts are dropped and counted.

    Args:
      prior: the fitted energy.
      initial: initial states, (n, grid, field).
      times: times of the frames.
      key: random key.
    Returns:
      float32 trajectories, mean rollouts and normalised residual weights.
    """
    sampled = sampled_rollouts(prior, initial, times, key)
    means = mean_rollouts(prior, initial, times)
    ok = np.asarray(sampled.ok & means.ok)
    states = np.asarray(sampled.trajectory)[ok].astype(np.float32)
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), prior.posterior._replace(ok=jnp.zeros(())))
    spread = in_chunks(partial(_variance(prior.basis, prior.structure, times), narrow), 16, states)
    weights = residual_weight(spread, states, times)
    return Rollouts(states, np.asarray(means.trajectory)[ok].astype(np.float32), weights, float(1 - ok.mean()))


def residual_weight(spread: np.ndarray, states: np.ndarray, times: Times) -> np.ndarray:
    """Weights of the squared residual in normalised units, from its posterior variance.

    Args:
      spread: posterior variance of the residual, (n, time - 1, grid, field).
      states: trajectories it belongs to, (n, time, grid, field).
      times: times of the frames.
    Returns:
      weights, float32, shape of the variance.
    """
    rate = np.sqrt(np.mean(np.diff(states, axis=1) ** 2, axis=(0, 1, 2))) / np.mean(np.diff(times))
    # a field whose part of the dynamics is known for sure has no variance, and even weights
    floor = np.maximum(np.median(spread, axis=(0, 1, 2)), 1e-12 * rate**2)
    scale = np.sqrt(np.mean(states**2, axis=(0, 1, 2)))
    each_field = jax.vmap(residual_weights, in_axes=(-1, 0), out_axes=-1)
    weights = np.asarray(each_field(jnp.asarray(spread), jnp.asarray(floor)))
    return (weights * (scale / rate) ** 2).astype(np.float32)


class Dynamics(NamedTuple):
    """What a prior tells a generator, in physical units.

    Attributes:
      rate: mean rate of a state (grid, field), for float32 states.
      roll_out: mean rollouts (n, time, grid, field) from initial states (n, grid, field).
    """

    rate: Callable[[Any], Any]
    roll_out: Callable[[np.ndarray], np.ndarray]


def dynamics_of(prior: Prior, times: Times) -> Dynamics:
    """Rate and rollouts of the posterior-mean energy."""
    narrow = partial(jax.tree.map, lambda leaf: leaf.astype(jnp.float32))
    mean, parameters = narrow(prior.posterior.mean), narrow(prior.posterior.parameters)
    rate = learned_rate(prior.basis, prior.structure.flow, mean, parameters)
    return Dynamics(rate, lambda initial: np.asarray(mean_rollouts(prior, initial, times).trajectory))


@dataclass(frozen=True)
class Generator:
    """A trained conditional generator; arrays in `arrays`, the rest static."""

    method: Method
    prior: Prior | None
    dynamics: Dynamics | None
    times: Times
    propagator: Propagator
    denoiser: Network
    schedule: schedules.Schedule
    sampler_steps: int
    arrays: dict[str, Any]
    seconds: dict[str, float]


def physics_terms(
    dynamics: Dynamics | None, structure: Structure, normaliser: Normaliser, physics: dict
) -> PhysicsTerms:
    """Residual and boundary terms in normalised float32 units; without dynamics there is no residual."""
    scale = normaliser.scale
    rate = None
    if dynamics is not None and physics["residual_weight"] > 0:
        learned = dynamics.rate

        def rate(state: Any) -> Any:
            return learned(state * scale) / scale

    return PhysicsTerms(
        rate=rate,
        boundary=lambda state: structure.boundary(state),
        residual_weight=physics["residual_weight"],
        boundary_weight=physics["boundary_weight"],
    )


def make_generator(
    method: Method,
    prior: Prior | None,
    structure: Structure,
    times: Times,
    network: dict,
    sampling: dict,
    dynamics: Dynamics | None = None,
) -> Generator:
    """The untrained generator: static parts only; dynamics are the prior's where None."""
    if dynamics is None and prior is not None:
        dynamics = dynamics_of(prior, times)
    schedule = schedules.CosineSchedule(-8.0, 8.0)
    denoiser = precondition(make_unet(**network["unet"]), schedule, "v")
    propagator = Propagator(structure.parity, **network["propagator"])
    return Generator(method, prior, dynamics, times, propagator, denoiser, schedule, sampling["num_steps"], {}, {})


def with_arrays(generator: Generator, **arrays: Any) -> Generator:
    """The generator with more arrays."""
    return replace(generator, arrays={**generator.arrays, **arrays})


def train_generator(
    generator: Generator,
    structure: Structure,
    synthetic: Example,
    observed: Example | None,
    normaliser: Normaliser,
    *,
    training: dict,
    physics: dict,
    key: Any,
    digest: str,
    workdir: Path,
) -> Generator:
    """Train the conditional mean (unless it is a rollout), then the diffusion model of what is left.

    Args:
      generator: from `make_generator`.
      structure: operators.
      synthetic: training trajectories, normalised, leaves with a leading axis; the first frame of `mean` is what the
        generator is told, the rest is used where the conditional mean is a rollout.
      observed: real trajectories mixed into every batch, or None.
      normaliser: field scales.
      training: numbers of the training group.
      physics: weights of the physics terms.
      key: root key of the method and seed.
      digest: of the configuration, guards the checkpoints.
      workdir: folder of this training.
    Returns:
      the generator with its arrays.
    """
    method = generator.method
    terms = physics_terms(generator.dynamics if method.physics else None, structure, normaliser, physics)
    mean_key, residual_key, init_key = jax.random.split(key, 3)
    fraction = training["real_fraction"] if observed is not None else 0.0
    seconds: dict[str, float] = {}

    def run(loss: Any, params: Any, data: Any, stage: str, key: Any, batch: int, steps: int, rate: float) -> Any:
        optimizer = make_optimizer(
            rate, min(100, steps // 10), steps, final_fraction=0.01, matrix_steps=stage != "residual"
        )
        options = LoopOptions(
            batch_size=batch,
            num_steps=steps,
            config_digest=digest,
            ema_decay=training["ema_decay"],
            real_fraction=fraction,
            description=f"{method.name} {stage}",
        )
        state, report = train(loss, params, data, key, optimizer=optimizer, options=options, workdir=workdir / stage)
        seconds[stage] = report.seconds_per_step * steps
        return state.ema_params

    def dataset(main: Any, real: Any) -> Any:
        return MixedData(main, real) if fraction else main

    arrays: dict[str, Any] = {"normaliser": normaliser}
    if method.mean == "propagator":
        params = init_propagator(generator.propagator, jnp.asarray(synthetic.state[0, 0]), init_key)
        data = dataset(synthetic, observed)
        # noisy trajectories need longer windows than clean ones
        chosen = "observed_stages" if method.data == "observed" else "propagator_stages"
        for index, (window, steps, batch, rate) in enumerate(training[chosen]):
            loss = propagator_loss(generator.propagator, terms, generator.times, window)
            stage_key = jax.random.fold_in(mean_key, index)
            params = run(loss, params, data, f"mean_{window}", stage_key, batch, steps, rate)
        arrays["propagator"] = params
        means = partial(_propagated, generator)
        synthetic = synthetic._replace(mean=in_chunks(partial(means, params), 128, synthetic.mean[:, 0]))
        if observed is not None:
            observed = observed._replace(mean=in_chunks(partial(means, params), 128, observed.mean[:, 0]))
    error = np.asarray(synthetic.state - synthetic.mean)
    scale = np.sqrt(np.mean(error**2, axis=(0, 2)))[:, None, :]
    scale = np.maximum(scale, 1e-3 * scale.max()).astype(np.float32)
    arrays["scale"] = jnp.asarray(scale)
    condition = Condition(jnp.asarray(synthetic.mean[0, 0]), jnp.asarray(synthetic.mean[0]))
    params = generator.denoiser.init(init_key, jnp.asarray(synthetic.state[0]), condition)
    scaled_loss = residual_loss(generator.denoiser, generator.schedule, terms, generator.times)

    def with_scale(example: Example) -> tuple[Example, Any]:
        return example, jnp.broadcast_to(arrays["scale"], (example.state.shape[0], *scale.shape))

    data = dataset(with_scale(synthetic), None if observed is None else with_scale(observed))
    steps, batch, rate = training["residual_stage"]
    arrays["denoiser"] = run(scaled_loss, params, data, "residual", residual_key, batch, steps, rate)
    return replace(generator, arrays=arrays, seconds=seconds)


@partial(jax.jit, static_argnums=0)
def _propagate_batch(static: tuple[Propagator, int], params: Any, initial: Any) -> Any:
    config, frames = static
    return jax.vmap(lambda state: propagate(config, params, state, frames))(initial)


def _propagated(generator: Generator, params: Any, initial: Any) -> Any:
    return _propagate_batch((generator.propagator, len(generator.times)), params, jnp.asarray(initial))


def conditional_mean(generator: Generator, initial: np.ndarray) -> np.ndarray:
    """The generator's conditional mean from initial states, normalised units, (n, time, grid, field)."""
    scale = np.asarray(generator.arrays["normaliser"].scale)
    if generator.method.mean == "rollout":
        assert generator.dynamics is not None
        return (np.asarray(generator.dynamics.roll_out(initial)) / scale).astype(np.float32)
    normalised = (initial / scale).astype(np.float32)
    return in_chunks(partial(_propagated, generator, generator.arrays["propagator"]), 128, normalised)


def known_values(structure: Structure, times: Times) -> np.ndarray:
    """One where a forecast equals the conditional mean: the first frame, and fields held at the ends."""
    size = structure.grid.coordinates().shape[0]
    known = np.zeros((len(times), size, len(structure.parity)), np.float32)
    known[0] = 1.0
    known[:, [0, -1]] = np.asarray(structure.parity) < 0
    return known


def sample_forecasts(
    generator: Generator, known: np.ndarray, initial: np.ndarray, num_samples: int, key: Any, chunk: int = 32
) -> np.ndarray:
    """Draw trajectories from initial states.

    Args:
      generator: trained.
      known: one where a forecast equals the conditional mean, see `known_values`, (time, grid, field).
      initial: initial states in physical units, (n, grid, field).
      num_samples: trajectories per state.
      key: random key.
      chunk: states at a time.
    Returns:
      samples in physical units, (n, sample, time, grid, field), float32.
    """
    means = conditional_mean(generator, initial)
    scale = np.asarray(generator.arrays["normaliser"].scale)
    draw = _drawer(generator.denoiser, generator.schedule, generator.sampler_steps)
    keys = jax.random.split(key, (initial.shape[0], num_samples))
    arrays = (generator.arrays["denoiser"], generator.arrays["scale"], jnp.asarray(known))
    return in_chunks(partial(draw, *arrays), max(1, chunk // num_samples), means, keys) * scale.astype(np.float32)


@lru_cache
def _drawer(denoiser: Network, schedule: schedules.Schedule, num_steps: int) -> Callable:
    @jax.jit
    def draw(params: Any, scale: Any, known: Any, means: Any, keys: Any) -> Any:
        def one(mean: Any, key: Any) -> Any:
            return generate(denoiser, schedule, params, mean, scale, known, key, num_steps)

        return jax.vmap(jax.vmap(one, in_axes=(None, 0)))(means, keys)

    return draw
