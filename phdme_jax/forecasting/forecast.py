"""A forecaster at work: an initial state in, or what a few sensors read, a forecast with its band out.

The state is that of the first trained frame; sensors read it and the frames after it. `mean` is the conditional mean
that samples are drawn around, from sensors that of the most probable state. A calibrated band is the conformal one
around it, as wide as the spread of as many samples as calibration used says, so that the guarantee holds as it was
calibrated; further samples are drawn beside them. Without calibration the band spans the central share of all samples.
Bands are closed where nothing is open: at an initial state that was told, and where a field is held at the ends. Times
between trained frames are interpolated: each sample and the mean by a cubic spline in time, the half width of a
calibrated band linearly.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Float, Key
from numpy.typing import ArrayLike

from phdme_jax.files import InputError
from phdme_jax.forecasting import bands
from phdme_jax.forecasting.agreement import check_ends
from phdme_jax.forecasting.bands import Forecasts
from phdme_jax.forecasting.files import InitialState, StateSource, read_state, read_times
from phdme_jax.forecasting.forecast_file import Forecast
from phdme_jax.forecasting.forecaster import BLOCK, Forecaster, forecasts_from
from phdme_jax.forecasting.options import check_seed
from phdme_jax.forecasting.precision import in_double_precision
from phdme_jax.forecasting.sensed import forecast_sensed
from phdme_jax.forecasting.sensors import Readings, SensorSource, read_sensors
from phdme_jax.systems.energy.base import line_parity
from phdme_jax.training.loop import Watch, unwatched

LARGEST_FORECAST = 8e9  # bytes
MOST_SAMPLES = 10**9
TIME_SLACK = 1e-6
FAR_STATE = 1.25
FAR_READINGS = 4.0  # mean square of what is missed of readings, in units of their noise
LONG = 8 * BLOCK  # samples from which the progress is shown


@in_double_precision
def forecast(
    forecaster: Forecaster,
    state: StateSource | ArrayLike | None = None,
    num_samples: int | None = None,
    times: ArrayLike | None = None,
    *,
    sensors: SensorSource | None = None,
    seed: int = 0,
    watch: Watch = unwatched,
) -> Forecast:
    """Forecast one motion from its initial state, or from what a few sensors read of its first frames.

    Args:
      forecaster: fitted, calibrated or not.
      state: path of an `.npz`, mapping of arrays or `InitialState` with `state` (grid, field), `grid` and maybe the
        times wanted as `time`; or the state alone, on the grid of the fit.
      num_samples: samples to return; as many as calibration uses where None.
      times: times wanted, within those of the fit; the file's, or the trained frames, where None.
      sensors: in place of a state, path of an `.npz`, mapping of arrays or `Sensors`; a calibrated forecaster
        calibrates its band for them, on the trajectories that it was calibrated on.
      seed: of the draws.
      watch: shows the progress of many samples.
    Returns:
      the forecast; its `notes` are worth reading.
    Raises:
      InputError: any defect of what was given, in one sentence.
    """
    count, seed = forecaster.num_samples if num_samples is None else num_samples, check_seed(seed)
    if not 1 <= count <= MOST_SAMPLES:
        raise InputError(f"expected num_samples from 1 to {MOST_SAMPLES}, got {count}")
    if (state is None) == (sensors is None):
        raise InputError(f"expected a state or sensors to forecast from, got {'neither' if state is None else 'both'}")
    key, shown = jax.random.key(seed), watch if count >= LONG else unwatched
    if sensors is not None:
        readings = read_sensors(sensors, forecaster.observed, forecaster.structure.fields)
        wanted = _wanted(forecaster, None if times is None else read_times(times), "times", count)
        return _sensed_forecast(forecaster, readings, count, wanted, key, watch)
    assert state is not None
    found = read_state(_source(forecaster, state, times), forecaster.layout, (forecaster.observed.grid,))
    where = str(state) if isinstance(state, str | Path) else "state"
    initial, notes = check_state(where, forecaster, found)
    wanted = _wanted(forecaster, found.time, where, count)
    drawn = forecasts_from(forecaster, initial[None], _needed(forecaster, count), key, shown)
    return _forecast(forecaster, drawn, initial, count, wanted, tuple(notes))


def _wanted(forecaster: Forecaster, time: np.ndarray | None, where: str, count: int) -> Float[np.ndarray, " wanted"]:
    """Times of a forecast; refuses those outside the trained range and more samples than fit into memory."""
    trained, points = forecaster.observed.time, forecaster.observed.grid.size * len(forecaster.structure.fields)
    if time is not None:
        _check_range(where, forecaster, time)
    wanted = trained if time is None else np.clip(time, trained[0], trained[-1])
    frames = max(trained.size, wanted.size)
    if (size := 8.0 * count * frames * points) > LARGEST_FORECAST:
        raise InputError(
            f"{count} samples of {frames} frames take {size * 1e-9:.1f} GB; expected at most "
            f"{LARGEST_FORECAST * 1e-9:g} GB, ask for fewer samples"
        )
    return wanted


def _needed(forecaster: Forecaster, count: int) -> int:
    """Samples to draw where so many are wanted: those behind a calibrated band in any case."""
    return max(count, forecaster.num_samples) if forecaster.is_calibrated else count


def _source(forecaster: Forecaster, state: StateSource | ArrayLike, times: ArrayLike | None) -> StateSource:
    """What `read_state` takes; times that were given take the place of the file's."""
    keys = forecaster.layout.grid_keys
    if isinstance(state, InitialState):
        state = state.named(forecaster.layout)
    elif isinstance(state, str | Path):
        if times is None:
            return state
        state = read_state(state, forecaster.layout).named(forecaster.layout)
    elif not isinstance(state, Mapping):
        state = {"state": state, **dict(zip(keys, (forecaster.observed.grid,), strict=True))}
    return state if times is None else {**state, "time": times}


