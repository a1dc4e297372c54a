"""Many observation rows in the place of which a few serve: the same likelihood and posterior at every hyperparameter.

Rows of one noise group and one pair of noise shares form a class; the noise weighs whole classes only. With a thin QR
factorisation Q R of a group's rows, targets included, at reference weights,

    sum_j rho_j D_j^T D_j = R^T (sum_j rho_j Q_j^T Q_j) R = (L^T R)^T (L^T R),   L L^T = sum_j rho_j Q_j^T Q_j,

where rho_j is a class's weight relative to the reference. The rows L^T R replace the group. Since Q^T Q = I, the matrix
that is squared is conditioned no worse than the weights are spread, whatever the rows are.
"""

from collections.abc import Callable, Iterable
from functools import partial
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
      squares: lower triangle of Q_j^T Q_j of each class, flat, so that weighing them and its transpose read half of
        them in place, shape (noise, rank * (rank + 1) / 2).
      count: rows in each class, shape (noise,).
      reference: variance at which R was made, shape (noise,).
      group: the noise group.
      state_share: of each class, shape (noise,).
      rate_share: of each class, shape (noise,).
      fixed: of each class, shape (noise,).
    """

    target: Float[Array, "rank"]
    design: Float[Array, "block rank feature"]
    squares: Float[Array, "noise triangle"]
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


def compress(observations: Observations | Iterable[Observations]) -> CompressedObservations:
    """Compress rows, group by group, where that pays; `fit` and `condition` take the result in their place.

    Runs on the host, outside of `jax.jit`: how many classes there are decides shapes. Worth its while once rows are
    several times more than features. Parts, such as trajectories, are taken one after the other, so that no more than
    one needs to be in memory: a group's rows so far are R, to which those of the next part are added.

    Args:
      observations: rows; or parts of them, which are compressed whether it pays or not.
    Returns:
      groups and remaining rows with the same likelihood and posterior, to rounding.
    Raises:
      ValueError: called while tracing, or a group's rows have other noise shares in another part.
    """
    folded: dict[int, _Folded] = {}
    rest = []
    whole = isinstance(observations, Observations)
    parts: Iterable[Observations] = (observations,) if whole else observations  # type: ignore[assignment]
    for part in parts:
        if any(isinstance(leaf, jax.core.Tracer) for leaf in part):
            raise ValueError("expected arrays, got tracers; compress outside of jax.jit, between building and fitting")
        rows: Any = Observations(*(np.asarray(leaf) for leaf in part))  # type: ignore[arg-type]
        kept = ~(rows.state_share + rows.rate_share > 0)
        for group in np.unique(rows.group[~kept]).tolist():
            members = np.flatnonzero((rows.group == group) & ~kept)
            chosen = _chosen(rows, members)
            if whole and not _pays(chosen):
                kept[members] = True
            else:
                folded[group] = _fold(folded.get(group), chosen)
        rest.append(_chosen(rows, kept))
    left = Observations(*(jnp.concatenate(leaves, axis=leaves[0].ndim // 3) for leaves in zip(*rest, strict=True)))
    return CompressedObservations(tuple(_group(group, *found) for group, found in folded.items()), left)


def _chosen(rows: Any, members: np.ndarray) -> Any:
    return Observations(*(leaf[:, members] if leaf.ndim == 3 else leaf[members] for leaf in rows))


class _Folded(NamedTuple):
    """Rows of one noise group so far."""

    used: np.ndarray  # which columns, targets last, any row has seen
    root: np.ndarray  # R, all columns
    squares: np.ndarray  # Q_j^T Q_j, (noise, rank, rank)
    classes: np.ndarray  # shares and fixed variance of each class, (noise, 3)
    rows: np.ndarray  # how many each class has
    blocks: int


def _columns(rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """Design and targets side by side, and which columns the rows see."""
    columns = np.concatenate([*rows.design, rows.target[:, None]], axis=1)
    size = np.max(np.abs(columns), axis=0)
    # columns the group does not see are zero, or rounding where a block is the difference of two
    used = size > np.finfo(columns.dtype).eps * np.max(size)
    used[-1] = True
    return columns, used


def _classes(rows: Any) -> tuple[np.ndarray, np.ndarray]:
    shares = np.stack([rows.state_share, rows.rate_share, rows.fixed], axis=1)
    classes, member = np.unique(shares, axis=0, return_inverse=True)
    return classes, np.ravel(member)


def _reference(classes: np.ndarray) -> np.ndarray:
    """Variance of each class half way between states and rates as the main source of noise."""
    state_share, rate_share, _ = classes.T
    both = (state_share > 0) & (rate_share > 0)
    ratio = np.exp(np.mean(np.log(state_share[both] / rate_share[both]))) if both.any() else 1.0
    return state_share + ratio * rate_share


def _pays(rows: Any) -> bool:
    """Whether a group is cheaper compressed: operations of one likelihood, squares and factorisations counted alike."""
    _, count, features = rows.design.shape
    rank, noise = int(_columns(rows)[1].sum()), len(_classes(rows)[0])
    compressed = 2 * noise * rank**2 + rank**3 + 2 * rank**2 * features + 4 * rank * features**2
    return compressed <= 4 * count * features**2


def _fold(before: _Folded | None, rows: Any) -> _Folded:
    """A group's rows so far, and one part more."""
    (columns, used), (classes, member) = _columns(rows), _classes(rows)
    if before is None:
        nothing = np.zeros((len(classes), 0, 0), columns.dtype)
        before = _Folded(used, columns[:0], nothing, classes, np.zeros(len(classes)), len(rows.design))
    if not np.array_equal(classes, before.classes):
        raise ValueError("expected rows of one noise group to have the same noise shares in all parts, got others")
    used, rank = used | before.used, len(before.root)
    scaled = columns / np.sqrt(_reference(classes)).astype(columns.dtype)[member, None]
    orthogonal, root = np.linalg.qr(np.concatenate([before.root, scaled])[:, used])
    first, later = orthogonal[:rank], orthogonal[rank:]
    squares = first.T @ before.squares @ first
    for index in range(len(classes)):
        squares[index] += later[member == index].T @ later[member == index]
    full = np.zeros((len(root), columns.shape[1]), root.dtype)
    full[:, used] = root
    return _Folded(used, full, squares, classes, before.rows + np.bincount(member), before.blocks)


