"""Forecast windows of a recording, and what is measured of the state in which they start."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from experiments.spring.recording import SpringRecording, modal_states

START_IMAGES, START_DEGREE = 6, 4


class Windows(NamedTuple):
    """Forecast windows of one recording, all with the same number of images.

    Attributes:
      starts: frames between release and start.
      begin: index of the start image.
      times: of the start image and the scored ones [s].
      truth: measured displacement at the scored images [length].
    """

    starts: Int[np.ndarray, " window"]
    begin: Int[np.ndarray, " window"]
    times: Float[np.ndarray, "window image"]
    truth: Float[np.ndarray, "window scored grid 1"]

    @property
    def since(self) -> Float[np.ndarray, "window scored"]:
        """Times of the scored images since the start [s]."""
        return self.times[:, 1:] - self.times[:, :1]

    def cut(self, images: int) -> "Windows":
        """The windows with fewer scored images."""
        return self._replace(times=self.times[:, : images + 1], truth=self.truth[:, :images])


def forecast_window(recording: SpringRecording, start_frame: int = 26, frames: int = 180) -> tuple[int, slice]:
    """Start image and scored images of a forecast.

    The start is the last image shown `start_frame` frames after release or before; scored are the images after it that
    first appear within the next `frames` frames. The start image itself is not scored.

    Args:
      recording: a recording.
      start_frame: frames between release and start; 26 is half a period, near the first turning point.
      frames: length of the scored window in frames of the file.
    Returns:
      index of the start image, and the slice of the scored images.
    Raises:
      ValueError: the window leaves the recording.
    """
    begin = recording.release + start_frame
    if begin < recording.frame[0] or begin + frames > recording.frame[-1]:
        raise ValueError(
            f"expected a window within frames {recording.frame[0]} to {recording.frame[-1]}, got {begin} to "
            f"{begin + frames}, try other frames or a larger frames_after_release"
        )
    start = int(np.searchsorted(recording.frame, begin, side="right")) - 1
    stop = int(np.searchsorted(recording.frame, begin + frames, side="right"))
    return start, slice(start + 1, stop)


def make_windows(recording: SpringRecording, starts: tuple[int, int, int], frames: int) -> Windows:
    """Windows at start frames first, first + step, ..., cut to the fewest images that any of them has.

    Args:
      recording: the recording.
      starts: first and last start frame after the release, and the step.
      frames: length of a window in frames of the file.
    Returns:
      the windows.
    Raises:
      ValueError: a window leaves the recording, or its start has too few images up to it.
    """
    first, last, step = starts
    offsets = np.arange(first, last + 1, step)
    found = [forecast_window(recording, int(offset), frames) for offset in offsets]
    begin = np.array([start for start, _ in found])
    early = offsets[begin + 1 < START_IMAGES].tolist()
    if early:
        raise ValueError(
            f"expected {START_IMAGES} images of {recording.name} up to each start, got fewer at {early} frames after "
            "the release, try later starts"
        )
    scored = begin[:, None] + 1 + np.arange(min(images.stop - images.start for _, images in found))
    all_images = np.concatenate([begin[:, None], scored], axis=1)
    return Windows(offsets, begin, recording.time[all_images], recording.displacement[scored][..., None])


def start_states(
    recording: SpringRecording, windows: Windows, amplitude: Float[np.ndarray, "*draws image mode"]
) -> Float[np.ndarray, "window *draws grid 2"]:
    """Momentum and strain in which each window starts, from its start image and those before it: no scored one enters.

        a_k(t) ~ sum_j c_jk (t - t_start)^j on the last six images,   p = sum_k c_1k sin(k pi z),   q of the c_0k

    It is linear: noise in place of the amplitudes gives errors of the state. Six images and degree four gave nearly the
    smallest error of the rate on `rightdown`. With the camera clock the time stamps still come from the whole recording
    (see `experiments.spring.recording`).

    Args:
      recording: gives the times and the number of modes.
      windows: of the recording.
      amplitude: of all images.
    Returns:
      the states.
    """
    states = []
    for begin in windows.begin.tolist():
        images = slice(begin + 1 - START_IMAGES, begin + 1)
        powers = (recording.time[images] - recording.time[begin])[:, None] ** np.arange(START_DEGREE + 1)
        fit = np.linalg.pinv(powers)[:2] @ amplitude[..., images, : recording.modes]
        states.append(modal_states(recording.grid, fit[..., 0, :], fit[..., 1, :]))
    return np.stack(states)
