"""Symmetry and conservation as priors of particles: `python -m experiments.priors_particles --size laptop --seeds 3`.

Springs and three bodies. Trajectories are generated; of the law of motion a network knows its symmetry and what it
conserves and nothing else. `generate_then_roll` knows more: unit masses, and a force along each pair from an energy
that it learns.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from ml_collections import ConfigDict

from experiments.data.cases import case_bench, equations_of_case
from experiments.data.equations import RANGES, about_equations, check_equations
from experiments.data.particles import options_of_case
from experiments.evaluation.particles import particle_reference_rows, particle_scores
from experiments.report.particles import particle_sections
from experiments.study.command import main
from experiments.study.study import Study, Variant
from phdme_jax.methods.presets import FEW_CALLS, INFORMED, PAIR_PRIOR, equation_groups, prior_groups

METHODS = (
    "diffusion",
    "projected",
    "augmented",
    "subspace",
    "penalty_linear",
    "penalty_convex",
    "penalty_reducible",
    "penalty_general",
    "equivariant",
    "priors",
    "generate_then_roll",
)
CASES: dict[str, dict[str, Any]] = {
    # as long as the 49 frames of the published world
    "five_springs": {"num_frames": 20, "interval": 0.25},
    "three_body": {"num_frames": 20},
}
CONVEX = ("five_springs",)  # the energy of bodies is not
PROJECTED = (("projected", True),)


def make_variants(config: ConfigDict) -> Iterator[Variant]:
    """Every method; the equivariant ones also with each sample projected."""
    del config
    for method in METHODS:
        yield Variant(method, cases=CONVEX if method == "penalty_convex" else ())
    for method in ("equivariant", "priors"):
        yield Variant(method, PROJECTED)


def particle_groups(network: Mapping[str, int], num_train: int, **training: Any) -> dict[str, Any]:
    """Groups of generators of particles but for their stages: networks, noise, samplers, penalties.

    Args:
      network: sizes of `space_time`.
      num_train: examples that are learned from.
      **training: more of the group `training`.
    Returns:
      the groups.
    """
    net = {"name": "space_time", "vectors": 2, "reach": 2, **network}
    return {
        "network": {**net, "equivariant": False},
        "symmetric_network": {**net, "equivariant": True},
        "informed": {"mean_weight": 1e-3, "sample_weight": 1e-3, **INFORMED},
        **equation_groups("edm", FEW_CALLS, noise="edm", slice_size=8, **training),
        **prior_groups(min(256, num_train), linear=0.1, convex=0.1, reducible=0.1, general=0.1),
    }


def _size(frames: int, counts: tuple[int, int], network: Mapping[str, int], training: tuple[int, int, float]) -> Any:
    return lambda: {
        "cases": {name: {**case, "num_frames": frames} for name, case in CASES.items()},
        "data": {"num_train": counts[0], "num_test": counts[1]},
        **particle_groups(network, counts[0]),
        "stages": {"diffusion": ((1, *training),)},
        "prior": dict(PAIR_PRIOR),
    }


SMALL = {"width": 16, "vector_channels": 8, "layers": 1, "heads": 2, "embedding_size": 16}
LAPTOP = {"width": 32, "vector_channels": 16, "layers": 3, "heads": 4, "embedding_size": 32}
LARGE = {"width": 128, "vector_channels": 32, "layers": 6, "heads": 8, "embedding_size": 128}

STUDY = Study(
    name="priors_particles",
    title="Priors of particles: symmetry and conservation",
    cases=tuple(CASES),
    methods=METHODS,
    sizes={
        "smoke": _size(6, (32, 16), SMALL, (20, 8, 1e-3)),
        "laptop": _size(20, (10000, 1000), LAPTOP, (10000, 32, 2e-3)),
        # not run yet
        "accelerator": _size(20, (50000, 2000), LARGE, (50000, 128, 1e-3)),
    },
    problem=equations_of_case,
    bench=partial(case_bench, options_of_case),
    scores=(particle_scores,),
    sections=particle_sections(),
    metrics=("energy_error", "momentum_error", "trajectory_error", "dynamic_error", "mmd"),
    baseline="diffusion",
    variants=make_variants,
    about=about_equations,
    check=partial(check_equations, options=options_of_case),
    ranges=RANGES,
    extras=(particle_reference_rows,),
    trial_methods=("diffusion", "priors"),
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
