"""What an energy says of the motion, learned or true, and the model that integrates it in time."""

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from phdme_jax.gp import sampling
from phdme_jax.gp.basis import Basis, Energy, efforts, feature_efforts
from phdme_jax.gp.fit import EnergyPosterior
from phdme_jax.methods.base import Dynamics, Model, Start, Times
from phdme_jax.methods.energy.physics import learned_rate, residual_variance
from phdme_jax.methods.energy.posterior import supplied_rates
from phdme_jax.numerics.interpolation import interpolate
from phdme_jax.numerics.stepping import NUM_STAGES, rk4_step, rollout
from phdme_jax.systems.energy.base import Structure, System, parameter_values, total_energy, vector_field


def possible_state(start: Start, key: Key[Array, ""]) -> Float[Array, "*grid field"]:
    """The state that a sample begins at: as told, or what it may have been where it is measured with an error."""
    if start.errors is None:
        return start.state
    index = jax.random.randint(jax.random.fold_in(key, 1), (), 0, start.errors.shape[0])
    return start.state - start.errors[index]


def resampled(inputs: Float[Array, "time port"], times: Times, wanted: Times) -> Float[Array, "frame port"]:
    """Inputs at other times, by cubics."""
    if wanted == times:
        return inputs
    if not inputs.shape[-1]:
        return jnp.zeros((len(wanted), 0), inputs.dtype)
    nodes = jnp.asarray(times, inputs.dtype)
    return jax.vmap(partial(interpolate, nodes, inputs))(jnp.asarray(wanted, inputs.dtype))


def _narrowed(tree: PyTree, dtype: Any) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def _integrate(
    structure: Structure,
    basis: Basis,
    energy: Energy,
    parameters: dict[str, Array],
    start: Start,
    times: Times,
    substeps: int,
) -> sampling.Rollout:
    """Rollout of one energy, of its own type."""
    dtype = energy.weights.dtype
    supplied = supplied_rates(structure, start.inputs.astype(dtype)) if structure.ports else None
    return sampling.roll_out(
        basis,
        structure.flow,
        jnp.asarray(structure.weights(), dtype),
        energy,
        parameters,
        start.state.astype(dtype),
        jnp.asarray(times, dtype),
        substeps,
        supplied,
    )


@lru_cache
def learned_dynamics(structure: Structure, basis: Basis, substeps: int) -> Dynamics:
    """Dynamics of a posterior over energies; parameters are the `EnergyPosterior`.

    Args:
      structure: operators.
      basis: of the energies.
      substeps: integration steps between frames that forecasts take.
    Returns:
      the dynamics; rollouts are of the posterior's type. The same record for the same arguments.
    """

    def rate(posterior: EnergyPosterior, state: Array) -> Array:
        mean, parameters = _narrowed((posterior.mean, posterior.parameters), state.dtype)
        return learned_rate(basis, structure.flow, mean, parameters)(state)

    def roll_out(posterior: EnergyPosterior, start: Start, times: Times, substeps: int) -> sampling.Rollout:
        return _integrate(structure, basis, posterior.mean, posterior.parameters, start, times, substeps)

    def sample(posterior: EnergyPosterior, start: Start, key: Array, times: Times, substeps: int) -> sampling.Rollout:
        energy, parameters = sampling.sample_system(posterior, key)
        begin = start._replace(state=possible_state(start, key))
        return _integrate(structure, basis, energy, parameters, begin, times, substeps)

    def variance(posterior: EnergyPosterior, trajectory: Array, times: Times) -> Array:
        narrow = _narrowed(posterior, trajectory.dtype)
        return residual_variance(basis, structure.flow, narrow, trajectory, times)

    def known_efforts(posterior: EnergyPosterior, states: Array) -> tuple[Array, Array]:
        features = feature_efforts(basis, posterior.mean.box, states)[..., : basis.size]
        deviation = jnp.sqrt(jnp.sum((features @ posterior.factor) ** 2, axis=-1))
        return efforts(basis, posterior.mean, states), deviation

    return Dynamics(rate, roll_out, sample, variance, substeps, known_efforts)


@lru_cache
def true_dynamics(system: System, substeps: int) -> Dynamics:
    """Dynamics of the true energy, by the classical Runge-Kutta method in half steps; no parameters.

    Args:
      system: structure, energy and dissipation.
      substeps: integration steps between frames that forecasts of a learned energy take.
    Returns:
      the dynamics, of the type of the state. The same record for the same arguments.
    """
    structure = system.structure

    def rate(params: tuple[()], state: Array, inputs: Array | None = None) -> Array:
        del params
        return vector_field(structure, system.density, state, parameter_values(system, state.dtype), inputs)

    def roll_out(params: tuple[()], start: Start, times: Times, substeps: int) -> sampling.Rollout:
        nodes = jnp.asarray(times, start.state.dtype)

        def moving(extended: Array) -> Array:
            state = jnp.reshape(extended[:-1], start.state.shape)
            inputs = interpolate(nodes, start.inputs, extended[-1]) if structure.ports else None
            return jnp.append(jnp.ravel(rate(params, state, inputs)), 1.0)

        # time is one more number of the state
        begin = jnp.append(jnp.ravel(start.state), nodes[0])
        path = rollout(lambda x, dt: (rk4_step(moving, x, dt), dt), begin, nodes, 2 * substeps)
        trajectory = jnp.reshape(path[:, :-1], (len(times), *start.state.shape))
        energy = jax.vmap(partial(total_energy, structure, system.density))(trajectory)
        return sampling.Rollout(trajectory, energy, jnp.all(jnp.isfinite(trajectory)))

    def sample(params: tuple[()], start: Start, key: Array, times: Times, substeps: int) -> sampling.Rollout:
        return roll_out(params, start._replace(state=possible_state(start, key)), times, substeps)

    return Dynamics(rate, roll_out, sample, None, substeps)


@lru_cache
def rollout_model(dynamics: Dynamics, times: Times, moving: int) -> Model:
    """Forecasts by integration: the mean energy, and energies drawn from the posterior.

    Args:
      dynamics: what the energy says.
      times: of the frames.
      moving: how many fields are forecast; those behind them never change.
    Returns:
      the model; a sample is made of its key alone. The same record for the same arguments.
    """
    substeps = dynamics.substeps

    def draw(params: PyTree, start: Start, latent: Array, key: Array) -> Array:
        del latent
        return dynamics.sample(params, start, key, times, substeps).trajectory[..., :moving]

    return Model(
        prepare=lambda params, start: start,
        draw=draw,
        latent=lambda key: jnp.zeros((0,)),
        mean=lambda params, start: dynamics.rollout(params, start, times, substeps).trajectory[..., :moving],
        times=times,
        num_calls=NUM_STAGES * sampling.num_steps(substeps) * (len(times) - 1),
        dynamics=dynamics,
    )
