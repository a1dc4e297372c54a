"""Poisson's equation on a square, in one call: `python -m experiments.poisson_2d --size laptop --seeds 3`.

A flow and a diffusion model, models trained with physics, and one-step students of the flow, each also with its
solution computed anew.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from ml_collections import ConfigDict

from experiments.data.equations import RANGES, about_equations, check_equations, equation_bench, equations_of
from experiments.evaluation.equations import equation_scores, reference_rows
from experiments.report.equations import equation_sections, sample_section
from experiments.study.command import main
from experiments.study.study import Study, Variant
from phdme_jax.methods.presets import (
    ANSWERING,
    FEW_CALLS,
    INFORMED,
    LARGE_UNET,
    SMALL_UNET,
    UNET,
    equation_groups,
    equation_stages,
    student_groups,
    student_stages,
)

METHODS = ("diffusion", "flow_matching", "pidm_me", "pidm_se", "pbfm", "residual_pushed")
STUDENTS = ("distilled", "piddm", "piddm_ref", "flow_map", "shortcut")
ANSWERS = (
    "dps",
    "sda",
    "moment_matched",
    "diffusionpde",
    "eci",
    "matched_flow",
    "d_flow",
    "piddm_search",
    "residual_guidance",
    "prior_and_solver",
    "optimised_data",
    "kriging",
)
# more and longer steps make residuals smaller still, and samples more alike (validation, 5 and 20 steps, 3e-4 to 1e-2)
REFINED = {"refinements": 5, "refinement_rate": 1e-3}
# of validation of Poisson's equation, seed 0, 8 questions of each kind; other problems, but Darcy flow, have them too,
# unchosen. Mean CRPS of the kinds:
# `diffusionpde` in 100 steps, pushed 3, 10 and 30 by observations 0.20, 0.088 and 0.13, 10 by the residual 0.17; with
# sparse questions too, pushed 0.001, 0.01, 0.03 and 0.1 by the residual, 0.148 in each case, the residual (rms) 0.17,
# 0.15, 0.12 and 0.15, and about 1 where pushed 1;
# `dps` pushed 0.3, 1 and 10 0.48, 0.36 and 0.094; `sda` at (gamma, bound) (1, 10) 0.21, (0.3, 30) 0.18;
# `piddm_search` at rates 0.02, 0.05 and 0.2 0.093, 0.086 and 0.11; twice the iterations of `moment_matched` and
# `matched_flow` change 0.086 and 0.084 by 0.001 at most; `prior_and_solver` in 4, 8, 16 and 32 iterations 0.092, 0.072,
# 0.056 and 0.053 on inverse questions, 0.077, 0.072, 0.068 and 0.064 on reconstructions, 0.121, 0.119, 0.134 and 0.228
# on sparse forward, 0.093, 0.082, 0.081 and 0.082 on sparse inverse ones
# of 4 questions of each kind, mean CRPS: `sda` in 24 levels 0.23, with one Langevin step of 0.5 in each of 100 levels
# 0.12, with three of 0.3 in each of 50 0.12; `moment_matched` 0.106, with a step of 0.5 in each of its 24 levels 0.089
PUSHED = {"push": 10.0, "observation_push": 10.0, "residual_push": 0.03}
SPREAD = {"gamma": 0.3, "variance_bound": 30.0, "langevin_corrections": 1, "langevin_step": 0.5}
SOLVED = (("solved", True),)
UNCORRECTED = (("answers.langevin_corrections", 0),)
FEW_ITERATIONS = (("answers.solver_iterations", 4),)


def make_variants(config: ConfigDict) -> Iterator[Variant]:
    """Every method; students, teachers and kriging with their solution computed anew; guidance with less effort."""
    del config
    for method in (*METHODS, *STUDENTS, *ANSWERS):
        yield Variant(method)
    for method in ("diffusion", "flow_matching", *STUDENTS, "kriging"):
        yield Variant(method, SOLVED)
    for method in ("sda", "moment_matched"):
        yield Variant(method, UNCORRECTED)
    yield Variant("prior_and_solver", FEW_ITERATIONS)


def sizes_of(
    small: Mapping[str, float],
    large: Mapping[str, float],
    published: Mapping[str, float],
    kinds: tuple[str, ...],
    padding: Any = "zero",
    network: Mapping[str, Any] = UNET,
    slice_size: int = 1,
    residual_push: float = PUSHED["residual_push"],
    **distilled: Any,
) -> dict[str, Any]:
    """Sizes of a study of one-step models: a grid to try it on, one for a CPU, and that of publications.

    Nothing has been run at `accelerator` yet: its budgets are for a few minutes a method on one card.

    Args:
      small: keyword arguments of the equations at `smoke`.
      large: those at `laptop`.
      published: those at `accelerator`.
      kinds: encoding of each field.
      padding: of the network, for each axis or all.
      network: at `laptop`, but for its padding.
      slice_size: of the batch, see `training.loop.LoopOptions`.
      residual_push: see `answering.Answering`.
      **distilled: what differs of the group `distilled`.
    Returns:
      the groups by size.
    """

    def size(
        equations: Mapping[str, float],
        counts: tuple[int, int, int, int, int],
        network: Mapping[str, Any],
        training: Any,
        students: Any,
        pairs: tuple[int, int],
        pushed: int,
    ) -> Any:
        return lambda: {
            "equations": dict(equations),
            "data": {"num_train": counts[0], "num_test": counts[1], "kinds": kinds},
            "network": {**network, "padding": padding},
            "stages": {**equation_stages(*training), **student_stages(*students)},
            "informed": {"mean_weight": 1e-3, "sample_weight": 1e-3, **INFORMED},
            **equation_groups("edm", {**FEW_CALLS, **REFINED}, flow_predicts="edm", noise="edm", slice_size=slice_size),
            **student_groups(*pairs, **distilled),
            "questions": {
                "count": counts[2],
                "num_samples": counts[3],
                "share": 0.03,
                "noise": 0.01,
                "num_calibration": counts[4],
                "sparse": True,
            },
            "answers": {**ANSWERING, **PUSHED, **SPREAD, "residual_push": residual_push, "pushed_steps": pushed},
            "residual_guidance": {"num_own": pairs[0], "num_calls": pairs[1]},
            "level": 0.9,
        }

    return {
        "smoke": size(small, (64, 16, 4, 2, 9), SMALL_UNET, (20, 8, 1e-3), (20, 20, 8, 5e-4), (64, 4), 4),
        # of validation: weights 1, 10 and 100 of the residual after 3,000 steps of seed 0, 3,000 and 10,000 steps at 1
        "laptop": size(
            large, (10000, 2048, 16, 8, 19), network, (10000, 8, 1e-3), (6000, 10000, 8, 5e-4), (8192, 24), 100
        ),
        "accelerator": size(
            published,
            (20000, 4096, 64, 16, 64),
            LARGE_UNET,
            (20000, 64, 1e-3),
            (12000, 20000, 64, 5e-4),
            (32768, 24),
            100,
        ),
    }


STUDY = Study(
    name="poisson_2d",
    title="Poisson's equation on a square, in one call",
    sizes=sizes_of({"num_points": 16}, {"num_points": 32}, {"num_points": 64}, ("linear", "linear"), slice_size=4),
    problem=equations_of,
    bench=equation_bench,
    scores=(equation_scores,),
    sections=equation_sections(partial(sample_section, ("solution", "source"))),
    metrics=("residual_rms", "mmse", "smse", "sliced_wasserstein", "nfe"),
    baseline="flow_matching",
    about=about_equations,
    check=check_equations,
    ranges=RANGES,
    variants=make_variants,
    extras=(reference_rows,),
    trial_methods=("flow_matching", "distilled", "piddm"),
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