def _group(
    group: int,
    used: np.ndarray,
    root: np.ndarray,
    squares: np.ndarray,
    classes: np.ndarray,
    count: np.ndarray,
    blocks: int,
) -> CompressedGroup:
    del used
    state_share, rate_share, fixed = classes.T
    arrays: dict[str, Any] = dict(  # noqa: C408
        target=root[:, -1],
        design=np.moveaxis(root[:, :-1].reshape(len(root), blocks, -1), 1, 0),
        squares=squares[:, *np.tril_indices(len(root))],
        count=count.astype(root.dtype),
        reference=_reference(classes).astype(root.dtype),
        group=group,
        state_share=state_share,
        rate_share=rate_share,
        fixed=fixed,
    )
    return jax.tree.map(jnp.asarray, CompressedGroup(**arrays))


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
    root = _root((weights @ group.squares)[_whole(rank)])
    design = root.T @ jnp.tensordot(factors, group.design, axes=1)
    return WhiteRows(root.T @ group.target, design, group.count @ jnp.log(variances))


@jax.custom_jvp
def _root(squares: Array) -> Array:
    """L with L L^T = squares, lower triangular; its tangent is that of some root, dL = 1/2 d(squares) L^-T.

    Whoever reads L L^T alone, as the likelihood does, has the same slope by any root's tangent. This one costs a
    triangular solve, that of the triangular root two and a product.
    """
    return jnp.linalg.cholesky(squares, symmetrize_input=False)


@_root.defjvp
def _root_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    root = _root(*primals)
    triangular = partial(jax.lax.linalg.triangular_solve, root, left_side=False, lower=True)
    # a plain triangular solve would take the tangent of the root for a triangular one
    solved = jax.lax.custom_linear_solve(
        lambda x: x @ root.T,
        tangents[0],
        lambda _, b: triangular(b, transpose_a=True),
        lambda _, b: triangular(b),
    )
    return root, 0.5 * solved


def _whole(rank: int) -> np.ndarray:
    """Where the elements of a symmetric matrix stand in its flat lower triangle, shape (rank, rank)."""
    row, column = np.tril_indices(rank)
    places = np.zeros((rank, rank), int)
    places[row, column] = places[column, row] = np.arange(len(row))
    return places
