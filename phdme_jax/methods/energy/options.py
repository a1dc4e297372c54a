"""Groups of options that generators read, as records: a misspelt key is an error before anything is trained."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from phdme_jax.diffusion import schedule as schedules
from phdme_jax.diffusion.networks import Network
from phdme_jax.diffusion.preconditioning import precondition
from phdme_jax.diffusion.propagator import Propagator
from phdme_jax.diffusion.unet import make_unet
from phdme_jax.methods.base import Options, Times
from phdme_jax.methods.energy.losses import TARGETS
from phdme_jax.numerics.parity import Parity

SCHEDULE = schedules.CosineSchedule(-8.0, 8.0)
WEIGHTS = ("uncertainty", "off", "shuffled")
Stage = tuple[Any, ...]


def cut_windows(stages: Iterable[Stage], num_frames: int) -> dict[int, Stage]:
    """Window -> the other numbers; windows longer than a trajectory are cut, and each window trains once."""
    windows: dict[int, Stage] = {}
    for window, *numbers in stages:
        windows.setdefault(min(window, num_frames - 1), tuple(numbers))
    return windows


@dataclass(frozen=True)
class NetworkOptions:
    """The group `network`.

    Attributes:
      propagator: sizes of the learned step, see `Propagator`.
      unet: sizes of the denoiser's network, see `make_unet`.
      prediction: what it answers with, see `precondition`.
      observed_propagator: what is other in a step that is trained on observed trajectories alone.
    """

    propagator: Mapping[str, Any]
    unet: Mapping[str, Any]
    prediction: str
    observed_propagator: Mapping[str, Any] = field(default_factory=dict)

    def make_propagator(self, parity: Parity, observed: bool) -> Propagator:
        """The learned step."""
        return Propagator(parity, **{**self.propagator, **(self.observed_propagator if observed else {})})

    def make_denoiser(self, others: Mapping[str, Any] | None = None) -> Network:
        """The denoiser, maybe with `others` in place of some of its sizes."""
        return precondition(make_unet(**{**self.unet, **(others or {})}), SCHEDULE, self.prediction)


@dataclass(frozen=True)
class TrainingOptions:
    """The group `training`.

    Attributes:
      ema_decay: of the average of the parameters.
      residual_stage: (steps, batch, rate) of the diffusion model.
      propagator_stages: of (window, steps, batch, rate) of the conditional mean on clean rollouts.
      observed_stages: the same on noisy observations, which ask for longer windows.
      spread_stage: (steps, batch, rate) of the scale of what the mean leaves; empty for one scale for all.
      amplitude_draws: samples that the size of deviations from the mean is measured and corrected with; 0 for none.
      real_fraction: share of observed trajectories among rollouts.
      start_noise: standard deviation of noise on the start of a window, normalised units.
    """

    ema_decay: float
    residual_stage: Stage
    propagator_stages: tuple[Stage, ...] = ()
    observed_stages: tuple[Stage, ...] = ()
    spread_stage: Stage = ()
    amplitude_draws: int = 0
    real_fraction: float = 0.0
    start_noise: float = 0.0

    def mean_stages(self, observed: bool, num_frames: int) -> dict[int, Stage]:
        """Window -> (steps, batch, rate), see `cut_windows`."""
        return cut_windows(self.observed_stages if observed else self.propagator_stages, num_frames)


@dataclass(frozen=True)
class PhysicsOptions:
    """The group `physics`.

    Attributes:
      residual_weight: of the residual of the learned energy.
      boundary_weight: of the boundary conditions.
      residual_target: see `phdme_jax.methods.energy.losses.PhysicsTerms`. Observed trajectories are noisy and follow
        the energy itself, not one drawn from the posterior: for what is trained on them alone it is "zero" in any case.
      weights: of the squared residual: by the posterior's "uncertainty", "off" (even over each field), or "shuffled"
        (those of other places, times and trajectories).
    """

    residual_weight: float
    boundary_weight: float
    residual_target: str = "zero"
    weights: str = "uncertainty"

    def __post_init__(self) -> None:
        """Refuses words that are not known."""
        if self.residual_target not in TARGETS:
            raise ValueError(f"expected physics.residual_target among {TARGETS}, got {self.residual_target!r}")
        if self.weights not in WEIGHTS:
            raise ValueError(f"expected physics.weights among {WEIGHTS}, got {self.weights!r}")


@dataclass(frozen=True)
class GeneratorOptions:
    """What a generator reads of the options.

    Attributes:
      network: sizes.
      training: stages.
      physics: terms of the loss.
      num_steps: noise levels of the sampler.
    """

    network: NetworkOptions
    training: TrainingOptions
    physics: PhysicsOptions
    num_steps: int


def read_options(options: Options) -> GeneratorOptions:
    """The groups network, training, physics and sampling.

    Raises:
      ValueError: sizes or numbers that cannot be, in one sentence.
      TypeError: a key that no group has.
    """
    read = GeneratorOptions(
        NetworkOptions(**options["network"]),
        TrainingOptions(**options["training"]),
        PhysicsOptions(**options["physics"]),
        options["sampling"]["num_steps"],
    )
    read.network.make_denoiser()
    for name in ("ema_decay", "real_fraction"):
        value = getattr(read.training, name)
        if not 0 <= value < 1:
            raise ValueError(f"expected 0 <= {name} < 1, got {value}")
    if read.physics.residual_target == "trajectory" and read.training.real_fraction > 0:
        raise ValueError(
            "physics.residual_target=trajectory makes the noise of observed trajectories a target; "
            "try physics.residual_target=zero, or training.real_fraction=0"
        )
    return read


def frames(options: Options, times: Times, substeps: int) -> tuple[Times, int]:
    """Times of a generator's frames, and integration steps between them: its own group's, or those of the forecast."""
    if "generator" not in options:
        return times, substeps
    group = options["generator"]
    return tuple(np.linspace(0.0, group["duration"], group["num_frames"]).tolist()), group["substeps"]
