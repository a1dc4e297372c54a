"""`forecast.npz`: a forecast with its band, checked and written whole or not at all."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float

from phdme_jax.files import atomic_write
from phdme_jax.forecasting.files import GRID_KEYS


@dataclasses.dataclass(frozen=True, eq=False)
class Forecast:
    """A forecast of one motion with its band, physical units.

    Attributes:
      mean: conditional mean that samples are drawn around.
      lower, upper: edges of the band; both are the mean at an initial state that was told.
      samples: futures.
      time: of the frames.
      grid: one array per grid axis.
      level: of the band.
      calibrated: whether the band promises the level for whole trajectories.
      notes: sentences that the user should read.
    """

    mean: Float[np.ndarray, "time *grid field"]
    lower: Float[np.ndarray, "time *grid field"]
    upper: Float[np.ndarray, "time *grid field"]
    samples: Float[np.ndarray, "sample time *grid field"]
    time: Float[np.ndarray, " time"]
    grid: tuple[Float[np.ndarray, " _"], ...]
    level: float
    calibrated: bool
    notes: tuple[str, ...] = ()


def write_forecast(path: Path | str, forecast: Forecast) -> Path:
    """Writes `forecast.npz` under a temporary name and renames it, so that a reader sees all of it or nothing.

    Args:
      path: where to; its folder is made if missing.
      forecast: the forecast.

    Returns:
      The path.

    Raises:
      ValueError: shapes that do not fit together, NaN, bounds in the wrong order, infinities in a calibrated forecast.
      InputError: the path cannot be written.
    """
    arrays = _forecast_arrays(forecast)
    with atomic_write(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return Path(path)


def _forecast_arrays(forecast: Forecast) -> dict[str, np.ndarray]:
    shape = forecast.mean.shape
    expected = (len(forecast.time), *(len(points) for points in forecast.grid))
    if shape[:-1] != expected or forecast.lower.shape != shape or forecast.upper.shape != shape:
        raise ValueError(
            f"expected mean, lower and upper of shape {(*expected, 'field')}, "
            f"got {shape}, {forecast.lower.shape} and {forecast.upper.shape}"
        )
    if forecast.samples.shape[1:] != shape:
        raise ValueError(f"expected samples of shape (sample, ...) + {shape}, got {forecast.samples.shape}")
    if not 0 < forecast.level < 1:
        raise ValueError(f"expected a level between 0 and 1, got {forecast.level}")
    if not (np.isfinite(forecast.mean).all() and np.isfinite(forecast.samples).all()):
        raise ValueError("the forecast's mean or samples hold NaN or infinite values; drop the samples that failed")
    if not (forecast.lower <= forecast.upper).all():
        raise ValueError("expected lower <= upper everywhere, without NaN")
    if forecast.calibrated and not (np.isfinite(forecast.lower).all() and np.isfinite(forecast.upper).all()):
        raise ValueError("a calibrated forecast has a finite band; got infinite bounds")
    names = ("mean", "lower", "upper", "samples", "time")
    arrays = {name: np.asarray(getattr(forecast, name)) for name in names}
    arrays |= dict(zip(GRID_KEYS[len(forecast.grid)], forecast.grid, strict=True))
    return arrays | {"level": np.asarray(float(forecast.level)), "calibrated": np.asarray(bool(forecast.calibrated))}
