"""From observed trajectories to a learned energy and its rollouts, shared by every study.

observe -> fit_prior -> make_rollouts -> train_generator -> forecast -> calibrate
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from phdme_jax.diffusion.loss import residual_weights
from phdme_jax.files import RunFailed, load_arrays
from phdme_jax.gp import basis as gp_basis
from phdme_jax.gp import fit as gp_fit
from phdme_jax.gp import observations as gp_rows
from phdme_jax.gp import sampling as gp_sampling
from phdme_jax.methods.energy.physics import residual_variance
from phdme_jax.numerics.batching import in_chunks
from phdme_jax.systems.energy.base import Structure, injected

Times = tuple[float, ...]
CHUNK = 64


@dataclass(frozen=True)
class Prior:
    """A fitted energy: the posterior, its basis, and the structure it belongs to."""

    structure: Structure
    basis: gp_basis.Basis
    posterior: gp_fit.EnergyPosterior
    substeps: int
    seconds: float


class Rollouts(NamedTuple):
    """Posterior rollouts.

    Attributes:
      states: trajectories of sampled energies, (n, time, grid, field), float32.
      means: rollouts of the mean energy from the same states.
      weights: weights of the squared residual on the trajectories.
      rejected: share of rollouts that were dropped.
    """

    states: np.ndarray
    means: np.ndarray
    weights: np.ndarray
    rejected: float


def fit_prior(
    structure: Structure,
    states: np.ndarray,
    times: Times,
    *,
    main: int,
    pair: int,
    margin: float,
    time_tests: int,
    space_tests: int,
    substeps: int,
    centre: tuple[float, ...],
    shapes: tuple[str, ...] = (),
    inputs: np.ndarray | None = None,
    iterations: int = 150,
) -> Prior:
    """Fit the energy to observed states by weak-form rows in time and marginal likelihood, float64.

    Args:
      structure: operators.
      states: observed trajectories, (sample, time, grid, field).
      times: observation times.
      main: basis sines per field.
      pair: basis sines per field of each pair, 0 for a separable energy.
      margin: half width of the basis' box in units of the largest excursion.
      time_tests: test functions in time.
      space_tests: test functions over the grid.
      substeps: integration steps between frames in rollouts.
      centre: state at rest.
      shapes: what is known of the energy per field, see `Basis`.
      inputs: u of the ports at the observation times, (sample, time, port); None leaves them at rest.
      iterations: of the search for hyperparameters, at the most.
    Returns:
      the prior.
    """
    basis = gp_basis.Basis(len(structure.fields), main, pair, shapes)
    box = gp_basis.make_box(jnp.asarray(states), jnp.asarray(centre, float), margin)

    @jax.jit
    def build(states: Any, box: gp_basis.Box, inputs: Any) -> gp_rows.Observations:
        parts = [
            gp_rows.integral_rows(
                basis, box, structure.flow, structure.parameters, trajectory, times, time_tests, space_tests,
                None if inputs is None else supplied_rates(structure, inputs[index]),
            )
            for index, trajectory in enumerate(states)
        ]  # fmt: skip
        return gp_rows.concatenate([*parts, gp_rows.anchor_rows(basis, box, len(structure.parameters))])

    start = gp_fit.initial_hyperparameters(basis, box, len(structure.parameters))
    learn = jax.jit(lambda rows, box, start: gp_fit.fit(basis, box, rows, start, structure.parameters, iterations))
    compiled = learn.lower(rows := build(jnp.asarray(states), box, inputs), box, start).compile()
    began = time.perf_counter()
    posterior = jax.block_until_ready(compiled(rows, box, start))
    return Prior(structure, basis, posterior, substeps, time.perf_counter() - began)


def supplied_rates(structure: Structure, inputs: Any) -> Any:
    """Rates G u of inputs (time, port), (time, *grid, field)."""
    return jax.vmap(partial(injected, structure))(jnp.asarray(inputs))


def load_rollouts(path: Path) -> Rollouts | None:
    """Rollouts kept by `save_arrays(path, rollouts._asdict())`, or None."""
    kept = load_arrays(path)
    return None if kept is None else Rollouts(kept["states"], kept["means"], kept["weights"], float(kept["rejected"]))


@lru_cache
def _roller(basis: gp_basis.Basis, structure: Structure, times: Times, substeps: int, sampled: bool) -> Callable:
    """Jitted, batched rollouts of a posterior's mean, or of one sample per state; one trace per static record."""
    weights = structure.weights()

    @jax.jit
    def roll(posterior: gp_fit.EnergyPosterior, states: Any, inputs: Any, keys: Any = None) -> gp_sampling.Rollout:
        grid = jnp.asarray(weights, states.dtype)
        frames = jnp.asarray(times, states.dtype)

        def one(state: Any, driven: Any, key: Any) -> gp_sampling.Rollout:
            energy = posterior.mean if key is None else gp_sampling.sample_energy(posterior, key)
            supplied = supplied_rates(structure, driven) if structure.ports else None
            return gp_sampling.roll_out(
                basis, structure.flow, grid, energy, posterior.parameters, state, frames, substeps, supplied
            )

        if sampled:
            return jax.vmap(one)(states, inputs, keys)
        return jax.vmap(partial(one, key=None))(states, inputs)

    return roll


