"""Integrals over sampled grids and sampled times."""

from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.polynomial import legendre


def trapezoid_weights(num_points: int, spacing: float) -> np.ndarray:
    """Weights of the trapezoid rule, shape (points,) [length]."""
    weights = np.full(num_points, spacing)
    weights[[0, -1]] *= 0.5
    return weights


@lru_cache
def interval_weights(times: tuple[float, ...], num_nodes: int = 8) -> np.ndarray:
    """Weights that integrate a sampled function over each interval between neighbouring samples.

        int_{t_k}^{t_{k+1}} f dt = sum_l W_kl f(t_l),

    exact for polynomials of degree num_nodes - 1 through the samples nearest to the interval.

    Args:
      times: increasing sample times, even spacing not needed.
      num_nodes: samples used for each interval (clipped to the number of samples).
    Returns:
      weights, shape (time - 1, time) [time].
    Raises:
      ValueError: fewer than two times, or times not increasing.
    """
    nodes = np.asarray(times, dtype=float)
    if nodes.size < 2 or np.any(np.diff(nodes) <= 0):
        raise ValueError(f"expected two or more increasing times, got {nodes.size} times; sort them, drop duplicates")
    count = min(num_nodes, nodes.size)
    weights = np.zeros((nodes.size - 1, nodes.size))
    abscissae, gauss = legendre.leggauss((count + 1) // 2 + 1)
    for k in range(nodes.size - 1):
        start = int(np.clip(k + 1 - count // 2, 0, nodes.size - count))
        local = nodes[start : start + count]
        centre, scale = nodes[k], local[-1] - local[0]
        half = 0.5 * (nodes[k + 1] - nodes[k])
        points = nodes[k] + half * (1.0 + abscissae)
        vandermonde = legendre.legvander(2 * (local - centre) / scale, count - 1)
        values = legendre.legvander(2 * (points - centre) / scale, count - 1)
        weights[k, start : start + count] = np.linalg.solve(vandermonde.T, values.T @ (gauss * half))
    return weights


def cumulative_integral(values: Float[Array, "points ..."], spacing: float) -> Float[Array, "points ..."]:
    """Integral from the first point to each point, along the first axis, sixth order for smooth values.

    Args:
      values: samples on an even grid.
      spacing: distance between samples.
    Returns:
      running integral, same shape, zero at the first point.
    """
    n = values.shape[0]
    weights = interval_weights(tuple(float(x) for x in np.arange(n)), 6) * spacing
    running = np.concatenate([np.zeros((1, n)), np.cumsum(weights, axis=0)])
    return jnp.tensordot(jnp.asarray(running, values.dtype), values, axes=1)
