"""Integrals over sampled grids and sampled times."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.polynomial import legendre

from phdme_jax.numerics.arrays import Instants, cached_arrays, static_times


def trapezoid_weights(num_points: int, spacing: float) -> np.ndarray:
    """Weights of the trapezoid rule, shape (points,) [length]."""
    weights = np.full(num_points, spacing)
    weights[[0, -1]] *= 0.5
    return weights


# intervals up to which one product with a matrix is the fastest way to integrate
_DENSE = 512


class IntervalRule(NamedTuple):
    """Weights that integrate a sampled function over each interval between neighbouring samples.

    Attributes:
      nodes: samples used for each interval, shape (interval, node).
      weights: of these samples, shape (interval, node) [time].
      missed: variance of what the rule misses, over that of the function, shape (interval,) [time^2].
    """

    nodes: Int[np.ndarray, "interval node"]
    weights: Float[np.ndarray, "interval node"]
    missed: Float[np.ndarray, " interval"]


def nearest_nodes(num_times: int, num_nodes: int) -> Int[np.ndarray, "interval node"]:
    """Samples nearest to each interval, as many on its left as on its right where there are, (interval, node)."""
    count = min(num_nodes, num_times)
    starts = np.clip(np.arange(1, num_times) - count // 2, 0, num_times - count)
    return starts[:, None] + np.arange(count)


def interval_rule(times: Instants, num_nodes: int = 8) -> IntervalRule:
    """The rule that is exact for polynomials of degree num_nodes - 1 through the samples nearest to each interval.

        int_{t_k}^{t_{k+1}} f dt = sum_l W_kl f(t_l)

    Args:
      times: increasing sample times, even spacing not needed; between uneven ones it takes samples without noise.
      num_nodes: samples used for each interval (clipped to the number of samples).
    Returns:
      the rule; time and memory are linear in the times.
    Raises:
      ValueError: fewer than two times, or times not increasing.
    """
    nodes = np.asarray(times, dtype=float)
    if nodes.size < 2 or np.any(np.diff(nodes) <= 0):
        raise ValueError(f"expected two or more increasing times, got {nodes.size} times; sort them, drop duplicates")
    index = nearest_nodes(nodes.size, num_nodes)
    count = index.shape[1]
    abscissae, gauss = legendre.leggauss((count + 1) // 2 + 1)
    local, centre = nodes[index], nodes[:-1, None]
    scale, half = local[:, -1:] - local[:, :1], 0.5 * np.diff(nodes)[:, None]
    vandermonde = legendre.legvander(2 * (local - centre) / scale, count - 1)
    values = legendre.legvander(2 * half * (1.0 + abscissae) / scale, count - 1)
    moments = np.einsum("kgd,g,ki->kd", values, gauss, half)
    weights = np.linalg.solve(np.swapaxes(vandermonde, 1, 2), moments[..., None])[..., 0]
    return IntervalRule(index, weights, np.zeros(len(index)))


def integral_of_tests(rule: IntervalRule, tests: Float[np.ndarray, "test interval"]) -> Float[np.ndarray, "test time"]:
    """Weights of the samples in tested integrals: the tests times the rule's matrix, which is never formed."""
    result = np.zeros((len(rule.nodes) + 1, len(tests)))
    for node in range(rule.nodes.shape[1]):
        np.add.at(result, rule.nodes[:, node], tests.T * rule.weights[:, node, None])
    return result.T


def integrate(rule: IntervalRule, values: Float[Array, "time ..."]) -> Float[Array, "interval ..."]:
    """Integral over each interval of values sampled along the first axis; memory is linear in the times."""
    if len(rule.nodes) <= _DENSE:
        matrix = integral_of_tests(rule, np.eye(len(rule.nodes)))
        return jnp.tensordot(jnp.asarray(matrix, values.dtype), values, axes=1)
    weights = jnp.reshape(jnp.asarray(rule.weights, values.dtype), (*rule.nodes.shape, *(1,) * (values.ndim - 1)))
    total = jnp.zeros((len(rule.nodes), *values.shape[1:]), values.dtype)
    for node in range(rule.nodes.shape[1]):
        total = total + weights[:, node] * values[rule.nodes[:, node]]
    return total


def interval_weights(times: Instants, num_nodes: int = 8) -> Float[np.ndarray, "interval time"]:
    """`interval_rule` as a matrix, shape (time - 1, time) [time], read-only."""
    return _interval_weights(static_times(times), num_nodes)


@cached_arrays
def _interval_weights(times: tuple[float, ...], num_nodes: int) -> np.ndarray:
    return integral_of_tests(interval_rule(times, num_nodes), np.eye(len(times) - 1))


def cumulative_integral(values: Float[Array, "points ..."], spacing: float) -> Float[Array, "points ..."]:
    """Integral from the first point to each point, along the first axis, sixth order for smooth values.

    Args:
      values: samples on an even grid.
      spacing: distance between samples.
    Returns:
      running integral, same shape, zero at the first point.
    """
    n = values.shape[0]
    weights = interval_weights(np.arange(n), 6) * spacing
    running = np.concatenate([np.zeros((1, n)), np.cumsum(weights, axis=0)])
    return jnp.tensordot(jnp.asarray(running, values.dtype), values, axes=1)
