"""Tracked centre line of a real spring: pixels in, port-Hamiltonian fields out.

    s(t, z) = sum_k a_k(t) sin(k pi z),   p = ds/dt,   q = ds/dz,   z = (x - x_left) / L in [0, 1]

What the recordings are, measured on the files themselves:

- *Nodes.* The picture (0..1919 px) does not show the fixed ends: its outermost pixels move with the spring. The nodes
  that leave the smallest residual on `rightdown` lie near -80 and 2020 px (`SPAN`). The unit of length is the distance
  between the nodes; `span=(0.0, 1919.0)` takes the picture instead.
- *Time.* Most frames repeat the one before: an image is held for two or three frames, and every third or fourth image
  skips one interval of the camera. The hold differs between recordings (15 frames for 7 images in `rightdown`, 2.21
  frames an image in `leftdown`), so that nearly equal frequencies look several per cent apart when frames are counted.
  `clock="camera"` counts camera intervals, 1/240 s each; `"images"` takes images as evenly spaced; `"frames"` counts
  frames, 1/240 s each. The factor between these seconds and true ones cannot be seen in the files.
  The choice between one interval and two rests on the smoothness of the whole measured motion, later images included.
  No forecast model enters it, but it is a correction of time stamps that uses the scored images; say so with results.
- *Rest.* The spring sags. Displacement is counted from the rest curve, a robust cubic through the last quarter of the
  recording, which no forecast window reaches. `rest_strain` is the strain of that curve against the chord: the stress
  of a nonlinear spring is V'(rest_strain + q) - V'(rest_strain).
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from experiments.spring.smoothing import choose_half_width, local_polynomial
from experiments.spring.tracking import INTERVALS_PER_IMAGE, Points, camera_intervals, new_images, read_tracking
from phdme_jax.numerics.quadrature import trapezoid_weights

CAMERA_RATE = 240.0
PICTURE_WIDTH = 1919.0
SPAN = (-80.0, 2020.0)
FITTED_MODES = 5
SETTLING_FRAMES = 6
NOISE_FLOOR_PIXELS = 2.0

Clock = Literal["camera", "images", "frames"]


@dataclass(frozen=True, eq=False)
class SpringRecording:
    """One recording after release, image by image; lengths in node distances, time in seconds.

    Attributes:
      name: of the file.
      modes: number of sine modes that make the fields; more are fitted.
      release: the last held frame (0-based).
      frame: that first shows each distinct image (0-based).
      time: of the images.
      grid: positions, the nodes included.
      amplitude: least-squares amplitudes of the images.
      smooth: the same by `local_polynomial`.
      rate: their rates by `local_polynomial`.
      amplitude_noise: what the smoother leaves of images that it was not told.
      rest_strain: strain of the rest curve.
    """

    name: str
    modes: int
    release: int
    frame: Int[np.ndarray, " time"]
    time: Float[np.ndarray, " time"]
    grid: Float[np.ndarray, " grid"]
    amplitude: Float[np.ndarray, "time fitted_mode"]
    smooth: Float[np.ndarray, "time fitted_mode"]
    rate: Float[np.ndarray, "time fitted_mode"]
    amplitude_noise: Float[np.ndarray, " fitted_mode"]
    rest_strain: Float[np.ndarray, " grid"]

    @cached_property
    def displacement(self) -> Float[np.ndarray, "time grid"]:
        """Displacement in the first modes."""
        return self.amplitude[:, : self.modes] @ sine_modes(self.grid, self.modes).T

    @cached_property
    def states(self) -> Float[np.ndarray, "time grid 3"]:
        """Smoothed momentum, strain and rest strain."""
        moving = modal_states(self.grid, self.amplitude[:, : self.modes], self.rate[:, : self.modes])
        return with_rest(moving, self.rest_strain)


def with_rest(
    states: Float[np.ndarray, "*points grid 2"], rest_strain: Float[np.ndarray, "*points grid"]
) -> Float[np.ndarray, "*points grid 3"]:
    """States with the rest strain as third field; it is broadcast."""
    rest = np.broadcast_to(rest_strain[..., None], (*states.shape[:-1], 1))
    return np.concatenate([states, rest], axis=-1)


def rest_curve(frames: Points) -> Float[np.ndarray, " coefficient"]:
    """Height of the spring at rest: a cubic in x / 1919 through the pixels of the last quarter of the recording.

    Tukey weights, scale from the median absolute residual; the vibration left over averages out over its periods.

    Args:
      frames: pixels of each frame.
    Returns:
      coefficients [px], highest power first.
    """
    pixels = np.concatenate([np.unique(frame, axis=0) for frame in frames[3 * len(frames) // 4 :]]).astype(float)
    x, height = pixels[:, 0] / PICTURE_WIDTH, pixels[:, 1]
    weight = np.ones_like(x)
    for _ in range(20):
        curve = np.polyfit(x, height, 3, w=np.sqrt(weight))
        residual = height - np.polyval(curve, x)
        scale = 1.4826 * np.median(np.abs(residual)) + 1e-9
        weight = np.clip(1.0 - (residual / (4.7 * scale)) ** 2, 0.0, None) ** 2
    return curve


def sine_modes(grid: Float[np.ndarray, " grid"], modes: int) -> Float[np.ndarray, "grid mode"]:
    """Sine modes of the fixed ends, sin(k pi z), k = 1..modes; columns are modes."""
    return np.sin(np.pi * np.outer(grid, np.arange(1, modes + 1)))


def sine_slopes(grid: Float[np.ndarray, " grid"], modes: int) -> Float[np.ndarray, "grid mode"]:
    """Slopes of the sine modes, k pi cos(k pi z), k = 1..modes; columns are modes."""
    wave_number = np.pi * np.arange(1, modes + 1)
    return wave_number * np.cos(np.outer(grid, wave_number))


def modal_states(
    grid: Float[np.ndarray, " grid"], value: Float[np.ndarray, "*points mode"], rate: Float[np.ndarray, "*points mode"]
) -> Float[np.ndarray, "*points grid field"]:
    """Momentum and strain of amplitudes and their rates.

    p = sum_k rate_k sin(k pi z),   q = sum_k value_k k pi cos(k pi z)
    """
    modes = value.shape[-1]
    return np.stack([rate @ sine_modes(grid, modes).T, value @ sine_slopes(grid, modes).T], axis=-1)


def modal_amplitudes(
    grid: Float[np.ndarray, " grid"], strain: Float[np.ndarray, "*points grid"], modes: int
) -> Float[np.ndarray, "*points mode"]:
    """Amplitudes of the first sine modes of the displacement, from the strain.

    a_k = 2 int_0^1 q cos(k pi z) dz / (k pi)
    """
    weights = trapezoid_weights(grid.size, grid[1] - grid[0])
    return 2.0 * (strain * weights) @ sine_slopes(grid, modes) / (np.pi * np.arange(1, modes + 1)) ** 2


def project_frame(
    points: Int[np.ndarray, "point 2"],
    rest: Float[np.ndarray, " coefficient"],
    span: tuple[float, float],
    modes: int,
) -> Float[np.ndarray, " mode"]:
    """Sine amplitudes of one frame by weighted least squares.

        min_a sum_i w_i (d_i - sum_k a_k sin(k pi z_i))^2,   w_i = (spacing in x) x 1 / (1 + (r_i / 3 scale)^2)

    Repeated pixels count once; the spacing weights turn the sum into an integral over z, so that crowded stretches do
    not dominate; the Cauchy factor (10 reweightings, scale from the median absolute residual, at least 2 px) mutes
    stray pixels.

    Args:
      points: pixels of the frame.
      rest: rest curve, from `rest_curve`.
      span: x of the two nodes [px].
      modes: number of modes.
    Returns:
      amplitudes [px].
    """
    x, displacement = displaced_pixels(points, rest)
    basis = sine_modes((x - span[0]) / (span[1] - span[0]), modes)
    spacing = np.clip(np.gradient(x), 1.0, None)
    weight = spacing
    for _ in range(10):
        root = np.sqrt(weight)
        amplitude = np.linalg.lstsq(root[:, None] * basis, root * displacement, rcond=None)[0]
        residual = displacement - basis @ amplitude
        scale = max(1.4826 * float(np.median(np.abs(residual))), NOISE_FLOOR_PIXELS)
        weight = spacing / (1.0 + (residual / (3.0 * scale)) ** 2)
    return amplitude


def displaced_pixels(
    points: Int[np.ndarray, "point 2"], rest: Float[np.ndarray, " coefficient"]
) -> tuple[Float[np.ndarray, " pixel"], Float[np.ndarray, " pixel"]]:
    """Place and displacement from the rest curve of the distinct pixels of a frame [px]."""
    pixels = np.unique(points, axis=0).astype(float)
    return pixels[:, 0], pixels[:, 1] - np.polyval(rest, pixels[:, 0] / PICTURE_WIDTH)


def shown_images(points: Points, frame: Int[np.ndarray, " image"]) -> Points:
    """Pixels of each image, of the last frame that shows it; `frame` is the first that does."""
    return [points[i] for i in np.append(frame[1:] - 1, frame[-1])]


def find_release(amplitude: Float[np.ndarray, "frame mode"]) -> int:
    """Last held frame (0-based): the one before the amplitudes first leave the held shape by 5 % of its norm.

        release = min{ j : |a_j - a_held| > 0.05 |a_held| } - 1,   a_held = median of the first 8 frames

    Args:
      amplitude: amplitudes of the frames from the first one on.
    Returns:
      index of the frame.
    Raises:
      ValueError: the spring is not held in the first 8 frames, or never released.
    """
    held = np.median(amplitude[:8], axis=0)
    away = np.linalg.norm(amplitude - held, axis=1) > 0.05 * np.linalg.norm(held)
    first = int(np.argmax(away))
    if first < 8:
        got = "none" if not away.any() else f"motion at frame {first}"
        raise ValueError(f"expected a spring held for 8 frames and then released, got {got}, try a whole recording")
    return first - 1


def load_spring(
    data_dir: Path,
    name: str,
    *,
    modes: int = 2,
    grid_points: int = 65,
    frames_after_release: int = 400,
    span: tuple[float, float] = SPAN,
    clock: Clock = "camera",
) -> SpringRecording:
    """Read `spring/NAME.txt` below a folder and turn its pixels into displacement, momentum and strain.

    Five modes are fitted to each distinct image (the last frame that shows it); `modes` of them make the fields. Images
    of the first 6 frames after release, while the hand lets go, are left out.

    Args:
      data_dir: folder that holds `spring/`.
      name: "rightdown" or "leftdown".
      modes: number of sine modes in the fields, at most 5.
      grid_points: number of grid points, the two nodes included.
      frames_after_release: how many frames of the file to use; tracking decays later.
      span: x of the two nodes [px].
      clock: "camera", "images" or "frames".
    Returns:
      the recording.
    Raises:
      ValueError: the file is missing, garbled or too short, or an argument is out of range.
    """
    if clock not in ("camera", "images", "frames"):
        raise ValueError(f"clock: expected 'camera', 'images' or 'frames', got {clock!r}, try 'camera'")
    if not 1 <= modes <= FITTED_MODES:
        raise ValueError(f"modes: expected 1 to {FITTED_MODES}, got {modes}, try 2")
    path = Path(data_dir) / "spring" / f"{name}.txt"
    points = read_tracking(path)
    rest = rest_curve(points)
    early = 3 * len(points) // 4 - frames_after_release
    if early <= 8:
        raise ValueError(
            f"{path}: expected more than {frames_after_release + 8} frames before the last quarter, got "
            f"{3 * len(points) // 4}, try a smaller frames_after_release"
        )
    release = find_release(np.stack([project_frame(frame, rest, span, FITTED_MODES) for frame in points[:early]]))
    last = release + frames_after_release
    frame = new_images(points, release + SETTLING_FRAMES, last)
    shown = shown_images(points, frame)
    amplitude = np.stack([project_frame(image, rest, span, FITTED_MODES) for image in shown]) / (span[1] - span[0])
    times, grid = _clock_times(clock, frame, amplitude), np.linspace(0.0, 1.0, grid_points)
    half_width, noise = choose_half_width(times, amplitude)
    smooth, rate = local_polynomial(times, amplitude, times, half_width)
    return SpringRecording(
        name, modes, release, frame, times, grid, amplitude, smooth, rate, noise, _rest_strain(rest, span, grid)
    )


def _clock_times(clock: Clock, frame: np.ndarray, amplitude: np.ndarray) -> np.ndarray:
    """Times of the images since the first one [s]."""
    if clock == "frames":
        return (frame - frame[0]) / CAMERA_RATE
    if clock == "images":
        return np.arange(len(frame)) * INTERVALS_PER_IMAGE / CAMERA_RATE
    return np.append(0, np.cumsum(camera_intervals(amplitude[:, :2], frame))) / CAMERA_RATE


def _rest_strain(rest: np.ndarray, span: tuple[float, float], grid: np.ndarray) -> np.ndarray:
    """Strain of the rest curve against the chord between the nodes; the cubic is extended to them."""
    unit = span[1] - span[0]
    fine = np.linspace(0.0, 1.0, 401)
    height = np.polyval(rest, (span[0] + unit * fine) / PICTURE_WIDTH) / unit
    sag = height - height[0] * (1.0 - fine) - height[-1] * fine
    return sine_slopes(grid, 4) @ np.linalg.lstsq(sine_modes(fine, 4), sag, rcond=None)[0]
