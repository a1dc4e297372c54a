"""Many observation rows in the place of which a few serve: the same likelihood and posterior at every hyperparameter.

Rows of one noise group and one pair of noise shares form a class; the noise weighs whole classes only. With a thin QR
factorisation Q R of a group's rows, targets included, at reference weights,

    sum_j rho_j D_j^T D_j = R^T (sum_j rho_j Q_j^T Q_j) R = (L^T R)^T (L^T R),   L L^T = sum_j rho_j Q_j^T Q_j,

where rho_j is a class's weight relative to the reference. The rows L^T R replace the group. Since Q^T Q = I, the matrix
that is squared is conditioned no worse than the weights are spread, whatever the rows are.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from phdme_jax.gp.observations import Observations

Variance = Callable[[Array, Array, Array, Array], Array]


class CompressedGroup(NamedTuple):
    """Rows of one noise group.

    Attributes:
      target: R's column of the targets, shape (rank,).
      design: R's columns of each block, shape (block, rank, feature).
      squares: Q_j^T Q_j of each class, flat, so that weighing them and its transpose read them in place, shape
        (noise, rank * rank).
      count: rows in each class, shape (noise,).
      reference: variance at which R was made, shape (noise,).
      group: the noise group.
      state_share: of each class, shape (noise,).
      rate_share: of each class, shape (noise,).
      fixed: of each class, shape (noise,).
    """

    target: Float[Array, "rank"]
    design: Float[Array, "block rank feature"]
    squares: Float[Array, "noise square"]
    count: Float[Array, "noise"]  # type: ignore[assignment]
    reference: Float[Array, "noise"]
    group: Int[Array, ""]
    state_share: Float[Array, "noise"]
    rate_share: Float[Array, "noise"]
    fixed: Float[Array, "noise"]


class CompressedObservations(NamedTuple):
    """Compressed groups, and the rows that stayed as they were."""

    groups: tuple[CompressedGroup, ...]
    rows: Observations


class WhiteRows(NamedTuple):
    """Rows with unit noise.

    Attributes:
      target: shape (row,).
      design: at the given dissipation, shape (row, feature).
      log_determinant: log of the determinant of the noise covariance of the rows they stand for.
    """

    target: Float[Array, "row"]
    design: Float[Array, "row feature"]
    log_determinant: Float[Array, ""]


def compress(observations: Observations) -> CompressedObservations:
    """Compress rows, group by group, where that pays; `fit` and `condition` take the result in their place.

    Runs on the host, outside of `jax.jit`: how many classes there are decides shapes. Worth its while once rows are
    several times more than features.

    Args:
      observations: rows.
    Returns:
      groups and remaining rows with the same likelihood and posterior, to rounding.
    Raises:
      ValueError: called while tracing.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in observations):
        raise ValueError("expected arrays, got tracers; compress outside of jax.jit, between building and fitting")
    rows: Any = Observations(*(np.asarray(leaf) for leaf in observations))  # type: ignore[arg-type]
    compressed, kept = [], ~(rows.state_share + rows.rate_share > 0)
    for group in np.unique(rows.group[~kept]):
        members = np.flatnonzero((rows.group == group) & ~kept)
        chosen: Any = [leaf[:, members] if leaf.ndim == 3 else leaf[members] for leaf in rows]
        found = _compress_group(*chosen)
        if found is None:
            kept[members] = True
        else:
            compressed.append(jax.tree.map(jnp.asarray, found))
    rest = Observations(*(jnp.asarray(leaf[:, kept] if leaf.ndim == 3 else leaf[kept]) for leaf in rows))
    return CompressedObservations(tuple(compressed), rest)


def _compress_group(*leaves: np.ndarray) -> CompressedGroup | None:
    """One noise group, or None where its rows are cheaper as they are."""
    target, design, group, *shares = leaves
    blocks, count, features = design.shape
    columns = np.concatenate([*design, target[:, None]], axis=1)
    size = np.max(np.abs(columns), axis=0)
    # columns the group does not see are zero, or rounding where a block is the difference of two
    used = size > np.finfo(columns.dtype).eps * np.max(size)
    used[-1] = True
    classes, member = np.unique(np.stack(shares, axis=1), axis=0, return_inverse=True)
    member = np.ravel(member)
    rank = int(used.sum())
    # operations of one likelihood, squares and factorisations counted alike
    if 2 * len(classes) * rank**2 + rank**3 + 2 * rank**2 * features + 4 * rank * features**2 > 4 * count * features**2:
        return None
    state_share, rate_share, fixed = classes.T
    both = (state_share > 0) & (rate_share > 0)
    # half way between states and rates as the main source of noise
    ratio = np.exp(np.mean(np.log(state_share[both] / rate_share[both]))) if both.any() else 1.0
    reference = (state_share + ratio * rate_share).astype(target.dtype)
    orthogonal, root = np.linalg.qr(columns[:, used] / np.sqrt(reference)[member, None])
    full = np.zeros((root.shape[0], columns.shape[1]), root.dtype)
    full[:, used] = root
    parts = [orthogonal[member == index] for index in range(len(classes))]
    squares = np.stack([np.ravel(part.T @ part) for part in parts])
    arrays: dict[str, Any] = dict(  # noqa: C408
        target=full[:, -1],
        design=np.moveaxis(full[:, :-1].reshape(-1, blocks, features), 1, 0),
        squares=squares,
        count=np.array([len(part) for part in parts], target.dtype),
        reference=reference,
        group=group[0],
        state_share=state_share,
        rate_share=rate_share,
        fixed=fixed,
    )
    return CompressedGroup(**arrays)


def whiten(
    observations: Observations | CompressedObservations, factors: Float[Array, "block"], variance: Variance
) -> WhiteRows:
    """Rows at given dissipation, scaled to unit noise.

    Args:
      observations: rows, compressed or not.
      factors: one, then the dissipation parameters.
      variance: (group, state_share, rate_share, fixed) -> noise variance.
    Returns:
      the rows.
    """
    if isinstance(observations, Observations):
        target, design, *noise = observations
        variances = variance(*noise)
        scale = jax.lax.rsqrt(variances)
        design = jnp.tensordot(factors, design, axes=1) * scale[:, None]
        return WhiteRows(target * scale, design, jnp.sum(jnp.log(variances)))
    parts = [_whiten_group(group, factors, variance) for group in observations.groups]
    parts.append(whiten(observations.rows, factors, variance))
    target, design = jnp.concatenate([part.target for part in parts]), jnp.concatenate([part.design for part in parts])
    return WhiteRows(target, design, jnp.sum(jnp.stack([part.log_determinant for part in parts])))


def _whiten_group(group: CompressedGroup, factors: Array, variance: Variance) -> WhiteRows:
    variances = variance(group.group, group.state_share, group.rate_share, group.fixed)
    weights = group.reference / variances
    rank = group.target.shape[0]
    root = jnp.linalg.cholesky(jnp.reshape(weights @ group.squares, (rank, rank)))
    design = root.T @ jnp.tensordot(factors, group.design, axes=1)
    return WhiteRows(root.T @ group.target, design, group.count @ jnp.log(variances))
