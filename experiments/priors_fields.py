"""Symmetry and equations as priors of fields: `python -m experiments.priors_fields --size laptop --seeds 3`.

Advection and Burgers' equation on a ring, a dam that breaks, and Darcy flow. Fields are generated; a method knows their
symmetry, or asks its denoiser for their balances in the form that Jensen's gap leaves.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from ml_collections import ConfigDict

from experiments.data.cases import case_bench, equations_of_case
from experiments.data.equations import RANGES, about_equations, check_equations
from experiments.data.prior_fields import options_of_case
from experiments.evaluation.prior_fields import field_reference_rows, field_scores
from experiments.report.priors import field_prior_sections
from experiments.study.command import main
from experiments.study.study import Study, Variant
from phdme_jax.methods.presets import (
    FEW_CALLS,
    INFORMED,
    LARGE_UNET,
    SMALL_UNET,
    UNET,
    equation_groups,
    prior_groups,
)
from phdme_jax.methods.ranges import Range
from phdme_jax.methods.table import METHODS as TABLE

METHODS = (
    "diffusion",
    "projected",
    "augmented",
    "subspace",
    "penalty_linear",
    "penalty_multilinear",
    "equivariant",
    "priors",
)
LAYOUTS: dict[str, dict[str, Any]] = {
    "advection": {"padding": ("circular", "edge"), "logarithms": ()},
    "viscous_burgers": {"padding": ("circular", "edge"), "logarithms": ()},
    "dam_break": {"padding": ("edge", "edge"), "logarithms": ()},
    "darcy_nodal": {"padding": ("edge", "edge"), "logarithms": ("permeability",)},
}
PROJECTED = (("projected", True),)
MIRRORED = ("dam_break",)  # each example is moved to itself by its symmetry


def _fits(config: ConfigDict, method: str, case: str) -> bool:
    """Whether the case offers what the method needs, and a network that commutes where it is one.

    Nothing is augmented where each example is its own mirror image.
    """
    if method == "augmented" and case in MIRRORED:
        return False
    offered = TABLE[method].refusal(equations_of_case(config, case)) is None
    return offered and (method != "equivariant" or "symmetric_network" in options_of_case(config, case))


def make_variants(config: ConfigDict) -> Iterator[Variant]:
    """Every method where it fits; those with a symmetry also with each sample projected, where that can be had."""
    for method in METHODS:
        cases = tuple(case for case in config.cases if _fits(config, method, case))
        if cases:
            yield Variant(method, cases=cases)
    for method in ("equivariant", "priors"):
        cases = tuple(case for case in config.cases if _fits(config, method, case) and _fits(config, "projected", case))
        if cases:
            yield Variant(method, PROJECTED, cases)


def _cases(line: int, square: int, frames: int, modes: int) -> dict[str, dict[str, Any]]:
    return {
        "advection": {"num_points": line, "num_frames": line},
        "viscous_burgers": {"num_points": line, "num_frames": line},
        "dam_break": {"num_points": square, "num_frames": frames},
        "darcy_nodal": {"num_points": square, "num_modes": modes},
    }


def _size(
    cases: Mapping[str, Mapping[str, Any]],
    counts: tuple[int, int],
    networks: tuple[Mapping[str, Any], Mapping[str, Any]],
    training: tuple[int, int, float],
) -> Any:
    unet, dilated = networks
    return lambda: {
        "cases": {name: dict(case) for name, case in cases.items()},
        "layouts": {name: dict(layout) for name, layout in LAYOUTS.items()},
        "data": {"num_train": counts[0], "num_test": counts[1]},
        "network": dict(unet),
        "dilated": {"name": "dilated", **dilated},
        "stages": {"diffusion": ((1, *training),)},
        "informed": {"mean_weight": 1e-3, "sample_weight": 1e-3, **INFORMED},
        **equation_groups("edm", FEW_CALLS, noise="edm", slice_size=1),
        **prior_groups(min(256, counts[0]), linear=0.1, multilinear=0.1),
    }


SMALL = {"channels": 8, "dilations": (1, 2, 4), "embedding_size": 16, "groups": 4, "patch": 4}
LAPTOP = {"channels": 32, "dilations": (1, 2, 4, 8, 16, 4, 1), "embedding_size": 64, "groups": 8, "patch": 4}
LARGE = {
    "channels": 128,
    "dilations": (1, 2, 4, 8, 16, 32, 16, 8, 4, 2, 1),
    "embedding_size": 128,
    "groups": 8,
    "patch": 4,
}

STUDY = Study(
    name="priors_fields",
    title="Priors of fields: symmetry and balances",
    cases=tuple(LAYOUTS),
    methods=METHODS,
    sizes={
        "smoke": _size(_cases(16, 16, 4, 12), (32, 16), ({**SMALL_UNET, "multipliers": (1,)}, SMALL), (20, 8, 1e-3)),
        "laptop": _size(_cases(64, 32, 11, 64), (10000, 2048), (UNET, LAPTOP), (10000, 8, 1e-3)),
        # not run yet
        "accelerator": _size(_cases(128, 128, 21, 64), (10000, 2048), (LARGE_UNET, LARGE), (50000, 64, 1e-3)),
    },
    problem=equations_of_case,
    bench=partial(case_bench, options_of_case),
    scores=(field_scores,),
    sections=field_prior_sections(),
    metrics=("residual_rms", "residual_rms_unseen", "mass_error", "mmse", "nfe"),
    baseline="diffusion",
    variants=make_variants,
    about=about_equations,
    check=partial(check_equations, options=options_of_case),
    ranges=RANGES | {"logarithms": Range(empty=True)},
    extras=(field_reference_rows,),
    trial_methods=("diffusion", "augmented", "priors"),
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
