"""Two independent Gaussian processes on the efforts, as in the code published with GP-dPHS; dissipation is told.

Source: Tan et al. (2024), arXiv 2406.11809, and the code published with it.
"""

import time
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from phdme_jax.gp import independent
from phdme_jax.methods.base import Fitted, Host, Model, Options, Start, Task, Times, fit_normaliser, mean_model
from phdme_jax.systems.energy.base import System, parameter_values


def fit(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """Rates by local polynomials, efforts by inverting the operator, one regression an effort.

    The published study has 81 sites on its one trajectory, spread over all frames; so has each trajectory here.

    Args:
      task: of a system that offers an inversion.
      options: substeps of the group `prior`.
      host: not used.
      teacher: none.
      key: not used.
    Returns:
      the method, without a distribution.
    """
    del host, teacher, key
    system, examples = task.problem, task.train()
    observed = jnp.asarray(examples.fields)
    smoothed, rates = jax.vmap(lambda x: independent.local_polynomial_rates(x, examples.times))(observed)
    num, frames, points, fields = observed.shape
    flat = [jnp.reshape(array, (num * frames, points, fields)) for array in (smoothed, rates)]
    sites = np.asarray(independent.published_sites(frames, points))
    sites = np.concatenate([sites + np.array([frames * index, 0]) for index in range(num)])
    learn = jax.jit(independent.fit_independent, static_argnums=(3, 4))
    inversion = independent.Inversion(*system.inversion)
    rest = fit_normaliser(observed, system.structure).centre[1 - inversion.odd]
    compiled = learn.lower(*flat, jnp.asarray(sites), system.grid.spacing[0], inversion, rest).compile()
    began = time.perf_counter()
    fitted = jax.block_until_ready(compiled(*flat, jnp.asarray(sites), rest))
    seconds = time.perf_counter() - began
    return Fitted(_model(system, task.times, options["prior"]["substeps"]), fitted, {"fit": seconds})


@lru_cache
def _model(system: System, times: Times, substeps: int) -> Model:
    roll_out = partial(independent.roll_out_independent, system.structure.flow)

    def prepare(params: independent.IndependentEfforts, start: Start) -> Float[Array, "time grid field"]:
        dtype = params.states.dtype
        values, instants = parameter_values(system, dtype), jnp.asarray(times, dtype)
        trajectory, ok = roll_out(params, values, start.state.astype(dtype), instants, substeps)
        return jnp.where(ok, trajectory, jnp.nan)

    return mean_model(prepare, times)
