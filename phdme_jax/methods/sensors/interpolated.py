"""Forecasts from sensors by interpolation: the first frame from its own readings, then a rollout of the energy."""

from functools import lru_cache

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float, Key

from phdme_jax.methods.base import Dynamics, Fitted, Host, Model, Options, Start, Task, Times
from phdme_jax.methods.sensors.background import Assimilated, Background, assimilation
from phdme_jax.methods.sensors.sensed import Sensed


def fit_interpolated(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """Gaussian interpolation of the readings of the first frame; nothing is trained.

    Args:
      task: gives the states that the background is made of.
      options: the group `sensors`.
      host: not used.
      teacher: a learned energy.
      key: not used.
    Returns:
      the method; its condition is a `Sensed`.
    """
    del host, key
    _, _, model, params = assimilation(task, options, teacher)
    assert teacher is not None and model.dynamics is not None
    return Fitted(make_model(model.dynamics, task.times, params.background.root.shape[-1]), params, teacher.seconds)


def interpolated(
    background: Background, values: Float[Array, "*grid field"], mask: Array, noise: Float[Array, "field"]
) -> Background:
    """What is believed of a state after readings of it: z given y = x + noise where there is a sensor."""
    root = background.root.reshape(-1, background.root.shape[-1])
    weight = jnp.ravel(mask / noise**2)
    precision = jnp.eye(root.shape[1], dtype=root.dtype) + (root.T * weight) @ root
    lower = jnp.linalg.cholesky(precision)
    z = cho_solve((lower, True), root.T @ (weight * jnp.ravel(values - background.mean)))
    left = solve_triangular(lower, jnp.eye(len(lower), dtype=lower.dtype), lower=True).T
    return Background(background.state(z), background.root @ left)


@lru_cache
def make_model(dynamics: Dynamics, times: Times, directions: int) -> Model:
    """The model of some dynamics; the same record for the same arguments."""

    def prepare(params: Assimilated, sensed: Sensed) -> Background:
        first, mask = (values.astype(params.noise.dtype) for values in (sensed.values[0], sensed.mask))
        return interpolated(params.background, first, mask, params.noise)

    def draw(params: Assimilated, believed: Background, latent: Array, key: Array) -> Array:
        start = Start(believed.state(latent), jnp.zeros((len(times), 0)))
        return dynamics.sample(params.energy, start, key, times, dynamics.substeps).trajectory

    return Model(
        prepare=prepare,
        draw=draw,
        latent=lambda key: jax.random.normal(jax.random.split(key)[0], (directions,), jnp.float64),
        times=times,
        num_calls=1,
    )
