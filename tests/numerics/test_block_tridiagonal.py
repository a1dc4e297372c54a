"""The block solver against dense algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.numerics import block_tridiagonal


def random_matrix(blocks, row, seed):
    random = np.random.default_rng(seed)
    lower = np.zeros((blocks * row, blocks * row))
    for k in range(blocks):
        here, before = slice(k * row, (k + 1) * row), slice((k - 1) * row, k * row)
        lower[here, here] = np.tril(random.standard_normal((row, row))) / np.sqrt(row) + 3.0 * np.eye(row)
        if k:
            lower[here, before] = random.standard_normal((row, row)) / np.sqrt(row)
    dense = lower @ lower.T
    split = dense.reshape(blocks, row, blocks, row)
    # only lower triangles may be read
    diagonal = np.stack([np.where(np.tri(row), split[k, :, k], np.nan) for k in range(blocks)])
    below = np.stack([split[k, :, max(k - 1, 0)] for k in range(blocks)])
    return dense, jnp.asarray(diagonal), jnp.asarray(below)


@pytest.mark.parametrize(("blocks", "row"), [(1, 4), (2, 3), (7, 5), (3, 71)])
def test_solution_and_factor_equal_the_dense_ones(blocks, row):
    dense, diagonal, below = random_matrix(blocks, row, seed=blocks)
    factor = block_tridiagonal.factorise((diagonal, below))
    for k in range(blocks):
        here = slice(k * row, (k + 1) * row)
        expected = np.linalg.cholesky(dense)[here, here]
        np.testing.assert_allclose(factor.inverse[k] @ expected, np.eye(row), atol=1e-10)
    right = np.random.default_rng(3).standard_normal((blocks, row, 2))
    solved = block_tridiagonal.solve(factor, jnp.asarray(right))
    expected = np.linalg.solve(dense, right.reshape(-1, 2))
    np.testing.assert_allclose(solved.reshape(-1, 2), expected, rtol=1e-8, atol=1e-10)
    column = block_tridiagonal.solve(factor, jnp.asarray(right[..., 0]))
    np.testing.assert_allclose(column, solved[..., 0], rtol=1e-10, atol=1e-13)


def test_first_block_below_is_left_out():
    _, diagonal, below = random_matrix(4, 3, seed=0)
    factor = block_tridiagonal.factorise((diagonal, below))
    other = block_tridiagonal.factorise((diagonal, below.at[0].set(7.0)))
    np.testing.assert_array_equal(factor.inverse, other.inverse)


def test_a_matrix_that_is_not_positive_definite_is_told_by_nan():
    _, diagonal, below = random_matrix(4, 3, seed=1)
    factor = jax.jit(block_tridiagonal.factorise)((diagonal.at[2].multiply(-1.0), below))
    assert np.isfinite(factor.inverse[:2]).all() and not np.isfinite(factor.inverse[2]).all()


def banded_matrix(blocks, row, seed):
    """Symmetric and diagonally dominant, three bands in its own blocks and five in those below."""
    random = np.random.default_rng(seed)
    own, below = random.uniform(-1.0, 1.0, (blocks, row, 3)), random.uniform(-1.0, 1.0, (blocks, row, 5))
    own[:, 1:, 0], own[..., 1] = own[:, :-1, 2], 15.0
    split = np.zeros((blocks, row, blocks, row))
    for k in range(blocks):
        split[k, :, k] = sum(np.diag(own[k, max(0, -d) : row - max(0, d), d + 1], d) for d in (-1, 0, 1))
        for d in range(-2, 3) if k else ():
            split[k, :, k - 1] += np.diag(below[k, max(0, -d) : row - max(0, d), d + 2], d)
        split[max(k - 1, 0), :, k] = split[k, :, max(k - 1, 0)].T
    return split.reshape(blocks * row, -1), jnp.asarray(own), jnp.asarray(below)


@pytest.mark.parametrize(("blocks", "row"), [(1, 4), (2, 3), (7, 5), (3, 75)])
def test_elimination_of_banded_blocks_equals_the_dense_solution(blocks, row):
    matrix, own, below = banded_matrix(blocks, row, seed=blocks)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(block_tridiagonal.dense(own[0]), matrix[:row, :row])
    right = np.random.default_rng(3).standard_normal((blocks, row))
    factor = block_tridiagonal.eliminate(own, below)
    solved = block_tridiagonal.solve_eliminated(factor, jnp.asarray(right))
    np.testing.assert_allclose(np.ravel(solved), np.linalg.solve(matrix, right.ravel()), rtol=1e-10, atol=1e-13)
    # what is left of the last block is the inverse's last block
    np.testing.assert_allclose(factor.inverse[-1], np.linalg.inv(matrix)[-row:, -row:], atol=1e-13)


def test_elimination_of_a_matrix_that_is_not_positive_definite_is_told_by_nan():
    _, own, below = banded_matrix(4, 3, seed=1)
    factor = jax.jit(block_tridiagonal.eliminate)(own.at[2].multiply(-1.0), below)
    assert np.isfinite(factor.inverse[:2]).all() and not np.isfinite(factor.inverse[2]).all()
