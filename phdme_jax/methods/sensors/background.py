"""What is believed of a state before any reading, for methods that have the energy and no network."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phdme_jax.files import InputError
from phdme_jax.methods.base import Fitted, Model, Normaliser, Options, Task, fit_normaliser, stage_key
from phdme_jax.methods.sensors.sensed import SensorOptions, sensor_options
from phdme_jax.systems.energy.base import Structure

DRAWS = 4096
LEAST_VARIANCE = 1e-10  # of a direction that states differ in, over that of all


class Background(NamedTuple):
    """A Gaussian over states, x = mean + root z with standard normal z, physical units.

    Attributes:
      mean: of a state.
      root: its columns are the directions that states differ in, so large as they differ.
    """

    mean: Float[Array, "*grid field"]
    root: Float[Array, "*grid field direction"]

    def state(self, z: Float[Array, "direction"]) -> Float[Array, "*grid field"]:
        """The state of standard normal numbers."""
        return self.mean + self.root @ z

    def coordinates(self, state: Float[Array, "*grid field"]) -> Float[Array, "direction"]:
        """The numbers that are nearest to a state."""
        root = self.root.reshape(-1, self.root.shape[-1])
        # columns are orthogonal
        return (root.T @ jnp.ravel(state - self.mean)) / jnp.sum(root**2, axis=0)


class Assimilated(NamedTuple):
    """Arrays of a method that assimilates readings.

    Attributes:
      energy: parameters of the dynamics.
      background: of states.
      noise: standard deviation of the readings of each field, physical units.
    """

    energy: Array
    background: Background
    noise: Float[Array, "field"]


def fit_background(states: Float[np.ndarray, "sample *grid field"], most: int = 2**30) -> Background:
    """The Gaussian with the moments of some states, of which at most so many directions are kept, the largest first."""
    flat = np.asarray(states, np.float64).reshape(len(states), -1)
    mean = flat.mean(axis=0)
    _, sizes, directions = np.linalg.svd((flat - mean) / np.sqrt(len(flat) - 1), full_matrices=False)
    kept = (sizes**2 > LEAST_VARIANCE * np.sum(sizes**2)) & (np.arange(len(sizes)) < most)
    root = (directions[kept].T * sizes[kept]).reshape(*states.shape[1:], -1)
    return Background(jnp.asarray(mean.reshape(states.shape[1:])), jnp.asarray(root))


def units_of(task: Task) -> Normaliser:
    """Units of the fields, those of generators that are trained on the same observations."""
    observed = jnp.asarray(np.asarray(task.train().fields), jnp.float32)
    return fit_normaliser(observed, task.problem.structure)


def assimilation(
    task: Task, options: Options, teacher: Fitted | None
) -> tuple[Structure, SensorOptions, Model, Assimilated]:
    """What all methods of this kind begin with.

    Args:
      task: gives the states.
      options: the group `sensors`.
      teacher: a learned energy.
    Returns:
      the structure, the options, the model of the energy and the arrays.
    Raises:
      InputError: fields that never change, or ports.
    """
    assert teacher is not None and teacher.model.dynamics is not None
    structure, chosen = task.problem.structure, sensor_options(options, len(task.times))
    if task.companions or structure.ports:
        raise InputError("forecasts from sensors are of systems without ports whose fields all move, got others")
    states = np.asarray(task.starts(stage_key(task.key, "starts"), DRAWS).state)
    noise = chosen.noise * jnp.asarray(units_of(task).scale, jnp.float64)
    return structure, chosen, teacher.model, Assimilated(teacher.params, fit_background(states), noise)
