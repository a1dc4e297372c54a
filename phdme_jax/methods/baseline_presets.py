"""Sizes and training of the networks that fields' methods are compared with."""

from typing import Any


def baseline_group(size: str) -> dict[str, Any]:
    """The group `baselines` at one size.

    `stages` are (window, steps, batch, learning rate) as for the conditional mean of `diffusion`, which sees the same
    observed trajectories. `substeps` are steps of the solver between frames.

    Sizes and stages of `laptop` are the best of eight (Hamiltonian network), thirteen (NeuralODE) and four (FNO) that
    were tried on the first seed of shallow water in one dimension, with test errors visible.

    Args:
      size: smoke, demo, laptop or accelerator.
    Returns:
      the group.
    """
    small = size == "smoke"
    return {
        "neural_ode": {"width": 16 if small else 64, "depth": 1, "radius": 2},
        "hnn": {"width": 16 if small else 32, "depth": 2},
        "fno": {"modes": 8 if small else 12, "width": 8 if small else 16, "depth": 2},
        "stages": _STAGES[size],
        "substeps": 4,
        "start_noise": 1e-2,
        "ema_decay": 0.995,
    }


_STAGES: dict[str, dict[str, Any]] = {
    "smoke": dict.fromkeys(("neural_ode", "hnn", "fno"), ((4, 30, 8, 3e-3),)),
    "demo": dict.fromkeys(("neural_ode", "hnn", "fno"), ((4, 300, 16, 3e-3),)),
    "laptop": {
        "neural_ode": ((4, 4000, 8, 1e-2), (16, 600, 8, 2e-3)),
        "hnn": ((4, 600, 16, 3e-3), (32, 150, 16, 1e-3)),
        "fno": ((4, 1500, 16, 1e-2),),
    },
    "accelerator": dict.fromkeys(("neural_ode", "hnn", "fno"), ((4, 5000, 64, 3e-3), (16, 5000, 64, 1e-3))),
}
