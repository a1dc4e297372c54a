"""Particles, ten frames given, ten to predict: `python -m experiments.priors_prediction --size laptop --seeds 3`.

Springs, charges and a cloud of bodies in three dimensions. Generators draw what follows from what they have learned of
whole trajectories; networks that step and a learned energy of pairs go on from the last given frame.
After Han et al. (2024), arXiv 2410.13027, section 5.1: 3,000 training trajectories, 5 samples of each. Not its
protocol: worlds are generated anew, exact velocities are given with the positions, and ten frames are predicted in
place of twenty, so that its numbers cannot stand beside these.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from experiments.data.cases import case_bench, equations_of_case
from experiments.data.equations import RANGES, about_equations, check_equations
from experiments.data.particles import options_of_case
from experiments.evaluation.predictions import answered_prediction_scores, prediction_reference_rows
from experiments.priors_particles import LAPTOP, LARGE, SMALL, particle_groups
from experiments.report.predictions import prediction_sections
from experiments.study.command import main
from experiments.study.study import Study
from phdme_jax.methods.presets import PAIR_PRIOR

METHODS = (
    "diffusion",
    "augmented",
    "equivariant",
    "priors",
    "random_walk_prior",
    "hnn",
    "nri",
    "gp_rollout",
    "constant_velocity",
)
CASES: dict[str, dict[str, Any]] = {
    "five_springs": {"dimension": 3},
    "charged_particles": {"dimension": 3},
    "gravity": {"dimension": 3},
}


def _size(
    frames: tuple[int, int],
    counts: tuple[int, int, int],
    network: Mapping[str, int],
    training: tuple[int, int, float],
    steppers: Mapping[str, Any],
    prior: Mapping[str, Any],
) -> Any:
    (num_frames, given), (num_train, num_test, num_samples) = frames, counts
    return lambda: {
        "cases": {name: {**case, "num_frames": num_frames, "given_frames": given} for name, case in CASES.items()},
        "data": {"num_train": num_train, "num_test": num_test},
        "asked": {"num_samples": num_samples},
        **particle_groups(network, num_train, flow_predicts="edm"),
        "stages": dict.fromkeys(("diffusion", "flow"), ((1, *training),)),
        # four substeps of leapfrog with the true force err on charges by an ADE of 0.04, forty by 0.0015
        "baselines": {"ema_decay": 0.999, "substeps": 10, "rollout_substeps": 40, **steppers},
        "prior": dict(prior),
    }


def _steppers(width: int, hnn: tuple[Any, ...], nri: tuple[Any, ...]) -> dict[str, Any]:
    """Sizes and stages (window, steps, batch, rate) of networks that step; ten frames as published for `nri`."""
    return {"hnn": {"width": width, "depth": 2}, "nri": {"width": width}, "stages": {"hnn": hnn, "nri": nri}}


STUDY = Study(
    name="priors_prediction",
    title="Prediction of particles: symmetry and conservation",
    cases=tuple(CASES),
    methods=METHODS,
    sizes={
        "smoke": _size(
            (6, 3),
            (32, 16, 2),
            SMALL,
            (20, 8, 1e-3),
            _steppers(8, ((2, 10, 8, 1e-3),), ((3, 10, 8, 1e-3),)),
            {**PAIR_PRIOR, "main": 16, "substeps": 4},
        ),
        "laptop": _size(
            (20, 10),
            (3000, 1000, 5),
            LAPTOP,
            (10000, 32, 2e-3),
            _steppers(64, ((1, 6000, 32, 3e-3), (5, 4000, 32, 1e-3)), ((10, 10000, 32, 1e-3),)),
            PAIR_PRIOR,
        ),
        # not run yet
        "accelerator": _size(
            (20, 10),
            (3000, 2000, 5),
            LARGE,
            (50000, 128, 1e-3),
            _steppers(256, ((1, 20000, 128, 3e-3), (10, 20000, 128, 1e-3)), ((10, 50000, 128, 5e-4),)),
            PAIR_PRIOR,
        ),
    },
    problem=equations_of_case,
    bench=partial(case_bench, options_of_case),
    scores=(answered_prediction_scores,),
    sections=prediction_sections(),
    metrics=("ade", "fde", "ade_of_mean", "energy_error", "momentum_error", "nfe"),
    baseline="diffusion",
    about=about_equations,
    check=partial(check_equations, options=options_of_case),
    ranges=RANGES,
    extras=(prediction_reference_rows,),
    trial_methods=("diffusion", "random_walk_prior", "hnn", "gp_rollout", "constant_velocity"),
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