def check_state(where: str, forecaster: Forecaster, found: InitialState) -> tuple[np.ndarray, list[str]]:
    """The initial state with its boundary values imposed, and sentences the user should read.

    Raises:
      InputError: ends that move, or times outside the trained range.
    """
    structure, observed = forecaster.structure, forecaster.observed
    notes = check_ends(where, structure, found.state[None], observed.scale)
    state = np.asarray(jax.jit(structure.constrain)(np.asarray(found.state, float)))
    if far := _far(forecaster, state):
        notes.append(f"{where}: {far}; the forecast extrapolates and its band promises nothing")
    if found.time is not None:
        _check_range(where, forecaster, found.time)
    return state, notes


def _check_range(where: str, forecaster: Forecaster, time: np.ndarray) -> None:
    first, last = forecaster.observed.time[[0, -1]]
    slack = TIME_SLACK * (last - first)
    if time[0] < first - slack or time[-1] > last + slack:
        raise InputError(
            f"{where}: asks for times from {time[0]:g} to {time[-1]:g}; the forecaster was trained from {first:g} to "
            f"{last:g} and does not go beyond"
        )


def _sensed_forecast(
    forecaster: Forecaster,
    readings: Readings,
    num_samples: int,
    time: Float[np.ndarray, " wanted"],
    key: Key[Array, ""],
    watch: Watch,
) -> Forecast:
    """The forecast from sensors, its band calibrated for them where the forecaster is calibrated."""
    made, notes = forecast_sensed(forecaster, readings, num_samples, key, watch), []
    if made.misfit > FAR_READINGS:
        notes.append(
            f"the readings are {np.sqrt(made.misfit):.2g} times their noise away from the nearest motion that was "
            "found; there is more noise than stated, a sensor or a time is wrong, or the motion is of another kind "
            "than that of the fit"
        )
    if far := _far(forecaster, made.forecasts.mean[0, 0]):
        notes.append(f"in the state that was found {far}; the forecast extrapolates and its band promises nothing")
    if made.calibration is not None:
        notes.append(
            f"calibrated for these sensors: they read {made.calibration.num_calibration} calibration trajectories with "
            "noise as stated; the band promises for readings that are no worse"
        )
    asked = replace(forecaster, calibration=made.calibration)
    return _forecast(asked, made.forecasts, None, num_samples, time, tuple(notes))


def _far(forecaster: Forecaster, state: Float[np.ndarray, "grid field"]) -> str | None:
    """Which field is further from rest than the fit has seen, and how far; None where none is."""
    observed = forecaster.observed
    reach = np.abs(state - observed.centre).max(axis=0) / observed.excursion
    worst = int(np.argmax(reach))
    if reach[worst] <= FAR_STATE:
        return None
    return f"{forecaster.structure.fields[worst]} goes {reach[worst]:.2g} times as far from rest as the fit has seen"


