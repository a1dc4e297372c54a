"""Sizes of networks and stages of training, smoke to accelerator, as plain data."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from phdme_jax.methods.ranges import ANY, BELOW_ONE, FROM_ZERO, SHARE, Range
from phdme_jax.systems.priors import FORMS

# of the groups of this file, and of `prior`, `rollouts`, `structure` and `level`, which fits and studies have
RANGES: dict[str, Range] = {
    # fits and studies
    "level": Range(1e-6, 1 - 1e-6),
    "order": Range(2),
    "pair": FROM_ZERO,
    "margin": Range(1.0),
    "centre": ANY,
    "rollouts.count": Range(2),
    # generators and baselines
    "width": Range(1, 2**15),
    "channels": Range(1, 2**13),
    "embedding_size": Range(1, 2**13),
    "radius": FROM_ZERO,
    "depth": FROM_ZERO,
    "heads": FROM_ZERO,
    "residual_weight": FROM_ZERO,
    "boundary_weight": FROM_ZERO,
    "ema_decay": BELOW_ONE,
    "real_fraction": BELOW_ONE,
    "start_noise": FROM_ZERO,
    "amplitude_draws": FROM_ZERO,
    "spread_stage": Range(empty=True),
    # known equations
    "mean_weight": FROM_ZERO,
    "sample_weight": FROM_ZERO,
    "inequality_weight": FROM_ZERO,
    "objective_weight": FROM_ZERO,
    "level_share": BELOW_ONE,
    "num_levels": Range(3),
    "num_between": FROM_ZERO,
    "least_log_likelihood": ANY,
    "corrections": Range(0, fixed=True),
    "kinds": Range(fixed=True),
    "stages.distilled": FROM_ZERO,
    "refresh": SHARE,
    "share": SHARE,
    "questions.noise": FROM_ZERO,
    "questions.num_calibration": FROM_ZERO,
    "questions.num_shifted": FROM_ZERO,
    "eno.weight": FROM_ZERO,
    "push": FROM_ZERO,
    "observation_push": FROM_ZERO,
    "pushed_steps": FROM_ZERO,
    "imposed_frames": FROM_ZERO,
    "variance_bound": FROM_ZERO,
    "langevin_corrections": FROM_ZERO,
    "solver_corrections": FROM_ZERO,
    "slice_size": FROM_ZERO,
    "resample_every": FROM_ZERO,
    "residual_push": FROM_ZERO,
    "guidance": FROM_ZERO,
    "matching_share": SHARE,
    # priors
    "reach": FROM_ZERO,
    **{f"weights.{form}": FROM_ZERO for form in FORMS},
}


def generator_groups(size: str, radius: int) -> dict[str, dict[str, Any]]:
    """The groups `network`, `physics` and `training` at one size.

    A learned step is free in directions that no trajectory has; noise on its start (in standard deviations of the
    fields) keeps it stable there. A study may add `network.propagator.gated`, see `phdme_jax.diffusion.propagator`, and
    `network.observed_propagator`, which changes the step of what is trained on observed trajectories alone: gates are
    more accurate where products of fields drive, but diverge on states beyond the training's, such as the string's
    pulses. `network.prediction` is what the denoiser's network answers with, see
    `phdme_jax.diffusion.preconditioning`.
    `physics.residual_target` is "zero", as published, or "trajectory", see
    `phdme_jax.methods.energy.losses.PhysicsTerms`. Stages of the conditional mean are (window, steps, batch, learning
    rate), on clean rollouts and on noisy observations; that of the diffusion model is (steps, batch, learning
    rate). So is `spread_stage`: the scale of what the mean leaves is told from the mean, see
    `phdme_jax.methods.energy.spread`. `amplitude_draws` are the samples that the size of deviations from the mean is
    measured and corrected with, none where zero.

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
        "network": {"propagator": propagator, "unet": dict(network["unet"]), "prediction": "x0"},
        "physics": {"residual_weight": 0.1, "residual_target": "trajectory", "boundary_weight": 0.1},
        "training": {"ema_decay": 0.995, "real_fraction": 0.0, "start_noise": 1e-3, **training},
    }


