"""Forecasts of fields from their first frame, with priors and rivals: `python -m experiments.priors_forecasts`.

Advection and Burgers' equation on a ring. Generators are told the first frame and know a symmetry or the balances; on
advection `subspace` and `priors` know its speed, and so all but the first frame. Fourier operators step from frame to
frame, plain, projected on what is conserved, or with an energy learned beside.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from ml_collections import ConfigDict

from experiments.data.cases import case_bench, equations_of_case
from experiments.data.equations import RANGES, check_equations
from experiments.data.prior_fields import options_of_case
from experiments.evaluation.field_forecasts import forecast_reference_rows, forecast_scores
from experiments.priors_fields import LAPTOP, LARGE, LAYOUTS, SMALL
from experiments.report.forecasts_of_fields import field_forecast_sections
from experiments.study.command import main
from experiments.study.study import Study, Variant
from phdme_jax.methods.presets import FEW_CALLS, INFORMED, equation_groups, prior_groups
from phdme_jax.methods.ranges import Range
from phdme_jax.methods.table import METHODS as TABLE

CASES = ("advection", "viscous_burgers")
METHODS = (
    "diffusion",
    "augmented",
    "subspace",
    "penalty_linear",
    "penalty_multilinear",
    "equivariant",
    "priors",
    "fno",
    "projected_fno",
    "eno",
)


def make_variants(config: ConfigDict) -> Iterator[Variant]:
    """Every method where it fits."""
    for method in METHODS:
        cases = tuple(case for case in CASES if TABLE[method].refusal(equations_of_case(config, case)) is None)
        yield Variant(method, cases=cases)


def _about(config: ConfigDict) -> str:
    return (
        f"Learned from {config.data.num_train} examples; {config.data.num_test} unseen ones are forecast from their "
        f"first frame, {config.asked.num_samples} samples each where a method draws them."
    )


def _operators(modes: int, width: int, depth: int, stages: tuple[tuple[int, int, int, float], ...]) -> dict[str, Any]:
    """The group `baselines`: sizes and stages of Fourier operators, and of the energy beside; none of them searched."""
    return {
        "fno": {"modes": modes, "width": width, "depth": depth},
        "eno": {"width": width, "depth": 2, "weight": 0.1},
        "stages": {"fno": stages},
        "start_noise": 1e-2,
        "ema_decay": 0.995,
    }


def _size(
    points: int,
    counts: tuple[int, int],
    dilated: Mapping[str, Any],
    training: tuple[int, int, float],
    operators: Mapping[str, Any],
) -> Any:
    return lambda: {
        "cases": {name: {"num_points": points, "num_frames": points, "given_frames": 1} for name in CASES},
        "layouts": {name: dict(LAYOUTS[name]) for name in CASES},
        "data": {"num_train": counts[0], "num_test": counts[1]},
        "dilated": {"name": "dilated", **dilated},
        "stages": {"diffusion": ((1, *training),)},
        "informed": {"mean_weight": 1e-3, "sample_weight": 1e-3, **INFORMED},
        "baselines": dict(operators),
        "asked": {"num_samples": 4},
        **equation_groups("edm", FEW_CALLS, noise="edm", slice_size=1),
        **prior_groups(min(256, counts[0]), linear=0.1, multilinear=0.1),
    }


STUDY = Study(
    name="priors_forecasts",
    title="Forecasts of fields: priors and operators",
    cases=CASES,
    methods=METHODS,
    sizes={
        "smoke": _size(16, (32, 16), SMALL, (20, 8, 1e-3), _operators(8, 8, 1, ((1, 20, 8, 3e-3), (4, 10, 8, 1e-3)))),
        "laptop": _size(
            64,
            (10000, 512),
            LAPTOP,
            (10000, 8, 1e-3),
            _operators(24, 32, 3, ((1, 20000, 32, 2e-3), (8, 3000, 16, 5e-4))),
        ),
        # not run yet
        "accelerator": _size(
            128,
            (10000, 2048),
            LARGE,
            (50000, 64, 1e-3),
            _operators(48, 64, 4, ((1, 50000, 128, 1e-3), (16, 10000, 64, 3e-4))),
        ),
    },
    problem=equations_of_case,
    bench=partial(case_bench, options_of_case),
    scores=(forecast_scores,),
    sections=field_forecast_sections(),
    metrics=("rmse", "nmse", "crps", "residual_rms", "mass_error", "nfe"),
    baseline="diffusion",
    variants=make_variants,
    about=_about,
    check=partial(check_equations, options=options_of_case),
    ranges=RANGES | {"logarithms": Range(empty=True)},
    extras=(forecast_reference_rows,),
    trial_methods=("diffusion", "priors", "fno", "projected_fno", "eno"),
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
