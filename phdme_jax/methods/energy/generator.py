"""Conditional generators: assembled, trained on rollouts or observations, sampled; shared by every study.

What takes long is kept in the run folder and goes on where it was killed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from phdme_jax.diffusion import schedule as schedules
from phdme_jax.diffusion.networks import Condition, Network
from phdme_jax.diffusion.preconditioning import precondition
from phdme_jax.diffusion.propagator import Propagator, init_propagator, propagate
from phdme_jax.diffusion.unet import make_unet
from phdme_jax.methods.base import Normaliser
from phdme_jax.methods.energy.losses import TARGETS, Example, PhysicsTerms, generate, mean_loss, residual_loss
from phdme_jax.methods.energy.physics import learned_rate
from phdme_jax.methods.energy.prior import Prior, Times, mean_rollouts
from phdme_jax.methods.energy.spread import init_spread, predicted_scale, spread_loss
from phdme_jax.methods.legacy import Method
from phdme_jax.numerics.batching import in_chunks
from phdme_jax.systems.energy.base import Structure
from phdme_jax.training.loop import LoopOptions
from phdme_jax.training.stages import StageTrainer


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
    """A trained conditional generator; arrays in `arrays`, the rest static but for training examples to measure on."""

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
    measured_on: Example | None = None


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
        target=physics["residual_target"],
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
    denoiser = precondition(make_unet(**network["unet"]), schedule, network["prediction"])
    changes = network.get("observed_propagator", {}) if method.data == "observed" else {}
    propagator = Propagator(structure.parity, **{**network["propagator"], **changes})
    return Generator(method, prior, dynamics, times, propagator, denoiser, schedule, sampling["num_steps"], {}, {})


def check_options(network: dict, training: dict, physics: dict) -> None:
    """Refuse sizes of networks and numbers of the training that cannot be, before anything is written.

    Raises:
      ValueError: what is wrong.
    """
    precondition(make_unet(**network["unet"]), schedules.CosineSchedule(-8.0, 8.0), network["prediction"])
    LoopOptions(1, 1, "", ema_decay=training["ema_decay"], real_fraction=training["real_fraction"])
    target = physics["residual_target"]
    if target not in TARGETS:
        raise ValueError(f"expected physics.residual_target among {TARGETS}, got {target!r}")
    if target == "trajectory" and training["real_fraction"] > 0:
        raise ValueError(
            "physics.residual_target=trajectory makes the noise of observed trajectories a target; "
            "try physics.residual_target=zero, or training.real_fraction=0"
        )


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
    known: np.ndarray | None = None,
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
      known: one where samples equal the conditional mean; `known_values` where None.
    Returns:
      the generator with its arrays.
    """
    method = generator.method
    if method.data == "observed":
        # what is observed is noisy, and follows the energy itself and not one drawn from the posterior
        physics = {**physics, "residual_target": "zero"}
    terms = physics_terms(generator.dynamics if method.physics else None, structure, normaliser, physics)
    mean_key, residual_key, init_key = jax.random.split(key, 3)
    fraction = training["real_fraction"] if observed is not None else 0.0
    trainer = StageTrainer(method.name, fraction, training["ema_decay"], digest, workdir)
    generator = with_arrays(generator, normaliser=normaliser)
    if method.mean == "propagator":
        # noisy trajectories need longer windows than clean ones
        stages = training["observed_stages" if method.data == "observed" else "propagator_stages"]
        params = init_propagator(generator.propagator, jnp.asarray(synthetic.state[0, 0]), init_key)
        for index, (window, *numbers) in enumerate(stages):
            step = partial(propagate, generator.propagator)
            loss = mean_loss(step, terms, generator.times, window, training["start_noise"])
            stage_key = jax.random.fold_in(mean_key, index)
            params = trainer.run(f"mean_{window}", loss, params, (synthetic, observed), stage_key, *numbers)
        generator = with_arrays(generator, propagator=params)
        synthetic = _with_means(generator, synthetic)
        observed = None if observed is None else _with_means(generator, observed)
    scale = _residual_scale(synthetic)
    generator = with_arrays(generator, scale=jnp.asarray(scale))
    condition = Condition(jnp.asarray(synthetic.mean[0, 0]), jnp.asarray(synthetic.mean[0]))
    params = generator.denoiser.init(init_key, jnp.asarray(synthetic.state[0]), condition)
    if training.get("spread_stage"):
        spread = init_spread(jnp.asarray(synthetic.mean[0]), jax.random.fold_in(init_key, 1))
        loss, spread_key = spread_loss(jnp.asarray(scale)), jax.random.fold_in(residual_key, 1)
        spread = trainer.run("spread", loss, spread, (synthetic, observed), spread_key, *training["spread_stage"])
        generator = with_arrays(generator, spread=spread)
    scaled = tuple(None if part is None else (part, _scales(generator, part.mean)) for part in (synthetic, observed))
    denoising = residual_loss(generator.denoiser, generator.schedule, terms, generator.times)
    params = trainer.run("residual", denoising, params, scaled, residual_key, *training["residual_stage"])
    generator = replace(with_arrays(generator, denoiser=params), seconds=trainer.seconds)
    if training["amplitude_draws"]:
        some = jax.tree.map(lambda leaf: np.asarray(leaf[: training["amplitude_draws"]]), synthetic)
        known = known_values(structure, generator.times) if known is None else known
        generator = replace(generator, measured_on=some)
        generator = with_sampler_steps(generator, generator.sampler_steps, known, training["amplitude_draws"])
    return generator


