"""Constraints imposed while sampling: `python -m experiments.hard_constraints --size laptop --seeds 3`.

A family of solutions is learned, and asked for with its initial or boundary values given. Conserved quantities are
imposed too where the method can. Scores compare the answers with draws of the right one.
"""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from ml_collections import ConfigDict

from experiments.data.equations import RANGES, about_equations, check_equations
from experiments.data.given import equations_of_case, given_bench, options_of_case
from experiments.evaluation.equations import shared_question_scores, shared_reference_rows
from experiments.report.given import given_sections
from experiments.study.command import main
from experiments.study.study import Study, Variant
from phdme_jax.methods.presets import (
    ANSWERING,
    FEW_CALLS,
    INFORMED,
    LARGE_UNET,
    PATCHED_UNET,
    SMALL_UNET,
    equation_groups,
    equation_stages,
)

SOLVED = ("eci", "pcfm", "matched_flow")
ONWARD = (("answers.anchored", False),)
STEPS = (("answers.imposed_frames", 5),)  # of the scheme of Burgers' equation, as published
BURGERS = ("burgers_ic", "burgers_bc")
# of Stokes' flow, as published for its first frame and for its inlet
PUBLISHED_ECI = {
    "stokes": (("answers.times", 200), ("answers.mixes", 5)),
    "stokes_bc": (("answers.times", 200), ("answers.resample_every", 5)),
}
EMPIRICAL = (("network.name", "empirical"),)  # the ideal flow of the training set in the place of a trained one
METHODS = ("flow_matching", "eci", "pcfm", "sda", "moment_matched", "dps", "matched_flow", "d_flow")
# What is fixed is published for Stokes' flow. Of Burgers' equation it is what the published program draws as its second
# question, to two digits; on heat a perfect flow that is told nothing has the published error at this phase. Which
# questions the published numbers are of is not said.
CASES: dict[str, dict[str, Any]] = {
    "burgers_ic": {"fixed": {"shock": 0.77}, "seen": "initial", "padding": ("edge", "edge")},
    # phases of half a circle: places are not alike
    "heat": {"fixed": {"phase": 0.25 * math.pi}, "seen": "initial", "padding": ("periodic", "edge")},
    "reaction_diffusion": {"fixed": {"initial": 1}, "seen": "initial", "padding": ("edge", "edge")},
    "burgers_bc": {"fixed": {"inlet": 0.95}, "seen": "inlet", "padding": ("edge", "edge")},
    "stokes": {"fixed": {"wave_number": 5.0}, "seen": "initial", "padding": ("edge", "edge")},
    "stokes_bc": {
        "equations": "stokes",
        "fixed": {"frequency": 6.0},
        "seen": "inlet",
        "padding": ("edge", "edge"),
    },
    # the first frame is zero whatever exponent and threshold are: what is conserved says more
    "porous_medium": {"fixed": {}, "seen": "initial", "padding": ("edge", "edge")},
    "stefan": {"fixed": {}, "seen": "initial", "padding": ("edge", "edge")},
}


def make_variants(config: ConfigDict) -> Iterator[Variant]:
    """Every method, and what it is changed to.

    On from where it is, first steps imposed, the ideal flow of the training set, the whole computed anew.
    """
    for method in METHODS:
        yield Variant(method)
    for method in ("eci", "pcfm"):
        yield Variant(method, ONWARD)
    for method in ("pcfm", "matched_flow"):
        yield Variant(method, STEPS, BURGERS)
    for method in ("eci", "pcfm", "matched_flow"):
        yield Variant(method, EMPIRICAL)
    yield Variant("pcfm", (*EMPIRICAL, *STEPS), BURGERS)
    for case, changes in PUBLISHED_ECI.items():
        yield Variant("eci", changes, (case,))
    able = tuple(case for case in config.cases if equations_of_case(config, case).resolve is not None)
    for method in SOLVED:
        yield Variant(method, (("solved", True),), able)
    for method in ("eci", "pcfm"):
        yield Variant(method, (*ONWARD, ("solved", True)), able)


def _size(points: int, counts: tuple[int, int, int], network: Mapping[str, Any], training: Any, times: int) -> Any:
    return lambda: {
        "equations": {"num_points": points, "num_frames": points},
        "cases": {name: {**case, "fixed": dict(case["fixed"])} for name, case in CASES.items()},
        "data": {"num_train": counts[0], "num_test": counts[1], "num_truth": counts[2], "kinds": ("linear",)},
        "network": dict(network),
        "stages": equation_stages(*training),
        "informed": {"mean_weight": 1e-3, "sample_weight": 1e-3, **INFORMED},
        **equation_groups("edm", FEW_CALLS, flow_predicts="edm", noise="edm"),
        "answers": {**ANSWERING, "times": times},
    }


SIZES = {
    "smoke": _size(16, (64, 16, 32), {**SMALL_UNET, "multipliers": (1,)}, (20, 8, 1e-3), 8),
    # on the validation split of burgers_ic, seed 0, eci and pcfm so trained and then solved have mmse_absolute 1.2e-4
    # and 8.2e-4, other draws of the answer 6.1e-4
    "laptop": _size(64, (4096, 512, 8192), PATCHED_UNET, (10000, 8, 1e-3), 100),
    # not run yet; levels of the network halve the grid three times
    "accelerator": _size(96, (16384, 2048, 16384), LARGE_UNET, (20000, 64, 1e-3), 100),
}

STUDY = Study(
    name="hard_constraints",
    title="Constraints imposed while sampling",
    cases=tuple(CASES),
    methods=METHODS,
    sizes=SIZES,
    problem=equations_of_case,
    bench=given_bench,
    scores=(shared_question_scores,),
    sections=given_sections(),
    metrics=("mmse", "smse", "constraint_error", "conserved_error", "residual_rms", "nfe"),
    baseline="flow_matching",
    variants=make_variants,
    about=about_equations,
    check=partial(check_equations, options=options_of_case),
    ranges=RANGES,
    extras=(shared_reference_rows,),
    trial_methods=("flow_matching", "eci", "pcfm"),
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
