"""What a teacher shows its students: rollouts of drawn energies and of the mean energy, and weights of the residual."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PyTree

from phdme_jax.diffusion.loss import residual_weights
from phdme_jax.files import RunFailed
from phdme_jax.methods.base import Dynamics, Host, Start, Times
from phdme_jax.methods.energy.conditional import Fields
from phdme_jax.numerics.batching import in_chunks
from phdme_jax.systems.energy.base import constant_parts

CHUNK = 64


class Rollouts(NamedTuple):
    """Rollouts of a posterior, float32; inputs ride along as further fields.

    Attributes:
      states: trajectories of drawn energies, (n, time, *grid, field).
      means: rollouts of the mean energy from the states that were told.
      weights: weights of the squared residual on the trajectories, (n, time - 1, *grid, field).
      rejected: share of rollouts that were dropped.
      exact_start: whether the states that were told are those that trajectories begin at.
    """

    states: Float[np.ndarray, "n time *grid field"]
    means: Float[np.ndarray, "n time *grid field"]
    weights: Float[np.ndarray, "n interval *grid field"]
    rejected: Float[np.ndarray, ""]
    exact_start: Bool[np.ndarray, ""]


@lru_cache
def _sampler(dynamics: Dynamics, times: Times, substeps: int) -> Callable[..., Any]:
    return jax.jit(
        jax.vmap(lambda params, start, key: dynamics.sample(params, start, key, times, substeps), in_axes=(None, 0, 0))
    )


@lru_cache
def _roller(dynamics: Dynamics, times: Times, substeps: int) -> Callable[..., Any]:
    return jax.jit(jax.vmap(lambda params, start: dynamics.rollout(params, start, times, substeps), in_axes=(None, 0)))


@lru_cache
def _variance(dynamics: Dynamics, times: Times) -> Callable[..., Any]:
    assert dynamics.variance is not None
    variance = dynamics.variance

    @jax.jit
    def many(params: PyTree, trajectories: Array) -> Array:
        return jax.lax.map(lambda trajectory: variance(params, trajectory, times), trajectories)

    return many


def make_rollouts(
    dynamics: Dynamics, params: PyTree, starts: Start, times: Times, substeps: int, fields: Fields, key: Key[Array, ""]
) -> Rollouts:
    """Draw and roll out one energy per start, and the mean energy beside it.

    Args:
      dynamics: what the energy says.
      params: of the dynamics.
      starts: with inputs at `times`, leaves with a leading axis.
      times: of the frames.
      substeps: integration steps between them.
      fields: structure of the states, and which of them never change.
      key: random key.
    Returns:
      rollouts without those that were rejected.
    Raises:
      RunFailed: fewer than two rollouts are left.
    """
    keys = jax.random.split(key, starts.state.shape[0])
    sampled = in_chunks(partial(_sampler(dynamics, times, substeps), params), CHUNK, starts, keys, fixed=True)
    means = in_chunks(partial(_roller(dynamics, times, substeps), params), CHUNK, starts, fixed=True)
    ok = np.asarray(sampled.ok & means.ok)
    if ok.sum() < 2:
        raise RunFailed(
            "nearly every rollout of the learned energy left the range of the data or gained energy; give more "
            "trajectories, check the units of time and grid, or raise prior.margin"
        )
    inputs = np.asarray(starts.inputs)[ok]
    states, centre = (with_inputs(rolled.trajectory[ok], inputs).astype(np.float32) for rolled in (sampled, means))
    weights = trajectory_weights(dynamics, params, states, times, fields)
    return Rollouts(states, centre, weights, np.asarray(1 - ok.mean()), np.asarray(starts.errors is None))


def kept_rollouts(host: Host, name: str) -> Rollouts:
    """The rollouts that a host has kept for a generator.

    Raises:
      RunFailed: it has none of this name.
    """

    def missing() -> dict[str, np.ndarray]:
        raise RunFailed("expected the rollouts that the forecaster was trained on; fit it with the same host first")

    return Rollouts(**host.keep(name, missing))


def with_inputs(states: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Trajectories (n, time, *grid, field) with inputs (n, time, port) as further fields."""
    spread = inputs.reshape(*inputs.shape[:2], *(1,) * (states.ndim - 3), inputs.shape[-1])
    shape = (*states.shape[:-1], inputs.shape[-1])
    return np.concatenate([states, np.broadcast_to(spread, shape)], axis=-1)


def trajectory_weights(
    dynamics: Dynamics, params: PyTree, states: np.ndarray, times: Times, fields: Fields
) -> np.ndarray:
    """Weights of the squared residual on trajectories.

    Args:
      dynamics: what the energy says.
      params: of the dynamics.
      states: trajectories with inputs as further fields, (n, time, *grid, field).
      times: of the frames.
      fields: structure of the states; those that never change have weight one, inputs zero: the dynamics do not say how
        they change.
    Returns:
      weights, (n, time - 1, *grid, field), float32; see `residual_weight`.
    """
    moving, told = fields.moving, len(fields.structure.fields)
    if dynamics.variance is None:  # nothing is uncertain
        spread = np.ones_like(states[:, 1:])
    else:
        spread = in_chunks(partial(_variance(dynamics, times), params), 16, states[..., :told], fixed=True)
    weights = np.zeros_like(states[:, 1:], np.float32)
    deviations = states - constant_parts(fields.structure, states)
    weights[..., :moving] = residual_weight(spread[..., :moving], deviations[..., :moving], times)
    weights[..., moving:told] = 1.0
    return weights


def residual_weight(spread: np.ndarray, states: np.ndarray, times: Times) -> np.ndarray:
    """Weights of the squared residual in normalised units, from its posterior variance.

    Args:
      spread: posterior variance of the residual, (n, time - 1, *grid, field).
      states: trajectories it belongs to without their constant parts, (n, time, *grid, field).
      times: times of the frames.
    Returns:
      weights, float32, shape of the variance.
    """
    everywhere = tuple(range(states.ndim - 1))
    rate = np.sqrt(np.mean(np.diff(states, axis=1) ** 2, axis=everywhere)) / np.mean(np.diff(times))
    # a field whose part of the dynamics is known for sure has no variance, and even weights
    floor = np.maximum(np.median(spread, axis=everywhere), 1e-12 * rate**2)
    scale = np.sqrt(np.mean(states**2, axis=everywhere))
    each_field = jax.vmap(residual_weights, in_axes=(-1, 0), out_axes=-1)
    weights = np.asarray(each_field(jnp.asarray(spread), jnp.asarray(floor)))
    return (weights * (scale / rate) ** 2).astype(np.float32)


def changed_weights(weights: np.ndarray, way: str, key: Key[Array, ""]) -> np.ndarray:
    """Weights (n, interval, *grid, field) by "uncertainty" as they are, "off": even over each field, or "shuffled"."""
    if way == "off":
        everywhere = tuple(range(weights.ndim - 1))
        return np.broadcast_to(weights.mean(axis=everywhere), weights.shape).astype(weights.dtype)
    if way == "shuffled":
        flat = weights.reshape(-1, weights.shape[-1])
        return flat[np.asarray(jax.random.permutation(key, len(flat)))].reshape(weights.shape)
    return weights
