"""Names in results: of metrics and splits here, of methods in their table; what a study declares beside them."""

import difflib
import re
from functools import lru_cache

from phdme_jax.files import InputError

# A new metric is one word here; `name_qualifier` of a listed name needs no entry.
METRIC_NAMES = (
    "mse", "nmse", "rmse", "mae", "crps", "energy_score", "spread_skill", "coverage", "band_width", "energy_drift",
    "energy_error", "mass_drift", "residual_mae", "residual_rms", "relative_residual", "resolve_error", "relative_l2",
    "constraint_error", "conserved_error", "sliced_wasserstein", "wasserstein", "angle_divergence",
    "sample_energy_drift", "sample_residual_rms", "residual_excess",
    "spectrum_error", "energy_distance", "mmse", "smse", "compliance_error", "volume_error",
    "mean_error", "covariance_error", "angle_error", "jensen_gap",
    "dynamic_error", "trajectory_error", "velocity_error", "momentum_error", "mass_error", "mmd", "marginal_score",
    "trajectory_error_median", "velocity_error_median", "energy_error_median", "momentum_error_median",
    "mass_error_median",
    "ade", "fde", "ade_of_mean", "fde_of_mean", "ade_best", "fde_best",
    "parameter_error", "mass_ratio", "backward_calls",
    "parameter_low", "parameter_high", "interval_coverage", "well_error",
    "loss", "negative_log_likelihood", "evidence_gain", "rejection_rate", "num_parameters", "nfe", "seconds_per_step",
    "seconds_per_sample", "samples_per_second", "seconds_per_forecast", "fit_seconds", "train_seconds",
    "seconds_per_update", "compile_seconds", "memory",
)  # fmt: skip
SPLIT_NAMES = (
    "train", "calibration", "validation", "test", "shifted", "forward", "inverse", "reconstruction", "sparse_forward",
    "sparse_inverse", "given",
)  # fmt: skip

# Metrics of which no end is "best": a narrow band is no merit without its coverage, and coverage has a target.
UNRANKED_METRICS = (
    "coverage", "band_width", "spread_skill", "interval_coverage", "parameter_low", "parameter_high", "evidence_gain",
    "mass_ratio", "num_parameters", "nfe", "backward_calls", "rejection_rate",
)  # fmt: skip
HIGHER_IS_BETTER = ("samples_per_second",)


@lru_cache
def vocabulary(kind: str) -> tuple[str, ...]:
    """Names of a kind in the order of tables: methods of the registry, metrics and usual splits; none for systems."""
    from phdme_jax.methods.table import METHODS

    return {"method": ("reference", *METHODS), "metric": METRIC_NAMES, "split": SPLIT_NAMES}.get(kind, ())


def check_name(kind: str, name: str) -> None:
    """Checks a name of a row against the vocabulary.

    Methods are those of the registry. A metric is known if it is listed or extends a listed one by `_qualifier`, unless
    it looks like a slip of another. Systems and splits are what a study declares.

    Args:
      kind: `system`, `method`, `metric` or `split`.
      name: the name.

    Raises:
      InputError: the name is unknown; the message names the nearest ones.
    """
    known, is_word = vocabulary(kind), re.fullmatch(r"[a-z0-9_]+", name)
    if name in known or (kind in ("system", "split") and is_word):
        return
    others = [entry for entry in known if not name.startswith(entry + "_")]
    slips = difflib.get_close_matches(name, others, n=3, cutoff=0.9)
    if kind == "metric" and len(others) < len(known) and not slips and is_word:
        return
    nearest = slips or difflib.get_close_matches(name, known, n=3, cutoff=0.0) or ["small letters and digits"]
    raise InputError(f"unknown {kind} {name!r} in a result row; expected a name such as {', '.join(nearest)}")


def vocabulary_place(kind: str, name: str) -> tuple[int, str]:
    """Sort key of a name: where it is listed, a qualified one right after its longest listed beginning, others last."""
    known = vocabulary(kind)
    roots = [entry for entry in known if name == entry or name.startswith((entry + "_", entry + " ("))]
    return (known.index(max(roots, key=len)) if roots else len(known), name)
