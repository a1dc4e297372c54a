"""Configuration of the driven reference case: `python -m experiments.driven_pendulum --size SIZE`.

smoke: networks hardly trained. laptop: the published protocol.
"""

from typing import Any

from ml_collections import ConfigDict

from phdme_jax.methods.presets import generator_groups


def get_config(size: str) -> ConfigDict:
    """Configuration of one size.

    `baselines.training.windows` are frames of the windows that networks are trained on; the one with the smallest
    error on the last fifth of the observations is kept. `generator` says what rollouts its generator is trained on:
    from observed states, scaled, under sines of up to `input_size`.

    Args:
      size: smoke or laptop.
    Returns:
      the configuration.
    """
    laptop = size == "laptop"
    config: dict[str, Any] = {
        "system": {"damping": 0.1},
        "data": {
            "start": (5.0, 0.0), "duration": 50.0, "num_frames": 501, "noise": 0.15, "force": 0.1,
            "test_start": (-3.0, 0.0), "test_duration": 100.0, "test_frames": 1001,
        },
        "prior": {"main": 24, "margin": 1.3, "time_tests": 200, "substeps": 4},
        "baselines": {
            "network": {"width": 64, "depth": 2},
            "training": {
                "windows": (10, 30, 60) if laptop else (10,), "steps": 2000 if laptop else 40, "batch": 32,
                "rate": 3e-3,
            },
            # the published package: strides between the two states of a training step
            "phlearn": {
                "strides": (1, 3, 10) if laptop else (3,), "steps": 6000 if laptop else 40, "batch": 64, "rate": 1e-3,
                "width": 100,
            },
        },
        "generator": {
            "rollouts": 4096 if laptop else 64, "duration": 100.0, "num_frames": 256, "substeps": 8,
            "start_scale": (0.4, 1.1), "input_size": 0.1, "frequency": (0.3, 2.0),
        },
        **generator_groups(size, radius=0),
        "sampling": {"num_steps": 12 if laptop else 3, "num_samples": 64 if laptop else 8},
    }  # fmt: skip
    config["physics"] |= {"boundary_weight": 0.0}
    # one point in space: what the denoiser sees is the time
    config["network"]["unet"] |= {"flat_time": False, "channels": 16 if laptop else 8}
    if laptop:
        config["training"] |= {"residual_stage": (1000, 32, 1e-3)}
    return ConfigDict(config)
