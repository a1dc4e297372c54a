"""Configuration of the string study: `python -m experiments.vibrating_string --size SIZE`.

smoke: under a minute on 2 cores, everything tiny. demo: under 5 minutes. laptop: a converged study, 3 seeds within
90 minutes on 2 cores. accelerator: the paper-sized networks.
"""

from typing import Any

from ml_collections import ConfigDict

from phdme_jax.methods.baseline_presets import baseline_group
from phdme_jax.methods.generator_presets import generator_groups


def get_config(size: str) -> ConfigDict:
    """Configuration of one size.

    `data.num_sites` is how many points are observed, 0 for all of the grid. `rollouts.initial` says where the rollouts
    that train generators start: in states drawn from the family that test states come from ("family"), or in states
    made of the observed frames alone ("observed"). `costs` are the numbers of network calls, and of test trajectories,
    in the comparison of accuracy with cost.

    Args:
      size: smoke, demo, laptop or accelerator.
    Returns:
      the configuration; its groups are keyword arguments of the factories.
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
    for group, values in _CHANGES[size].items():
        base[group] |= values
    return ConfigDict(base)


_CHANGES: dict[str, dict[str, dict[str, Any]]] = {
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
        "costs": {"num_steps": (1, 5), "num_test": 16},
    },
    "laptop": {},
    "accelerator": {
        "data": {"num_calibration": 512, "num_test": 512},
        "rollouts": {"count": 16384},
        "sampling": {"num_steps": 20, "num_samples": 32},
    },
}  # fmt: skip
