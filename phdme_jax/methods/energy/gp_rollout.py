"""The learned energy integrated in time: a Gaussian process on the energy density, the structure known, nothing else.

Source: Tan et al. (2024), arXiv 2406.11809 (distributed port-Hamiltonian systems); Beckers et al. (2022), arXiv
2305.09017 (energies as Gaussian processes).
"""

from dataclasses import replace
from functools import lru_cache

import jax
import jax.numpy as jnp
from jaxtyping import Array

from phdme_jax.gp.basis import Basis
from phdme_jax.gp.fit import EnergyPosterior
from phdme_jax.gp.sampling import drawn_system
from phdme_jax.methods.base import Dynamics, Fitted, Host, Model, Options, Start, Task, Times
from phdme_jax.methods.energy.dynamics import learned_dynamics, possible_state, rollout_model
from phdme_jax.methods.energy.posterior import PriorOptions, fit_energy
from phdme_jax.numerics.bound import Bound
from phdme_jax.systems.energy.base import Structure


def fit(
    task: Task, options: Options, host: Host, teacher: Fitted | None, key: Array, quadratic: bool = False
) -> Fitted:
    """Fit energy, dissipation and noise by marginal likelihood; samples are rollouts of energies of the posterior.

    Args:
      task: what to learn from; an instrument of the study's own takes the place of the fit.
      options: the group `prior`, see `PriorOptions`.
      host: not used.
      teacher: none.
      key: for the study's instrument.
      quadratic: the best quadratic energy instead.
    Returns:
      the method; `found` holds the dissipation parameters.
    """
    del host, teacher
    if task.energy is not None:
        return task.energy(options, key, quadratic)
    structure, prior = task.problem.structure, PriorOptions(**options["prior"])
    if quadratic:
        prior = replace(prior, shapes=("quadratic",) * len(structure.fields), pair=0)
    basis, posterior, seconds = fit_energy(structure, task.train(), prior)
    return fitted_rollout(structure, basis, posterior, task.times, prior.substeps, seconds, task.companions)


def fitted_rollout(
    structure: Structure,
    basis: Basis,
    posterior: EnergyPosterior,
    times: Times,
    substeps: int,
    seconds: float,
    companions: int = 0,
) -> Fitted:
    """The method of a posterior, from whatever rows it came.

    Args:
      structure: operators.
      basis: of the energies.
      posterior: over energies, of which the type decides that of rollouts.
      times: of forecasts.
      substeps: integration steps between frames.
      seconds: that the fit ran.
      companions: how many fields never change.
    Returns:
      the method; its parameters are the posterior.
    """
    moving = len(structure.fields) - companions
    dynamics = learned_dynamics(structure, basis, substeps)
    model = _model(dynamics, posterior.factor.shape[1], times, moving, posterior.factor.dtype.name)
    found = {name: float(value) for name, value in posterior.parameters.items()}
    return Fitted(model, posterior, {"fit": seconds}, found)


@lru_cache
def _model(dynamics: Dynamics, size: int, times: Times, moving: int, dtype: str) -> Model:
    """The latent is the standard normal vector that the posterior makes an energy and a dissipation of."""

    def draw(posterior: EnergyPosterior, start: Start, latent: Array, key: Array) -> Array:
        mean, parameters = drawn_system(posterior, latent)
        drawn = posterior._replace(mean=mean, parameters=parameters)
        begin = start._replace(state=possible_state(start, key))
        return dynamics.rollout(drawn, begin, times, dynamics.substeps).trajectory[..., :moving]

    def latent(key: Array) -> Array:
        return jax.random.normal(key, (size,), jnp.dtype(dtype))

    return replace(rollout_model(dynamics, times, moving), latent=latent, draw=draw)


fit_quadratic = Bound(fit, quadratic=True)
