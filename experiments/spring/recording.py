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
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from experiments.spring.tracking import INTERVALS_PER_IMAGE, Points, camera_intervals, new_images, read_tracking

CAMERA_RATE = 240.0
PICTURE_WIDTH = 1919.0
SPAN = (-80.0, 2020.0)
FITTED_MODES = 5
SETTLING_FRAMES = 6
NOISE_FLOOR_PIXELS = 2.0

Clock = Literal["camera", "images", "frames"]


@dataclass(frozen=True, eq=False)
class SpringRecording:
    """Fields of one recording after release; lengths in node distances, time in seconds.

    `time` and `frame` (time,): each distinct image and the frame (0-based) that first shows it.
    `release`: the last held frame (0-based).
    `displacement`, `momentum`, `strain` (time, grid): the first `modes` sine modes; momentum from `local_polynomial`.
    `amplitude` (time, fitted_mode): raw least-squares amplitudes; `rest_strain` (grid,): strain of the rest curve.
    `smoothing_half_width` [s]: window of the smoother; `amplitude_noise` (fitted_mode,): its leave-one-out residual.
    `projection_residual`: rms distance between the pixels and the `modes`-mode curve, higher modes included.
    """

    name: str
    modes: int
    release: int
    frame: Int[np.ndarray, " time"]
    time: Float[np.ndarray, " time"]
    grid: Float[np.ndarray, " grid"]
    displacement: Float[np.ndarray, "time grid"]
    momentum: Float[np.ndarray, "time grid"]
    strain: Float[np.ndarray, "time grid"]
    amplitude: Float[np.ndarray, "time fitted_mode"]
    rest_strain: Float[np.ndarray, " grid"]
    smoothing_half_width: float
    amplitude_noise: Float[np.ndarray, " fitted_mode"]
    projection_residual: float
    unit_pixels: float


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


