"""Configuration of the spring study: `python -m experiments.spring --data_dir DIR --size SIZE`.

smoke: under a minute on 2 cores, few draws and starts. laptop: the whole study, three seeds
in about a quarter of an hour on one core.
"""

from typing import Any

from ml_collections import ConfigDict

from phdme_jax.methods.generator_presets import generator_groups


def get_config(size: str) -> ConfigDict:
    """Configuration of one size.

    `starts` and `calibration` are start frames after the release: first, last and step. `prior.lengthscale` is stated,
    in half widths of the box; it is twice the largest strain where `prior.margin` is two.

    Args:
      size: smoke or laptop.
    Returns:
      the configuration; its groups are keyword arguments of the factories.
    """
    base: dict[str, Any] = {
        "data": {"train": "rightdown", "test": "leftdown", "modes": 2, "grid_points": 33, "clock": "camera"},
        "prior": {
            "main": 12, "margin": 2.0, "lengthscale": 1.0, "damping_ratio": 0.02,
            "first_frame": 20, "last_frame": 340, "half_width": 0.034, "spacing": 0.017,
        },
        "forecast": {"start_frame": 26, "frames": 180, "substeps": 8, "draws": 50},
        # rollouts that train the generators; ranges of the scale of modes and rest strain
        "generator": {
            "rollouts": 2048, "num_frames": 64, "substeps": 8, "start_scale": (0.4, 1.4), "rest_scale": (0.5, 1.5),
        },
        **generator_groups(size, radius=8),
        "sampling": {"num_steps": 8},
        "starts": (20, 56, 2),
        "calibration": (20, 210, 10),
        "level": 0.9,
    }  # fmt: skip
    if size == "laptop":
        base["training"]["propagator_stages"] = ((1, 6000, 64, 1e-2), (8, 400, 32, 1e-3))
    if size == "smoke":
        base["forecast"] |= {"draws": 8}
        base["generator"] |= {"rollouts": 64, "num_frames": 32}
        base["sampling"] = {"num_steps": 3}
        base |= {"starts": (20, 56, 6), "calibration": (20, 200, 20)}
    return ConfigDict(base)
