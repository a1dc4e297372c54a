"""Training of a conditional generator: the mean, how much it leaves, the diffusion model of what is left, its size."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from phdme_jax.diffusion.networks import Condition
from phdme_jax.diffusion.propagator import Propagator, init_propagator, propagate
from phdme_jax.files import RunFailed
from phdme_jax.methods.base import Fitted, Host, Normaliser
from phdme_jax.methods.draws import samples
from phdme_jax.methods.energy.conditional import Design, GeneratorParams, make_model, physics_terms, scale_of
from phdme_jax.methods.energy.losses import Around, Example, PhysicsTerms, mean_loss, residual_loss
from phdme_jax.methods.energy.options import SCHEDULE, GeneratorOptions, TrainingOptions
from phdme_jax.methods.energy.spread import init_spread, spread_loss
from phdme_jax.numerics.batching import batched, in_chunks

# root mean square of what the mean misses over that of the trajectories, from which on it is no forecast
_USELESS = 1.0

# how far the size of deviations is corrected
LARGEST_AMPLITUDE = 3.0


class Material(NamedTuple):
    """What a generator is trained on, normalised, leaves with a leading axis.

    Attributes:
      examples: training trajectories.
      real: observed trajectories mixed into every batch, or None.
    """

    examples: Example
    real: Example | None

    def each(self, function: Callable[[Example], Any]) -> tuple[Any, Any]:
        """A function of both."""
        return function(self.examples), None if self.real is None else function(self.real)


class Lesson(NamedTuple):
    """What is the same in all stages of one training.

    Attributes:
      design: of the generator.
      options: groups of options.
      observed: whether it is trained on observed trajectories alone.
      normaliser: units of the fields.
      energy: parameters of the teacher's dynamics, or None.
      residual: whether the residual of the dynamics enters the loss.
    """

    design: Design
    options: GeneratorOptions
    observed: bool
    normaliser: Normaliser
    energy: PyTree
    residual: bool


class Stages:
    """Runs stages on a host and adds up their seconds."""

    def __init__(self, host: Host, options: TrainingOptions) -> None:
        self.host, self.options, self.seconds = host, options, dict[str, float]()

    def run(
        self,
        stage: str,
        loss: Any,
        params: PyTree,
        data: tuple[PyTree, PyTree],
        key: Array,
        numbers: Any,
        matrix_steps: bool = False,
    ) -> PyTree:
        """Averaged parameters after a stage of `numbers` (steps, batch, rate) on training and real examples."""
        (examples, real), (steps, batch, rate) = data, numbers
        trained, self.seconds[stage] = self.host.train(
            stage,
            loss,
            params,
            examples,
            key,
            steps=steps,
            batch=batch,
            rate=rate,
            ema_decay=self.options.ema_decay,
            matrix_steps=matrix_steps,
            real=real,
            real_fraction=0.0 if real is None else self.options.real_fraction,
        )
        return trained


def train_generator(
    lesson: Lesson, material: Material, host: Host, key: Key[Array, ""]
) -> tuple[GeneratorParams, Example, dict[str, float]]:
    """Train the conditional mean (unless it is a rollout), then the diffusion model of what is left.

    Args:
      lesson: what is trained.
      material: what on.
      host: trains.
      key: root key of the method.
    Returns:
      the parameters, the training trajectories with their conditional means, and seconds by stage.
    """
    design, training = lesson.design, lesson.options.training
    mean_key, residual_key, init_key = jax.random.split(key, 3)
    stages = Stages(host, training)
    taught = design if lesson.residual else replace(design, dynamics=None)
    terms = physics_terms(taught, lesson.options.physics, lesson.normaliser, lesson.energy, lesson.observed)
    params = GeneratorParams(lesson.normaliser, energy=lesson.energy)
    if design.propagator is not None:
        step = _train_step(lesson, terms, material, stages, (init_key, mean_key))
        material = Material(*material.each(partial(_with_means, design.propagator, step)))
        params = params._replace(propagator=step, energy=None)
    first, scale = material.examples, _residual_scale(material.examples)
    params = params._replace(scale=scale, amplitude=jnp.ones_like(scale))
    if training.spread_stage:
        spread = init_spread(first.mean[0], jax.random.fold_in(init_key, 1))
        spread_key = jax.random.fold_in(residual_key, 1)
        spread = stages.run("spread", spread_loss(scale), spread, material, spread_key, training.spread_stage)
        params = params._replace(spread=spread)
    condition = Condition(first.mean[0, 0], first.mean[0])
    denoiser = design.denoiser.init(init_key, first.state[0], condition)
    scaled = material.each(lambda example: (example, _scales(params, example.mean)))
    loss = residual_loss(design.denoiser, SCHEDULE, terms, design.times)
    denoiser = stages.run("residual", loss, denoiser, scaled, residual_key, training.residual_stage)
    return params._replace(denoiser=denoiser), first, stages.seconds


def _train_step(
    lesson: Lesson, terms: PhysicsTerms, material: Material, stages: Stages, keys: tuple[Array, Array]
) -> PyTree:
    """Parameters of the learned step, from windows that grow."""
    design, training, (init_key, mean_key) = lesson.design, lesson.options.training, keys
    assert design.propagator is not None
    step = init_propagator(design.propagator, material.examples.state[0, 0], init_key)
    windows = training.mean_stages(lesson.observed, len(design.times))
    for index, (window, numbers) in enumerate(windows.items()):
        loss = mean_loss(partial(propagate, design.propagator), terms, design.times, window, training.start_noise)
        stage_key = jax.random.fold_in(mean_key, index)
        # matrices of the small dense step take orthogonalised steps
        step = stages.run(f"mean_{window}", loss, step, material, stage_key, numbers, matrix_steps=True)
    return step


def _with_means(propagator: Propagator, params: PyTree, example: Example) -> Example:
    """The example with the propagator's mean from what the generator is told."""
    frames = example.mean.shape[1]
    repeat = batched(_propagate, propagator, frames)
    starts = np.asarray(example.mean[:, 0])
    return example._replace(mean=jnp.asarray(in_chunks(partial(repeat, params), 128, starts, fixed=True)))


