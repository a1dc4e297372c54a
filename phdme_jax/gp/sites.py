"""Where to measure rates: the sites whose rows the prior knows least."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from phdme_jax.gp.basis import Basis, Box, feature_efforts
from phdme_jax.gp.observations import Flow


def select_sites(
    basis: Basis,
    box: Box,
    flow: Flow,
    deviations: Float[Array, "weight"],
    states: Float[Array, "frame grid field"],
    candidates: Int[Array, "candidate index"],
    count: int,
) -> Int[Array, "site index"]:
    """Choose where to measure rates: greedily the site whose rows the prior knows least, given those already chosen.

    Pivoted Cholesky of the prior covariance of the rows; it uses observed states, not rates. The fields of a site are
    added up.

    Args:
      basis: sizes of the basis.
      box: where it lives.
      flow: efforts -> rates of the conservative structure.
      deviations: prior standard deviations of the weights.
      states: observed states.
      candidates: (frame, grid) index of the sites to choose from, shape (candidate, 2).
      count: how many to choose.
    Returns:
      chosen (frame, grid) indices, shape (count, 2), all distinct.
    Raises:
      ValueError: more sites wanted than there are candidates.
    Source: Harbrecht, Peters, Schneider (2012), Appl. Numer. Math. 62, 428-440.
    """
    if count > len(candidates):
        raise ValueError(f"expected at most {len(candidates)} sites, one per candidate, got {count}")
    apply: Any = jax.vmap(flow, in_axes=-1, out_axes=-1)
    frames, inverse = np.unique(np.asarray(candidates[:, 0]), return_inverse=True)

    def frame(state: Array) -> Array:
        return apply(feature_efforts(basis, box, state)[..., : basis.size])

    rows = jax.lax.map(frame, states[frames], batch_size=16)
    rows = rows[inverse, candidates[:, 1]] * deviations

    def choose(carry: tuple[Array, Array], _: None) -> tuple[Any, Array]:
        rest, free = carry
        # once the basis is exhausted only rounding is left: no site twice
        best = jnp.argmax(jnp.where(free, jnp.sum(rest**2, axis=(1, 2)), -1.0))
        directions = jnp.linalg.qr(rest[best].T)[0]
        return (rest - (rest @ directions) @ directions.T, free.at[best].set(False)), best

    _, chosen = jax.lax.scan(choose, (rows, jnp.ones(len(rows), bool)), None, length=count)
    return candidates[chosen]
