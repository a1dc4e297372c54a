"""Configuration of the ablations: `python -m experiments.ablations --size SIZE`.

That of the string study with half of its rollouts, calibration and test sets and about a quarter of its training
steps, for every variant alike.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs.vibrating_string import get_config as study_config

_CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {},
    "laptop": {
        "data": {"num_calibration": 64, "num_test": 64},
        "rollouts": {"count": 2048},
        "sampling": {"num_steps": 4},
        "training": {
            "propagator_stages": ((1, 6000, 64, 1e-2), (8, 200, 32, 1e-3)),
            "observed_stages": ((4, 1500, 64, 5e-3), (16, 300, 32, 1e-3)),
            "spread_stage": (500, 64, 3e-3),
            "residual_stage": (500, 16, 2e-3),
            "amplitude_draws": 64,
        },
    },
}


def get_config(size: str) -> ConfigDict:
    """Configuration of one size.

    Args:
      size: smoke or laptop.
    Returns:
      the configuration; its groups are keyword arguments of the factories.
    """
    config: dict[str, Any] = study_config(size).to_dict()
    for group, values in _CHANGES[size].items():
        config[group] |= values
    return ConfigDict(config)
