"""Scores of forecasts against what was observed, as measurements for rows of results: the same for every method."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from phdme_jax.app.rows import Measurement
from phdme_jax.forecasting.bands import Forecasts
from phdme_jax.numerics.batching import in_chunks
from phdme_jax.training import metrics

SCORED = 32  # trajectories scored at a time


def mean_and_error(values: Float[np.ndarray, " n"], unit: str = "1") -> Measurement:
    """Mean over examples with its standard error, where that is known."""
    values = np.asarray(values, float)
    spread_known = values.size > 1 and bool(np.isfinite(values).all())
    error = float(values.std(ddof=1) / np.sqrt(values.size)) if spread_known else None
    return Measurement(float(values.mean()), unit, error)


def accuracy(
    truth: Float[np.ndarray, "n time *grid field"], forecasts: Forecasts, fields: tuple[str, ...]
) -> dict[str, Measurement]:
    """Errors of the forecast mean and scores of the samples.

    nmse is the mean over fields of MSE / variance of the field over the split; nmse_FIELD is one field's.
    A failed forecast stays in every mean, as infinite. spread_skill is the spread of the samples over the error of
    their mean, one where reliable.

    Args:
      truth: trajectories.
      forecasts: of them.
      fields: names.
    Returns:
      measurements by name.
    """
    variance = np.asarray(metrics.reference_variance(jnp.asarray(truth)))
    error = np.mean((truth - forecasts.mean) ** 2, axis=tuple(range(1, truth.ndim - 1)))
    error[~forecasts.ok] = np.inf
    result = {
        "nmse": mean_and_error(np.mean(error / variance, axis=-1)),
        "mse": mean_and_error(error.mean(axis=-1)),
    }
    for index, field in enumerate(fields):
        result[f"nmse_{field}"] = mean_and_error(error[:, index] / variance[index])
    scales = np.broadcast_to(np.sqrt(variance), (len(truth), *variance.shape))
    samples = forecasts.mean[:, None] if forecasts.samples is None else forecasts.samples
    fair = samples.shape[1] > 1
    for name in ("crps", "energy_score"):
        values = in_chunks(_scorer(name, fair), SCORED, scales, truth, samples)
        result[name] = mean_and_error(np.where(forecasts.ok, values, np.inf))
    if fair:
        spreads, squares = in_chunks(_spread_skill, SCORED, scales, truth, samples)
        ratio = float(metrics.spread_skill_ratio(jnp.asarray(spreads), jnp.asarray(squares)))
        result["spread_skill"] = Measurement(ratio if forecasts.ok.all() else np.inf)
    return result


@jax.jit
@jax.vmap
def _spread_skill(scale: Any, truth: Any, samples: Any) -> Any:
    return metrics.spread_skill(truth, samples, field_scale=scale)


@lru_cache
def _scorer(name: str, fair: bool) -> Callable[..., Any]:
    """crps or energy_score of many truths and their samples."""
    score = getattr(metrics, name)
    return jax.jit(jax.vmap(lambda scale, truth, samples: score(truth, samples, field_scale=scale, fair=fair)))
