"""Sizes of the conditional generators that studies share; a study changes what its data ask for."""

from typing import Any


def generator_groups(size: str, radius: int) -> dict[str, dict[str, Any]]:
    """The groups `network`, `physics` and `training` at one size.

    A learned step is free in directions that no trajectory has; noise on its start (in standard deviations of the
    fields) keeps it stable there. `network.prediction` is what the denoiser's network answers with, see
    `phdme_jax.diffusion.preconditioning`. `physics.residual_target` is "zero", as published, or "trajectory", see
    `phdme_jax.methods.forecaster.PhysicsTerms`. Stages of the conditional mean are (window, steps, batch, learning
    rate), on clean rollouts and on noisy observations; that of the diffusion model is (steps, batch, learning
    rate). So is `spread_stage`, which a study may add: the scale of what the mean leaves is then told from the
    mean, see `phdme_jax.methods.spread`, and not the same for all. `amplitude_draws` are the samples that the size
    of deviations from the mean is measured and corrected with, none where zero.

    Args:
      size: smoke, demo, laptop or accelerator.
      radius: reach of the propagator in grid points.
    Returns:
      the groups.
    Raises:
      ValueError: unknown size.
    """
    if size not in _SIZES:
        raise ValueError(f"expected a size among {tuple(_SIZES)}, got {size!r}")
    network, training = _SIZES[size]
    propagator = {"radius": radius, **network["propagator"]}
    return {
        "network": {"propagator": propagator, "unet": dict(network["unet"]), "prediction": "v"},
        "physics": {"residual_weight": 0.1, "residual_target": "zero", "boundary_weight": 0.1},
        "training": {"ema_decay": 0.995, "real_fraction": 0.0, "start_noise": 1e-3, "amplitude_draws": 0, **training},
    }


_LAPTOP: dict[str, Any] = {
    "propagator": {"width": 64, "depth": 2},
    "unet": {"channels": 16, "multipliers": (1, 2, 2), "num_blocks": 1, "embedding_size": 64, "heads": 2},
}
_SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "smoke": (
        {
            "propagator": {"width": 16, "depth": 1},
            "unet": {"channels": 8, "multipliers": (1, 2), "num_blocks": 1, "embedding_size": 16, "heads": 0},
        },
        {
            "propagator_stages": ((1, 100, 16, 1e-2),),
            "observed_stages": ((4, 60, 16, 5e-3),),
            "residual_stage": (10, 8, 1e-3),
        },
    ),
    "demo": (
        _LAPTOP,
        {
            "propagator_stages": ((1, 3000, 64, 2e-2), (8, 100, 32, 1e-3)),
            "observed_stages": ((4, 600, 64, 5e-3),),
            "residual_stage": (60, 16, 1e-3),
        },
    ),
    "laptop": (
        _LAPTOP,
        {
            "propagator_stages": ((1, 30000, 64, 2e-2), (8, 400, 32, 1e-3)),
            "observed_stages": ((4, 3000, 64, 5e-3), (16, 1000, 32, 1e-3)),
            "residual_stage": (400, 16, 1e-3),
        },
    ),
    "accelerator": (
        {
            "propagator": {"width": 128, "depth": 2},
            "unet": {
                "channels": 32, "multipliers": (1, 2, 4, 4), "num_blocks": 2, "embedding_size": 128, "heads": 4,
            },
        },
        {
            "propagator_stages": ((1, 40000, 256, 2e-2), (16, 2000, 128, 1e-3)),
            "observed_stages": ((4, 5000, 256, 5e-3), (16, 2000, 128, 1e-3)),
            "residual_stage": (20000, 64, 1e-3),
        },
    ),
}  # fmt: skip
