"""Scores of trajectories of particles that continue given frames."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.equations import FieldSet
from experiments.evaluation.equations import CHUNK, costs, mean_measurement
from experiments.evaluation.invariants import invariant_errors
from experiments.evaluation.particles import step_scores
from experiments.study.study import Answer, Run
from phdme_jax.app.rows import Measurement
from phdme_jax.numerics.batching import in_chunks
from phdme_jax.systems.equations.base import Equations
from phdme_jax.systems.given_frames import imposed
from phdme_jax.systems.particles.base import motion_of


def displacement_scores(samples: np.ndarray, truth: np.ndarray, given: int) -> dict[str, Measurement]:
    """How far predicted positions are from the true ones, in units of length.

        ade: mean distance over samples, particles and frames that are not given,   fde: of the last frame alone
        ade_of_mean, fde_of_mean: of the mean of the samples, which a forecast without a distribution is compared with
        ade_best, fde_best: of the best of several samples of each trajectory, by the one and by the other

    Args:
      samples: fields (trajectory, sample, time, particle, field).
      truth: fields (trajectory, time, particle, field).
      given: how many of the first frames are.
    Returns:
      measurements by name, means over the trajectories.
    Source: Han et al. (2024), arXiv 2410.13027, section 5.1, of the first two.
    """
    found, there = (np.asarray(motion_of(jnp.asarray(part[..., given:, :, :])).position) for part in (samples, truth))

    def distances(found: np.ndarray) -> dict[str, np.ndarray]:
        apart = np.linalg.norm(found - there[:, None], axis=-1).mean(axis=-1)
        return {"ade": apart.mean(axis=-1), "fde": apart[..., -1]}

    each, mean = distances(found), distances(found.mean(axis=1, keepdims=True))
    rows = {name: mean_measurement(values.mean(axis=1)) for name, values in each.items()}
    rows |= {f"{name}_of_mean": mean_measurement(values[:, 0]) for name, values in mean.items()}
    if samples.shape[1] > 1:
        rows |= {f"{name}_best": mean_measurement(values.min(axis=1)) for name, values in each.items()}
    return rows


@lru_cache
def _imposer() -> Callable[[Any, Any], Any]:
    return jax.jit(jax.vmap(imposed))


def prediction_scores(equations: Equations, samples: np.ndarray, condition: np.ndarray, truth: np.ndarray) -> Any:
    """Displacements of all samples; of the first one, given frames in their place, how far it is from a motion.

    Args:
      equations: of particles, first frames given.
      samples: fields (trajectory, sample, time, particle, field).
      condition: of each trajectory.
      truth: fields (trajectory, time, particle, field).
    Returns:
      measurements by name: see `displacement_scores`, `invariant_errors` and `motion_scores`.
    """
    whole = FieldSet(in_chunks(_imposer(), CHUNK, samples[:, 0], condition), condition)
    rows = displacement_scores(samples, truth, equations.given_frames)
    return rows | invariant_errors(equations, whole) | step_scores(equations, whole)


def samples_of(answer: Answer) -> np.ndarray:
    """Samples of each trajectory, or the one forecast of a method without a distribution; not a number where failed."""
    forecasts = answer.forecasts
    samples = forecasts.mean[:, None] if forecasts.samples is None else forecasts.samples
    return np.where(forecasts.ok.reshape(-1, *(1,) * (samples.ndim - 1)), samples, np.nan)


def answered_prediction_scores(answer: Answer) -> dict[str, Measurement]:
    """All scores of predicted trajectories."""
    split = answer.bench.splits[answer.split]
    equations = answer.bench.task.problem
    return prediction_scores(equations, samples_of(answer), split.condition, split.truth) | costs(answer)


@lru_cache
def law_continued(equations: Equations) -> Callable[[Any], Any]:
    """Many conditions to the given frames and the true law from the last of them on."""

    def one(condition: Any) -> Any:
        count, given = len(equations.fields), equations.given_frames
        told = condition[..., -1 - count : -1]
        # told as if the last given frame were the first of all
        start = jnp.broadcast_to(condition[given - 1 : given], condition.shape)
        assert equations.resolve is not None
        ahead = equations.resolve(jnp.zeros_like(told), start)
        return jnp.concatenate([told[:given], ahead[1 : len(told) - given + 1]])

    return jax.jit(jax.vmap(one))


def prediction_reference_rows(run: Run) -> None:
    """Scores of the true law continued from the last given frame: zero displacement, to rounding."""
    equations, split = run.bench.task.problem, run.bench.splits[run.context.asked]
    found = in_chunks(law_continued(equations), CHUNK, split.condition)
    rows = prediction_scores(equations, found[:, None], split.condition, split.truth)
    run.record("reference", run.context.asked, rows, len(split.truth))
