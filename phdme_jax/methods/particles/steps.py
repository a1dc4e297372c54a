"""Trajectories of particles continued from the last frame that is given: what all methods that step in time share."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from phdme_jax.methods.base import Fitted, Host, Model, Options, Task, mean_model
from phdme_jax.methods.energy.options import cut_windows
from phdme_jax.systems.equations.base import Equations
from phdme_jax.systems.particles.base import Advance, coupling_of, motion_of, simulate

AdvanceOf = Callable[[PyTree], Advance]  # parameters -> (coupling -> one frame on)


class Known(NamedTuple):
    """What a condition tells, see `systems.given_frames`.

    Attributes:
      given: the first frames.
      coupling: of each pair; ones where none is told.
    """

    given: Float[Array, "given particle field"]
    coupling: Float[Array, "particle particle"]


class ParticleExample(NamedTuple):
    """A trajectory and the coupling of its pairs."""

    fields: Float[Array, "time particle field"]
    coupling: Float[Array, "particle particle"]


class Stepper(NamedTuple):
    """A network that steps from frame to frame.

    Attributes:
      name: of its stages (window, steps, batch, rate) in `baselines.stages`.
      make: (scale of the fields, key) -> untrained parameters.
      advance_of: parameters -> (coupling -> one frame on).
      calls: of the network, or of an integrator, a frame.
      rolled: the same with other steps, for what follows training; `advance_of` where there is none.
    """

    name: str
    make: Callable[[Array, Array], PyTree]
    advance_of: AdvanceOf
    calls: int
    rolled: AdvanceOf | None = None


class StepParams(NamedTuple):
    """Root mean square of each field, positions alike and velocities alike, and the parameters of a network."""

    scale: Float[Array, "field"]
    network: PyTree


def known(problem: Equations, condition: Float[Array, "time particle channel"]) -> Known:
    """The frames that are given, and the coupling."""
    count = len(problem.fields)
    line = condition[..., -1 - count : -1]
    return Known(line[: problem.given_frames], coupling_of(line, condition[..., : -1 - count]))


def continued(problem: Equations, advance: Advance, told: Known) -> Float[Array, "time particle field"]:
    """The given frames and, after them, what follows from the last one.

    Args:
      problem: of particles, first frames given.
      advance: coupling -> one frame on.
      told: of one condition.
    Returns:
      the whole trajectory.
    """
    later = problem.grid.points[0] - problem.given_frames
    ahead = simulate(advance, motion_of(told.given[-1]), told.coupling, later + 1)
    return jnp.concatenate([told.given, ahead[1:].astype(told.given.dtype)])


def step_model(problem: Equations, stepper: Stepper) -> Model:
    """A model without a distribution that steps from frame to frame; its parameters are `StepParams`."""

    def prepare(params: StepParams, condition: Array) -> Float[Array, "time particle field"]:
        told = known(problem, condition)
        told = jax.tree.map(lambda leaf: leaf.astype(params.scale.dtype), told)
        return continued(problem, (stepper.rolled or stepper.advance_of)(params.network), told)

    later = problem.grid.points[0] - problem.given_frames
    return dataclasses.replace(mean_model(prepare, ()), num_calls=stepper.calls * later)


def particle_examples(task: Task, dtype: str | None = None) -> ParticleExample:
    """The training trajectories of a task, leaves with a leading sample axis; of their own type where none is named."""
    examples, problem = task.train(), task.problem
    fields, condition = (jnp.asarray(part, dtype) for part in (examples.fields, examples.condition))
    own = len(problem.conditions) - (1 + len(problem.fields) if problem.given_frames else 0)
    return ParticleExample(fields, jax.vmap(coupling_of)(fields, condition[..., :own]))


def window_loss(
    advance_of: AdvanceOf, scale: Float[Array, "field"], window: int
) -> Callable[[PyTree, ParticleExample, Array], tuple[Array, dict[str, Array]]]:
    """Mean squared error, in units of the fields' scale, of a random window stepped through from its first true frame.

    Args:
      advance_of: parameters -> (coupling -> one frame on).
      scale: of each field.
      window: frames after the first one.
    Returns:
      (parameters, example, key) -> (loss, metrics).
    """

    def loss(params: PyTree, example: ParticleExample, key: Array) -> tuple[Array, dict[str, Array]]:
        start = jax.random.randint(key, (), 0, len(example.fields) - window)
        truth = jax.lax.dynamic_slice_in_dim(example.fields, start, window + 1)
        found = simulate(advance_of(params), motion_of(truth[0]), example.coupling, window + 1)
        error = jnp.mean(((found - truth)[1:] / scale) ** 2)
        return error, {"error": error}

    return loss


def fit_step(stepper: Stepper, task: Task, options: Options, host: Host, key: Key[Array, ""]) -> Fitted:
    """Train a network that steps from frame to frame on windows of all frames of the training trajectories.

    Args:
      stepper: the network.
      task: of particles, first frames given.
      options: the group `baselines`.
      host: trains.
      key: random key.
    Returns:
      the method, without a distribution.
    """
    group, data = options["baselines"], particle_examples(task, "float32")
    size = jnp.sqrt(jnp.mean(data.fields**2, axis=(0, 1, 2)))
    groups: Any = task.problem.priors.symmetry.mixed
    for mixed in map(np.asarray, groups):
        size = size.at[mixed].set(jnp.sqrt(jnp.mean(size[mixed] ** 2)))
    init_key, train_key = jax.random.split(key)
    params, seconds = stepper.make(size, init_key), dict[str, float]()
    windows = cut_windows(group["stages"][stepper.name], task.problem.grid.points[0])
    for index, (window, (number, batch, rate)) in enumerate(windows.items()):
        params, seconds[f"window_{window}"] = host.train(
            f"window_{window}",
            window_loss(stepper.advance_of, size, window),
            params,
            data,
            jax.random.fold_in(train_key, index),
            steps=number,
            batch=batch,
            rate=rate,
            ema_decay=group["ema_decay"],
        )
    return Fitted(step_model(task.problem, stepper), StepParams(size, params), seconds)
