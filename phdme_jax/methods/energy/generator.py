"""PHDME and its relatives: a conditional generator, trained on rollouts of a learned energy or on observations.

One fit for all: what the diffusion model is centred on, what it is trained on, and whether the residual of an energy
enters its loss. Rollouts of the teacher are made once and shared by its students.
Source: Tan et al. (2026), arXiv 2601.21234.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from phdme_jax.files import InputError
from phdme_jax.methods.base import (
    Examples,
    Fit,
    Fitted,
    Host,
    Normaliser,
    Options,
    Start,
    Task,
    fit_normaliser,
    stage_key,
)
from phdme_jax.methods.energy.conditional import Design, Fields, GeneratorParams, conditional_mean, make_model
from phdme_jax.methods.energy.dynamics import resampled
from phdme_jax.methods.energy.losses import Example
from phdme_jax.methods.energy.options import GeneratorOptions, frames, read_options
from phdme_jax.methods.energy.rollouts import (
    CHUNK,
    Rollouts,
    changed_weights,
    make_rollouts,
    trajectory_weights,
    with_inputs,
)
from phdme_jax.methods.energy.training import Lesson, Material, mean_notes, train_generator, with_amplitude
from phdme_jax.numerics.arrays import static_times
from phdme_jax.numerics.batching import batched, in_chunks
from phdme_jax.numerics.bound import Bound


@dataclass(frozen=True)
class Recipe:
    """What makes one generator another method than the next.

    Attributes:
      centre: conditional mean: "propagator", a step learned from the training trajectories, or "rollout", of the
        teacher's mean energy.
      data: trained on the teacher's "rollouts", or on "observed" trajectories alone.
      physics: whether the residual of the teacher's mean energy enters the loss.
      kept: name under which the rollouts are kept; teachers that differ have names that differ.
    """

    centre: str = "propagator"
    data: str = "rollouts"
    physics: bool = True
    kept: str = "rollouts"

    @property
    def observed(self) -> bool:
        """Whether it is trained on observed trajectories alone."""
        return self.data == "observed"

    @property
    def taught(self) -> bool:
        """Whether it needs a teacher."""
        return self.physics or not self.observed or self.centre == "rollout"


def make_fit(centre: str = "propagator", data: str = "rollouts", physics: bool = True) -> Fit:
    """The fit of one recipe, see `Recipe`."""
    return Bound(fit_generator, Recipe(centre, data, physics))


def fit_generator(
    recipe: Recipe, task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]
) -> Fitted:
    """Train the conditional mean (unless it is a rollout), then the diffusion model of what is left.

    Args:
      recipe: which generator.
      task: what to learn from.
      options: groups network, training, physics, sampling, rollouts (count) and maybe generator (num_frames, duration,
        substeps of its own frames). Of sampling, num_steps is read after the training alone.
      host: trains and keeps the rollouts.
      teacher: the learned energy; None where the recipe asks for none.
      key: root key of the method.
    Returns:
      the method; `found` holds the share of rollouts that were dropped.
    Raises:
      InputError: the recipe does not fit the task.
      RunFailed: nearly all rollouts were dropped.
    """
    read = read_options(options)
    energy = None if teacher is None else teacher.params
    design = design_of(recipe, task, options, teacher)
    found = {}
    if recipe.observed:
        normaliser, material = _observed_material(recipe, design, task, read, energy)
    else:
        rolled = Rollouts(**host.keep(recipe.kept, lambda: _roll(design, task, options, energy)._asdict()))
        found["rejection_rate"] = float(rolled.rejected)
        design = replace(design, exact_start=bool(rolled.exact_start))
        normaliser, material = _rolled_material(design, task, read, rolled, energy)
    lesson = Lesson(design, read, recipe.observed, normaliser, energy, recipe.physics)
    params, examples, seconds = train_generator(lesson, material, host, key)
    params, notes = with_amplitude(design, params, examples, read.training.amplitude_draws)
    notes = (*mean_notes(examples), *notes)
    return Fitted(make_model(design), params, {**({} if teacher is None else teacher.seconds), **seconds}, found, notes)


def design_of(recipe: Recipe, task: Task, options: Options, teacher: Fitted | None) -> Design:
    """The design of a recipe; the teacher is the learned energy, or what was taught by it."""
    read = read_options(options)
    dynamics = None if teacher is None else teacher.model.dynamics
    if dynamics is None and recipe.taught:
        raise InputError("expected a teacher with dynamics, as the method learns from what an energy says")
    fields, propagator = Fields(task.problem.structure, task.companions), None
    if recipe.centre == "propagator":
        if fields.ports:
            raise InputError(
                "a time step that is learned from states alone does not see the inputs of the ports; try a method that "
                "is centred on the rollout of the learned energy"
            )
        propagator = read.network.make_propagator(fields.parity, recipe.observed)
    times, substeps = frames(options, task.times, 1 if dynamics is None else dynamics.substeps)
    denoiser = read.network.make_denoiser()
    return Design(fields, times, task.times, propagator, denoiser, read.num_steps, dynamics=dynamics, substeps=substeps)


def _roll(design: Design, task: Task, options: Options, energy: PyTree) -> Rollouts:
    """Rollouts of the teacher from drawn starts."""
    assert design.dynamics is not None
    starts = task.starts(stage_key(task.key, "starts"), options["rollouts"]["count"])
    change = jax.vmap(partial(resampled, times=task.times, wanted=design.times))
    starts = starts._replace(inputs=change(jnp.asarray(starts.inputs)))
    key = stage_key(task.key, "rollouts")
    return make_rollouts(design.dynamics, energy, starts, design.times, design.substeps, design.fields, key)


def _observed(design: Design, examples: Examples) -> np.ndarray:
    """Observed trajectories with their inputs."""
    if static_times(examples.times) != design.times:
        raise InputError(
            f"expected observed trajectories at the {len(design.times)} times of the generator, got "
            f"{len(examples.times)} other ones; observe at the times of the forecast, or try training.real_fraction=0"
        )
    return with_inputs(np.asarray(examples.fields), np.asarray(examples.condition.inputs))


def _observed_material(
    recipe: Recipe, design: Design, task: Task, read: GeneratorOptions, energy: PyTree
) -> tuple[Normaliser, Material]:
    """Observed trajectories alone; their residual is weighted where the recipe has one."""
    fields, observed = design.fields, _observed(design, task.train())
    narrow, weights = observed.astype(np.float32), None
    if recipe.physics and design.dynamics is not None:
        weights = trajectory_weights(design.dynamics, energy, narrow, design.times, fields)
        weights = _changed(weights, task, read)
    normaliser = fit_normaliser(jnp.asarray(narrow), fields.structure)
    means = _mean_rollouts(design, normaliser, energy, task.train())
    return normaliser, Material(_example(normaliser, observed, weights, means), None)


def _rolled_material(
    design: Design, task: Task, read: GeneratorOptions, rolled: Rollouts, energy: PyTree
) -> tuple[Normaliser, Material]:
    """Rollouts, and the observed trajectories where they are mixed in."""
    examples, fields = task.train(), design.fields
    own = fields.companions or fields.ports
    scaling = rolled.states if own else np.asarray(examples.fields, np.float32)
    normaliser, real = fit_normaliser(jnp.asarray(scaling), fields.structure), None
    if read.training.real_fraction:
        means = _mean_rollouts(design, normaliser, energy, examples)
        real = _example(normaliser, _observed(design, examples), None, means)
    weights = _changed(rolled.weights, task, read)
    return normaliser, Material(_example(normaliser, rolled.states, weights, rolled.means), real)


def _changed(weights: np.ndarray, task: Task, read: GeneratorOptions) -> np.ndarray:
    return changed_weights(weights, read.physics.weights, jax.random.fold_in(stage_key(task.key, "rollouts"), 1))


def _mean_rollouts(design: Design, normaliser: Normaliser, energy: PyTree, examples: Examples) -> np.ndarray | None:
    """Mean rollouts from the starts of observed trajectories, physical units; None where the mean is learned."""
    if design.propagator is not None:
        return None
    centre = batched(conditional_mean, replace(design, input_times=design.times))
    starts: Start = examples.condition
    units = jax.tree.map(np.asarray, normaliser)
    params = GeneratorParams(normaliser, energy=energy)
    return units.physical(in_chunks(partial(centre, params), CHUNK, starts, fixed=True))


def _example(
    normaliser: Normaliser, states: np.ndarray, weights: np.ndarray | None, means: np.ndarray | None
) -> Example:
    """Normalised arrays; the mean is the start at every frame where it is still to be learned."""
    units = jax.tree.map(np.asarray, normaliser)
    dtype = units.scale.dtype
    state = units.normalised(states).astype(dtype)
    weights = np.ones_like(state[:, 1:]) if weights is None else weights
    mean = np.repeat(state[:, :1], state.shape[1], axis=1) if means is None else units.normalised(means).astype(dtype)
    return Example(*(jnp.asarray(part) for part in (state, weights, mean)))
