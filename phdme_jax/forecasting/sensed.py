"""Forecasts from sensors: the states that readings may have begun at, then the forecaster that was fitted.

Nothing is trained. The state is searched for from a Gaussian over states made of the observed frames, see
`phdme_jax.methods.sensors.searched`. The band is calibrated for the sensors themselves: the calibration trajectories
are read at the same places, fields and frames with noise drawn as stated, and forecast from that.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from phdme_jax.forecasting import bands
from phdme_jax.forecasting.bands import Calibration, Forecasts
from phdme_jax.forecasting.forecaster import Forecaster, drawn_forecasts
from phdme_jax.forecasting.sensors import Readings
from phdme_jax.methods import draws
from phdme_jax.methods.base import Fitted, Task, stage_key
from phdme_jax.methods.energy.conditional import Fields
from phdme_jax.methods.energy.options import read_options
from phdme_jax.methods.sensors.background import Background, fit_background
from phdme_jax.methods.sensors.searched import Search, SearchParams, make_searched
from phdme_jax.methods.sensors.sensed import Sensed
from phdme_jax.training.loop import Watch, unwatched

DRAWS = 4096  # states that the background is made of


class SensedForecast(NamedTuple):
    """A forecast from sensors, how far the readings are from the state found, and how wide a band has to be.

    Attributes:
      forecasts: one, physical units, whose mean is that from the most probable state; not finite where a sample failed.
      misfit: mean square of what is missed of the readings, in units of their noise.
      calibration: of a band for these sensors; None for a forecaster that was not calibrated.
    """

    forecasts: Forecasts
    misfit: float
    calibration: Calibration | None


def task_background(task: Task) -> Background:
    """The Gaussian over states that a search begins from: that of the states which rollouts begin in."""
    return fit_background(np.asarray(task.starts(stage_key(task.key, "starts"), DRAWS).state))


def readings_as_sensed(forecaster: Forecaster, readings: Readings) -> Sensed:
    """Readings as a search takes them, internal units, leaves with one leading axis of length one."""
    window, scale = int(readings.frames[-1]) + 1, forecaster.setup.units.scale
    values = np.zeros((1, window, *_grid_of(forecaster)))
    values[0][_where(readings)] = readings.values / scale[readings.fields]
    return Sensed(jnp.asarray(values), jnp.asarray(_mask(forecaster, readings, window)[None]))


def synthetic_readings(
    forecaster: Forecaster,
    readings: Readings,
    truth: Float[np.ndarray, "n time grid field"],
    key: Key[Array, ""],
) -> Sensed:
    """What the same sensors would have read of other trajectories, noise drawn as stated; internal units."""
    window, scale = int(readings.frames[-1]) + 1, forecaster.setup.units.scale
    mask = _mask(forecaster, readings, window)
    noise = _noise(forecaster, readings) * np.asarray(jax.random.normal(key, truth[:, :window].shape, float))
    read = mask * (truth[:, :window] / scale + noise)
    return Sensed(jnp.asarray(read), jnp.asarray(np.broadcast_to(mask, noise.shape)))


def forecast_sensed(
    forecaster: Forecaster, readings: Readings, num_samples: int, key: Key[Array, ""], watch: Watch = unwatched
) -> SensedForecast:
    """The forecast from readings, and the quantiles of its band where the forecaster is calibrated.

    Args:
      forecaster: fitted.
      readings: what was read.
      num_samples: to draw, as many as calibration uses at the least where there is one.
      key: random key.
      watch: shows the progress.
    Returns:
      the forecast.
    """
    fitted = searched(forecaster, readings)
    asked, truth, calibration = readings_as_sensed(forecaster, readings), forecaster.calibrated_on, None
    read_key, draw_key = jax.random.split(forecaster.setup.key("sensors"))
    if truth is not None:  # searched for together, so that one program does for all
        asked = jax.tree.map(
            lambda first, others: np.concatenate([first, others]),
            asked,
            synthetic_readings(forecaster, readings, truth, read_key),
        )
        num_samples = max(num_samples, forecaster.num_samples)
    found = draws.prepare(fitted, asked)
    own, others = (jax.tree.map(lambda leaf, part=part: leaf[part], found) for part in (slice(1), slice(1, None)))
    made = drawn_forecasts(forecaster, fitted, own, num_samples, key, watch)
    if truth is not None and forecaster.calibration is not None:
        read = drawn_forecasts(forecaster, fitted, others, forecaster.num_samples, draw_key, watch)
        calibration = bands.calibrate(truth, bands.finite(read), forecaster.calibration.floor, forecaster.level)
    return SensedForecast(made, float(own.misfit[0]), calibration)


def search_of(forecaster: Forecaster) -> Search:
    """The search through the mean of a forecaster: its learned step, or the rollout of its energy."""
    structure, model = forecaster.structure, forecaster.fitted.model
    if forecaster.fitted.params.propagator is None:
        return Search(structure, model, None, forecaster.energy.model.dynamics)
    network = read_options(forecaster.setup.options).network
    return Search(structure, model, network.make_propagator(Fields(structure).parity, observed=False), None)


def searched(forecaster: Forecaster, readings: Readings) -> Fitted:
    """The forecaster, asked by sensors that read where and as well as these, internal units."""
    search, noise = search_of(forecaster), jnp.asarray(_noise(forecaster, readings))
    energy = None if search.dynamics is None else forecaster.energy.params
    return Fitted(
        make_searched(search), SearchParams(forecaster.background, noise, forecaster.fitted.params, energy), {}
    )


def _grid_of(forecaster: Forecaster) -> tuple[int, int]:
    return forecaster.observed.grid.size, len(forecaster.structure.fields)


def _where(readings: Readings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of the readings in (window, grid, field)."""
    return readings.frames[:, None], readings.points[None], readings.fields[None]


def _mask(forecaster: Forecaster, readings: Readings, window: int) -> np.ndarray:
    mask = np.zeros((window, *_grid_of(forecaster)))
    mask[_where(readings)] = 1.0
    return mask


def _noise(forecaster: Forecaster, readings: Readings) -> np.ndarray:
    """Standard deviation of each field at each place, internal units; one where nothing is read."""
    noise = np.ones(_grid_of(forecaster))
    noise[readings.points, readings.fields] = readings.noise / forecaster.setup.units.scale[readings.fields]
    return noise
