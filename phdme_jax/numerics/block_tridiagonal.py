"""Symmetric positive definite systems whose matrix is block tridiagonal, as those of a grid ordered row by row."""

from typing import NamedTuple

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


def factorise(diagonal: Float[Array, "block row row"], below: Float[Array, "block row row"]) -> BlockCholesky:
    """Cholesky factor of a symmetric positive definite, block tridiagonal matrix.

        A = L L^T,   L_kk L_kk^T = A_kk - L_k,k-1 L_k,k-1^T,   L_k,k-1 = A_k,k-1 L_k-1,k-1^-T

    Costs 8/3 row^3 multiplications and additions a block; the memory of the two arguments.

    Args:
      diagonal: blocks A_kk; only their lower triangles are read.
      below: blocks A_k,k-1; the first one has no place in the matrix and is left out.
    Returns:
      the factor, not finite where the matrix is not positive definite.
    Source: Golub and Van Loan (2013), Matrix Computations, section 4.5.
    """

    def block(previous: Array, blocks: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        here, left = blocks
        left = left @ previous.T
        factor = jax.lax.linalg.cholesky(here - left @ left.T, symmetrize_input=False)
        inverse = solve_triangular(factor, identity, lower=True)
        return inverse, (inverse, left)

    below = below.at[0].set(0.0)
    identity = jnp.eye(diagonal.shape[-1], dtype=diagonal.dtype)
    with jax.default_matmul_precision("highest"):
        _, factors = jax.lax.scan(block, identity, (diagonal, below))
    return BlockCholesky(*factors)


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
