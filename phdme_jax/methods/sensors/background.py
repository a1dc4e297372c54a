"""The background: a Gaussian over states before any reading."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

LEAST_VARIANCE = 1e-10  # of a direction that states differ in, over that of all


class Background(NamedTuple):
    """A Gaussian over states, x = mean + root z with standard normal z, in the units of the states.

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


def fit_background(states: Float[np.ndarray, "sample *grid field"], most: int = 2**30) -> Background:
    """The Gaussian with the moments of some states, of which at most so many directions are kept, the largest first."""
    flat = np.asarray(states, np.float64).reshape(len(states), -1)
    mean = flat.mean(axis=0)
    _, sizes, directions = np.linalg.svd((flat - mean) / np.sqrt(len(flat) - 1), full_matrices=False)
    kept = (sizes**2 > LEAST_VARIANCE * np.sum(sizes**2)) & (np.arange(len(sizes)) < most)
    root = (directions[kept].T * sizes[kept]).reshape(*states.shape[1:], -1)
    return Background(jnp.asarray(mean.reshape(states.shape[1:])), jnp.asarray(root))