# on a CPU frames as channels allow several times as many steps of the denoiser in the same time
_FLAT = {"flat_time": True}
_LAPTOP: dict[str, Any] = {
    "propagator": {"width": 64, "depth": 2},
    "unet": {**_FLAT, "channels": 64, "multipliers": (1, 2, 2), "num_blocks": 1, "embedding_size": 64, "heads": 2},
}
_SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "smoke": (
        {
            "propagator": {"width": 16, "depth": 1},
            "unet": {**_FLAT, "channels": 8, "multipliers": (1, 2), "num_blocks": 1, "embedding_size": 16, "heads": 0},
        },
        {
            "propagator_stages": ((1, 100, 16, 1e-2),),
            "observed_stages": ((4, 60, 16, 5e-3),),
            "spread_stage": (20, 8, 3e-3),
            "residual_stage": (100, 8, 3e-3),
            "amplitude_draws": 16,
        },
    ),
    "demo": (
        _LAPTOP,
        {
            "propagator_stages": ((1, 3000, 64, 1e-2), (8, 100, 32, 1e-3)),
            "observed_stages": ((4, 600, 64, 5e-3),),
            "spread_stage": (200, 64, 3e-3),
            "residual_stage": (300, 16, 2e-3),
            "amplitude_draws": 32,
        },
    ),
    "laptop": (
        _LAPTOP,
        {
            "propagator_stages": ((1, 25000, 64, 1e-2), (8, 400, 32, 1e-3)),
            "observed_stages": ((4, 3000, 64, 5e-3), (16, 1000, 32, 1e-3)),
            "spread_stage": (1500, 64, 3e-3),
            "residual_stage": (2000, 16, 2e-3),
            "amplitude_draws": 128,
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
            "propagator_stages": ((1, 40000, 256, 1e-2), (16, 2000, 128, 1e-3)),
            "observed_stages": ((4, 5000, 256, 5e-3), (16, 2000, 128, 1e-3)),
            "spread_stage": (1500, 64, 3e-3),
            "residual_stage": (20000, 64, 1e-3),
            "amplitude_draws": 128,
        },
    ),
}  # fmt: skip


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
        "stages": _NETWORK_STAGES[size],
        "substeps": 4,
        "start_noise": 1e-2,
        "ema_decay": 0.995,
    }


_NETWORK_STAGES: dict[str, dict[str, Any]] = {
    "smoke": dict.fromkeys(("neural_ode", "hnn", "fno"), ((4, 30, 8, 3e-3),)),
    "demo": dict.fromkeys(("neural_ode", "hnn", "fno"), ((4, 300, 16, 3e-3),)),
    "laptop": {
        "neural_ode": ((4, 4000, 8, 1e-2), (16, 600, 8, 2e-3)),
        "hnn": ((4, 600, 16, 3e-3), (32, 150, 16, 1e-3)),
        "fno": ((4, 1500, 16, 1e-2),),
    },
    "accelerator": dict.fromkeys(("neural_ode", "hnn", "fno"), ((4, 5000, 64, 3e-3), (16, 5000, 64, 1e-3))),
}


# PIDM's weights beside those of the residual, see `phdme_jax.methods.equations.informed`
INFORMED: dict[str, Any] = {
    "num_levels": 100,
    "num_between": 0,
    "reuses_noisy_input": False,
    "inequality_weight": 0.0,
    "objective_weight": 0.0,
    "least_log_likelihood": None,
    "variance": "step",
    "detached": False,
}
# accurate from the largest waves to the finest details, see `phdme_jax.diffusion.flow.as_denoiser`
FEW_CALLS: dict[str, Any] = {
    "num_steps": 24,
    "sampler": "dpm",
    "spacing": "log_snr",
    "flow_steps": 24,
    "flow_method": "dpm",
}
# of the energy of a pair of particles, see `phdme_jax.gp.pair_energy.PairOptions`, and steps of its rollouts a frame
PAIR_PRIOR: dict[str, Any] = {
    "main": 64,
    "margin": 1.2,
    "points": 8,
    "resolved": 0.3,
    "groups": 5,
    "iterations": 300,
    "substeps": 40,
}
# how teachers answer questions, see `phdme_jax.methods.sampling.answering`
ANSWERING: dict[str, Any] = {
    "push": 1.0,
    "gamma": 1.0,
    "variance_bound": 1.0,
    "langevin_corrections": 0,
    "langevin_step": 0.5,
    "solver_corrections": 0,
    "iterations": 4,
    "solver_iterations": 16,
    "observation_push": 1.0,
    "residual_push": 0.1,
    "published_residual": False,
    "guidance": 2.0,
    "times": 100,
    "mixes": 1,
    "resample_every": 0,
    "anchored": True,
    "imposes_conserved": True,
    "imposed_frames": 0,
    "searches": 10,
    "student_searches": 100,
    "student_rate": 0.05,
    "flow_steps": 12,
    "residual_weight": 1.0,
    "descents": 2000,
}
MLP: dict[str, Any] = {"name": "mlp", "width": 128, "num_blocks": 2, "embedding_size": 64}
UNET: dict[str, Any] = {
    "name": "unet",
    "channels": 16,
    "multipliers": (1, 2, 4),
    "num_blocks": 1,
    "embedding_size": 64,
    "heads": 4,
}
SMALL_UNET: dict[str, Any] = {**UNET, "channels": 8, "multipliers": (1, 2), "embedding_size": 16, "heads": 0}
# of 64 x 64 places on a CPU: a patch of four places makes updates many times as fast
PATCHED_UNET: dict[str, Any] = {**UNET, "channels": 32, "multipliers": (1, 2, 2), "patch": 4}
LARGE_UNET: dict[str, Any] = {**UNET, "multipliers": (1, 2, 4, 8), "num_blocks": 2}


