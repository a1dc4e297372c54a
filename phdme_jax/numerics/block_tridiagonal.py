"""Symmetric positive definite systems whose matrix is block tridiagonal, as those of a grid ordered row by row.

Where the blocks are banded, as those of nodes tied to their neighbours, `eliminate` needs a quarter of the operations
of `factorise`; its inverses suit matrices whose condition leaves digits to spare.

No solver of lineax 0.1 covers them: its `Tridiagonal` takes scalars on the three diagonals, its `Cholesky` the whole
dense matrix.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float


class BlockCholesky(NamedTuple):
    """Cholesky factor of a block tridiagonal matrix; arrays only.

    Attributes:
      inverse: inverses of the blocks on its diagonal, so that solving is multiplying.
      below: blocks below the diagonal.
    """

    inverse: Float[Array, "block row row"]
    below: Float[Array, "block row row"]


def factorise(blocks: Any, expand: Callable[[Any], tuple[Array, Array]] = tuple) -> BlockCholesky:
    """Cholesky factor of a symmetric positive definite, block tridiagonal matrix.

        A = L L^T,   L_kk L_kk^T = A_kk - L_k,k-1 L_k,k-1^T,   L_k,k-1 = A_k,k-1 L_k-1,k-1^-T

    Costs about 8/3 row^3 multiplications and additions a block.

    Args:
      blocks: A_kk, of which only the lower triangles are read, and A_k,k-1, whose first has no place in the matrix and
        is left out, each (block, row, row); or arrays (block, ...) that `expand` makes them of.
      expand: from the entries of one block, without the first axis, to A_kk and A_k,k-1.
    Returns:
      the factor, not finite where the matrix is not positive definite.
    Source: Golub and Van Loan (2013), Matrix Computations, section 4.5.
    """

    def block(previous: Array, entries: Any) -> tuple[Array, tuple[Array, Array]]:
        here, left = expand(entries)
        left = left @ previous.T
        inverse = _inverse_of_factor(here - left @ left.T)
        return inverse, (inverse, left)

    shape, _ = jax.eval_shape(expand, jax.tree.map(lambda leaf: leaf[0], blocks))
    with jax.default_matmul_precision("highest"):
        _, factors = jax.lax.scan(block, jnp.zeros(shape.shape, shape.dtype), blocks)
    return BlockCholesky(*factors)


def _inverse_of_factor(matrix: Float[Array, "row row"], least: int = 32) -> Float[Array, "row row"]:
    """Inverse of the Cholesky factor by halves, whose products are faster than a factorisation and a substitution.

    L = [A  0]     L^-1 = [A^-1             0   ]     B = M_21 A^-T,   C C^T = M_22 - B B^T
        [B  C]            [-C^-1 B A^-1   C^-1]
    """
    size = matrix.shape[0]
    if size <= least:
        factor = jax.lax.linalg.cholesky(matrix, symmetrize_input=False)
        return solve_triangular(factor, jnp.eye(size, dtype=matrix.dtype), lower=True)
    half = size // 2
    first = _inverse_of_factor(matrix[:half, :half], least)
    below = matrix[half:, :half] @ first.T
    last = _inverse_of_factor(matrix[half:, half:] - below @ below.T, least)
    return jnp.block([[first, jnp.zeros((half, size - half), matrix.dtype)], [-last @ below @ first, last]])


def solve(factor: BlockCholesky, right: Float[Array, "block row *column"]) -> Float[Array, "block row *column"]:
    """Solution x of L L^T x = b.

    Args:
      factor: of the matrix, see `factorise`.
      right: b, block by block; one column where the last axis is left out.
    Returns:
      x, of the shape of b.
    """
    columns = right if right.ndim == 3 else right[..., None]
    nothing = jnp.zeros_like(columns[0])

    def down(previous: Array, blocks: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        here, left, value = blocks
        solved = here @ (value - left @ previous)
        return solved, solved

    def up(carry: Array, blocks: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        here, left, value = blocks
        solved = here.T @ (value - carry)
        return left.T @ solved, solved

    with jax.default_matmul_precision("highest"):
        _, half = jax.lax.scan(down, nothing, (factor.inverse, factor.below, columns))
        _, whole = jax.lax.scan(up, nothing, (factor.inverse, factor.below, half), reverse=True)
    return whole.reshape(right.shape)


class BlockInverse(NamedTuple):
    """Elimination of a block tridiagonal matrix whose blocks are banded; arrays only.

    Attributes:
      inverse: S_k^-1, inverses of what elimination leaves of the blocks on the diagonal.
      below: blocks below the diagonal, as bands.
    """

    inverse: Float[Array, "block row row"]
    below: Float[Array, "block row offset"]


def dense(bands: Float[Array, "row offset"]) -> Float[Array, "row row"]:
    """The matrix with entries M[i, i + offset - reach] = bands[i, offset], for 2 reach + 1 offsets."""
    size, width = bands.shape
    # rows that are one entry too long, cut anew, shift by one from line to line
    long_rows = jnp.pad(bands, ((0, 0), (0, size + 1 - width))).reshape(-1)
    return long_rows[width // 2 : width // 2 + size * size].reshape(size, size)


def _times(bands: Float[Array, "row offset"], right: Float[Array, "row *column"]) -> Float[Array, "row *column"]:
    """Product of a matrix given by its bands."""
    size, width = bands.shape
    wide = jnp.pad(right, [(width // 2, width // 2)] + [(0, 0)] * (right.ndim - 1))
    flat = (size,) + (1,) * (right.ndim - 1)
    return reduce(jnp.add, (bands[:, k].reshape(flat) * wide[k : k + size] for k in range(width)))


def eliminate(own: Float[Array, "block row own"], below: Float[Array, "block row below"]) -> BlockInverse:
    """Block by block elimination of a symmetric positive definite, block tridiagonal matrix whose blocks are banded.

        S_k = A_kk - A_k,k-1 S_k-1^-1 A_k,k-1^T

    Costs about 2/3 row^3 multiplications and additions a block.

    Args:
      own: bands of A_kk, see `dense`.
      below: bands of A_k,k-1, whose first has no place in the matrix and is left out.
    Returns:
      the elimination, not finite where the matrix is not positive definite.
    Source: Golub and Van Loan (2013), Matrix Computations, section 4.5.
    """

    def block(previous: Array, bands: tuple[Array, Array]) -> tuple[Array, Array]:
        here, left = bands
        # kept in memory: fused into the second product the first would be computed once for each of its bands
        half = jax.lax.optimization_barrier(_times(left, previous))
        inverse = _inverse(dense(here) - jax.vmap(partial(_times, left))(half))
        return inverse, inverse

    size = own.shape[1]
    with jax.default_matmul_precision("highest"):
        _, inverse = jax.lax.scan(block, jnp.zeros((size, size), own.dtype), (own, below))
    return BlockInverse(inverse, below)


def _inverse(matrix: Float[Array, "row row"], least: int = 36) -> Float[Array, "row row"]:
    """Inverse of a symmetric positive definite matrix by halves, of which the lower triangle is read.

    [A  B^T]^-1   [A^-1 + W^T S^-1 W   -W^T S^-1]
    [B  C  ]    = [-S^-1 W              S^-1    ],   W = B A^-1,   S = C - W B^T
    """
    size = matrix.shape[0]
    if size <= least:
        factor = jax.lax.linalg.cholesky(matrix, symmetrize_input=False)
        half = solve_triangular(factor, jnp.eye(size, dtype=matrix.dtype), lower=True)
        return half.T @ half
    cut = size // 2
    first, between = _inverse(matrix[:cut, :cut], least), matrix[cut:, :cut]
    across = between @ first
    last = _inverse(matrix[cut:, cut:] - across @ between.T, least)
    corner = last @ across
    return jnp.block([[first + across.T @ corner, -corner.T], [-corner, last]])


def solve_eliminated(factor: BlockInverse, right: Float[Array, "block row"]) -> Float[Array, "block row"]:
    """Solution x of A x = b.

    Args:
      factor: of the matrix, see `eliminate`.
      right: b, block by block.
    Returns:
      x, of the shape of b.
    """

    def transposed(bands: Array, vector: Array) -> Array:
        return jax.linear_transpose(partial(_times, bands), vector)(vector)[0]

    def down(previous: Array, blocks: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        here, left, value = blocks
        solved = here @ (value - _times(left, previous))
        return solved, solved

    def up(carry: Array, blocks: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        here, left, value = blocks
        solved = value - here @ carry
        return transposed(left, solved), solved

    nothing = jnp.zeros_like(right[0])
    with jax.default_matmul_precision("highest"):
        _, half = jax.lax.scan(down, nothing, (factor.inverse, factor.below, right))
        _, whole = jax.lax.scan(up, nothing, (factor.inverse, factor.below, half), reverse=True)
    return whole
