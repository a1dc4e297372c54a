"""Scores of generated trajectories of particles: obedience to their law of motion, and closeness to the data."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.equations import FieldSet, resolver
from experiments.evaluation.equations import (
    CHUNK,
    costs,
    generated_set,
    mean_measurement,
    median_measurement,
    reference_set,
)
from experiments.evaluation.invariants import invariant_errors
from experiments.study.study import Answer, Run
from phdme_jax.app.rows import Measurement
from phdme_jax.numerics.batching import in_chunks, num_workers
from phdme_jax.systems.equations.base import Equations, stacked_residual
from phdme_jax.systems.particles.base import centred, motion_of, separations
from phdme_jax.training import distances
from phdme_jax.training.judges import classification_score, prediction_score

BINS = 50
FEWEST = 10  # trajectories that a judge learns from


@lru_cache
def _steps(equations: Equations) -> Callable[[Any, Any], Any]:
    """Root mean square of what each frame misses of what follows from the one before, of many trajectories."""

    @jax.jit
    @jax.vmap
    def steps(fields: Any, condition: Any) -> Any:
        missed = stacked_residual(equations, fields, condition)[1:] * equations.grid.spacing[0]
        return jnp.sqrt(jnp.mean(missed**2))

    return steps


def step_scores(equations: Equations, generated: FieldSet) -> dict[str, Measurement]:
    """dynamic_error, see `motion_scores`."""
    return {"dynamic_error": mean_measurement(in_chunks(_steps(equations), CHUNK, *generated))}


def motion_scores(equations: Equations, generated: FieldSet) -> dict[str, Measurement]:
    """How far trajectories are from motions, whatever the data: root mean squares of each, means and medians over them.

        trajectory_error, velocity_error: from the motion computed anew from the trajectory's own first frame
        dynamic_error: of all fields, from one frame to the next
        NAME_error: of what an invariant deviates from its mean over the frames, see `invariant_errors`

    Args:
      equations: of particles.
      generated: trajectories and their conditions.
    Returns:
      measurements by name.
    """
    again = in_chunks(resolver(equations), CHUNK, *generated, workers=num_workers())
    rows = step_scores(equations, generated)
    for name, missed in zip(("trajectory", "velocity"), motion_of(jnp.asarray(again - generated.fields)), strict=True):
        sizes = np.sqrt(np.mean(np.asarray(missed) ** 2, axis=(1, 2, 3)))
        rows |= {f"{name}_error": mean_measurement(sizes), f"{name}_error_median": median_measurement(sizes)}
    return rows | invariant_errors(equations, generated)


@lru_cache
def _observables(equations: Equations) -> Callable[[Any, Any], dict[str, Any]]:
    """What no rotation and no order of the particles changes: invariants, distances and speeds, of many."""

    @jax.jit
    @jax.vmap
    def observables(fields: Any, condition: Any) -> dict[str, Any]:
        motion = motion_of(fields)
        upper = np.triu_indices(fields.shape[1], 1)
        apart = jnp.linalg.norm(jax.vmap(separations)(motion.position)[:, *upper], axis=-1)
        found = {name: jnp.mean(of(fields, condition), axis=0) for name, of in equations.priors.invariants}
        sizes = {name: jnp.linalg.norm(jnp.atleast_1d(value)) if value.ndim else value for name, value in found.items()}
        return {**sizes, "distance": apart, "speed": jnp.linalg.norm(motion.velocity, axis=-1)}

    return observables


def law_scores(equations: Equations, generated: FieldSet, reference: FieldSet) -> dict[str, Measurement]:
    """Distances between the laws of generated and unseen trajectories, as many of each, of the same couplings.

        wasserstein_NAME: between the values of the mean energy, the size of the mean momentum, the distance of each
            pair and each speed, in units of their deviation over the data
        mmd: see `training.distances.mean_discrepancy`, of whole trajectories
        marginal_score: mean difference of the densities of all positions in 50 bins, see `marginal_error`

    Args:
      equations: of particles.
      generated: of a method.
      reference: of the data.
    Returns:
      measurements by name.
    """
    count = min(len(generated.fields), len(reference.fields))
    sets = [FieldSet(part.fields[:count], part.condition[:count]) for part in (generated, reference)]
    left, right = (in_chunks(_observables(equations), CHUNK, *part) for part in sets)
    rows = {}
    for name in left:
        deviation = float(np.std(right[name]))
        value = float(distances.wasserstein_of_values(jnp.asarray(left[name]), jnp.asarray(right[name])))
        finite = np.isfinite(value) and deviation > 1e-9
        rows[f"wasserstein_{name}"] = Measurement(value / deviation if finite else None)
    fields = [jnp.asarray(part.fields) for part in sets]
    if not bool(jnp.all(jnp.isfinite(fields[0]))):
        return rows | {name: Measurement(None) for name in ("mmd", "marginal_score")}
    rows["mmd"] = Measurement(float(distances.mean_discrepancy(fields[0], fields[1], bool(equations.conditions))))
    places = [np.asarray(motion_of(part).position) for part in fields]
    return rows | {"marginal_score": Measurement(marginal_error(*places))}


def judge_scores(generated: FieldSet, reference: FieldSet) -> dict[str, Measurement]:
    """What small networks learn from generated trajectories, positions and velocities as they stand.

        classification_score: see `judges.classification_score`, 0.693 where they are not told from the data
        prediction_score: see `judges.prediction_score`; that of the data itself is the floor

    Args:
      generated: of a method.
      reference: of the data.
    Returns:
      measurements by name.
    """
    count = min(len(generated.fields), len(reference.fields))
    made, real = (jnp.asarray(part.fields[:count]) for part in (generated, reference))
    judges = {"classification_score": classification_score, "prediction_score": prediction_score}
    if count < FEWEST or not bool(jnp.all(jnp.isfinite(made))):
        return {name: Measurement(None) for name in judges}
    key = jax.random.key(17)
    return {name: Measurement(float(judge(made, real, key))) for name, judge in judges.items()}


def marginal_error(generated: np.ndarray, reference: np.ndarray) -> float:
    """Mean absolute difference of the densities of each coordinate and frame, in bins over the reference's range.

    Args:
      generated: positions (sample, time, particle, axis).
      reference: of the data.
    Returns:
      the mean over bins, coordinates and frames.
    Source: Zhou et al. (2023), arXiv 2212.12749, section 5; Han et al. (2024), arXiv 2410.13027, section 5.2.
    """
    errors = []
    for frame in range(reference.shape[1]):
        for axis in range(reference.shape[-1]):
            there = reference[:, frame, :, axis].ravel()
            edges = np.linspace(there.min(), there.max(), BINS + 1)
            width, here = edges[1] - edges[0], generated[:, frame, :, axis].ravel()
            densities = [np.histogram(values, edges)[0] / (len(values) * width) for values in (here, there)]
            errors.append(np.mean(np.abs(densities[0] - densities[1])))
    return float(np.mean(errors))


def particle_scores(answer: Answer) -> dict[str, Measurement]:
    """All scores of generated trajectories of particles."""
    equations, generated, reference = answer.bench.task.problem, generated_set(answer), reference_set(answer)
    laws = law_scores(equations, generated, reference) | judge_scores(generated, reference)
    return motion_scores(equations, generated) | laws | costs(answer)


def other_motions(equations: Equations, starts: np.ndarray, condition: np.ndarray) -> FieldSet:
    """Motions that begin as some trajectories do, with the couplings of others, as generated ones have.

    Args:
      equations: of particles, whose starts do not depend on the coupling.
      starts: trajectories, of which the first frame is read, (sample, time, particle, field).
      condition: of as many others or more.
    Returns:
      the motions, positions told from their mean, and their conditions.
    """
    asked = condition[: len(starts)]
    moved = in_chunks(resolver(equations), CHUNK, starts, asked, workers=num_workers())
    return FieldSet(np.asarray(jax.vmap(centred)(jnp.asarray(moved))), asked)


def particle_reference_rows(run: Run) -> None:
    """Scores of other motions of the data's law: what the scheme leaves, and the floor that sampling leaves."""
    equations, sets = run.bench.task.problem, run.bench.world
    asked = sets[run.context.asked]
    other = other_motions(equations, sets["train"].fields[: len(asked.fields)], asked.condition)
    rows = motion_scores(equations, asked) | law_scores(equations, other, asked) | judge_scores(other, asked)
    run.record("reference", run.context.asked, rows, len(asked.fields))
