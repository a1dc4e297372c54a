"""Modes of a Gaussian field on a square whose covariance falls off exponentially with the distance."""

import numpy as np
from jaxtyping import Float

from phdme_jax.numerics.arrays import cached_arrays


@cached_arrays
def karhunen_loeve(num_points: int, length: float, num_modes: int) -> np.ndarray:
    """Leading modes of the covariance exp(-|x - x'| / length) on a square grid, each times its standard deviation.

    The covariance is even about both middles of the square, so that its eigenvectors are found among the functions of
    each parity, problems of a quarter of the size; those odd along x alone are those odd along y alone, transposed. The
    first of a mode's largest entries is positive, so that the modes are the same on every machine.

    Args:
      num_points: nodes along each side of the unit square, ends included.
      length: correlation length.
      num_modes: modes to keep.
    Returns:
      modes, shape (points, points, mode), of decreasing variance.
    Raises:
      ValueError: more modes than nodes.
    """
    if not 1 <= num_modes <= num_points**2:
        raise ValueError(f"expected between 1 and {num_points**2} modes, got {num_modes}")
    line = np.linspace(0.0, 1.0, num_points)
    apart = (line[:, None] - line) ** 2
    covariance = np.exp(-np.sqrt(apart[:, None, :, None] + apart[None, :, None, :]) / length)
    half = np.eye(num_points)[: (num_points + 1) // 2]
    bases = [half + half[:, ::-1], (half - half[:, ::-1])[: num_points // 2]]
    bases = [basis / np.linalg.norm(basis, axis=1, keepdims=True) for basis in bases]
    values: list[np.ndarray] = []
    modes: list[np.ndarray] = []
    for rows, columns in ((bases[0], bases[0]), (bases[0], bases[1]), (bases[1], bases[1])):
        small = np.einsum("ai,ijkl->ajkl", rows, covariance, optimize=True)
        small = np.einsum("bj,ajkl,ck,dl->abcd", columns, small, rows, columns, optimize=True)
        size = rows.shape[0] * columns.shape[0]
        value, vector = np.linalg.eigh(small.reshape(size, size))
        value, vector = value[::-1][:num_modes], vector[:, ::-1][:, :num_modes]
        large = np.abs(vector) > (1 - 1e-6) * np.abs(vector).max(axis=0)
        vector = vector * np.sign(vector[np.argmax(large, axis=0), np.arange(len(value))])
        vector = vector.reshape(rows.shape[0], columns.shape[0], -1)
        mode = np.einsum("ai,bj,abm->ijm", rows, columns, vector, optimize=True)
        values, modes = [*values, value], [*modes, mode]
        if rows is not columns:
            values, modes = [*values, value], [*modes, mode.transpose(1, 0, 2)]
    value, mode = np.concatenate(values), np.concatenate(modes, axis=-1)
    order = np.argsort(-value, kind="stable")[:num_modes]
    return mode[..., order] * np.sqrt(value[order])


def keeps_pairs(modes: Float[np.ndarray, "x y mode"]) -> bool:
    """Whether modes have the same covariance when x and y are exchanged.

    Modes odd along one axis come in pairs, each the other's exchange; they have not where the first of a pair alone is
    kept.
    """
    variance = (modes**2).sum(axis=-1)
    return bool(np.allclose(variance, variance.T, rtol=1e-9, atol=1e-9 * variance.max()))
