"""PHDME on a driven system: rollouts under drawn inputs train a generator that is told the inputs.

The inputs ride along as fields that are known at every frame, so that the mean rollout, the residual and the denoiser
see the forces that act.
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phdme_jax.gp.basis import efforts
from phdme_jax.methods.base import fit_normaliser
from phdme_jax.methods.energy import generator as generators
from phdme_jax.methods.energy import prior as priors
from phdme_jax.methods.energy.losses import Example
from phdme_jax.methods.legacy import Method
from phdme_jax.systems.energy.base import Structure, with_inputs


def draw_starts(states: np.ndarray, count: int, scale: tuple[float, float], randomness: Any) -> np.ndarray:
    """Observed states (time, field), drawn and scaled, with a random sign, (n, field)."""
    chosen = states[randomness.integers(0, len(states), count)]
    return chosen * randomness.uniform(*scale, (count, 1)) * randomness.choice([-1.0, 1.0], (count, 1))


def draw_inputs(times: np.ndarray, count: int, size: float, frequency: tuple[float, float], randomness: Any) -> Any:
    """Inputs a sin(w t + phi), amplitudes between zero and `size`, (n, time, 1)."""
    amplitude, phase = randomness.uniform(0.0, size, (count, 1)), randomness.uniform(0.0, 2 * np.pi, (count, 1))
    rate = randomness.uniform(*frequency, (count, 1))
    return (amplitude * np.sin(rate * times + phase))[..., None]


def driven_dynamics(prior: priors.Prior) -> generators.Dynamics:
    """Rate of the mean energy under the inputs that ride along; rollouts need whole inputs, not an initial state."""
    extended, moving = with_inputs(prior.structure), len(prior.structure.fields)
    narrow = partial(jax.tree.map, lambda leaf: leaf.astype(jnp.float32))
    mean, parameters = narrow(prior.posterior.mean), narrow(prior.posterior.parameters)

    def rate(state: Any) -> Any:
        return extended.flow(jnp.concatenate([efforts(prior.basis, mean, state[:moving]), state[moving:]]), parameters)

    def refuse(_: np.ndarray) -> np.ndarray:
        raise ValueError("expected mean rollouts under given inputs; use sample_around with the means of drive")

    return generators.Dynamics(rate, refuse)


def drive(prior: priors.Prior, starts: np.ndarray, times: priors.Times, inputs: np.ndarray) -> np.ndarray:
    """Mean rollouts with their inputs as further fields, (n, time, field + port)."""
    return np.concatenate([priors.mean_rollouts(prior, starts, times, inputs).trajectory, inputs], axis=-1)


def train_driven(
    method: Method, prior: priors.Prior, states: np.ndarray, config: Any, randomness: Any, key: Any, digest: str,
    workdir: Path,
) -> tuple[generators.Generator, float]:  # fmt: skip
    """Roll sampled energies out under drawn inputs and train a generator around the mean rollout.

    Args:
      method: with the mean rollout as conditional mean.
      prior: the fitted energy.
      states: observed, where rollouts start, (time, field).
      config: with the groups generator, network, sampling, training and physics.
      randomness: numpy generator.
      key: random key.
      digest: of the configuration.
      workdir: of the training.
    Returns:
      the generator, and the share of rollouts that were dropped.
    """
    options = config.generator
    times = tuple(np.linspace(0.0, options.duration, options.num_frames).tolist())
    starts = draw_starts(states, options.rollouts, options.start_scale, randomness)
    inputs = draw_inputs(np.asarray(times), options.rollouts, options.input_size, options.frequency, randomness)
    roll_key, train_key = jax.random.split(key)
    moving, means, kept = priors.kept_rollouts(prior, starts, times, roll_key, inputs)
    told = inputs[kept].astype(np.float32)
    weights = priors.trajectory_weights(prior, moving, times)
    # the dynamics say nothing about how an input changes
    weights = np.concatenate([weights, np.zeros_like(told[:, 1:])], axis=-1)
    trajectories, mean = (np.concatenate([part, told], axis=-1) for part in (moving, means))
    normaliser = fit_normaliser(jnp.asarray(trajectories))
    scale = np.asarray(normaliser.scale)
    structure = with_inputs(prior.structure)
    generator = generators.make_generator(
        method, None, structure, times, config.network.to_dict(), config.sampling.to_dict(), driven_dynamics(prior)
    )
    arrays: Any = (trajectories / scale, weights, mean / scale)
    example = Example(*arrays)
    generator = generators.train_generator(
        generator, structure, example, None, normaliser, training=config.training.to_dict(),
        physics=config.physics.to_dict(), key=train_key, digest=digest, workdir=workdir,
        known=known_values(structure, times, len(prior.structure.fields)),
    )  # fmt: skip
    return generator, float(1 - kept.mean())


def sample_driven(
    generator: generators.Generator, prior: priors.Prior, starts: np.ndarray, inputs: np.ndarray, count: int, key: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts from initial states under given inputs.

    Args:
      generator: trained.
      prior: the fitted energy.
      starts: initial states, (n, field).
      inputs: at the generator's times, (n, time, port).
      count: samples a start.
      key: random key.
    Returns:
      the mean rollouts that samples are drawn around, (n, time, field), and samples, (n, sample, time, field).
    """
    moving = len(prior.structure.fields)
    means = drive(prior, starts, generator.times, inputs)
    known = known_values(with_inputs(prior.structure), generator.times, moving)
    samples = generators.sample_around(generator, known, means, count, key)
    return means[..., :moving], samples[..., :moving]


def known_values(structure: Structure, times: priors.Times, moving: int) -> np.ndarray:
    """One where a forecast equals the mean rollout: the first frame, and the inputs, (time, field + port)."""
    known = generators.known_values(structure, times)
    known[:, moving:] = 1.0
    return known
