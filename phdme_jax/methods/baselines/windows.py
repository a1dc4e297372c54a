"""Networks that learn the dynamics of a single trajectory, driven or not, by windows of it.

The length of the windows is the one with the smallest error on the last fifth, which networks that did not see it
forecast as a whole from its first observed state. The chosen length is then trained anew on all observations.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, PyTree

from phdme_jax.files import InputError, config_digest
from phdme_jax.methods.base import Fitted, Host, Model, Start, Task, Times, mean_model
from phdme_jax.methods.baselines.neural_dynamics import FieldFactory, solve_field, window_loss


@dataclass(frozen=True)
class WindowOptions:
    """The group `baselines.training`.

    Attributes:
      windows: lengths to choose from, frames after the first one.
      steps: of each training.
      batch: windows a step.
      rate: largest learning rate.
    """

    windows: tuple[int, ...]
    steps: int
    batch: int
    rate: float


class Observed(NamedTuple):
    """One trajectory: states (time, field), evenly spaced times, inputs (time, port), maybe none."""

    states: Float[Array, "time field"]
    times: Float[Array, "time"]
    inputs: Float[Array, "time port"]


@dataclass(frozen=True)
class Learner:
    """How a network learns one trajectory.

    Attributes:
      name: under which the host keeps it, completed by a digest of data, options and key.
      factory: of the network.
      train: (length, options, data, key) -> parameters, a list of arrays.
      lengths: to choose from, of windows or of steps in frames.
      options: record of the numbers that `train` reads.
      measured: whether it learns what was measured, not the structure's fields.
    """

    name: str
    factory: FieldFactory
    train: Callable[[int, Any, Observed, Array], list[Array]]
    lengths: tuple[int, ...]
    options: Any
    measured: bool = False


def fit_windows(
    name: str,
    factory: FieldFactory,
    task: Task,
    options: WindowOptions,
    host: Host,
    key: Key[Array, ""],
    measured: bool = False,
) -> Fitted:
    """Train a network on windows of the observed trajectory; arguments and errors as of `Learner` and `fit_length`."""

    def train(window: int, options: WindowOptions, data: Observed, key: Array) -> list[Array]:
        return train_network(factory, window, options, data, key)

    return fit_length(Learner(name, factory, train, options.windows, options, measured), task, host, key)


def check_lengths(key: str, lengths: Sequence[int], num_frames: int) -> None:
    """Refuses lengths that do not fit into the first four fifths of a trajectory, which choose among them.

    Raises:
      ValueError: what is wrong.
    """
    if max(lengths) >= (early := 4 * num_frames // 5):
        raise ValueError(f"expected {key} below {early}, four fifths of {num_frames} frames, got {max(lengths)}")


def fit_length(learner: Learner, task: Task, host: Host, key: Key[Array, ""]) -> Fitted:
    """Train with the best of some lengths.

    Args:
      learner: what is trained, and how.
      task: of one trajectory, with its inputs.
      host: keeps the network.
      key: random key.
    Returns:
      the method, without a distribution; its parameters are the network's, seconds include compilation.
    Raises:
      InputError: more trajectories than one, or a grid.
    """
    examples = task.train()
    if len(examples.fields) != 1 or task.problem.structure.grid.points:
        raise InputError(
            f"{learner.name} learns from windows of one trajectory without a grid; give baselines.stages instead"
        )
    coordinates = task.problem.coordinates if learner.measured else None
    states = jnp.asarray(examples.fields[0])
    states = states if coordinates is None else coordinates[0](states)
    data = Observed(states, jnp.asarray(examples.times, states.dtype), jnp.asarray(examples.condition.inputs[0]))
    name = f"{learner.name}_{_digest(data, learner.options, key)}"
    kept = host.keep(name, lambda: _choose(learner, data, key))
    leaves = [jnp.asarray(kept[str(index)]) for index in range(len(kept) - 1)]
    return Fitted(_model(learner.factory, coordinates, task.times), leaves, {"windows": float(kept["seconds"])})


@lru_cache
def _model(factory: FieldFactory, coordinates: Any, times: Times) -> Model:
    to_measured, from_measured = coordinates or (lambda state: state, lambda state: state)

    def prepare(params: PyTree, start: Start) -> Float[Array, "time field"]:
        state = to_measured(start.state)
        path = solve_field(
            factory.field(params), state, jnp.asarray(times, state.dtype), start.inputs.astype(state.dtype)
        )
        return from_measured(path)

    return mean_model(prepare, times)


def _digest(data: Observed, options: Any, key: Array) -> str:
    digest = hashlib.sha256(config_digest(vars(options)).encode())
    for array in (*data, jax.random.key_data(key)):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _choose(learner: Learner, data: Observed, key: Array) -> dict[str, Any]:
    """Leaves of the network with the best length, by number, and the seconds."""
    began, cut = time.perf_counter(), 4 * len(data.times) // 5
    early, late = (Observed(*(part[chosen] for part in data)) for chosen in (slice(cut), slice(cut, None)))
    errors = []
    for length in learner.lengths:
        params = learner.train(length, learner.options, early, key)
        forecast = _forecast(learner.factory, params, late)
        errors.append(float(jnp.nan_to_num(jnp.mean((forecast - late.states) ** 2), nan=jnp.inf)))
    params = learner.train(learner.lengths[int(np.argmin(errors))], learner.options, data, key)
    leaves = {str(index): np.asarray(leaf) for index, leaf in enumerate(params)}
    return {**leaves, "seconds": np.asarray(time.perf_counter() - began)}


@partial(jax.jit, static_argnums=0)
def _forecast(factory: FieldFactory, params: PyTree, data: Observed) -> Float[Array, "time field"]:
    return solve_field(factory.field(params), data.states[0], data.times, data.inputs)


@partial(jax.jit, static_argnums=(0, 1, 2))
def train_network(
    factory: FieldFactory, window: int, options: WindowOptions, data: Observed, key: Key[Array, ""]
) -> PyTree:
    """Adam with a cosine schedule on random windows.

    Args:
      factory: of the network.
      window: frames after the first one.
      options: numbers of the training.
      data: what was observed.
      key: random key.
    Returns:
      parameters of the trained network.
    """
    scale = jnp.std(data.states, axis=0)
    params = factory.init(scale, jax.random.fold_in(key, 0))
    rates = optax.cosine_decay_schedule(options.rate, options.steps, 0.01)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rates))

    def loss(params: PyTree, key: Array) -> Array:
        field = factory.field(params)
        of_one = partial(window_loss, field, data.states, data.times, data.inputs, scale, window)
        return jnp.mean(jax.vmap(of_one)(jax.random.split(key, options.batch)))

    def step(carry: tuple[PyTree, PyTree], index: Array) -> tuple[tuple[PyTree, PyTree], None]:
        params, state = carry
        slope = jax.grad(loss)(params, jax.random.fold_in(key, 1 + index))
        updates, state = optimizer.update(slope, state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(options.steps))
    return params
