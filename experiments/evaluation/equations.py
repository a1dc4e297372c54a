"""Scores of generated fields: how well they obey the equations, and how close their distribution is to the data."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.equations import FieldSet, resolver
from phdme_jax.app.rows import Measurement
from phdme_jax.numerics.batching import in_chunks
from phdme_jax.systems.equations.base import Equations, stacked_residual, without_padding
from phdme_jax.training import distances

CHUNK = 64

_DISTANCES: dict[str, Callable[[Any, Any], Any]] = {
    "sliced_wasserstein": jax.jit(lambda left, right: distances.sliced_wasserstein(left, right, jax.random.key(5))),
    "wasserstein": jax.jit(distances.wasserstein_of_values),
    "energy_distance": jax.jit(distances.energy_distance),
    "spectrum_error": jax.jit(distances.spectrum_error),
}
_ENERGY_DISTANCE_OF_PAIRS = jax.jit(partial(distances.energy_distance, paired=True))


def _mean(values: np.ndarray, unit: str = "1") -> Measurement:
    """Mean over examples and its standard error; nothing where one is not finite."""
    if not np.all(np.isfinite(values)):
        return Measurement(None, unit)
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return Measurement(float(np.mean(values)), unit, error)


@lru_cache
def _residual_sizes(equations: Equations) -> Callable[[Any, Any], Any]:
    """Mean absolute and root-mean-square residual of many examples."""

    @jax.jit
    @jax.vmap
    def sizes(fields: Any, condition: Any) -> Any:
        found = stacked_residual(equations, fields, condition)
        return jnp.mean(jnp.abs(found)), jnp.sqrt(jnp.mean(found**2))

    return sizes


@lru_cache
def _compliance(equations: Equations) -> Callable[[Any, Any], Any]:
    """Objective of many examples, solved anew."""
    resolve, objective = equations.resolve, equations.objective
    assert resolve is not None and objective is not None
    return jax.jit(jax.vmap(lambda fields, condition: objective(resolve(fields, condition), condition)))


def physics_scores(equations: Equations, generated: FieldSet) -> dict[str, Measurement]:
    """Residual and, where the solution can be computed anew, how far the generated one is from it.

        residual_mae = mean |r| over places and equations,   relative_residual = residual_mae / std of the solution
        resolve_error = |p - p(K)| / |p(K)| in the root mean square of each example, p(K) the solution computed anew

    Args:
      equations: the equations.
      generated: fields and their conditions, physical units.
    Returns:
      measurements by name, means over the examples; the resolve error is a median.
    """
    count = equations.num_solution
    mae, rms = in_chunks(_residual_sizes(equations), CHUNK, *generated)
    spread = float(np.std(generated.fields[..., :count]))
    rows = {"residual_mae": _mean(mae), "residual_rms": _mean(rms)}
    rows["relative_residual"] = Measurement(float(np.mean(mae)) / spread if spread > 0 else None)
    if equations.resolve is not None:
        again = in_chunks(resolver(equations), CHUNK, *generated)[..., :count]
        others = tuple(range(1, again.ndim))
        size = np.sqrt(np.sum(again**2, axis=others))
        error = np.sqrt(np.sum((generated.fields[..., :count] - again) ** 2, axis=others)) / size
        rows["resolve_error"] = Measurement(float(np.median(error)) if np.all(np.isfinite(error)) else None)
    return rows


def distance_scores(
    equations: Equations, generated: FieldSet, reference: FieldSet, paired: bool = False
) -> dict[str, Measurement]:
    """Distances between generated fields and data, channel by channel, as many of each.

    Args:
      equations: names the channels.
      generated: fields of the model.
      reference: fields of the data that no model has seen.
      paired: whether both answer the same tasks, one by one.
    Returns:
      measurements by name: sliced_wasserstein, wasserstein, energy_distance and, on a grid, spectrum_error, each with
      the name of the channel.
    """
    count = min(len(generated.fields), len(reference.fields))
    rows: dict[str, Measurement] = {}
    measures = dict(_DISTANCES)
    if paired:
        measures["energy_distance"] = _ENERGY_DISTANCE_OF_PAIRS
    if not equations.grid.points:
        del measures["spectrum_error"]
    for name in equations.fields:
        pair = (without_padding(equations, part.fields[:count], name) for part in (generated, reference))
        left, right = (jnp.asarray(part) for part in pair)
        for measure, distance in measures.items():
            value = float(distance(left, right)) if jnp.all(jnp.isfinite(left)) else None
            rows[f"{measure}_{name}"] = Measurement(value)
    return rows


def angle_divergence(points: np.ndarray, bins: int = 50) -> Measurement:
    """Kullback-Leibler divergence of the angles of points (n, 2) from uniform, of histograms with that many bins.

    Source: Bastek, Sun, Kochmann (2024), arXiv 2403.14404, section 3.3 (there with another number of bins).
    """
    count, _ = np.histogram(np.arctan2(points[:, 1], points[:, 0]), bins=bins, range=(-np.pi, np.pi))
    share = count / count.sum()
    kept = share > 0
    return Measurement(float(np.sum(share[kept] * np.log(share[kept] * bins))))


def body_scores(equations: Equations, generated: FieldSet, reference: FieldSet) -> dict[str, Measurement]:
    """Scores of generated bodies: stiffness and volume against those asked for, and whether they hang together.

        compliance_error = median (c - c_data) / c_data,   volume_error = mean |volume - fraction| / fraction

    with c of the generated density above one half, solved anew for the task of the data.

    Args:
      equations: of the bodies.
      generated: fields for the conditions of the reference.
      reference: optimised bodies of the same conditions.
    Returns:
      measurements by name; rejection_rate is the share of bodies in several pieces.
    """
    from scipy import ndimage

    solid = np.zeros_like(generated.fields)
    solid[..., :-1, :-1, 2] = generated.fields[..., :-1, :-1, 2] > 0.5
    compliance = _compliance(equations)
    found = in_chunks(compliance, CHUNK, solid, generated.condition)
    best = in_chunks(compliance, CHUNK, reference.fields, reference.condition)
    volume = solid[..., :-1, :-1, 2].mean(axis=(1, 2))
    asked = generated.condition[:, 0, 0, 0]
    pieces = [ndimage.label(one[:-1, :-1, 2], structure=np.ones((3, 3)))[1] != 1 for one in solid]
    return {
        "compliance_error": Measurement(float(np.median(found / best - 1.0))),
        "volume_error": _mean(np.abs(volume - asked) / asked),
        "rejection_rate": _mean(np.asarray(pieces, float)),
    }