def _inputs(prior: Prior, initial: np.ndarray, times: Times, inputs: np.ndarray | None) -> np.ndarray:
    """Inputs for each initial state, at rest where None, (n, time, port)."""
    shape = (len(initial), len(times), len(prior.structure.ports))
    return np.zeros(shape) if inputs is None else np.broadcast_to(np.asarray(inputs, np.float64), shape)


def mean_rollouts(
    prior: Prior, initial: np.ndarray, times: Times, inputs: np.ndarray | None = None
) -> gp_sampling.Rollout:
    """Rollouts of the posterior-mean energy from initial states (n, *grid, field), in float64.

    Args:
      prior: the fitted energy.
      initial: initial states.
      times: times of the frames.
      inputs: u of the ports at these times, (n, time, port); None leaves them at rest.
    Returns:
      rollouts, leaves with a leading axis.
    """
    roll = _roller(prior.basis, prior.structure, times, prior.substeps, False)
    arrays = (np.asarray(initial, np.float64), _inputs(prior, initial, times, inputs))
    return in_chunks(partial(roll, prior.posterior), CHUNK, *arrays)


def sampled_rollouts(
    prior: Prior, initial: np.ndarray, times: Times, key: Any, inputs: np.ndarray | None = None
) -> gp_sampling.Rollout:
    """Rollouts of one posterior sample for each initial state, in float64; arguments as for `mean_rollouts`."""
    roll = _roller(prior.basis, prior.structure, times, prior.substeps, True)
    keys = jax.random.split(key, initial.shape[0])
    arrays = (np.asarray(initial, np.float64), _inputs(prior, initial, times, inputs), keys)
    return in_chunks(partial(roll, prior.posterior), CHUNK, *arrays)


@lru_cache
def _variance(basis: gp_basis.Basis, structure: Structure, times: Times) -> Callable:
    @jax.jit
    def variance(posterior: gp_fit.EnergyPosterior, trajectories: Any) -> Any:
        one = partial(residual_variance, basis, structure.flow, posterior)
        return jax.lax.map(lambda trajectory: one(trajectory, times), trajectories)

    return variance


def kept_rollouts(
    prior: Prior, initial: np.ndarray, times: Times, key: Any, inputs: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw and roll out one energy per initial state, and the mean energy beside it.

    Args:
      prior: the fitted energy.
      initial: initial states, (n, *grid, field).
      times: times of the frames.
      key: random key.
      inputs: u of the ports at these times, (n, time, port); None leaves them at rest.
    Returns:
      sampled and mean trajectories, float32, without those that were rejected, and which were kept, (n,).
    Raises:
      RunFailed: fewer than two rollouts are left.
    """
    sampled = sampled_rollouts(prior, initial, times, key, inputs)
    means = mean_rollouts(prior, initial, times, inputs)
    ok = np.asarray(sampled.ok & means.ok)
    if ok.sum() < 2:
        raise RunFailed(
            "nearly every rollout of the learned energy left the range of the data or gained energy; give more "
            "trajectories, check the units of time and grid, or raise --config.prior.margin"
        )
    states, centre = (np.asarray(rolled.trajectory)[ok].astype(np.float32) for rolled in (sampled, means))
    return states, centre, ok


def make_rollouts(prior: Prior, initial: np.ndarray, times: Times, key: Any) -> Rollouts:
    """Kept rollouts with normalised residual weights; arguments and errors as for `kept_rollouts`."""
    states, means, ok = kept_rollouts(prior, initial, times, key)
    return Rollouts(states, means, trajectory_weights(prior, states, times), float(1 - ok.mean()))


def trajectory_weights(prior: Prior, states: np.ndarray, times: Times) -> np.ndarray:
    """Weights of the squared residual on trajectories (n, time, *grid, field), float32; see `residual_weight`."""
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), prior.posterior._replace(ok=jnp.zeros(())))
    spread = in_chunks(partial(_variance(prior.basis, prior.structure, times), narrow), 16, states)
    return residual_weight(spread, states, times)


def residual_weight(spread: np.ndarray, states: np.ndarray, times: Times) -> np.ndarray:
    """Weights of the squared residual in normalised units, from its posterior variance.

    Args:
      spread: posterior variance of the residual, (n, time - 1, *grid, field).
      states: trajectories it belongs to, (n, time, *grid, field).
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
