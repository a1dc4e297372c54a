"""A saved forecaster at work: an initial state in, a forecast with its band out.

    python -m experiments.forecast --run DIR --initial state.npz --samples 100 --out forecast.npz [--seed 0]

The state is that of the first trained frame. `mean` is the conditional mean that samples are drawn around. A
calibrated band is the conformal one around it, as wide as the spread of as many samples as calibration used says, so
that the guarantee holds as it was calibrated; further samples are written beside them. Without calibration the band
spans the central share of all samples. Times between trained frames are interpolated: each sample and the mean by a
cubic spline in time, the half width of a calibrated band linearly.
"""

import argparse
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.interpolate import CubicSpline
from tqdm import tqdm

from experiments.evaluation import forecasts as evaluation
from phdme_jax.app.command import CommandParser, run_main, whole_number
from phdme_jax.app.folder import command_line
from phdme_jax.app.process import prepare_process
from phdme_jax.files import InputError
from phdme_jax.forecasting.bands import Forecasts
from phdme_jax.forecasting.files import InitialState, read_state
from phdme_jax.forecasting.forecast_file import Forecast, write_forecast
from phdme_jax.forecasting.inputs import check_ends, smoothest_part
from phdme_jax.forecasting.saved import Forecaster, is_calibrated, load_forecaster
from phdme_jax.methods.energy import generator as generators
from phdme_jax.systems.energy.base import line_parity

BLOCK = 16
LARGEST_FORECAST = 8e9
TIME_SLACK = 1e-6
FAR_STATE = 1.25


def draw(forecaster: Forecaster, initial: np.ndarray, num_samples: int, key: Any, show: bool = False) -> np.ndarray:
    """Draw trajectories from initial states; the first samples are the same however many are drawn.

    Args:
      forecaster: fitted.
      initial: initial states, physical units, boundary values imposed, (n, grid, field).
      num_samples: trajectories for each state.
      key: random key.
      show: whether to show progress.
    Returns:
      samples, physical units, (n, sample, time, grid, field), float64; the first frame is the initial state exactly.
    """
    units = np.asarray(forecaster.units.fields)
    known = generators.known_values(forecaster.structure, forecaster.generator.times)
    told = _told(forecaster, initial)
    size = min(BLOCK, forecaster.num_samples)
    blocks = []
    for block in tqdm(range(math.ceil(num_samples / size)), desc="samples", unit="block", disable=not show):
        block_key = jax.random.fold_in(key, block)
        chunk = size * min(2, len(initial))
        drawn = generators.sample_forecasts(forecaster.generator, known, told, size, block_key, chunk)
        blocks.append(drawn)
    samples = np.concatenate(blocks, axis=1)[:, :num_samples].astype(np.float64) * units
    samples[:, :, 0] = initial[:, None]
    return samples


def centre(forecaster: Forecaster, initial: np.ndarray) -> np.ndarray:
    """The conditional mean from initial states, physical units, (n, time, grid, field), float64."""
    means = generators.conditional_mean(forecaster.generator, _told(forecaster, initial)).astype(np.float64)
    means *= np.asarray(forecaster.generator.arrays["normaliser"].scale) * np.asarray(forecaster.units.fields)
    means[:, 0] = initial
    return means


def _told(forecaster: Forecaster, initial: np.ndarray) -> np.ndarray:
    """What the generator is told of initial states, in its units.

    A learned time step is told the part in the modes that it was trained on: what is left is measurement noise or
    shorter waves, of which it knows nothing. A rollout is told the whole state.
    """
    if forecaster.generator.method.mean == "propagator":
        initial = smoothest_part(forecaster.structure, initial, forecaster.modes)
    return initial / np.asarray(forecaster.units.fields)


def as_forecasts(mean: np.ndarray, samples: np.ndarray, seconds: float) -> Forecasts:
    """Mean and samples as the record that evaluation takes."""
    finite = np.isfinite(samples).all(axis=(1, 2, 3, 4)) & np.isfinite(mean).all(axis=(1, 2, 3))
    mean, samples = (np.nan_to_num(part, posinf=0.0, neginf=0.0) for part in (mean, samples))
    return Forecasts(mean, samples, finite, seconds)


def half_width(forecaster: Forecaster, forecasts: Forecasts) -> np.ndarray:
    """Half width of the calibrated band, (n, time, grid, field): quantile (spread + floor), zero where nothing is open.

    Nothing is open in the first frame and where a field is held at the ends; errors there are zero and score zero, so
    that the guarantee does not depend on the width there.
    """
    calibration = forecaster.calibration
    assert calibration is not None
    width = calibration.quantile * (evaluation.spread(forecasts) + calibration.floor)
    width[:, 0] = 0.0
    held = np.asarray(line_parity(forecaster.structure)) < 0
    width[:, :, [0, -1]] = np.where(held, 0.0, width[:, :, [0, -1]])
    return width


