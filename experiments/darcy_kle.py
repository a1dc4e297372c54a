"""Darcy flow, the equation multiplied out: `python -m experiments.darcy_kle --size laptop --seeds 3`.

About 70 minutes of training a seed on one core, and 40 of `pbfm`; the residual of `pidm_me` is a twentieth of that of
`diffusion`, its fields are further from the data.
"""

from functools import partial
from typing import Any

from experiments.data.equations import RANGES, about_equations, check_equations, equation_bench, equations_of
from experiments.evaluation.equations import equation_scores, followed_flow_rows, reference_rows
from experiments.report.equations import equation_sections, sample_section
from experiments.study.command import main
from experiments.study.study import Study
from phdme_jax.methods.presets import INFORMED, LARGE_UNET, SMALL_UNET, UNET, equation_groups, equation_stages


def _size(
    equations: dict[str, Any], counts: tuple[int, int], network: dict[str, Any], training: Any, mean: float
) -> Any:
    return lambda: {
        "equations": equations,
        "data": {"num_train": counts[0], "num_test": counts[1], "kinds": ("linear", "log")},
        "network": network,
        "stages": equation_stages(*training),
        "informed": {"mean_weight": mean, "sample_weight": 1e-2 * mean, **INFORMED, "level_share": 0.5},
        **equation_groups(),
    }


SIZES = {
    "smoke": _size({"num_points": 16, "num_modes": 16, "length": 0.3}, (64, 16), SMALL_UNET, (20, 8, 1e-3), 1e-3),
    "laptop": _size({"num_points": 32, "num_modes": 64, "length": 0.1}, (10000, 512), UNET, (20000, 4, 1e-3), 1e-2),
    "accelerator": _size(
        {"num_points": 64, "num_modes": 64, "length": 0.1},
        (10000, 1024),
        {**LARGE_UNET, "channels": 32, "embedding_size": 128},
        (5000, 64, 1e-3),
        1e-3,
    ),
}
# where compiling a network takes longer than the rest of a trial: methods of two networks
FEW_METHODS = ("diffusion", "pidm_me", "cocogen", "generate_then_solve")
STUDY = Study(
    name="darcy_kle",
    title="Darcy flow, the equation multiplied out",
    sizes=SIZES,
    problem=equations_of,
    bench=equation_bench,
    scores=(equation_scores,),
    sections=equation_sections(partial(sample_section, ("pressure", "permeability"))),
    metrics=("residual_mae", "resolve_error", "sliced_wasserstein", "nfe"),
    baseline="diffusion",
    about=about_equations,
    check=check_equations,
    ranges=RANGES,
    extras=(
        reference_rows,
        followed_flow_rows,
    ),
    trial_methods=FEW_METHODS,
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
