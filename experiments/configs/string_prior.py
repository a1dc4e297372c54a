"""Configuration of the stage I study: `python -m experiments.string_prior --size SIZE`."""

from ml_collections import ConfigDict


def get_config(size: str) -> ConfigDict:
    """Configuration of one size.

    Args:
      size: smoke (under a minute) or laptop (about five minutes on 2 cores).
    Returns:
      the configuration.
    """
    laptop = size == "laptop"
    return ConfigDict(
        {
            "damping": 0.01,
            "duration": 20.0,
            "num_frames": 201,
            "published": {
                "num_points": 100,
                "num_sites": (20, 40, 80, 150) if laptop else (20, 150),
                "derivative_noise": 0.1,
            },
            "independent": {
                "num_points": 65 if laptop else 33,
                "truth_refinement": 8 if laptop else 4,
                "noise": 0.01,
                "orders": (2, 4, 8) if laptop else (8,),
            },
            "prior": {"main": 32, "pair": 0, "margin": 2.0},
            "tests": {"time_tests": 64, "space_tests": 16},
            "substeps": 2,
            "samples": {"count": 256 if laptop else 32, "num_points": 64, "num_frames": 64, "substeps": 4},
        }
    )
