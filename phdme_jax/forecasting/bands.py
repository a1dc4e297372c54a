"""Forecasts with samples, and the band that split conformal calibration makes of their spread."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from phdme_jax.calibration import band_score, conformal_quantile, minimum_calibration_size
from phdme_jax.calibration.scores import ball_score, band, band_scale


class Forecasts(NamedTuple):
    """Forecasts of one method on one split, physical units.

    Attributes:
      mean: forecast mean, (n, time, *grid, field).
      samples: (n, sample, time, *grid, field), or None for a method that has no distribution.
      ok: per trajectory, whether the method gave a finite forecast.
      seconds: wall time per sampled trajectory.
    """

    mean: np.ndarray
    samples: np.ndarray | None
    ok: np.ndarray
    seconds: float


class Calibration(NamedTuple):
    """What split conformal calibration leaves: the floor of the spread, the band's and the ball's quantile."""

    floor: np.ndarray
    quantile: float
    radius: float
    num_calibration: int


def all_finite(values: Any) -> np.ndarray:
    """Per trajectory (first axis), whether every value is finite."""
    return np.isfinite(values).all(axis=tuple(range(1, values.ndim)))


def finite(forecasts: Forecasts) -> Forecasts:
    """The forecasts with zeros in place of what is not finite; which failed is marked by `ok`."""
    samples = forecasts.samples
    samples = None if samples is None else np.nan_to_num(samples, posinf=0.0, neginf=0.0)
    return forecasts._replace(mean=np.nan_to_num(forecasts.mean, posinf=0.0, neginf=0.0), samples=samples)


def spread(forecasts: Forecasts) -> np.ndarray:
    """Ensemble standard deviation, zero for a method without samples."""
    if forecasts.samples is None or forecasts.samples.shape[1] < 2:
        return np.zeros_like(forecasts.mean)
    return forecasts.samples.std(axis=1, ddof=1)


def judged(truth: np.ndarray, forecasts: Forecasts, counted: np.ndarray | None) -> Forecasts:
    """Forecasts whose mean has an error only where it counts: elsewhere it is the truth, and decides no score.

    Args:
      truth: trajectories, (n, time, *grid, field).
      forecasts: of them.
      counted: true where an error counts, shape of the truth; everywhere where None.
    Returns:
      the forecasts with another mean.
    """
    return forecasts if counted is None else forecasts._replace(mean=np.where(counted, forecasts.mean, truth))


def band_scores(truth: np.ndarray, forecasts: Forecasts, floor: np.ndarray) -> np.ndarray:
    """Largest error of each trajectory in units of its spread plus the floor; infinite where the method failed."""
    scores = _band_scores(truth, forecasts.mean, spread(forecasts), jnp.asarray(floor))
    return np.where(forecasts.ok, np.asarray(scores), np.inf)


@jax.jit
@partial(jax.vmap, in_axes=(0, 0, 0, None))
def _band_scores(truth: Any, mean: Any, deviation: Any, floor: Any) -> Any:
    return band_score(truth, mean, band_scale(deviation, floor))


def calibrate(truth: np.ndarray, forecasts: Forecasts, floor: np.ndarray, level: float) -> Calibration:
    """Quantiles of the band and ball scores on calibration trajectories.

    Raises:
      ValueError: too few calibration trajectories for the level.
    """
    quantile = conformal_quantile(jnp.asarray(band_scores(truth, forecasts, floor)), level)
    balls = np.asarray(jax.vmap(ball_score)(jnp.asarray(truth), jnp.asarray(forecasts.mean)))
    radius = conformal_quantile(jnp.asarray(np.where(forecasts.ok, balls, np.inf)), level)
    return Calibration(floor, float(quantile), float(radius), truth.shape[0])


def forecast_band(forecasts: Forecasts, calibration: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of the simultaneous band, (n, time, *grid, field)."""
    scale = spread(forecasts) + calibration.floor
    lower, upper = band(jnp.asarray(forecasts.mean), jnp.asarray(scale), calibration.quantile)
    return np.asarray(lower), np.asarray(upper)


def supported(num_calibration: int, level: float) -> bool:
    """Whether a level can be reached with so many calibration trajectories."""
    return num_calibration >= minimum_calibration_size(level)
