"""Sizes and training of the networks that fields' methods are compared with."""

from typing import Any


def baseline_group(size: str) -> dict[str, Any]:
    """The group `baselines` at one size.

    `stages` are (window, steps, batch, learning rate) as for the conditional mean of `diffusion`, which sees the same
    observed trajectories. `substeps` are steps of the solver between frames.

    Args:
      size: smoke, demo, laptop or accelerator.
    Returns:
      the group.
    """
    long = ((4, 1500, 16, 3e-3), (16, 500, 16, 1e-3))
    stages: dict[str, Any] = {
        "smoke": dict.fromkeys(("neural_ode", "hnn", "fno"), ((4, 30, 8, 3e-3),)),
        "demo": dict.fromkeys(("neural_ode", "hnn", "fno"), ((4, 300, 16, 3e-3),)),
        "laptop": dict.fromkeys(("neural_ode", "hnn", "fno"), long),
        "accelerator": dict.fromkeys(("neural_ode", "hnn", "fno"), ((4, 5000, 64, 3e-3), (16, 5000, 64, 1e-3))),
    }
    small = size == "smoke"
    return {
        "neural_ode": {"width": 16 if small else 64, "depth": 2, "radius": 4},
        "hnn": {"width": 16 if small else 32, "depth": 2},
        "fno": {"modes": 8 if small else 24, "width": 8 if small else 24, "depth": 2 if small else 3},
        "stages": stages[size],
        "substeps": 2,
        "start_noise": 1e-3,
        "ema_decay": 0.995,
    }
