"""Training of networks that learn the dynamics of a single trajectory, for the baselines of several studies."""

import hashlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from phdme_jax.files import atomic_write, config_digest
from phdme_jax.methods.baselines.neural_dynamics import solve_field, window_loss

Make = Callable[[Any, Any], Any]


def train(make: Make, parts: tuple[np.ndarray, ...], training: Any, key: Any, path: Path) -> tuple[Any, float]:
    """Train a network on windows of several lengths; keep the length with the smallest error on the last fifth.

    The last fifth is forecast as a whole from its first observed state by networks that did not see it. The chosen
    length is then trained anew on all observations.

    Args:
      make: (scale, key) -> untrained field.
      parts: observed states (time, field), evenly spaced times, inputs (time, port).
      training: numbers of the training group: windows, steps, batch, rate.
      key: random key.
      path: file that keeps the trained network, its name completed by a digest of the data, the numbers of the
        training and the key; where it exists, nothing is trained.
    Returns:
      the trained field, and the seconds all of it took, compilation included.
    """
    path = path.with_name(f"{path.stem}_{_digest(parts, training, key)}.eqx")
    if path.exists():
        empty = make(jnp.ones(parts[0].shape[1]), key)
        field, seconds = eqx.tree_deserialise_leaves(path, (empty, 0.0))
        return field, seconds
    cut = 4 * len(parts[1]) // 5
    began = time.perf_counter()
    whole = [jnp.asarray(array) for array in parts]
    early, late = [part[:cut] for part in whole], [part[cut:] for part in whole]
    errors = []
    for window in training.windows:
        field = train_network(make, early, window, training, key)
        forecast = solve_field(field, late[0][0], late[1], late[2])
        errors.append(float(jnp.nan_to_num(jnp.mean((forecast - late[0]) ** 2), nan=jnp.inf)))
    field = train_network(make, whole, training.windows[int(np.argmin(errors))], training, key)
    seconds = time.perf_counter() - began
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        eqx.tree_serialise_leaves(file, (field, seconds))
    return field, seconds


def _digest(parts: tuple[np.ndarray, ...], training: Any, key: Any) -> str:
    digest = hashlib.sha256(config_digest(training.to_dict()).encode())
    for array in (*parts, jax.random.key_data(key)):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def train_network(make: Callable[[Any, Any], Any], parts: list[Any], window: int, training: Any, key: Any) -> Any:
    """Adam with a cosine schedule on random windows.

    Args:
      make: (scale, key) -> untrained field.
      parts: observed states, times and inputs.
      window: frames of a window.
      training: numbers of the training group.
      key: random key.
    Returns:
      the trained field.
    """
    states, times, inputs = parts
    scale = jnp.std(states, axis=0)
    field = make(scale, jax.random.fold_in(key, 0))
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(training.rate, training.steps, 0.01))
    )
    params, static = eqx.partition(field, eqx.is_inexact_array)

    def loss(params: Any, key: Any) -> Any:
        one = partial(window_loss, eqx.combine(params, static), states, times, inputs, scale, window)
        return jnp.mean(jax.vmap(one)(jax.random.split(key, training.batch)))

    def step(carry: tuple[Any, Any], index: Any) -> tuple[tuple[Any, Any], Any]:
        params, state = carry
        value, slope = jax.value_and_grad(loss)(params, jax.random.fold_in(key, 1 + index))
        updates, state = optimizer.update(slope, state, params)
        return (optax.apply_updates(params, updates), state), value

    run = jax.jit(lambda params, state: jax.lax.scan(step, (params, state), jnp.arange(training.steps)))
    (params, _), _ = run(params, optimizer.init(params))
    return eqx.combine(params, static)