def with_sampler_steps(generator: Generator, steps: int, known: np.ndarray, draws: int) -> Generator:
    """The generator with another number of calls of its network, the amplitude of its samples measured anew."""
    generator, example = replace(generator, sampler_steps=steps), generator.measured_on
    if example is None:
        return generator
    generator = with_arrays(generator, amplitude=1.0)
    amplitude = measured_amplitude(generator, known, example, draws, jax.random.key(draws))
    return with_arrays(generator, amplitude=amplitude)


def _with_means(generator: Generator, example: Example) -> Example:
    """The example with the propagator's mean from what the generator is told."""
    means = partial(_propagated, generator, generator.arrays["propagator"])
    return example._replace(mean=in_chunks(means, 128, example.mean[:, 0]))


def _residual_scale(example: Example) -> np.ndarray:
    """Root mean square of what the mean leaves, per frame and field, (time, *ones, field), float32."""
    error = np.asarray(example.state - example.mean)
    others = (0, *range(2, error.ndim - 1))
    scale = np.sqrt(np.mean(error**2, axis=others, keepdims=True))[0]
    return np.maximum(scale, 1e-3 * scale.max()).astype(np.float32)


@jax.jit
def _predict_scales(params: Any, base: Any, means: Any) -> Any:
    return jax.vmap(partial(predicted_scale, params, base))(means)


def _scales(generator: Generator, means: Any) -> Any:
    """Scale of what each mean leaves, (n, time, *ones, field): predicted, or the same for all."""
    base = generator.arrays["scale"]
    if "spread" not in generator.arrays:
        return jnp.broadcast_to(base, (len(means), *base.shape))
    return in_chunks(partial(_predict_scales, generator.arrays["spread"], base), 128, np.asarray(means))


# how far an amplitude may be from one
_LARGEST = 3.0


