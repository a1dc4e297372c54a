"""Configuration of the string study: `python -m experiments.vibrating_string --size SIZE`.

smoke: under a minute on 2 cores, everything tiny. demo: under 5 minutes. laptop: a converged study, 3 seeds within
90 minutes on 2 cores. accelerator: the paper-sized networks.
"""

from typing import Any

from ml_collections import ConfigDict


def get_config(size: str) -> ConfigDict:
    """Configuration of one size.

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
            "num_calibration": 128,
            "num_test": 128,
        },
        "structure": {"order": 8, "closure": "mirror"},
        "prior": {
            "main": 32, "pair": 0, "margin": 2.0, "time_tests": 48, "space_tests": 12, "substeps": 4,
            "centre": (0.0, 0.0),
        },
        "rollouts": {"count": 4096},
        "physics": {"residual_weight": 0.1, "boundary_weight": 0.1},
        "network": {
            "propagator": {"radius": 6, "width": 64, "depth": 2},
            "unet": {"channels": 16, "multipliers": (1, 2, 2), "num_blocks": 1, "embedding_size": 64, "heads": 2},
        },
        "training": {
            # window, steps, batch, learning rate of each stage of the conditional mean, on rollouts and on noisy data
            "propagator_stages": ((1, 12000, 64, 2e-2), (8, 400, 32, 1e-3)),
            "observed_stages": ((4, 3000, 64, 5e-3), (16, 1000, 32, 1e-3)),
            # steps, batch, learning rate of the diffusion model
            "residual_stage": (400, 16, 1e-3),
            "ema_decay": 0.995,
            "real_fraction": 0.0,
        },
        "sampling": {"num_steps": 8, "num_samples": 8},
        "level": 0.9,
    }  # fmt: skip
    changes: dict[str, dict[str, Any]] = {
        "smoke": {
            "data": {"num_frames": 24, "num_points": 32, "duration": 6.0, "num_calibration": 16, "num_test": 8,
                     "num_observed": 2},
            "prior": {"main": 16, "time_tests": 16, "space_tests": 8},
            "rollouts": {"count": 64},
            "network": {
                "propagator": {"radius": 6, "width": 16, "depth": 1},
                "unet": {"channels": 8, "multipliers": (1, 2), "num_blocks": 1, "embedding_size": 16, "heads": 0},
            },
            "training": {
                "propagator_stages": ((1, 100, 16, 1e-2),), "observed_stages": ((4, 60, 16, 5e-3),),
                "residual_stage": (10, 8, 1e-3),
            },
            "sampling": {"num_steps": 3, "num_samples": 4},
        },
        "demo": {
            "data": {"num_calibration": 48, "num_test": 32},
            "rollouts": {"count": 512},
            "training": {
                "propagator_stages": ((1, 3000, 64, 2e-2), (8, 100, 32, 1e-3)),
                "observed_stages": ((4, 600, 64, 5e-3),),
                "residual_stage": (60, 16, 1e-3),
            },
            "sampling": {"num_steps": 5, "num_samples": 4},
        },
        "laptop": {},
        "accelerator": {
            "data": {"num_calibration": 512, "num_test": 512},
            "rollouts": {"count": 16384},
            "network": {
                "propagator": {"radius": 8, "width": 128, "depth": 2},
                "unet": {
                    "channels": 32, "multipliers": (1, 2, 4, 4), "num_blocks": 2, "embedding_size": 128, "heads": 4,
                },
            },
            "training": {
                "propagator_stages": ((1, 40000, 256, 2e-2), (16, 2000, 128, 1e-3)),
                "observed_stages": ((4, 5000, 256, 5e-3), (16, 2000, 128, 1e-3)),
                "residual_stage": (20000, 64, 1e-3),
            },
            "sampling": {"num_steps": 20, "num_samples": 32},
        },
    }  # fmt: skip
    config = ConfigDict(base)
    for group, values in changes[size].items():
        for key, value in values.items():
            config[group][key] = ConfigDict(value) if isinstance(value, dict) else value
    return config
