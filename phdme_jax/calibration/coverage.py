"""Coverage: what a calibrated band achieved, and how far that may lie from its level by chance alone.

With one calibration set of n trajectories the coverage is itself random. For exchangeable scores without ties it is
Beta(k, n+1−k) distributed, and the count covered among m fresh trajectories is beta-binomial: with n = 20 and m = 100,
a correct 90 % band is seen to cover anything from 74 % to 100 %. Quote the interval beside every measured coverage.
"""

from collections.abc import Sequence
from typing import NamedTuple, SupportsFloat

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from phdme_jax.calibration.conformal import conformal_rank, minimum_calibration_size


class CoverageInterval(NamedTuple):
    """Central interval of the coverage."""

    lower: float
    upper: float


class CoverageCurve(NamedTuple):
    """Coverage against level, one entry per level that the calibration set supports.

    Attributes:
      level: target coverage.
      coverage: fraction of the test trajectories covered.
      expected: k/(n+1), the exact coverage on average over calibration sets.
      lower: lower end of the interval within which `coverage` falls by chance.
      upper: upper end of it.
    """

    level: Float[Array, " level"]
    coverage: Float[Array, " level"]
    expected: Float[Array, " level"]
    lower: Float[Array, " level"]
    upper: Float[Array, " level"]


def is_covered(scores: Float[Array, " test"], quantile: Float[Array, ""] | float) -> Bool[Array, " test"]:
    """Which test trajectories lie in their prediction set.

        s_i ≤ q

    Args:
      scores: one score per test trajectory, shape (test,).
      quantile: conformal quantile q, scalar.
    Returns:
      covered, shape (test,); a score that is not a number is not covered.
    """
    return scores <= quantile


def coverage(covered: Bool[Array, " test"]) -> Float[Array, ""]:
    """Fraction of the test trajectories that lie in their prediction set.

    Args:
      covered: from `is_covered`, shape (test,).
    Returns:
      fraction, scalar, of jax's default float type (a truth value has no precision to follow).
    Raises:
      ValueError: there are no test trajectories.
    """
    if covered.shape[0] == 0:
        raise ValueError("expected at least one test trajectory, got none; coverage cannot be measured without any.")
    return jnp.mean(covered, dtype=float)


def expected_coverage(num_calibration: int, level: SupportsFloat) -> float:
    """Exact coverage of the conformal band, on average over calibration sets.

        k/(n+1),    k = ⌈(n+1)·level⌉

    Args:
      num_calibration: number n of calibration trajectories.
      level: target coverage, strictly between 0 and 1.
    Returns:
      expected coverage, at least the level and at most 1/(n+1) above it.
    Raises:
      ValueError: the level is not strictly between 0 and 1, or n is too small for it.
    """
    return conformal_rank(num_calibration, level) / (num_calibration + 1)


def coverage_interval(
    num_calibration: int, num_test: int | None, level: SupportsFloat, confidence: float = 0.95
) -> CoverageInterval:
    """Interval within which the coverage of a correctly calibrated band falls by chance.

        C ~ Beta(k, n+1−k),    m·Ĉ ~ BetaBinomial(m, k, n+1−k)

    C is the coverage given one calibration set, Ĉ the fraction covered among m fresh trajectories. The interval is
    central; that of Ĉ is discrete and holds at least the confidence asked for. Exact for exchangeable scores without
    ties; ties raise the coverage.

    Args:
      num_calibration: number n of calibration trajectories.
      num_test: number m of test trajectories; None for infinitely many, which gives the Beta interval.
      level: target coverage, strictly between 0 and 1.
      confidence: probability held by the interval, strictly between 0 and 1.
    Returns:
      interval, its ends fractions between 0 and 1.
    Raises:
      ValueError: level or confidence is not strictly between 0 and 1, n is too small for the level, or m < 1.
    Source: Vovk (2012); Marques (2023), arXiv 2303.02770; Angelopoulos and Bates (2023), section 3.2.

    >>> coverage_interval(20, 100, 0.9)
    CoverageInterval(lower=0.74, upper=1.0)
    """
    from scipy import stats

    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence strictly between 0 and 1, got {confidence}; try 0.95.")
    if num_test is not None and num_test < 1:
        raise ValueError(f"expected at least one test trajectory, got {num_test}; try None for infinitely many.")
    rank = conformal_rank(num_calibration, level)
    shape = (rank, num_calibration + 1 - rank)
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    if num_test is None:
        lower, upper = stats.beta.ppf(tails, *shape)
    else:
        lower, upper = stats.betabinom.ppf(tails, num_test, *shape) / num_test
    return CoverageInterval(float(lower), float(upper))


def coverage_curve(
    scores_calibration: Float[Array, " calibration"],
    scores_test: Float[Array, " test"],
    levels: Sequence[float],
    confidence: float = 0.95,
) -> CoverageCurve:
    """Coverage of the test trajectories against the level.

    Levels that the calibration set cannot support are left out; the curve is empty where it supports none. Its points
    share their trajectories, so the interval holds at each level by itself, not along the whole curve.

    Args:
      scores_calibration: one score per calibration trajectory, shape (calibration,).
      scores_test: one score per test trajectory, shape (test,).
      levels: target coverages, each strictly between 0 and 1, static.
      confidence: probability held by the interval at each level, static.
    Returns:
      curve, each array of shape (level,).
    Raises:
      ValueError: there are no test trajectories, or a level or the confidence is not strictly between 0 and 1.
    """
    num_calibration, num_test = scores_calibration.shape[0], scores_test.shape[0]
    if num_test == 0:
        raise ValueError("expected at least one test trajectory, got none; coverage cannot be measured without any.")
    kept = [level for level in levels if num_calibration >= minimum_calibration_size(level)]
    ranks = np.array([conformal_rank(num_calibration, level) for level in kept], dtype=int)
    intervals = [coverage_interval(num_calibration, num_test, level, confidence) for level in kept]
    ordered = jnp.sort(jnp.where(jnp.isnan(scores_calibration), jnp.inf, scores_calibration))
    dtype = scores_test.dtype
    return CoverageCurve(
        level=jnp.asarray(kept, dtype),
        coverage=jnp.mean(scores_test[:, None] <= ordered[ranks - 1], axis=0, dtype=dtype),
        expected=jnp.asarray(ranks / (num_calibration + 1), dtype),
        lower=jnp.asarray([interval.lower for interval in intervals], dtype),
        upper=jnp.asarray([interval.upper for interval in intervals], dtype),
    )
