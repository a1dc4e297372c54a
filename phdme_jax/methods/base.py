"""What a method is: its training data, what its diffusion model is centred on, which physics it sees."""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


@dataclass(frozen=True)
class Method:
    """One row of a comparison.

    Attributes:
      name: name in results.
      summary: one line for reports.
      stream: number of the method's random draws, its own among all methods.
      kind: "generative" (a trained diffusion model), "rollout" (an energy integrated in time, nothing trained), or
        "network" (dynamics or a time step learned by a network from the observed trajectories).
      data: "observed" trajectories alone, or "rollouts" of the posterior beside them; for generative methods.
      mean: what the diffusion model is centred on: "propagator" (learned from the initial state) or "rollout" (the
        posterior-mean rollout).
      physics: whether the residual of the learned energy enters the loss.
      energy: which energy is integrated or sampled: "posterior", "quadratic", "independent", or "true", which no
        other method is told.
    """

    name: str
    summary: str
    stream: int
    kind: str = "generative"
    data: str = "rollouts"
    mean: str = "propagator"
    physics: bool = True
    energy: str = "posterior"


class Normaliser(NamedTuple):
    """Scale of each field; physical = scale x normalised.

    Attributes:
      scale: standard deviation of each field over the training data, shape (field,).
    """

    scale: Float[Array, "field"]


def fit_normaliser(states: Float[Array, "*points field"]) -> Normaliser:
    """Root mean square of each field."""
    return Normaliser(jnp.sqrt(jnp.mean(states**2, axis=tuple(range(states.ndim - 1)))))