def _forecast(
    forecaster: Forecaster,
    drawn: Forecasts,
    initial: Float[np.ndarray, "grid field"] | None,
    num_samples: int,
    time: Float[np.ndarray, " wanted"],
    notes: tuple[str, ...],
) -> Forecast:
    """What was drawn of one motion, with its band, at the times wanted; closed at a known initial state."""
    calibrated, trained = forecaster.is_calibrated, forecaster.observed.time
    every, middle = drawn.samples, drawn.mean[0]
    assert every is not None
    finite = np.isfinite(every).all(axis=(2, 3, 4))[0]
    if not finite.all():
        if not finite.any() or not np.isfinite(middle).all():
            raise InputError("every sample of the forecast diverged; the state is far from what the fit has seen")
        notes = (*notes, f"{np.sum(~finite)} of {finite.size} samples diverged and were dropped")
        every, calibrated = every[:, finite][:, :num_samples], False
    moved = not np.array_equal(time, trained)

    def at_times(values: np.ndarray) -> np.ndarray:
        if not moved:
            return values
        from scipy.interpolate import CubicSpline

        return CubicSpline(trained, values, axis=-3)(time)

    mean, samples = at_times(middle), at_times(every[0, :num_samples])
    if calibrated:
        few = drawn._replace(samples=every[:, : forecaster.num_samples])
        width = half_width(forecaster, few, closed=initial is not None)[0]
        width = _linear(trained, width, time) if moved else width
        lower, upper = mean - width, mean + width
    else:
        lower, upper = central_band(mean, samples, forecaster.level)
    if initial is not None:
        given = time == trained[0]
        for values in (mean, lower, upper):
            values[given] = initial
        samples[:, given] = initial
    notes = (*notes, *_band_notes(forecaster, calibrated, moved, num_samples), *_way_notes(forecaster, mean, time))
    grid = (forecaster.observed.grid,)
    return Forecast(mean, lower, upper, samples, time, grid, forecaster.level, calibrated, notes)


def half_width(
    forecaster: Forecaster, forecasts: Forecasts, closed: bool = True
) -> Float[np.ndarray, "n time grid field"]:
    """Half width of the calibrated band: quantile (spread + floor), zero where nothing is open.

    Nothing is open in the first frame where the state was told (`closed`), and where a field is held at the ends;
    errors there are zero and score zero, so that the guarantee does not depend on the width there.
    """
    calibration = forecaster.calibration
    assert calibration is not None
    width = calibration.quantile * (bands.spread(forecasts) + calibration.floor)
    if closed:
        width[:, 0] = 0.0
    held = np.asarray(line_parity(forecaster.structure)) < 0
    width[:, :, [0, -1]] = np.where(held, 0.0, width[:, :, [0, -1]])
    return width


def central_band(
    mean: Float[np.ndarray, "*point"], samples: Float[np.ndarray, "sample *point"], level: float
) -> tuple[Float[np.ndarray, "*point"], Float[np.ndarray, "*point"]]:
    """Lower and upper edge of the central share `level` of the samples, wide enough for the mean."""
    lower, upper = np.quantile(samples, ((1 - level) / 2, (1 + level) / 2), axis=0)
    return np.minimum(lower, mean), np.maximum(upper, mean)


def _way_notes(forecaster: Forecaster, mean: Float[np.ndarray, "time grid field"], time: np.ndarray) -> list[str]:
    """That the mean goes where the fit has seen nothing, though it does not start there."""
    if _far(forecaster, mean[0]):
        return []  # said of the state
    beyond = next(((at, far) for at, state in zip(time, mean, strict=True) if (far := _far(forecaster, state))), None)
    if beyond is None:
        return []
    at, far = beyond
    return [f"from t = {at:.6g} on {far}; the energy is extrapolated there and the band promises nothing"]


def _band_notes(forecaster: Forecaster, calibrated: bool, moved: bool, num_samples: int) -> list[str]:
    share, notes = f"{100 * forecaster.level:g} %", []
    if not calibrated:
        notes.append(
            f"the band is not calibrated for {share}: it is the central {share} of the samples and promises no coverage"
        )
    elif num_samples != forecaster.num_samples:
        notes.append(f"the band rests on the first {forecaster.num_samples} samples drawn, as in calibration")
    if moved:
        notes.append("times between trained frames are interpolated by cubic splines; calibration was at the frames")
    return notes


def _linear(frames: np.ndarray, values: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Linear interpolation along the first axis."""
    right = np.clip(np.searchsorted(frames, time), 1, frames.size - 1)
    share = ((time - frames[right - 1]) / (frames[right] - frames[right - 1]))[:, None, None]
    return (1 - share) * values[right - 1] + share * values[right]
