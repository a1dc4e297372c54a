"""PHDME on the spring: rollouts of drawn energies from drawn start states train a conditional generator.

The rest strain differs between recordings; it rides along as a third field that never changes, so that one network
serves every recording. Start states carry the error with which they are measured: the generator is told the measured
start, its trajectories begin at possible true ones. Frames are evenly spaced; forecasts at the images' times are
interpolated by cubic splines.
"""

import dataclasses
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.interpolate import CubicSpline

from experiments.spring.prior import SpringPrior, spring_structure
from experiments.spring.recording import SpringRecording, local_polynomial, sine_modes, sine_slopes
from experiments.spring.windows import start_states
from phdme_jax.files import config_digest
from phdme_jax.gp.basis import Basis, Energy, efforts
from phdme_jax.gp.fit import EnergyPosterior
from phdme_jax.gp.sampling import Rollout, roll_out
from phdme_jax.methods.base import fit_normaliser
from phdme_jax.methods.energy import generator as generators
from phdme_jax.methods.energy import prior as priors
from phdme_jax.methods.energy.losses import Example
from phdme_jax.methods.energy.physics import residual_variance
from phdme_jax.methods.legacy import METHODS, make_method
from phdme_jax.systems.energy.base import Structure

if TYPE_CHECKING:
    from experiments.spring.__main__ import SeedRun

REST = 2  # index of the field that never changes


class Starts(NamedTuple):
    """Start states with the rest strain as third field, shape (n, grid, field).

    Attributes:
      measured: what the generator is told.
      true: where the trajectory begins.
    """

    measured: np.ndarray
    true: np.ndarray


@dataclasses.dataclass(frozen=True)
class SpringGenerator:
    """A trained generator and the share of its training rollouts that was dropped."""

    generator: generators.Generator
    rejected: float


@lru_cache
def generator_structure(num_points: int) -> Structure:
    """The spring's structure with the rest strain as a third field of rate zero."""
    spring = spring_structure(num_points)

    def pad(rate: Any) -> Any:
        return jnp.concatenate([rate, jnp.zeros_like(rate[..., :1])], axis=-1)

    return dataclasses.replace(
        spring,
        fields=(*spring.fields, "rest_strain"),
        units=(*spring.units, spring.units[1]),
        parity=(*spring.parity, (1,)),
        flow=lambda efforts, parameters: pad(spring.flow(efforts[..., :REST], parameters)),
        constrain=lambda state: state.at[..., :REST].set(spring.constrain(state[..., :REST])),
        boundary=lambda state: spring.boundary(state[..., :REST]),
    )


def with_rest(states: np.ndarray, rest_strain: np.ndarray) -> np.ndarray:
    """States (..., grid, 2) with the rest strain as third field."""
    rest = np.broadcast_to(rest_strain[..., None], (*states.shape[:-1], 1))
    return np.concatenate([states, rest], axis=-1)


def draw_starts(
    recording: SpringRecording, errors: np.ndarray, count: int, generator: np.random.Generator,
    scale: tuple[float, float], rest: tuple[float, float],
) -> Starts:  # fmt: skip
    """Start states like those of the training recording, and what measuring them would give.

    Every mode takes amplitude and rate from an image of its own, with a random sign and scale; the rest strain is the
    recording's, scaled, with a random sign.

    Args:
      recording: the training recording.
      errors: errors of measured start states to draw from, (n, grid, 2).
      count: number of starts.
      generator: random numbers.
      scale: range of the scale of each mode.
      rest: range of the scale of the rest strain.
    Returns:
      the starts.
    """
    amplitude = recording.amplitude[:, : recording.modes]
    value, slope = local_polynomial(recording.time, amplitude, recording.time, recording.smoothing_half_width)
    shape = (count, recording.modes)
    image = generator.integers(0, len(value), shape)
    factor = generator.uniform(*scale, shape) * generator.choice([-1.0, 1.0], shape)
    modes = np.arange(recording.modes)
    momentum = (factor * slope[image, modes]) @ sine_modes(recording.grid, recording.modes).T
    strain = (factor * value[image, modes]) @ sine_slopes(recording.grid, recording.modes).T
    states = np.stack([momentum, strain], axis=-1)
    sagging = generator.uniform(*rest, (count, 1)) * generator.choice([-1.0, 1.0], (count, 1)) * recording.rest_strain
    error = errors[generator.integers(0, len(errors), count)]
    return Starts(with_rest(states, sagging), with_rest(states - error, sagging))


