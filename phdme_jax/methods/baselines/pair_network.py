"""A Hamiltonian network of particles: the energy of a pair by a network, integrated by leapfrog.

    H = sum_i |v_i|^2 / 2 + sum_{i<j} c_ij phi(r_ij),   phi(r) = s_v^2 MLP(r / s_x, log(r / s_x))

It commutes with rotations, translations and orders of the particles, and keeps the momentum. The network sees the
logarithm of the distance too, as energies of pairs may be singular.
Source: Greydanus, Dzamba, Yosinski (2019), arXiv 1906.01563, whose energy is a network of the whole state; Sanchez-
Gonzalez et al. (2019), arXiv 1909.12790, for energies of graphs that are trained through an integrator.
"""

from collections.abc import Callable
from functools import lru_cache, partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray, PyTree

from phdme_jax.methods.base import Fitted, Host, Options, Task
from phdme_jax.methods.baselines.neural_dynamics import FieldFactory, field_factory
from phdme_jax.methods.particles.steps import Stepper, fit_step
from phdme_jax.systems.particles.base import Advance, Motion, distances
from phdme_jax.systems.particles.bodies import composed_leapfrog


class PairEnergy(eqx.Module):
    """Potential energy of particles, a network of the distance of each pair.

    Attributes:
      network: the perceptron, smooth.
      scale: of each field, positions before velocities.
    """

    network: eqx.nn.MLP
    scale: Float[Array, "field"]

    def __init__(self, scale: Array, width: int, depth: int, key: PRNGKeyArray) -> None:
        self.network = eqx.nn.MLP(2, "scalar", width, depth, jax.nn.silu, key=key, dtype=scale.dtype)
        self.scale = scale

    def __call__(
        self, position: Float[Array, "particle axis"], coupling: Float[Array, "particle particle"]
    ) -> Float[Array, ""]:
        """Energy of all pairs, up to a constant."""
        scale = jax.lax.stop_gradient(self.scale)
        upper = np.triu_indices(len(position), 1)
        apart = distances(position)[upper] / scale[0]
        phi = jax.vmap(self.network)(jnp.stack([apart, jnp.log(apart)], axis=-1))
        return scale[-1] ** 2 * jnp.sum(coupling[upper] * phi)


def pull(energy: PairEnergy, coupling: Float[Array, "particle particle"], position: Array) -> Array:
    """Acceleration (particle, axis) of each particle, masses one."""
    return -jax.grad(energy)(position, coupling)


@lru_cache
def _factory(num_fields: int, width: int, depth: int) -> FieldFactory:
    return field_factory(lambda scale, key: PairEnergy(scale, width, depth, key), num_fields)


def leaping(energy: PairEnergy, interval: float, substeps: int) -> Advance:
    """Coupling -> one frame on, by leapfrog with `substeps` steps over the interval between frames."""

    def advance(coupling: Array) -> Callable[[Motion], Motion]:
        return partial(composed_leapfrog, partial(pull, energy, coupling), interval / substeps, substeps)

    return advance


def fit_hamiltonian(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """Train the energy of a pair through leapfrogs between frames.

    Args:
      task: of particles, first frames given.
      options: the group `baselines`: `hnn` (width, depth), its stages, `substeps` between frames and, of forecasts,
        `rollout_substeps`.
      host: trains.
      teacher: none.
      key: random key.
    Returns:
      the method, without a distribution.
    """
    del teacher
    group, problem = options["baselines"], task.problem
    factory, interval = _factory(len(problem.fields), **group["hnn"]), problem.grid.spacing[0]
    substeps, finer = group["substeps"], group["rollout_substeps"]

    def advance_of(substeps: int, params: PyTree) -> Advance:
        return leaping(factory.field(params), interval, substeps)

    stepper = Stepper("hnn", factory.init, partial(advance_of, substeps), finer, partial(advance_of, finer))
    return fit_step(stepper, task, options, host, key)
