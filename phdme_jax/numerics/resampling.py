"""Fields between grids of a different number of points, by the cosines and sines that their parity allows.

    even:  f(x) = sum_k a_k cos(k pi x / L),  k = 0 .. n-1        odd:  f(x) = sum_k b_k sin(k pi x / L),  k = 1 .. n-2

through the n points of the one grid, evaluated at those of the other; both hold the two ends.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phdme_jax.numerics.parity import Parity


def resampling_matrix(num_from: int, num_to: int, parity: int) -> np.ndarray:
    """Matrix (num_to, num_from) from values on the one grid to values on the other.

    Args:
      num_from: points of the grid that the values are on, at least 3.
      num_to: points of the grid wanted, at least 2.
      parity: +1 even, -1 odd about both ends.
    Returns:
      the matrix, float64.
    Raises:
      ValueError: too few points.
    """
    if num_from < 3 or num_to < 2:
        raise ValueError(f"expected 3 points or more to resample from and 2 to, got {num_from} and {num_to}")
    here, there = (np.pi * np.arange(n)[:, None] / (n - 1) for n in (num_from, num_to))
    if parity > 0:
        waves = np.arange(num_from)
        return np.cos(there * waves) @ np.linalg.inv(np.cos(here * waves))
    waves = np.arange(1, num_from - 1)
    inner = np.linalg.inv(np.sin(here[1:-1] * waves))
    return np.sin(there * waves) @ np.pad(inner, ((0, 0), (1, 1)))


def resample(state: Float[Array, "*grid field"], parity: Parity, num_points: int) -> Float[Array, "*new field"]:
    """The state on a grid of `num_points` points along each axis.

    Args:
      state: fields on a grid that holds its ends.
      parity: per field and axis.
      num_points: points along each axis of the new grid.
    Returns:
      the fields on the new grid.
    """
    columns = []
    for field, signs in enumerate(parity):
        values = state[..., field]
        for axis, sign in enumerate(signs):
            matrix = jnp.asarray(resampling_matrix(values.shape[axis], num_points, sign), state.dtype)
            values = jnp.moveaxis(jnp.tensordot(matrix, values, axes=([1], [axis])), 0, axis)
        columns.append(values)
    return jnp.stack(columns, axis=-1)
