"""Fields continued past the ends of a grid by their parity: odd (-1, zero there) or even (+1).

Along an axis that is a ring (0, of all fields) the point after the last one is the first, and nothing is mirrored.
"""

from itertools import product

import jax.numpy as jnp
from jaxtyping import Array, Float

Parity = tuple[tuple[int, ...], ...]


def parity_array(parity: Parity, state: Float[Array, "*grid field"]) -> Float[Array, "field axis"]:
    """Parity per field and axis as an array of the state's type.

    Raises:
      ValueError: the parity has other fields or axes than the state.
    """
    shape = (state.shape[-1], state.ndim - 1)
    if len(parity) != shape[0] or any(len(row) != shape[1] for row in parity):
        raise ValueError(f"expected a parity for each of {shape[0]} fields and {shape[1]} axes, got {parity}")
    return jnp.reshape(jnp.asarray(parity, state.dtype), shape)


def _is_ring(parity: Parity, axis: int) -> bool:
    """Whether an axis is a ring.

    Raises:
      ValueError: it is one for some of the fields alone.
    """
    signs = {row[axis] for row in parity}
    if 0 in signs and len(signs) > 1:
        raise ValueError(f"expected parity 0 of all fields or of none along axis {axis}, got {parity}")
    return signs == {0}


def neighbourhood(state: Float[Array, "*grid field"], parity: Parity, radius: int) -> Float[Array, "*grid channel"]:
    """States within `radius` grid points of every point side by side, (2 radius + 1)^axes field channels.

    Args:
      state: fields on the grid, its ends included.
      parity: per field and axis.
      radius: reach in grid points, less than the grid has.
    Returns:
      the neighbourhoods; the state itself on a grid without axes.
    """
    signs, grid, padded = parity_array(parity, state), state.shape[:-1], state
    for axis in range(len(grid)):
        line, sign = jnp.moveaxis(padded, axis, 0), signs[:, axis]
        if _is_ring(parity, axis):
            left, right = line[len(line) - radius :], line[:radius]
        else:
            left, right = sign * line[1 : radius + 1][::-1], sign * line[-radius - 1 : -1][::-1]
        padded = jnp.moveaxis(jnp.concatenate([left, line, right]), 0, axis)
    windows = [
        padded[tuple(slice(start, start + size) for start, size in zip(shift, grid, strict=True))]
        for shift in product(range(2 * radius + 1), repeat=len(grid))
    ]
    return jnp.concatenate(windows, axis=-1)


def inside(state: Float[Array, "*grid field"], parity: Parity) -> Float[Array, "*grid field"]:
    """Zero where a field is odd about an end of the grid, one elsewhere."""
    signs, mask = parity_array(parity, state), jnp.ones_like(state)
    for axis in range(state.ndim - 1):
        ends = jnp.where(signs[:, axis] < 0, 0.0, 1.0).astype(state.dtype)
        mask = jnp.moveaxis(jnp.moveaxis(mask, axis, 0).at[jnp.array([0, -1])].multiply(ends), 0, axis)
    return mask


def periodic(state: Float[Array, "*grid field"], parity: Parity) -> Float[Array, "*doubled field"]:
    """The state and its mirror image, one whole period along each axis: n points become 2 (n - 1), or n of a ring."""
    signs = parity_array(parity, state)
    for axis in range(state.ndim - 1):
        if _is_ring(parity, axis):
            continue
        line = jnp.moveaxis(state, axis, 0)
        state = jnp.moveaxis(jnp.concatenate([line, signs[:, axis] * line[-2:0:-1]]), 0, axis)
    return state
