"""Configuration of the study of measured oscillators: `python -m experiments.oscillators --data_dir DIR --size SIZE`.

smoke: networks hardly trained. laptop: networks trained for thousands of steps.
"""

from typing import Any

from ml_collections import ConfigDict


def get_config(size: str) -> ConfigDict:
    """Configuration of one size.

    Args:
      size: smoke or laptop.
    Returns:
      the configuration.
    """
    laptop = size == "laptop"
    config: dict[str, Any] = {
        # the search for a quadratic energy of two masses is not over after 150 iterations
        "prior": {
            "main": 12, "margin": 1.5, "time_tests": 120, "iterations": 600, "draws": 64 if laptop else 8,
        },
        "network": {"width": 64, "depth": 2},
        "training": {
            "windows": (10, 30, 60, 120) if laptop else (10,), "steps": 2000 if laptop else 40,
            "batch": 32, "rate": 3e-3,
        },
        "substeps": 8,
    }  # fmt: skip
    return ConfigDict(config)