def measured_amplitude(generator: Generator, known: np.ndarray, example: Example, draws: int, key: Any) -> jax.Array:
    """Size of what the mean leaves of training trajectories over that of samples, per frame and field.

    A denoiser answers with the mean where it cannot tell, so that one of finite accuracy draws samples too alike:
    their deviations are multiplied by this. It belongs to the number of calls of the network.

    Args:
      generator: trained but for this.
      known: see `known_values`.
      example: training trajectories, of which the first are used.
      draws: samples that are drawn, at least.
      key: random key.
    Returns:
      amplitude, (time, *ones, field), between a third and three, one where nothing is left.
    """
    count = min(draws, len(example.mean))
    means, states = np.asarray(example.mean[:count]), np.asarray(example.state[:count])
    drawn = _sample(generator, known, means, -(-draws // count), key)
    scales = np.asarray(_scales(generator, means))
    left, found = (1 - known) * (states - means) / scales, (drawn - means[:, None]) / scales[:, None]
    sizes = [
        np.sqrt(np.mean(part**2, axis=(*range(axis), *range(axis + 1, part.ndim - 1))))
        for part, axis in ((left, 1), (found, 2))
    ]
    ratio = np.where(sizes[0] > 0, sizes[0] / np.maximum(sizes[1], 1e-6), 1.0)
    if np.any((ratio > _LARGEST) | (ratio < 1 / _LARGEST)):
        worst = float(np.exp(np.abs(np.log(ratio)).max()))
        print(
            f"{generator.method.name}: samples are up to {worst:.3g} times too alike or too different; "
            f"{_LARGEST:g} times is corrected. Train the denoiser for longer.",
            flush=True,
        )
    ratio = np.clip(ratio, 1 / _LARGEST, _LARGEST)
    return jnp.asarray(np.reshape(ratio, scales.shape[1:]), jnp.float32)


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
    """One where a forecast equals the conditional mean: the first frame, and fields held at the ends of the grid."""
    known = np.zeros((len(times), *structure.grid.points, len(structure.fields)), np.float32)
    known[0] = 1.0
    for field, parities in enumerate(structure.parity):
        for axis, parity in enumerate(parities):
            if parity < 0:
                np.moveaxis(known[..., field], 1 + axis, 0)[[0, -1]] = 1.0
    return known


def sample_forecasts(
    generator: Generator, known: np.ndarray, initial: np.ndarray, num_samples: int, key: Any, chunk: int = 32
) -> np.ndarray:
    """Draw trajectories from initial states.

    Args:
      generator: trained.
      known: one where a forecast equals the conditional mean, see `known_values`, (time, *grid, field).
      initial: initial states in physical units, (n, *grid, field).
      num_samples: trajectories per state.
      key: random key.
      chunk: trajectories at a time.
    Returns:
      samples in physical units, (n, sample, time, *grid, field), float32.
    """
    scale = np.asarray(generator.arrays["normaliser"].scale, np.float32)
    return _sample(generator, known, conditional_mean(generator, initial), num_samples, key, chunk) * scale


def sample_around(generator: Generator, known: np.ndarray, means: np.ndarray, num_samples: int, key: Any) -> np.ndarray:
    """Draw trajectories around conditional means that are given, physical units, (n, time, *grid, field)."""
    scale = np.asarray(generator.arrays["normaliser"].scale, np.float32)
    return _sample(generator, known, np.asarray(means, np.float32) / scale, num_samples, key) * scale


def _sample(
    generator: Generator, known: np.ndarray, means: np.ndarray, num_samples: int, key: Any, chunk: int = 32
) -> np.ndarray:
    draw = _drawer(generator.denoiser, generator.schedule, generator.sampler_steps)
    keys = jax.random.split(key, (len(means), num_samples))
    arrays = (generator.arrays["denoiser"], jnp.asarray(known))
    scales = np.asarray(_scales(generator, means) * generator.arrays.get("amplitude", 1.0))
    return in_chunks(partial(draw, *arrays), max(1, chunk // num_samples), scales, means, keys)


@lru_cache
def _drawer(denoiser: Network, schedule: schedules.Schedule, num_steps: int) -> Callable:
    @jax.jit
    def draw(params: Any, known: Any, scales: Any, means: Any, keys: Any) -> Any:
        def one(scale: Any, mean: Any, key: Any) -> Any:
            return generate(denoiser, schedule, params, mean, scale, known, key, num_steps)

        return jax.vmap(jax.vmap(one, in_axes=(None, None, 0)))(scales, means, keys)

    return draw
