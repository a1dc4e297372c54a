"""What methods share that assimilate readings into the learned energy, without a network of their own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from phdme_jax.gp.sampling import num_steps
from phdme_jax.methods.base import Dynamics, Fitted, Host, Model, Options, Start, Task, Times, fit_normaliser, stage_key
from phdme_jax.methods.sensors.background import Background, fit_background
from phdme_jax.methods.sensors.sensed import require_all_moving, sensor_options
from phdme_jax.numerics.stepping import NUM_STAGES

DRAWS = 4096  # states that the background is made of


@dataclass(frozen=True)
class Sizes:
    """Numbers of these methods, static; see `SensorOptions`."""

    window: int
    members: int
    assimilations: int
    iterations: int


class AssimilationParams(NamedTuple):
    """Arrays of a method that assimilates readings.

    Attributes:
      energy: parameters of the dynamics.
      background: of states, physical units.
      noise: standard deviation of the readings of each field, physical units.
    """

    energy: PyTree
    background: Background
    noise: Float[Array, "field"]


MakeModel = Callable[[Dynamics, Times, int, Sizes], Model]
"""(dynamics, times of the forecast, directions of the background, sizes) -> the model; the same record for the same."""


def fit_assimilation(
    make_model: MakeModel, task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]
) -> Fitted:
    """A method that assimilates readings; nothing is trained.

    Args:
      make_model: the method.
      task: gives the states that the background is made of.
      options: the group `sensors`.
      host: not used.
      teacher: a learned energy.
      key: not used.
    Returns:
      the method; its condition is a `Sensed`.
    Raises:
      InputError: fields that never change, or ports.
    """
    del host, key
    assert teacher is not None and teacher.model.dynamics is not None
    structure, chosen = task.problem.structure, sensor_options(options, len(task.times))
    require_all_moving(task)
    background = fit_background(np.asarray(task.starts(stage_key(task.key, "starts"), DRAWS).state))
    # in the units of generators that are trained on the same observations
    units = fit_normaliser(jnp.asarray(np.asarray(task.train().fields), jnp.float32), structure)
    noise = chosen.noise * jnp.asarray(units.scale, jnp.float64)
    sizes = Sizes(chosen.window, chosen.members, chosen.assimilations, chosen.iterations)
    model = make_model(teacher.model.dynamics, task.times, background.root.shape[-1], sizes)
    return Fitted(model, AssimilationParams(teacher.params, background, noise), teacher.seconds)


def sampled_rollout(
    dynamics: Dynamics,
    params: AssimilationParams,
    state: Float[Array, "*grid field"],
    key: Key[Array, ""],
    times: Times,
) -> Float[Array, "time *grid field"]:
    """Rollout of the energy that a key draws, from a state."""
    start = Start(state, jnp.zeros((len(times), 0)))
    return dynamics.sample(params.energy, start, key, times, dynamics.substeps).trajectory


def rollout_calls(dynamics: Dynamics, num_frames: int) -> int:
    """Evaluations of the rate in a rollout over so many frames."""
    return NUM_STAGES * num_steps(dynamics.substeps) * (num_frames - 1)