def equation_stages(steps: int, batch: int, rate: float) -> dict[str, Any]:
    """Stages (physics, steps, batch, rate) of models of known equations, the same number of steps for every one.

    Physics is a factor of the weights of PIDM, and the steps to the end of a flow with physics, which unrolls four of
    them in the last quarter.

    Args:
      steps: of training.
      batch: examples a step.
      rate: learning rate.
    Returns:
      stages of diffusion models, of those with the residual in their loss, of flows and of flows with physics.
    """
    late = int(0.25 * steps)
    return {
        "diffusion": ((1, steps, batch, rate),),
        "informed": ((1.0, steps, batch, rate),),
        "flow": ((1, steps, batch, rate),),
        "merged": ((1, steps - late, batch, rate), (4, late, batch, 0.3 * rate)),
    }


def equation_groups(
    predicts: str = "x0", sampling: Mapping[str, Any] = MappingProxyType({}), **training: Any
) -> dict[str, Any]:
    """The groups `training` and `sampling` of models of known equations, the same at every size.

    Args:
      predicts: what networks of diffusion models predict.
      sampling: what differs of the group `sampling`.
      **training: more of the group `training`, such as `flow_predicts`, what networks of flows predict.
    Returns:
      the groups.
    """
    return {
        "training": {"ema_decay": 0.999, "predicts": predicts, **training},
        "sampling": {
            "num_steps": 100,
            "sampler": "ddpm",
            "flow_steps": 20,
            "corrections": (50, 25),
            "correction_rule": "exact",
            **sampling,
        },
    }


def prior_groups(probes: int, **weights: float) -> dict[str, Any]:
    """The groups of methods with priors: `penalties`, see `methods.penalties.penalty`, and `projected`.

    Args:
      probes: examples on which penalties are measured before training.
      **weights: of the penalties of each form.
    Returns:
      the groups; samples are as they are drawn.
    """
    penalties = {"weights": weights, "largest": 1e4, "most_noise": 0.5, "probes": probes}
    return {"penalties": penalties, "projected": False}


def student_stages(steps: int, map_steps: int, batch: int, rate: float) -> dict[str, Any]:
    """Stages of one-step students: a third without physics, the rest with it; and of flow maps, which need no pairs.

    Args:
      steps: of students.
      map_steps: of flow maps.
      batch: examples a step.
      rate: learning rate.
    Returns:
      stages `distilled` and `flow_map`.
    """
    first = max(1, steps // 3)
    return {
        "distilled": ((0.0, first, batch, rate), (1.0, steps - first, batch, rate)),
        "flow_map": ((1.0, map_steps, batch, rate),),
    }


def student_groups(num_pairs: int, num_calls: int, **distilled: Any) -> dict[str, Any]:
    """The groups `distilled` and `flow_map` of one-step students.

    Args:
      num_pairs: of noise and example in memory.
      num_calls: of the teacher when they are made.
      **distilled: what differs of the group `distilled`.
    Returns:
      the groups.
    """
    usual = {"refresh": 0.25, "residual_weight": 1.0, "detached": True, "solves_pairs": False}
    return {
        "distilled": {"num_pairs": num_pairs, "num_calls": num_calls, **usual, **distilled},
        "flow_map": {"matching_share": 0.5, "step": 1.0 / 32.0},
    }
