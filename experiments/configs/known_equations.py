"""Configurations of the studies of known equations: `python -m experiments.NAME --size SIZE`.

Groups: `equations` are arguments of the factory; `data` counts examples and says how fields are encoded; `network` is
one of `phdme_jax.diffusion.NETWORKS` with its sizes; `stages` are those of the training, (physics, steps, batch, rate),
of diffusion models, of those with the residual in their loss (physics is a factor of its weights), of flows and of
flows with physics (steps to the end); `informed` are the weights of PIDM at the mean and at a sample; `sampling` counts
noise levels and steps of flows.
"""

from typing import Any

from ml_collections import ConfigDict

_INFORMED = {
    "num_levels": 100,
    "num_between": 0,
    "reuses_noisy_input": False,
    "inequality_weight": 0.0,
    "objective_weight": 0.0,
    "least_log_likelihood": None,
    "variance": "step",
    "detached": False,
}
_SAMPLING = {"num_steps": 100, "sampler": "ddpm", "flow_steps": 20, "corrections": (50, 25), "correction_rule": "exact"}


def _stages(steps: int, batch: int, rate: float, merged_share: float = 0.25) -> dict[str, Any]:
    """The same number of steps for every model; flows with physics unroll four steps in the last quarter of theirs."""
    late = int(merged_share * steps)
    return {
        "diffusion": ((1, steps, batch, rate),),
        "informed": ((1.0, steps, batch, rate),),
        "flow": ((1, steps, batch, rate),),
        "merged": ((1, steps - late, batch, rate), (4, late, batch, 0.3 * rate)),
    }


# of bodies: the residual teaches displacements alone, volume and true stiffness the density, all at the data's weight,
# which is the same down to a signal-to-noise ratio of 0.05: where the material goes is settled at the high levels
_BODY = {
    **_INFORMED, "mean_weight": 0.1, "sample_weight": 0.1, "detached": True, "inequality_weight": 200.0,
    "equality": True, "objective_weight": 0.2, "solves_objective": True, "variance": "denoising", "gamma": 0.05,
}  # fmt: skip
_MLP = {"name": "mlp", "width": 128, "num_blocks": 2, "embedding_size": 64}
_UNET = {"name": "unet", "channels": 16, "multipliers": (1, 2, 4), "num_blocks": 1, "embedding_size": 64, "heads": 4}
_SMOKE_UNET = {"name": "unet", "channels": 8, "multipliers": (1, 2), "num_blocks": 1, "embedding_size": 16, "heads": 0}

_STUDIES: dict[str, dict[str, dict[str, Any]]] = {
    "circle": {
        "smoke": {
            "equations": {},
            "data": {"num_train": 2000, "num_test": 500, "kinds": ("linear", "linear")},
            "network": {**_MLP, "width": 32},
            "stages": _stages(300, 128, 1e-3),
            "informed": {"mean_weight": 0.1, "sample_weight": 0.005, **_INFORMED, "least_log_likelihood": -27.63},
        },
        "laptop": {
            "equations": {},
            "data": {"num_train": 10000, "num_test": 5000, "kinds": ("linear", "linear")},
            "network": dict(_MLP),
            "stages": _stages(31600, 128, 5e-4),
            "informed": {"mean_weight": 1.0, "sample_weight": 1.0, **_INFORMED, "least_log_likelihood": -27.63},
        },
    },
    "poisson_1d": {
        "smoke": {
            "equations": {"num_points": 32, "num_waves": 4},
            "data": {"num_train": 500, "num_test": 64, "kinds": ("linear", "linear")},
            "network": {**_MLP, "width": 64},
            "stages": _stages(200, 32, 1e-3),
            "informed": {"mean_weight": 1e-3, "sample_weight": 1e-3, **_INFORMED},
        },
        "laptop": {
            "equations": {"num_points": 64, "num_waves": 8},
            "data": {"num_train": 10000, "num_test": 1000, "kinds": ("linear", "linear")},
            "network": {**_MLP, "width": 256, "num_blocks": 3, "embedding_size": 128},
            "stages": _stages(10000, 64, 1e-3),
            "informed": {"mean_weight": 1e-7, "sample_weight": 1e-7, **_INFORMED},
        },
    },
    "darcy_kle": {
        "smoke": {
            "equations": {"num_points": 16, "num_modes": 16, "length": 0.3},
            "data": {"num_train": 64, "num_test": 16, "kinds": ("linear", "log")},
            "network": dict(_SMOKE_UNET),
            "stages": _stages(20, 8, 1e-3),
            "informed": {"mean_weight": 1e-3, "sample_weight": 1e-5, **_INFORMED, "level_share": 0.5},
        },
        "laptop": {
            "equations": {"num_points": 32, "num_modes": 64, "length": 0.1},
            "data": {"num_train": 10000, "num_test": 512, "kinds": ("linear", "log")},
            "network": dict(_UNET),
            "stages": _stages(20000, 4, 1e-3),
            "informed": {"mean_weight": 1e-2, "sample_weight": 1e-4, **_INFORMED, "level_share": 0.5},
        },
        "accelerator": {
            "equations": {"num_points": 64, "num_modes": 64, "length": 0.1},
            "data": {"num_train": 10000, "num_test": 1024, "kinds": ("linear", "log")},
            "network": {**_UNET, "channels": 32, "multipliers": (1, 2, 4, 8), "num_blocks": 2, "embedding_size": 128},
            "stages": _stages(5000, 64, 1e-3),
            "informed": {"mean_weight": 1e-3, "sample_weight": 1e-5, **_INFORMED, "level_share": 0.5},
        },
    },
    "topology": {
        "smoke": {
            "equations": {"num_squares": 8, "num_iterations": 10},
            "data": {"num_train": 32, "num_test": 8, "num_shifted": 4, "kinds": ("linear", "linear", "unit")},
            "network": dict(_SMOKE_UNET),
            "stages": _stages(20, 4, 1e-3),
            "informed": dict(_BODY),
        },
        "laptop": {
            "equations": {"num_squares": 32, "num_iterations": 60},
            "data": {"num_train": 2000, "num_test": 352, "num_shifted": 128, "kinds": ("linear", "linear", "unit")},
            "network": dict(_UNET),
            "stages": _stages(20000, 4, 1e-3),
            "informed": dict(_BODY),
        },
        "accelerator": {
            "equations": {"num_squares": 64, "num_iterations": 60},
            "data": {"num_train": 30000, "num_test": 1800, "num_shifted": 1000, "kinds": ("linear", "linear", "unit")},
            "network": {**_UNET, "channels": 64, "multipliers": (1, 2, 4, 8), "num_blocks": 2, "embedding_size": 256},
            "stages": _stages(300000, 32, 2e-4),
            "informed": dict(_BODY),
        },
    },
}  # fmt: skip
_STUDIES["darcy_nodal"] = _STUDIES["darcy_kle"]


def get_config(study: str, size: str) -> ConfigDict:
    """Configuration of one study at one size.

    Args:
      study: name of the equations.
      size: smoke, laptop or, where there is one, accelerator.
    Returns:
      the configuration; its groups are keyword arguments of the factories.
    """
    groups = _STUDIES[study][size]
    return ConfigDict({**groups, "training": {"ema_decay": 0.999, "predicts": "x0"}, "sampling": dict(_SAMPLING)})


def sizes(study: str) -> tuple[str, ...]:
    """Sizes that a study has."""
    return tuple(_STUDIES[study])
