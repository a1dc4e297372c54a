"""Networks that learn the dynamics of a single trajectory, driven or not, by windows of it.

The length of the windows is the one with the smallest error on the last fifth, which networks that did not see it
forecast as a whole from its first observed state. The chosen length is then trained anew on all observations.
"""

import hashlib
import time
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, PyTree

from phdme_jax.files import InputError, config_digest
from phdme_jax.methods.base import Fitted, Host, Model, Start, Task, Times
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


def mean_model(prepare: Any, times: Times) -> Model:
    """A model without a distribution, whose forecasts `prepare` makes: (params, start) -> fields."""
    return Model(
        prepare=prepare,
        draw=lambda params, prepared, latent, key: prepared,
        mean=lambda params, prepared: prepared,
        times=times,
    )


def fit_windows(
    name: str,
    factory: FieldFactory,
    measured: bool,
    task: Task,
    options: WindowOptions,
    host: Host,
    key: Key[Array, ""],
) -> Fitted:
    """Train on windows of the observed trajectory.

    Args:
      name: under which the host keeps the network, completed by a digest of data, numbers and key.
      factory: of the network.
      measured: whether it learns what was measured, not the structure's fields.
      task: of one trajectory, with its inputs.
      options: numbers of the training.
      host: keeps the network.
      key: random key.
    Returns:
      the method, without a distribution; seconds include compilation.
    Raises:
      InputError: more trajectories than one, or a grid.
    """
    examples = task.train()
    if len(examples.fields) != 1 or task.problem.structure.grid.points:
        raise InputError(f"{name} learns from windows of one trajectory without a grid; give baselines.stages instead")
    coordinates = task.problem.coordinates if measured else None
    states = jnp.asarray(examples.fields[0])
    states = states if coordinates is None else coordinates[0](states)
    data = Observed(states, jnp.asarray(examples.times, states.dtype), jnp.asarray(examples.condition.inputs[0]))
    kept = host.keep(f"{name}_{_digest(data, options, key)}", lambda: _choose(factory, data, options, key))
    leaves = [jnp.asarray(kept[str(index)]) for index in range(len(kept) - 1)]
    model = _model(factory, coordinates, task.times)
    return Fitted(model, leaves, {"windows": float(kept["seconds"])})


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


def _digest(data: Observed, options: WindowOptions, key: Array) -> str:
    digest = hashlib.sha256(config_digest(vars(options)).encode())
    for array in (*data, jax.random.key_data(key)):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _choose(factory: FieldFactory, data: Observed, options: WindowOptions, key: Array) -> dict[str, Any]:
    """Leaves of the network with the best length of windows, by number, and the seconds."""
    began, cut = time.perf_counter(), 4 * len(data.times) // 5
    early, late = (Observed(*(part[chosen] for part in data)) for chosen in (slice(cut), slice(cut, None)))
    errors = []
    for window in options.windows:
        params = train_network(factory, window, options, early, key)
        forecast = _forecast(factory, params, late)
        errors.append(float(jnp.nan_to_num(jnp.mean((forecast - late.states) ** 2), nan=jnp.inf)))
    params = train_network(factory, options.windows[int(np.argmin(errors))], options, data, key)
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
