"""Integrals over the intervals between noisy frames at uneven times, by a Gaussian process in time.

Weights of high order between uneven frames are huge and of both signs, and so is the noise they let through. A process
that knows the time scale of the motion and the level of the noise has weights that are neither, and says of each
interval how much of the integral it misses.
Source: O'Hagan (1991), J. Stat. Plan. Inference 29, 245-260.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.polynomial import legendre

from phdme_jax.numerics.quadrature import IntervalRule, nearest_nodes

# frames of one likelihood, likelihoods of one recording: time and memory grow no more beyond them
_WINDOW, _WINDOWS = 128, 4
_PANEL_NODES = 8


class TimeScale(NamedTuple):
    """How fast a function of time changes, and how noisy its values are.

    Attributes:
      length: lengthscale of the squared-exponential kernel [time].
      noise: variance of the noise over that of the function.
    """

    length: float
    noise: float


def _kernel(difference: np.ndarray, length: float) -> np.ndarray:
    return np.exp(-0.5 * (difference / length) ** 2)


def find_time_scale(times: Float[np.ndarray, " time"], values: Float[np.ndarray, "time series"]) -> TimeScale:
    """The time scale of largest marginal likelihood for series that share it, on a grid of lengths and noises.

    The variance is profiled out. Of long recordings a few windows of neighbouring frames are used.

    Args:
      times: increasing.
      values: independent series of equal variance, each about zero.
    Returns:
      the scale.
    """
    count = len(times)
    starts = np.unique(np.linspace(0, max(count - _WINDOW, 0), _WINDOWS if count > _WINDOW else 1).astype(int))
    windows = [(times[start : start + _WINDOW], values[start : start + _WINDOW]) for start in starts]
    step, span = np.median(np.diff(times)), max(window[-1] - window[0] for window, _ in windows)
    noises = np.geomspace(1e-12, 1.0, 49)
    misfits = []
    lengths = np.geomspace(step, 2 * span, 40)
    for length in lengths:
        misfit = np.zeros(len(noises))
        for window, rows in windows:
            eigenvalues, axes = np.linalg.eigh(_kernel(window[:, None] - window, length))
            power = np.mean((axes.T @ rows) ** 2, axis=1)
            variances = np.maximum(eigenvalues, 0) + noises[:, None]
            misfit += len(window) * np.log(np.mean(power / variances, axis=1)) + np.sum(np.log(variances), axis=1)
        misfits.append(misfit)
    best, noise = np.unravel_index(np.argmin(misfits), (len(lengths), len(noises)))
    return TimeScale(float(lengths[best]), float(noises[noise]))


def noisy_interval_rule(times: Float[np.ndarray, " time"], scale: TimeScale, num_nodes: int = 24) -> IntervalRule:
    """Weights that integrate noisy samples over each interval between neighbouring times.

        w_k = c_k^T (K + noise I)^-1,   c_kl = int_{t_k}^{t_{k+1}} k(t, t_l) dt

    What a rule misses without noise has the variance C_k - 2 w_k c_k + w_k K w_k^T, C_k that of the integral itself.

    Args:
      times: increasing.
      scale: of the integrand.
      num_nodes: nearest samples used for each interval, at the most; time and memory are linear in the times.
    Returns:
      the rule.
    """
    index = nearest_nodes(len(times), num_nodes)
    abscissae, gauss = legendre.leggauss(_PANEL_NODES)
    weights, missed = np.empty(index.shape), np.empty(len(index))
    for k, nodes in enumerate(index):
        edges = np.linspace(times[k], times[k + 1], 1 + max(1, int(np.ceil((times[k + 1] - times[k]) / scale.length))))
        half = 0.5 * np.diff(edges)[:, None]
        points, measure = np.ravel(edges[:-1, None] + half * (1 + abscissae)), np.ravel(half * gauss)
        local = times[nodes]
        kernel = _kernel(local[:, None] - local, scale.length)
        cross = measure @ _kernel(points[:, None] - local, scale.length)
        weights[k] = np.linalg.solve(kernel + scale.noise * np.eye(len(nodes)), cross)
        own = measure @ _kernel(points[:, None] - points, scale.length) @ measure
        missed[k] = own - 2 * weights[k] @ cross + weights[k] @ kernel @ weights[k]
    return IntervalRule(index, weights, np.maximum(missed, 0.0))
