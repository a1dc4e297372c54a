"""Configuration of a fit to a user's own trajectories: `python -m experiments.fit --size SIZE`.

Prior, networks and training are those of the string study at the same size; what is set here is what only a fit has.
smoke: about a minute on 2 cores, to try the files. laptop: a real fit on 2 cores. accelerator: the large networks.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs.vibrating_string import get_config as study_config

SIZES = ("smoke", "laptop", "accelerator")
# the initial states of the rollouts, see `phdme_jax.forecasting.inputs.draw_initial_states`
STARTS_FROM_FRAMES: dict[str, Any] = {"modes": 16, "shrinkage": 0.5, "frame_share": 0.25, "amplitude": (0.5, 1.2)}
SHARED = ("structure", "prior", "rollouts", "physics", "network", "training", "sampling")


def get_config(size: str) -> ConfigDict:
    """Configuration of one size.

    Args:
      size: smoke, laptop or accelerator.
    Returns:
      the configuration; its groups are keyword arguments of the factories.
    Raises:
      ValueError: unknown size.
    """
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}; fit has {', '.join(SIZES)}")
    study = study_config(size).to_dict()
    config = ConfigDict({group: study[group] for group in SHARED})
    config.structure["damping"] = ("kelvin_voigt_damping", "viscous_damping")
    config.initial = ConfigDict(STARTS_FROM_FRAMES)
    del config.rollouts["initial"]
    config.prior_trajectories = 16  # at most so many enter the energy; the others still shape the initial states
    config.check_structure = size != "smoke"  # whether the structure is compared with others, see `structure_check`
    config.sampling.num_samples = {"smoke": 8, "laptop": 32, "accelerator": 64}[size]
    return config
