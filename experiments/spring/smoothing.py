"""Local polynomials through samples that need not be evenly spaced: values, rates, and how wide a window is best."""

import numpy as np
from jaxtyping import Float


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
