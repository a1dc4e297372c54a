"""Configuration of the driven reference case: `python -m experiments.driven_pendulum --size SIZE`.

smoke: networks hardly trained. laptop: the published protocol.
"""

from typing import Any

from ml_collections import ConfigDict


def get_config(size: str) -> ConfigDict:
    """Configuration of one size.

    `training.windows` are frames of the windows that networks are trained on; the one with the smallest error on the
    last fifth of the observations is kept.

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
        "prior": {"main": 24, "margin": 1.3, "time_tests": 200, "draws": 64 if laptop else 8},
        "network": {"width": 64, "depth": 2},
        "training": {
            "windows": (10, 30) if laptop else (10,), "steps": 2000 if laptop else 40, "batch": 32, "rate": 3e-3,
        },
        "substeps": 4,
    }  # fmt: skip
    return ConfigDict(config)