def _propagate(propagator: Propagator, num_frames: int, params: PyTree, state: Array) -> Array:
    return propagate(propagator, params, state, num_frames)


def _residual_scale(example: Example) -> Float[Array, "..."]:
    """Root mean square of what the mean leaves, per frame and field, (time, *ones, field).

    Raises:
      RunFailed: it is not finite.
    """
    error = np.asarray(example.state - example.mean)
    others = (0, *range(2, error.ndim - 1))
    with np.errstate(over="ignore", invalid="ignore"):
        scale = np.sqrt(np.mean(error**2, axis=others, keepdims=True))[0]
    if not np.isfinite(scale).all():
        raise RunFailed(
            f"the learned time step grows without bound over {error.shape[1]} frames; train for longer, give shorter "
            "trajectories, or take a method that is centred on the rollout of the learned energy"
        )
    return jnp.asarray(np.maximum(scale, 1e-3 * scale.max()), error.dtype)


def mean_notes(example: Example) -> tuple[str, ...]:
    """A sentence where the mean misses the training trajectories by as much as they move, or more."""
    error, state = (np.asarray(values, np.float64) for values in (example.state - example.mean, example.state))
    share = float(np.sqrt(np.mean(error**2) / np.mean(state**2)))
    if share < _USELESS:
        return ()
    return (
        f"the mean misses the training trajectories by {share:.2g} times their own size, so that forecasts are of no "
        "use; train for longer, give shorter trajectories, or take a method that is centred on the rollout of the "
        "learned energy",
    )


def _scales(params: GeneratorParams, means: Array) -> Array:
    """Scale of what each mean leaves, (n, time, *ones, field)."""
    return jnp.asarray(in_chunks(partial(batched(scale_of), params), 128, np.asarray(means), fixed=True))


def with_amplitude(
    design: Design, params: GeneratorParams, example: Example, draws: int
) -> tuple[GeneratorParams, tuple[str, ...]]:
    """The parameters with the size of deviations corrected.

    A denoiser answers with the mean where it cannot tell, so that one of finite accuracy draws samples too alike:
    their deviations are multiplied by the size of what the mean leaves of training trajectories over that of samples,
    per frame and field, between a third and three, and one where nothing is left. It belongs to the number of calls of
    the network.

    Args:
      design: of the generator.
      params: trained but for this.
      example: training trajectories with their means, of which the first are used.
      draws: samples that are drawn, at least; 0 leaves the parameters as they are.
    Returns:
      the parameters, and a sentence where more correction was asked for.
    """
    if not draws:
        return params, ()
    params = params._replace(amplitude=jnp.ones_like(params.scale))
    count, moving = min(draws, len(example.mean)), design.fields.moving
    means, states = example.mean[:count], example.state[:count]
    scales, units = _scales(params, means), jax.tree.map(lambda leaf: leaf[:moving], params.normaliser)
    drawer, each = Fitted(make_model(design), params, {}), -(-draws // count)
    drawn = jnp.asarray(samples(drawer, Around(means, scales), each, jax.random.key(draws)))
    known = design.fields.known(len(design.times), design.exact_start)
    left = (jnp.asarray(1 - known) * (states - means) / scales)[..., :moving]
    found = (units.normalised(drawn) - means[:, None, ..., :moving]) / scales[:, None, ..., :moving]
    sizes = [np.asarray(_frame_sizes(part, axis)) for part, axis in ((left, 1), (found, 2))]
    ratio = size_ratio(*sizes)
    worst = float(np.exp(np.abs(np.log(ratio)).max()))
    amplitude = np.ones(params.scale.shape, units.scale.dtype)
    limited = limited_amplitude(ratio)
    amplitude[..., :moving] = limited.reshape(amplitude[..., :moving].shape)
    params = params._replace(amplitude=jnp.asarray(amplitude))
    if worst <= LARGEST_AMPLITUDE:
        return params, ()
    return params, (
        f"samples are up to {worst:.3g} times too alike or too different, of which {LARGEST_AMPLITUDE:g} times is "
        "corrected; train the denoiser for longer (training.residual_stage)",
    )


def size_ratio(wanted: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Size that samples should have over the one that they have, one where there is nothing to be."""
    return np.where(wanted > 0, wanted / np.maximum(found, 1e-6), 1.0)


def limited_amplitude(ratio: np.ndarray) -> np.ndarray:
    """A correction of sizes within the bounds of `LARGEST_AMPLITUDE`."""
    return np.clip(ratio, 1 / LARGEST_AMPLITUDE, LARGEST_AMPLITUDE)


def _frame_sizes(values: Array, axis: int) -> Float[Array, "time field"]:
    """Root mean square over all axes but that of the frames and the fields."""
    return jnp.sqrt(jnp.mean(values**2, axis=(*range(axis), *range(axis + 1, values.ndim - 1))))
