"""Forecast windows of a recording, their start states, and what a method forecasts in them."""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.spring.recording import SpringRecording, forecast_window, initial_state
from phdme_jax.forecasting.bands import Forecasts


class Windows(NamedTuple):
    """Forecast windows of one recording, all with the same number of images.

    Attributes:
      starts: frames between release and start, shape (window,).
      begin: index of the start image, shape (window,).
      times: of the start image and the scored ones, shape (window, 1 + time) [s].
      truth: measured displacement at the scored images, shape (window, time, grid, 1) [length].
    """

    starts: np.ndarray
    begin: np.ndarray
    times: np.ndarray
    truth: np.ndarray


class SpringForecast(NamedTuple):
    """Forecasts of one method in the windows of one recording.

    Attributes:
      displacement: mean and samples at the scored images, one field.
      energy: along the mean, at the start image and the scored ones, shape (window, 1 + time).
      energy_samples: shape (window, sample, 1 + time).
      rejected: share of the rollouts (those that train, for a generator) that left the region where the energy is known
        or did not stay finite.
    """

    displacement: Forecasts
    energy: np.ndarray
    energy_samples: np.ndarray
    rejected: float


def make_windows(recording: SpringRecording, starts: tuple[int, int, int], frames: int) -> Windows:
    """Windows at start frames first, first + step, ..., cut to the fewest images that any of them has.

    Args:
      recording: the recording.
      starts: first and last start frame after the release, and the step.
      frames: length of a window in frames of the file.
    Returns:
      the windows.
    Raises:
      ValueError: a window leaves the recording.
    """
    first, last, step = starts
    offsets = np.arange(first, last + 1, step)
    found = [forecast_window(recording, int(offset), frames) for offset in offsets]
    begin = np.array([start for start, _ in found])
    scored = begin[:, None] + 1 + np.arange(min(part.stop - part.start for _, part in found))
    all_images = np.concatenate([begin[:, None], scored], axis=1)
    return Windows(offsets, begin, recording.time[all_images], recording.displacement[scored][..., None])


def cut(windows: Windows, images: int) -> Windows:
    """The windows with fewer scored images."""
    return windows._replace(times=windows.times[:, : images + 1], truth=windows.truth[:, :images])


def start_states(recording: SpringRecording, windows: Windows, noise: np.ndarray, count: int, key: Any) -> np.ndarray:
    """Start state of each window and draws of it: the same fit to amplitudes with measurement noise added.

    Args:
      recording: the recording.
      windows: its windows.
      noise: standard deviation of the noise of each fitted mode [length].
      count: number of draws.
      key: random key.
    Returns:
      momentum and strain, shape (window, 1 + draw, grid, field); first the one without noise.
    """
    errors = np.asarray(jax.random.normal(key, (count, *recording.amplitude.shape), float)) * noise
    copies = [recording, *(dataclasses.replace(recording, amplitude=recording.amplitude + e) for e in errors)]
    states = [[np.stack(initial_state(copy, int(begin))[1:], -1) for copy in copies] for begin in windows.begin]
    return np.array(states)


def window_errors(windows: Windows, forecast: SpringForecast) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared error of each window [length^2], and its share of the window's own variance."""
    error = np.mean((windows.truth - forecast.displacement.mean) ** 2, axis=(1, 2, 3))
    error = np.where(forecast.displacement.ok, error, np.inf)
    return error, error / windows.truth.var(axis=(1, 2, 3))