def project_frame(
    points: Int[np.ndarray, "point 2"],
    rest: Float[np.ndarray, " coefficient"],
    span: tuple[float, float],
    modes: int,
) -> tuple[Float[np.ndarray, " mode"], float]:
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
      amplitudes (mode,) [px] and the weighted rms residual [px].
    """
    pixels = np.unique(points, axis=0).astype(float)
    x = pixels[:, 0]
    displacement = pixels[:, 1] - np.polyval(rest, x / PICTURE_WIDTH)
    basis = sine_modes((x - span[0]) / (span[1] - span[0]), modes)
    spacing = np.clip(np.gradient(x), 1.0, None)
    weight = spacing
    for _ in range(10):
        root = np.sqrt(weight)
        amplitude = np.linalg.lstsq(root[:, None] * basis, root * displacement, rcond=None)[0]
        residual = displacement - basis @ amplitude
        scale = max(1.4826 * float(np.median(np.abs(residual))), NOISE_FLOOR_PIXELS)
        weight = spacing / (1.0 + (residual / (3.0 * scale)) ** 2)
    return amplitude, float(np.sqrt(np.sum(weight * residual**2) / np.sum(weight)))


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


def local_polynomial(
    time: Float[np.ndarray, " time"],
    values: Float[np.ndarray, "time channel"],
    at: Float[np.ndarray, " query"],
    half_width: float,
    degree: int = 4,
) -> tuple[Float[np.ndarray, "query channel"], Float[np.ndarray, "query channel"]]:
    """Value and time derivative by local least squares, for samples that need not be evenly spaced.

        min_c sum_i (1 - u_i^2)^2 (y_i - sum_j c_j (t_i - t)^j)^2,   u = (t_i - t) / half_width;   value c_0, rate c_1

    Near the ends the window shifts inwards to keep its width.

    Args:
      time: sampling times, increasing [s].
      values: samples.
      at: times asked for [s].
      half_width: half the window [s].
      degree: degree of the polynomial.
    Returns:
      values and rates at the times asked for.
    Raises:
      ValueError: fewer than degree + 1 samples in a window.
    Source: Cleveland (1979); there with tricube weights.
    """
    result = np.stack([_local_rows(time, instant, half_width, degree) @ values for instant in at])
    return result[:, 0], result[:, 1]


def _local_rows(
    time: np.ndarray, instant: float, half_width: float, degree: int, left_out: int | None = None
) -> np.ndarray:
    """Rows (2, time) that map samples to the value and the rate at one instant."""
    centre = min(max(instant, time[0] + half_width), time[-1] - half_width)
    reach = half_width + abs(instant - centre)
    inside = np.abs(time - centre) <= half_width * (1.0 + 1e-9)
    weight = np.clip(1.0 - ((time - instant) / reach) ** 2, 0.0, None) * inside
    if left_out is not None:
        weight[left_out] = 0.0
    if np.count_nonzero(weight) <= degree:
        raise ValueError(
            f"expected more than {degree} samples within {half_width:.4f} s of {instant:.4f} s, got "
            f"{np.count_nonzero(weight)}, try a wider window"
        )
    powers = ((time - instant) / reach)[:, None] ** np.arange(degree + 1)
    solution = np.linalg.pinv(weight[:, None] * powers) * weight
    return solution[:2] / np.array([[1.0], [reach]])


def choose_half_width(
    time: Float[np.ndarray, " time"], values: Float[np.ndarray, "time channel"], degree: int = 4
) -> tuple[float, Float[np.ndarray, " channel"]]:
    """Window of the smoother with the smallest leave-one-out error, summed over the channels.

    Args:
      time: sampling times [s].
      values: samples.
      degree: degree of the local polynomial.
    Returns:
      half-width [s], 5 to 12 median sampling steps, and the rms leave-one-out residual of each channel.
    """
    step = float(np.median(np.diff(time)))
    candidates = []
    for count in range(5, 13):
        rows = [_local_rows(time, t, count * step, degree, left_out=i)[0] for i, t in enumerate(time)]
        residual = (np.stack(rows) @ values - values)[count:-count]
        candidates.append((count * step, np.sqrt(np.mean(residual**2, axis=0))))
    return min(candidates, key=lambda candidate: float(np.sum(candidate[1] ** 2)))


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
    rest, unit = rest_curve(points), span[1] - span[0]
    early = 3 * len(points) // 4 - frames_after_release
    if early <= 8:
        raise ValueError(
            f"{path}: expected more than {frames_after_release + 8} frames before the last quarter, got "
            f"{3 * len(points) // 4}, try a smaller frames_after_release"
        )
    release = find_release(np.stack([project_frame(frame, rest, span, FITTED_MODES)[0] for frame in points[:early]]))
    last = release + frames_after_release
    frame = new_images(points, release + SETTLING_FRAMES, last)
    shown = [points[i] for i in np.append(frame[1:] - 1, frame[-1])]
    amplitude = np.stack([project_frame(image, rest, span, FITTED_MODES)[0] for image in shown]) / unit
    residual = [project_frame(image, rest, span, modes)[1] for image in shown]
    time, grid = _clock_times(clock, frame, amplitude), np.linspace(0.0, 1.0, grid_points)
    half_width, noise = choose_half_width(time, amplitude)
    rate = local_polynomial(time, amplitude, time, half_width)[1]
    basis, slopes = sine_modes(grid, modes), sine_slopes(grid, modes)
    return SpringRecording(
        name=name,
        modes=modes,
        release=release,
        frame=frame,
        time=time,
        grid=grid,
        displacement=amplitude[:, :modes] @ basis.T,
        momentum=rate[:, :modes] @ basis.T,
        strain=amplitude[:, :modes] @ slopes.T,
        amplitude=amplitude,
        rest_strain=_rest_strain(rest, span, grid),
        smoothing_half_width=half_width,
        amplitude_noise=noise,
        projection_residual=float(np.sqrt(np.mean(np.square(residual)))) / unit,
        unit_pixels=unit,
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


def initial_state(
    recording: SpringRecording, start: int, images: int = 6, degree: int = 4
) -> tuple[Float[np.ndarray, " grid"], Float[np.ndarray, " grid"], Float[np.ndarray, " grid"]]:
    """State at a start image from amplitudes of this image and those before it: no scored amplitude enters.

        a_k(t) ~ sum_j c_jk (t - t_start)^j on the last `images` images
        s = sum_k c_0k sin(k pi z),   p = sum_k c_1k sin(k pi z),   q = ds/dz

    Six images and degree four gave nearly the smallest error of the rate on `rightdown`. With the camera clock the time
    stamps still come from the whole recording (see the module's first lines).

    Args:
      recording: a recording.
      start: index of the start image.
      images: how many images, the start included.
      degree: degree of the polynomial.
    Returns:
      displacement, momentum and strain at the start image.
    Raises:
      ValueError: fewer than `images` images up to the start, or too few for the degree.
    """
    if start + 1 < images or images <= degree:
        raise ValueError(
            f"expected at least {images} images up to the start and more than {degree} of them, got {start + 1} and "
            f"{images}, try a later start"
        )
    chosen = slice(start + 1 - images, start + 1)
    since = recording.time[chosen] - recording.time[start]
    powers = since[:, None] ** np.arange(degree + 1)
    value, rate = np.linalg.lstsq(powers, recording.amplitude[chosen, : recording.modes], rcond=None)[0][:2]
    basis, slopes = sine_modes(recording.grid, recording.modes), sine_slopes(recording.grid, recording.modes)
    return basis @ value, basis @ rate, slopes @ value


def fields_at(
    recording: SpringRecording, time: Float[np.ndarray, " query"]
) -> tuple[Float[np.ndarray, "query grid"], Float[np.ndarray, "query grid"], Float[np.ndarray, "query grid"]]:
    """Smoothed displacement, momentum and strain at any times, such as an even grid for a network.

    Args:
      recording: a recording.
      time: times within the recording [s].
    Returns:
      displacement, momentum and strain at these times.
    Raises:
      ValueError: a time outside the recording.
    """
    if np.min(time) < recording.time[0] or np.max(time) > recording.time[-1]:
        raise ValueError(
            f"expected times from {recording.time[0]:.4f} to {recording.time[-1]:.4f} s, got {np.min(time):.4f} to "
            f"{np.max(time):.4f} s, try a shorter range"
        )
    value, rate = local_polynomial(
        recording.time, recording.amplitude[:, : recording.modes], time, recording.smoothing_half_width
    )
    basis, slopes = sine_modes(recording.grid, recording.modes), sine_slopes(recording.grid, recording.modes)
    return value @ basis.T, rate @ basis.T, value @ slopes.T
