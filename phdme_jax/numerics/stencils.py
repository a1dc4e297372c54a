"""First and second derivatives whose discrete integration by parts is exact.

Two closures at the ends of an interval are offered. `sbp_derivative` is the classical summation-by-parts pair
(D, H) with H D + (H D)^T = diag(-1, 0, ..., 0, 1). `mirror_derivative` continues a field past a fixed end by reflection
(odd: the field vanishes there, even: its slope does) and uses the interior stencil everywhere; with trapezoid
weights H the odd and the even derivative are each other's negative adjoint, to any order.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phdme_jax.numerics.arrays import cached_arrays

FIRST_STENCILS = {
    2: (1 / 2,),
    4: (2 / 3, -1 / 12),
    6: (3 / 4, -3 / 20, 1 / 60),
    8: (4 / 5, -1 / 5, 4 / 105, -1 / 280),
}
SECOND_STENCILS = {
    2: (-2.0, 1.0),
    4: (-5 / 2, 4 / 3, -1 / 12),
    6: (-49 / 18, 3 / 2, -3 / 20, 1 / 90),
    8: (-205 / 72, 8 / 5, -1 / 5, 8 / 315, -1 / 560),
}
SBP_NORMS = {2: (1 / 2,), 4: (17 / 48, 59 / 48, 43 / 48, 49 / 48)}
SBP_CLOSURES = {
    2: ((-1.0, 1.0),),
    4: (
        (-24 / 17, 59 / 34, -4 / 17, -3 / 34, 0.0, 0.0),
        (-1 / 2, 0.0, 1 / 2, 0.0, 0.0, 0.0),
        (4 / 43, -59 / 86, 0.0, 59 / 86, -4 / 43, 0.0),
        (3 / 98, 0.0, -59 / 98, 0.0, 32 / 49, -4 / 49),
    ),
}


def _check(order: int, table: dict, num_points: int) -> None:
    if order not in table:
        raise ValueError(f"expected an order among {sorted(table)}, got {order}")
    if num_points < 2 * order + 1:
        least = 2 * order + 1
        raise ValueError(f"expected at least {least} points for order {order}, got {num_points}; try a lower order")


@cached_arrays
def sbp_matrix(num_points: int, spacing: float, order: int) -> np.ndarray:
    """Dense summation-by-parts first derivative D, shape (points, points) [1/length]."""
    _check(order, SBP_CLOSURES, num_points)
    matrix = np.zeros((num_points, num_points))
    for offset, weight in enumerate(FIRST_STENCILS[order], start=1):
        matrix += weight * (np.eye(num_points, k=offset) - np.eye(num_points, k=-offset))
    closure = np.array(SBP_CLOSURES[order])
    rows, columns = closure.shape
    matrix[:rows] = 0.0
    matrix[-rows:] = 0.0
    matrix[:rows, :columns] = closure
    matrix[-rows:, -columns:] = -closure[::-1, ::-1]
    return matrix / spacing


def sbp_weights(num_points: int, spacing: float, order: int) -> np.ndarray:
    """Quadrature weights (the diagonal of the norm H) that belong to `sbp_derivative`, shape (points,) [length]."""
    _check(order, SBP_CLOSURES, num_points)
    weights = np.ones(num_points)
    edge = np.array(SBP_NORMS[order])
    weights[: edge.size] = edge
    weights[-edge.size :] = edge[::-1]
    return weights * spacing


def sbp_derivative(field: Float[Array, "grid ..."], spacing: float, order: int = 4) -> Float[Array, "grid ..."]:
    """Summation-by-parts first derivative along the first axis.

        H D + (H D)^T = diag(-1, 0, ..., 0, 1)

    Args:
      field: values at the grid points.
      spacing: distance between points.
      order: interior order, 2 or 4 (1 or 2 at the ends).
    Returns:
      derivative, same shape.
    Raises:
      ValueError: unknown order or too few points.
    Source: Strand (1994), J. Comput. Phys. 110, 47-67, diagonal norms.
    """
    matrix = sbp_matrix(field.shape[0], spacing, order)
    return jnp.tensordot(jnp.asarray(matrix, field.dtype), field, axes=1, precision="highest")


def _mirrored(field: Array, width: int, parity: int) -> Array:
    """Continue a field past both ends by reflection about the end points, with the given parity."""
    left, right = field[1 : width + 1][::-1], field[-width - 1 : -1][::-1]
    return jnp.concatenate([parity * left, field, parity * right], axis=0)


def mirror_derivative(
    field: Float[Array, "grid ..."], spacing: float, order: int, parity: int
) -> Float[Array, "grid ..."]:
    """First derivative of a field that is odd (parity -1) or even (+1) about both ends.

        <u, D_even v>_H = -<D_odd u, v>_H   for u vanishing at the ends, H the trapezoid rule

    Args:
      field: values at the grid points; an odd field must vanish at both ends.
      spacing: distance between points.
      order: 2, 4, 6 or 8, the same at the ends as inside.
      parity: -1 for odd, +1 for even.
    Returns:
      derivative, same shape; it has the other parity.
    Raises:
      ValueError: unknown order or too few points.
    """
    _check(order, FIRST_STENCILS, field.shape[0])
    stencil = FIRST_STENCILS[order]
    width, n = len(stencil), field.shape[0]
    padded = _mirrored(field, width, parity)
    total = jnp.zeros_like(field)
    for offset, weight in enumerate(stencil, start=1):
        total = total + weight * (
            padded[width + offset : width + offset + n] - padded[width - offset : width - offset + n]
        )
    return total / spacing


def mirror_second_derivative(
    field: Float[Array, "grid ..."], spacing: float, order: int, parity: int
) -> Float[Array, "grid ..."]:
    """Compact second derivative of a field that is odd or even about both ends.

    Negative semidefinite in the trapezoid norm.

    Args:
      field: values at the grid points.
      spacing: distance between points.
      order: 2, 4, 6 or 8.
      parity: -1 for odd, +1 for even.
    Returns:
      second derivative, same shape and parity.
    Raises:
      ValueError: unknown order or too few points.
    """
    _check(order, SECOND_STENCILS, field.shape[0])
    centre, *stencil = SECOND_STENCILS[order]
    width, n = len(stencil), field.shape[0]
    padded = _mirrored(field, width, parity)
    total = centre * field
    for offset, weight in enumerate(stencil, start=1):
        total = total + weight * (
            padded[width + offset : width + offset + n] + padded[width - offset : width - offset + n]
        )
    return total / spacing**2


@cached_arrays
def closed_matrix(num_points: int, spacing: float, derivative: int) -> np.ndarray:
    """First or second derivative of second order at all points, one-sided at the ends, as a dense matrix.

        first:  (-1, 0, 1)/2, ends (-3, 4, -1)/2        second: (1, -2, 1), ends (2, -5, 4, -1)

    Args:
      num_points: points of the line, at least four.
      spacing: distance between points.
      derivative: 1 or 2.
    Returns:
      matrix, shape (points, points) [1/length^derivative].
    Raises:
      ValueError: another derivative, or too few points.
    """
    if derivative not in (1, 2) or num_points < 4:
        raise ValueError(f"expected derivative 1 or 2 and four points, got {derivative} and {num_points}")
    after, before = np.eye(num_points, k=1), np.eye(num_points, k=-1)
    if derivative == 1:
        matrix, closure, sign = 0.5 * (after - before), np.array([-1.5, 2.0, -0.5]), -1.0
    else:
        matrix, closure, sign = after - 2.0 * np.eye(num_points) + before, np.array([2.0, -5.0, 4.0, -1.0]), 1.0
    matrix[[0, -1]] = 0.0
    matrix[0, : closure.size] = closure
    matrix[-1, -closure.size :] = sign * closure[::-1]
    return matrix / spacing**derivative
