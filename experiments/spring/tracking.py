"""Tracking files of the spring: their pixels, and the true sampling times behind repeated frames.

A frame repeats the one before it unless most tracked points moved. Between two successive images lie one or two
intervals of the camera, two after every third or fourth image. Which of the two is read off the motion: the step
between images, divided by the smooth velocity, clusters at 1 and 2 intervals with a spread near 0.1; a shortest-path
search over that pattern decides where the spring is momentarily at rest.
"""

import re
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy.polynomial import polynomial

Points = list[Int[np.ndarray, "point 2"]]

MINIMUM_POINTS = 6
INTERVALS_PER_IMAGE = 1.295
INTERVALS_PER_FRAME = 0.6
STEP_NOISE = 3.0 / 1919.0  # lengths; several times the pixel noise, because the spline bends less than the motion
GAP_COST = {1: 30.0, 2: 10.0, 3: 0.0, 4: 0.0, 5: 10.0, 6: 30.0}


def read_tracking(path: Path) -> Points:
    """Read a tracking file: blocks `Frame k:` (1-based, consecutive) of lines `[x, y]`.

    Args:
      path: the text file.
    Returns:
      one integer array (point, 2) per frame, pixels: x along the spring, y downwards.
    Raises:
      ValueError: the file is missing, empty, garbled or cut short.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: expected a tracking file, got nothing there, try another --data_dir")
    frames: list[list[tuple[int, int]]] = []
    for number, raw in enumerate(Path(path).read_text("utf-8-sig", errors="replace").splitlines(), start=1):
        line = raw.strip()
        header = re.fullmatch(r"Frame (\d+):", line)
        point = re.fullmatch(r"\[\s*(-?\d+)\s*,\s*(-?\d+)\s*\]", line)
        if header and int(header[1]) == len(frames) + 1:
            frames.append([])
        elif point and frames:
            frames[-1].append((int(point[1]), int(point[2])))
        elif line:
            wanted = f"'Frame {len(frames) + 1}:'" + (" or '[x, y]'" if frames else "")
            raise ValueError(f"{path}, line {number}: expected {wanted}, got {line[:40]!r}, try a fresh copy")
    counts = [len(frame) for frame in frames]
    if not frames or min(counts[:-1], default=0) < MINIMUM_POINTS:
        got = f"{min(counts, default=0)} in the emptiest of {len(frames)} frames"
        raise ValueError(
            f"{path}: expected several frames of {MINIMUM_POINTS} or more points, got {got}, try a fresh copy"
        )
    if counts[-1] < min(counts[:-1]):
        raise ValueError(
            f"{path}: expected at least {min(counts[:-1])} points in the last frame, got {counts[-1]} (the file is cut "
            "short), try a fresh copy of the file"
        )
    return [np.asarray(frame, dtype=int) for frame in frames]


def new_images(points: Points, first: int, last: int) -> Int[np.ndarray, " image"]:
    """Frames that show a new image: more than half of the points differ from the frame before.

    Args:
      points: pixels of each frame; the rows keep their order from frame to frame.
      first: earliest frame (exclusive).
      last: latest frame (inclusive).
    Returns:
      indices of the frames, increasing.
    Raises:
      ValueError: fewer than ten images in the range.
    """

    def changed(frame: int) -> bool:
        now, before = points[frame], points[frame - 1]
        return now.shape != before.shape or float(np.mean(np.any(now != before, axis=1))) > 0.5

    frames = np.array([frame for frame in range(first + 1, last + 1) if changed(frame)], dtype=int)
    if len(frames) < 10:
        raise ValueError(
            f"expected ten or more distinct images in frames {first + 1} to {last}, got {len(frames)}, try more frames"
        )
    return frames


def camera_intervals(
    amplitude: Float[np.ndarray, "image mode"], frame: Int[np.ndarray, " image"], rounds: int = 8
) -> Int[np.ndarray, " step"]:
    """Camera intervals (1 or 2) between successive images, by the smoothness of the motion.

        r_j = (a_{j+1} - a_j) . v_j / |v_j|^2,   v_j = mean slope of a least-squares spline between the two images

    Spline and intervals are found in turn; the first clock counts frames. Knots lie every 5.4, later every 4.2
    intervals (a seventh of the period of the first mode). In the end, neighbouring steps of one and two are exchanged
    where that brings the image between them closer to a local quartic.

    Args:
      amplitude: modal amplitudes of the images, in units of the spring's length.
      frame: frames that first show them.
      rounds: number of alternations.
    Returns:
      intervals between successive images.
    Raises:
      ValueError: too few images for the spline, or stretches without any.
    """
    from scipy.interpolate import LSQUnivariateSpline

    time = (frame - frame[0]) * INTERVALS_PER_FRAME
    if time[-1] < 20.0:
        raise ValueError(f"expected images over 20 camera intervals or more, got {time[-1]:.0f}, try a longer range")
    steps = np.ones(len(frame) - 1, dtype=int)
    for round_ in range(rounds):
        knots = np.arange(3.6, time[-1] - 2.4, 5.4 if round_ < rounds // 2 else 4.2)
        try:
            slopes = [LSQUnivariateSpline(time, column, knots, k=4).derivative() for column in amplitude.T]
        except ValueError:  # knots without an image between them
            raise ValueError(
                "expected images that change throughout, got stretches of a period or so without a new one; check the "
                "recording for frozen images"
            ) from None
        between = time[:-1, None] + np.diff(time)[:, None] * np.linspace(0.0, 1.0, 5)
        velocity = np.stack([slope(between).mean(axis=1) for slope in slopes], axis=1)
        square = np.sum(velocity**2, axis=1) + 1e-12
        ratio = np.sum(np.diff(amplitude, axis=0) * velocity, axis=1) / square
        steps = _decode(ratio, np.sqrt(square) / STEP_NOISE)
        time = np.append(0.0, np.cumsum(steps))
    return _exchange(steps, amplitude)


def _decode(ratio: np.ndarray, signal_to_noise: np.ndarray) -> np.ndarray:
    """Shortest path through {1, 2} with a cost for gaps that are not three or four images apart."""
    states = len(GAP_COST)
    cost = np.zeros(states)
    choices: list[list[int]] = []
    for value, strength in zip(ratio, np.minimum(signal_to_noise**2, 100.0), strict=True):
        one, two = (strength * np.clip(value - interval, -1.5, 1.5) ** 2 for interval in (1.0, 2.0))
        ends = [cost[since] + two + GAP_COST[since + 1] for since in range(states)]
        choices.append([int(np.argmin(ends)), *range(states - 1)])
        cost = np.array([min(ends), *(cost[:-1] + one)])
    state, steps = int(np.argmin(cost)), []
    for choice in reversed(choices):
        steps.append(2 if state == 0 else 1)
        state = choice[state]
    return np.array(steps[::-1], dtype=int)


def _exchange(steps: np.ndarray, amplitude: np.ndarray) -> np.ndarray:
    """Exchange unequal steps where the image between then lies closer to a quartic through its six neighbours."""
    steps = steps.copy()
    for _ in range(3):
        for image in np.flatnonzero(np.diff(steps)) + 1:
            if not 3 <= image < len(steps) - 2:
                continue
            time = np.append(0.0, np.cumsum(steps[image - 3 : image + 3]))
            exchanged = time[2] + steps[image]
            others = [0, 1, 2, 4, 5, 6]
            quartic = polynomial.polyfit(time[others] - time[3], amplitude[image - 3 : image + 4][others], 4)
            here, there = (
                np.linalg.norm(polynomial.polyval(t - time[3], quartic) - amplitude[image])
                for t in (time[3], exchanged)
            )
            if there < here:
                steps[[image - 1, image]] = steps[[image, image - 1]]
    return steps
