"""The string study: PHDME from a few observed trajectories to calibrated forecasts, against its baselines.

`python -m experiments.vibrating_string --size laptop --seeds 3` takes about 35 minutes a seed on one core: `phdme` has
a fortieth of the error of `diffusion`, which sees the observed trajectories alone. `smoke`: everything tiny, about a
minute on 2 cores. `demo`: two minutes, some methods. `accelerator`: the paper-sized networks.
"""

from functools import partial
from typing import Any

from experiments.data.fields import check_fields, field_bench, learner_system
from experiments.evaluation.costs import cost_rows
from experiments.evaluation.forecasts import field_scores, interval_coverage_rows, learning_rows, reference_rows
from experiments.report.fields import FieldLabels, field_sections
from experiments.study.command import main
from experiments.study.study import Study
from phdme_jax.methods import presets
from phdme_jax.methods.presets import baseline_group, generator_groups
from phdme_jax.methods.ranges import FROM_ZERO, Range


def groups(size: str) -> dict[str, Any]:
    """Groups of the configuration at one size.

    `data.num_sites` is how many points are observed, 0 for all of the grid. `rollouts.initial` says where the rollouts
    that train generators start: in states drawn from the family that test states come from ("family"), or in states
    made of the observed frames alone ("observed"). `costs` are the numbers of network calls, and of test trajectories,
    in the comparison of accuracy with cost.

    Args:
      size: smoke, demo, laptop or accelerator.
    Returns:
      the groups, keyword arguments of the factories.
    """
    base: dict[str, Any] = {
        "system": {"stress": "softening", "damping": 0.01},
        "data": {
            "duration": 20.0,
            "num_frames": 64,
            "num_points": 64,
            "truth_refinement": 4,
            "family": "random_smooth",
            "shifted_family": "pulse",
            "num_observed": 4,
            "noise": 0.01,
            "num_sites": 0,
            "num_calibration": 128,
            "num_test": 128,
        },
        "structure": {"order": 8, "closure": "mirror"},
        "prior": {
            "main": 32, "pair": 0, "margin": 1.5, "time_tests": 48, "space_tests": 12, "substeps": 4,
            "centre": (0.0, 0.0),
        },
        "rollouts": {"count": 4096, "initial": "family"},
        **generator_groups(size, radius=8 if size == "accelerator" else 6),
        "baselines": baseline_group(size),
        "sampling": {"num_steps": 8, "num_samples": 8},
        "costs": {"num_steps": (1, 2, 4, 8, 16, 50), "num_test": 32},
        "level": 0.9,
    }  # fmt: skip
    for group, values in CHANGES[size].items():
        base[group] |= values
    return base


CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {
        "data": {
            "num_frames": 24, "num_points": 32, "duration": 6.0, "num_calibration": 16, "num_test": 8,
            "num_observed": 2,
        },
        "prior": {"main": 16, "time_tests": 16, "space_tests": 8},
        "rollouts": {"count": 64},
        "sampling": {"num_steps": 3, "num_samples": 4},
        "costs": {"num_steps": (3,)},
    },
    "demo": {
        "data": {"num_calibration": 48, "num_test": 32},
        "rollouts": {"count": 512},
        "sampling": {"num_steps": 5, "num_samples": 4},
        "costs": {"num_steps": (), "num_test": 16},
    },
    "laptop": {},
    "accelerator": {
        "data": {"num_calibration": 512, "num_test": 512},
        "rollouts": {"count": 16384},
        "sampling": {"num_steps": 20, "num_samples": 32},
    },
}  # fmt: skip
RANGES = presets.RANGES | {
    "num_frames": Range(2),
    "num_points": Range(3),
    "noise": FROM_ZERO,
    "num_sites": FROM_ZERO,
    "num_test": Range(2),
    "costs.num_steps": Range(empty=True),
}
STUDY = Study(
    name="vibrating_string",
    title="Vibrating string: from a few observed trajectories to calibrated forecasts",
    sizes={size: partial(groups, size) for size in CHANGES},
    problem=learner_system,
    bench=field_bench,
    scores=(field_scores,),
    sections=field_sections(FieldLabels(fields=("momentum [m/s]", "strain"), shown=1)),
    metrics=("nmse", "crps", "coverage", "band_width"),
    baseline="diffusion",
    about=lambda config: (
        f"Learned from {config.data.num_observed} trajectories with {100 * config.data.noise:g} % noise, asked for "
        f"{config.data.num_test} unseen ones."
    ),
    extras=(reference_rows, learning_rows, interval_coverage_rows, cost_rows),
    check=check_fields,
    ranges=RANGES,
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
