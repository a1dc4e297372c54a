"""Split conformal quantile with the finite-sample correction.

If the n calibration scores and the score of a fresh trajectory are exchangeable, then

    P(fresh score ≤ k-th smallest calibration score) ≥ k/(n+1) ≥ level,    k = ⌈(n+1)·level⌉,

with equality on the left where ties have probability zero. The probability is over the calibration set and the fresh
trajectory together (marginal coverage): it promises nothing for one particular initial state, nor for initial states
drawn from another distribution.
"""

import math
from fractions import Fraction
from typing import SupportsFloat

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Fractions with denominators up to this bound stay 1e-10 apart from simple decimals, so that 0.1 + 0.2 is read as 3/10.
_LARGEST_DENOMINATOR = 10**9


def _exact_level(level: SupportsFloat) -> Fraction:
    """Return the level as the simple fraction that was meant, free of the rounding of binary floats of any width."""
    shortest = str(np.asarray(level)[()])  # of the decimals that round to it
    exact = Fraction(shortest).limit_denominator(_LARGEST_DENOMINATOR) if math.isfinite(level) else Fraction(0)
    if not 0 < exact < 1:
        raise ValueError(f"expected a level strictly between 0 and 1, got {level}; try 0.9 for a 90 % band.")
    return exact


def minimum_calibration_size(level: SupportsFloat) -> int:
    """Return the least number of calibration trajectories that supports a level.

        n_min = ⌈level/(1 − level)⌉

    Args:
      level: target coverage, strictly between 0 and 1, static.
    Returns:
      n_min, at least 1.
    Raises:
      ValueError: the level is not strictly between 0 and 1.

    >>> minimum_calibration_size(0.9), minimum_calibration_size(0.95), minimum_calibration_size(0.99)
    (9, 19, 99)
    """
    exact = _exact_level(level)
    return math.ceil(exact / (1 - exact))


def conformal_rank(num_calibration: int, level: SupportsFloat) -> int:
    """Rank (from one) of the calibration score that is the conformal quantile.

        k = ⌈(n+1)·level⌉

    Args:
      num_calibration: number n of calibration trajectories, static.
      level: target coverage, strictly between 0 and 1, static.
    Returns:
      k, between 1 and n.
    Raises:
      ValueError: the level is not strictly between 0 and 1, or n is too small for it (k would be n + 1).
    Source: Vovk, Gammerman and Shafer (2005), chapter 4; Lei et al. (2018), algorithm 2.

    >>> conformal_rank(9, 0.9), conformal_rank(10, 0.9), conformal_rank(99, 0.95)
    (9, 10, 95)
    """
    rank = math.ceil((num_calibration + 1) * _exact_level(level))
    if rank <= num_calibration:
        return rank
    highest = Fraction(num_calibration, num_calibration + 1)
    # Rounded down: the number printed must itself be a level that n supports.
    advice = f" or lower the level to at most {math.floor(highest * 10**6) / 10**6:g}" if num_calibration > 0 else ""
    raise ValueError(
        f"expected at least {minimum_calibration_size(level)} calibration trajectories for level {level:g}, "
        f"got n = {num_calibration}; add trajectories{advice}."
    )


def conformal_quantile(scores: Float[Array, " calibration"], level: SupportsFloat) -> Float[Array, ""]:
    """Finite-sample conformal quantile of the calibration scores.

        q = s_(k),    k = ⌈(n+1)·level⌉

    Args:
      scores: one score per calibration trajectory, shape (calibration,); a score that is not a number counts as
        infinity. The trajectories must be measured or simulated ones that trained nothing, never samples of the model.
      level: target coverage, strictly between 0 and 1, static.
    Returns:
      q, scalar [units of the scores]; infinity where too many forecasts failed.
    Raises:
      ValueError: the level is not strictly between 0 and 1, or there are too few scores for it.
    Source: Lei et al. (2018), algorithm 2. Differs from the plain empirical quantile s_(⌈n·level⌉), which covers too
      rarely.
    """
    rank = conformal_rank(scores.shape[0], level)
    return jnp.sort(jnp.where(jnp.isnan(scores), jnp.inf, scores))[rank - 1]
