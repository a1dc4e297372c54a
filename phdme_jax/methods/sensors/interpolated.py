"""Forecasts from sensors by interpolation: the first frame from its own readings, then a rollout of the energy."""

from functools import lru_cache

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float

from phdme_jax.methods.base import Dynamics, Model, Times
from phdme_jax.methods.sensors.assimilation import AssimilationParams, Sizes, rollout_calls, sampled_rollout
from phdme_jax.methods.sensors.background import Background
from phdme_jax.methods.sensors.sensed import Sensed


def interpolated(
    background: Background, values: Float[Array, "*grid field"], mask: Array, noise: Float[Array, "field"]
) -> Background:
    """The Gaussian over states given readings of one frame, y = x + noise where there is a sensor."""
    root = background.root.reshape(-1, background.root.shape[-1])
    weight = jnp.ravel(mask / noise**2)
    precision = jnp.eye(root.shape[1], dtype=root.dtype) + (root.T * weight) @ root
    lower = jnp.linalg.cholesky(precision)
    z = cho_solve((lower, True), root.T @ (weight * jnp.ravel(values - background.mean)))
    left = solve_triangular(lower, jnp.eye(len(lower), dtype=lower.dtype), lower=True).T
    return Background(background.state(z), background.root @ left)


@lru_cache
def make_interpolated(dynamics: Dynamics, times: Times, directions: int, sizes: Sizes) -> Model:
    """Gaussian interpolation of the first frame, rolled out, see `assimilation.MakeModel`."""
    del sizes

    def prepare(params: AssimilationParams, sensed: Sensed) -> Background:
        first, mask = (values.astype(params.noise.dtype) for values in (sensed.values[0], sensed.mask))
        return interpolated(params.background, first, mask, params.noise)

    def draw(params: AssimilationParams, posterior: Background, latent: Array, key: Array) -> Array:
        return sampled_rollout(dynamics, params, posterior.state(latent), key, times)

    return Model(
        prepare=prepare,
        draw=draw,
        latent=lambda key: jax.random.normal(jax.random.split(key)[0], (directions,), jnp.float64),
        times=times,
        num_calls=rollout_calls(dynamics, len(times)),
    )