def make_forecast(
    forecaster: Forecaster,
    initial: np.ndarray,
    num_samples: int,
    key: Any,
    wanted: np.ndarray | None = None,
    show: bool = False,
) -> tuple[Forecast, list[str]]:
    """Forecast one initial state.

    Args:
      forecaster: fitted.
      initial: initial state, physical units, boundary values imposed, (grid, field).
      num_samples: samples to return.
      key: random key.
      wanted: times within the trained range, or None for the trained frames.
      show: whether to show progress.
    Returns:
      the forecast and sentences the user should read.
    Raises:
      InputError: no sample is finite.
    """  # fmt: skip
    calibrated = is_calibrated(forecaster.calibration)
    needed = max(num_samples, forecaster.num_samples) if calibrated else num_samples
    samples = draw(forecaster, initial[None], needed, key, show)
    finite = np.isfinite(samples).all(axis=(2, 3, 4))[0]
    notes = []
    if not finite.all():
        if not finite.any():
            raise InputError("every sample of the forecast diverged; the state is far from what the fit has seen")
        notes.append(f"{np.sum(~finite)} of {finite.size} samples diverged and were dropped")
        samples, calibrated = samples[:, finite][:, :num_samples], False
    time = forecaster.time if wanted is None else wanted
    moved = time.shape != forecaster.time.shape or not np.array_equal(time, forecaster.time)

    def at_times(values: np.ndarray) -> np.ndarray:
        return CubicSpline(forecaster.time, values, axis=-3)(time) if moved else values

    middle = centre(forecaster, initial[None])
    mean = at_times(middle[0])
    if calibrated:
        behind = as_forecasts(middle, samples[:, : forecaster.num_samples], 0.0)
        width = half_width(forecaster, behind)[0]
        width = _linear(forecaster.time, width, time) if moved else width
        lower, upper = mean - width, mean + width
        drawn = at_times(samples[0, :num_samples])
    else:
        drawn = at_times(samples[0])
        tails = ((1 - forecaster.level) / 2, (1 + forecaster.level) / 2)
        lower, upper = np.quantile(drawn, tails, axis=0)
        lower, upper = np.minimum(lower, mean), np.maximum(upper, mean)
    forecast = Forecast(mean, lower, upper, drawn, time, (forecaster.grid,), forecaster.level, calibrated)
    return forecast, notes + _band_notes(forecaster, calibrated, moved, num_samples)


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


def check_state(path: Path, forecaster: Forecaster, found: InitialState) -> tuple[np.ndarray, list[str]]:
    """The initial state with its boundary values imposed, and sentences the user should read.

    Raises:
      InputError: ends that move, or times outside the trained range.
    """
    structure = forecaster.structure
    notes = check_ends(path, structure, found.state[None], forecaster.scale)
    state = np.asarray(structure.constrain(jnp.asarray(found.state, float)))
    reach = np.abs(state).max(axis=(0,)) / forecaster.excursion
    if reach.max() > FAR_STATE:
        worst = int(np.argmax(reach))
        notes.append(
            f"{path}: {structure.fields[worst]} reaches {reach[worst]:.2g} times the largest value the fit has seen; "
            "the forecast extrapolates and its band promises nothing"
        )
    if found.time is not None:
        first, last = forecaster.time[[0, -1]]
        slack = TIME_SLACK * (last - first)
        if found.time[0] < first - slack or found.time[-1] > last + slack:
            raise InputError(
                f"{path}: asks for times from {found.time[0]:g} to {found.time[-1]:g}; the forecaster was trained from "
                f"{first:g} to {last:g} and does not go beyond"
            )
    return state, notes


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = command_line() if arguments is None else shlex.join(["python", "-m", "experiments.forecast", *given])
    return run_main(lambda: _forecast(given), command)


def _forecast(arguments: Sequence[str]) -> None:
    options = _parse(arguments)
    prepare_process()
    forecaster = load_forecaster(options.run)
    found = read_state(options.initial, forecaster.layout, (forecaster.grid,))
    state, notes = check_state(options.initial, forecaster, found)
    wanted = None if found.time is None else np.clip(found.time, forecaster.time[0], forecaster.time[-1])
    count = forecaster.num_samples if options.samples is None else options.samples
    frames = max(forecaster.time.size, 0 if wanted is None else wanted.size)
    if 8.0 * count * frames * state.size > LARGEST_FORECAST:
        raise InputError(
            f"--samples {count} of {frames} frames take {8e-9 * count * frames * state.size:.1f} GB; expected at most "
            f"{LARGEST_FORECAST * 1e-9:g} GB, ask for fewer samples"
        )
    show = count >= 8 * BLOCK
    forecast, more = make_forecast(forecaster, state, count, jax.random.key(options.seed), wanted, show)
    path = write_forecast(options.out, forecast)
    for note in (*notes, *more):
        print(f"note: {note}")
    kind = "calibrated" if forecast.calibrated else "uncalibrated"
    print(f"forecast: {path} ({len(forecast.samples)} samples, {kind} {100 * forecast.level:g} % band)")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser(prog="python -m experiments.forecast", description="Forecasts from an initial state.")
    parser.add_argument("--run", type=Path, required=True, help="run folder of a finished experiments.fit")
    parser.add_argument("--initial", type=Path, required=True, help="state.npz: state, grid, optional time")
    parser.add_argument("--samples", type=whole_number(1), help="samples to draw (as many as calibration)")
    parser.add_argument("--out", type=Path, required=True, help="forecast.npz to write")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="seed of the draws (%(default)s)")
    options = parser.parse_args(list(arguments))
    if options.out.is_dir():
        raise InputError(f"{options.out}: is a folder; expected a file name such as {options.out}/forecast.npz")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
