"""Poisson's equation on a line: `python -m experiments.poisson_1d --size laptop --seeds 3`.

13 minutes of training a seed on one core; a residual in the loss of a diffusion model does not pay here: that of
`pidm_me` is 4.6 times as large as that of `diffusion`.
"""

from functools import partial
from typing import Any

from experiments.data.equations import RANGES, about_equations, check_equations, equation_bench, equations_of
from experiments.evaluation.equations import equation_scores, followed_flow_rows, reference_rows
from experiments.report.equations import equation_sections, sample_section
from experiments.study.command import main
from experiments.study.study import Study
from phdme_jax.methods.presets import INFORMED, MLP, equation_groups, equation_stages


def _size(
    equations: dict[str, int], counts: tuple[int, int], network: dict[str, int], training: Any, weight: float
) -> Any:
    return lambda: {
        "equations": equations,
        "data": {"num_train": counts[0], "num_test": counts[1], "kinds": ("linear", "linear")},
        "network": {**MLP, **network},
        "stages": equation_stages(*training),
        "informed": {"mean_weight": weight, "sample_weight": weight, **INFORMED},
        **equation_groups(),
    }


SIZES = {
    "smoke": _size({"num_points": 32, "num_waves": 4}, (500, 64), {"width": 64}, (200, 32, 1e-3), 1e-3),
    "laptop": _size(
        {"num_points": 64, "num_waves": 8},
        (10000, 1000),
        {"width": 256, "num_blocks": 3, "embedding_size": 128},
        (10000, 64, 1e-3),
        1e-7,
    ),
}
STUDY = Study(
    name="poisson_1d",
    title="Poisson's equation on a line",
    sizes=SIZES,
    problem=equations_of,
    bench=equation_bench,
    scores=(equation_scores,),
    sections=equation_sections(partial(sample_section, ("solution", "source"))),
    metrics=("residual_mae", "relative_residual", "sliced_wasserstein", "nfe"),
    baseline="diffusion",
    about=about_equations,
    check=check_equations,
    ranges=RANGES,
    extras=(
        reference_rows,
        followed_flow_rows,
    ),
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
