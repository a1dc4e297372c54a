"""Split conformal calibration of trajectory forecasts: score, quantile, band, coverage.

    scale = band_scale(samples_std, floor)                         # per trajectory, vmapped by the caller
    scores = vmap(band_score)(truths, means, scales)               # calibration trajectories
    quantile = conformal_quantile(scores, level=0.9)
    lower, upper = band(mean, scale, quantile)                     # a fresh forecast

`coverage` is the module here; its function of the same name is `phdme_jax.calibration.coverage.coverage`.
"""

from phdme_jax.calibration.conformal import conformal_quantile, conformal_rank, minimum_calibration_size
from phdme_jax.calibration.coverage import (
    CoverageCurve,
    CoverageInterval,
    coverage_curve,
    coverage_interval,
    expected_coverage,
    is_covered,
)
from phdme_jax.calibration.scores import ball_score, band, band_scale, band_score

__all__ = [
    "CoverageCurve",
    "CoverageInterval",
    "ball_score",
    "band",
    "band_scale",
    "band_score",
    "conformal_quantile",
    "conformal_rank",
    "coverage_curve",
    "coverage_interval",
    "expected_coverage",
    "is_covered",
    "minimum_calibration_size",
]