@partial(jax.jit, static_argnums=(0, 5))
def _roll(basis: Basis, mean: Energy, candidates: Any, states: Any, times: Any, substeps: int) -> Rollout:
    structure = spring_structure(states.shape[-2])
    weights = jnp.asarray(structure.weights(), states.dtype)

    def one(candidate: Any, state: Any) -> Rollout:
        energy = Energy(_box(mean, state), candidate.stiffness, candidate.weights)
        moving = state[:, :REST]
        return roll_out(basis, structure.flow, weights, energy, candidate.parameters, moving, times, substeps)

    return jax.vmap(one)(candidates, states)


def _box(mean: Energy, state: Any) -> Any:
    """The box with the rest strain of a state as preload."""
    rest = state[:, REST:]
    return mean.box._replace(preload=jnp.concatenate([jnp.zeros_like(rest), rest], axis=-1))


def rollouts(
    basis: Basis, prior: SpringPrior, starts: np.ndarray, times: priors.Times, substeps: int, drawn: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Rollouts of drawn energies, one a start, or of the best one.

    Args:
      basis: sizes and shapes of the basis.
      prior: what was learned.
      starts: with the rest strain, (n, grid, 3).
      times: even times of the frames.
      substeps: steps between frames.
      drawn: whether each start has a draw of the energy, or all the best one.
    Returns:
      trajectories with the rest strain (n, time, grid, 3), and whether each is to be kept.
    """
    index = np.arange(len(starts)) % len(prior.draws.stiffness)

    def roll(states: np.ndarray, which: np.ndarray) -> Rollout:
        pick = partial(jax.tree.map, lambda leaf: leaf[which])
        best = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(which), *leaf.shape)), prior.best)
        candidates = pick(prior.draws) if drawn else best
        return _roll(basis, prior.posterior.mean, candidates, jnp.asarray(states), jnp.asarray(times), substeps)

    rolled = priors.in_chunks(roll, priors.CHUNK, np.asarray(starts, np.float64), index)
    return with_rest(rolled.trajectory, np.asarray(starts)[:, None, :, REST]), rolled.ok


def spring_dynamics(basis: Basis, prior: SpringPrior, times: priors.Times, substeps: int) -> generators.Dynamics:
    """Rate and rollouts of the best energy, the rest strain taken from the state."""
    narrow = partial(jax.tree.map, lambda leaf: leaf.astype(jnp.float32))
    mean, parameters = narrow(prior.posterior.mean), narrow(prior.posterior.parameters)

    def rate(state: Any) -> Any:
        energy = mean._replace(box=_box(mean, state))
        return generator_structure(len(state)).flow(efforts(basis, energy, state[:, :REST]), parameters)

    return generators.Dynamics(rate, lambda initial: rollouts(basis, prior, initial, times, substeps, drawn=False)[0])


@lru_cache
def _spread(basis: Basis, num_points: int, times: priors.Times) -> Callable[..., Any]:
    flow = spring_structure(num_points).flow

    @jax.jit
    def variance(posterior: EnergyPosterior, trajectories: Any) -> Any:
        def one(trajectory: Any) -> Any:
            mean = posterior.mean._replace(box=_box(posterior.mean, trajectory[0]))
            return residual_variance(basis, flow, posterior._replace(mean=mean), trajectory[..., :REST], times)

        return jax.lax.map(one, trajectories)

    return variance


def residual_weights(basis: Basis, prior: SpringPrior, states: np.ndarray, times: priors.Times) -> np.ndarray:
    """Weights of the squared residual on trajectories (n, time, grid, 3), one for the field that never changes."""
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), prior.posterior._replace(ok=jnp.zeros(())))
    spread = priors.in_chunks(partial(_spread(basis, states.shape[2], times), narrow), 16, states)
    moving = priors.residual_weight(spread, states[..., :REST], times)
    return np.concatenate([moving, np.ones_like(moving[..., :1])], axis=-1)


def known_values(structure: Structure, times: priors.Times) -> np.ndarray:
    """One where a forecast equals the conditional mean: the fields held at the ends, and the rest strain.

    The first frame is not known: the start is measured with an error.
    """
    known = generators.known_values(structure, times)
    known[0] = known[1]
    known[..., REST] = 1.0
    return known


def train_spring_generator(run: "SeedRun", name: str) -> SpringGenerator:
    """Roll drawn energies out and train a method of `phdme_jax.methods` on them.

    Args:
      run: the seed's recordings, prior and configuration.
      name: of the method.
    Returns:
      the trained generator.
    """
    config, method = run.config, make_method(name)
    basis, prior = run.prior(True)
    options = config.generator
    spans = [part.times[:, -1] - part.times[:, 0] for part in run.windows.values()]
    times = tuple(np.linspace(0.0, float(np.max(np.concatenate(spans))), options.num_frames).tolist())
    windows = run.windows["calibration"]
    measured = start_states(run.train, windows, run.train.amplitude_noise, 50, jax.random.fold_in(run.key, 50))
    errors = (measured[:, 1:] - measured[:, :1]).reshape(-1, *measured.shape[2:])
    randomness = np.random.default_rng([run.seed, 1])
    starts = draw_starts(run.train, errors, options.rollouts, randomness, options.start_scale, options.rest_scale)
    trajectories, fine = rollouts(basis, prior, starts.true, times, options.substeps, drawn=True)
    means, fine_means = rollouts(basis, prior, starts.measured, times, options.substeps, drawn=False)
    kept = fine & fine_means
    states, means = trajectories[kept].astype(np.float32), means[kept].astype(np.float32)
    normaliser = fit_normaliser(jnp.asarray(states))
    structure = generator_structure(states.shape[2])
    weights = residual_weights(basis, prior, states, times)
    scale = np.asarray(normaliser.scale)
    generator = generators.make_generator(
        method, None, structure, times, config.network.to_dict(), config.sampling.to_dict(),
        spring_dynamics(basis, prior, times, options.substeps),
    )  # fmt: skip
    generator = generators.train_generator(
        generator, structure, Example(states / scale, weights, means / scale), None, normaliser,  # type: ignore[arg-type]
        training=config.training.to_dict(),
        physics=config.physics.to_dict(),
        key=jax.random.fold_in(run.key, 200 + sorted(METHODS).index(name)),
        digest=config_digest(config.to_dict()),
        workdir=run.context.workdir / "training" / f"{name}_{run.seed}",
        known=known_values(structure, times),
    )  # fmt: skip
    return SpringGenerator(generator, float(1 - kept.mean()))


def sample_images(
    generator: generators.Generator, starts: np.ndarray, since: np.ndarray, count: int, key: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts at the images' times.

    Args:
      generator: trained.
      starts: measured start states with the rest strain, (window, grid, 3).
      since: times since the start, (window, image) [s].
      count: samples a window.
      key: random key.
    Returns:
      momentum and strain: the conditional mean that samples are drawn around, (window, image, grid, 2), and samples,
      (window, sample, image, grid, 2).
    """
    known = known_values(generator_structure(starts.shape[1]), generator.times)
    drawn = generators.sample_forecasts(generator, known, starts, count, key)
    mean = generators.conditional_mean(generator, starts) * np.asarray(generator.arrays["normaliser"].scale)
    together = np.concatenate([mean[:, None], drawn], axis=1)[..., :REST]
    images = np.stack(
        [CubicSpline(generator.times, one, axis=1)(times) for one, times in zip(together, since, strict=True)]
    )
    return images[:, 0], images[:, 1:]
