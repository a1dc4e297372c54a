"""Pathwise samples of the energy and their rollouts: each sample is a whole port-Hamiltonian system."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from phdme_jax.gp.basis import Basis, Box, Energy, density, efforts
from phdme_jax.gp.fit import EnergyPosterior
from phdme_jax.numerics.arrays import Instants, one_type, require_steps
from phdme_jax.numerics.interpolation import interpolate
from phdme_jax.numerics.stepping import Pieces, relaxed_step, rollout

Flow = Callable[[Array, dict[str, Array]], Array]


class Rollout(NamedTuple):
    """A rolled-out energy.

    Attributes:
      trajectory: states at the output times, shape (time, *grid, field).
      energy: total energy at the output times, shape (time,).
      ok: finite, inside the region where the energy is known, and with an energy that did not increase by more than
        was put in.
    """

    trajectory: Float[Array, "time *grid field"]
    energy: Float[Array, "time"]
    ok: Bool[Array, ""]


def drawn_system(posterior: EnergyPosterior, noise: Float[Array, "noise"]) -> tuple[Energy, dict[str, Array]]:
    """The energy and the dissipation parameters that standard normal noise makes of a posterior.

        w = mean + F xi,   F F^T the posterior covariance of the weights

    Args:
      posterior: posterior over energies.
      noise: as many numbers as the factor has columns.
    Returns:
      an energy, valid everywhere the basis is, and dissipation parameters by name.
    """
    mean = posterior.mean
    parameters = {
        name: posterior.parameters[name] * jnp.exp(spread @ noise[-spread.shape[0] :])
        for name, spread in posterior.spread.items()
    }
    return mean._replace(weights=mean.weights + posterior.factor @ noise), {**posterior.parameters, **parameters}


def sample_system(posterior: EnergyPosterior, key: Array) -> tuple[Energy, dict[str, Array]]:
    """Draw one energy, and the dissipation that goes with it, from the posterior.

    Args:
      posterior: posterior over energies.
      key: random key.
    Returns:
      an energy and dissipation parameters by name.
    """
    return drawn_system(posterior, jax.random.normal(key, posterior.factor.shape[1:], posterior.factor.dtype))


def sample_energy(posterior: EnergyPosterior, key: Array) -> Energy:
    """The energy of `sample_system` alone."""
    return sample_system(posterior, key)[0]


def inside_box(box: Box, trajectory: Float[Array, "*points field"]) -> Bool[Array, ""]:
    """Whether all states stay in the box; past its walls the sines repeat mirrored and mean nothing."""
    absolute = trajectory if box.preload is None else box.preload + trajectory
    return jnp.all(jnp.abs(absolute - box.centre) <= box.half_width)


def num_steps(substeps: int) -> int:
    """Steps of the integrator between output times: it is of fifth order, and each takes two substeps.

    Raises:
      ValueError: no substep.
    """
    require_steps(substeps, "substeps")
    return (substeps + 1) // 2


def roll_out(
    basis: Basis,
    flow: Flow,
    weights: Float[Array, "*grid"],
    energy: Energy,
    parameters: dict[str, Array],
    state: Float[Array, "*grid field"],
    times: Instants,
    substeps: int = 4,
    supplied: Float[Array, "time *grid field"] | None = None,
) -> Rollout:
    """Roll one energy out from one initial state, with an energy balance that closes at every output time.

    Args:
      basis: sizes of the basis.
      flow: (efforts, parameters) -> rates of the structure.
      weights: quadrature weights of the grid.
      energy: the energy, mean or sample.
      parameters: dissipation parameters.
      state: initial state, boundary values imposed.
      times: output times, the first one included.
      substeps: steps between output times that the classical Runge-Kutta method would need, see `num_steps`.
      supplied: rates G u at the output times, interpolated between them; None where nothing is put in.
    Returns:
      trajectory, energy and the `ok` mask, of the type that holds all that is given.
    Raises:
      ValueError: no substep, or times that do not increase.
    """
    given = weights, energy, parameters, state, jnp.asarray(times), supplied
    weights, energy, parameters, state, instants, supplied = one_type(*given)

    # inside the loop the fields come first, so that the compiler's innermost loop runs over the grid, and sums over the
    # grid are dot products: fused into them, the energy would not be vectorised
    def last(x: Array) -> Array:
        return jnp.moveaxis(x, 0, -1)

    def first(x: Array) -> Array:
        return jnp.moveaxis(x, -1, 0)

    measure = jnp.ravel(weights)

    def total(x: Array) -> Array:
        return jnp.ravel(density(basis, energy, last(x))) @ measure

    def pairing(left: Array, right: Array) -> Array:
        return jnp.sum(jnp.reshape(left * right, (left.shape[0], -1)) @ measure)

    pieces = Pieces(
        effort=lambda x: first(efforts(basis, energy, last(x))),
        flow=lambda e: first(flow(last(e), parameters)),
        energy=total,
        inner=pairing,
    )

    def step(carry: tuple[Array, ...], dt: Array) -> tuple[tuple[Array, ...], Array]:
        x, time, level, work = carry
        supply = None if supplied is None else lambda since: first(interpolate(instants, supplied, time + since))
        x, advanced, level, more = relaxed_step(pieces._replace(supply=supply), x, level, dt, num_steps(substeps))
        return (x, time + advanced, level, work + more), advanced

    begin = first(state)
    path, _, _, work = rollout(step, (begin, instants[0], total(begin), jnp.zeros_like(instants[0])), instants, 1)
    levels, trajectory = jax.vmap(total)(path), jnp.moveaxis(path, 1, -1)
    rounding = 100 * substeps * jnp.finfo(state.dtype).eps * jnp.max(jnp.abs(levels) + jnp.abs(work))
    ok = (
        jnp.all(jnp.isfinite(trajectory))
        & inside_box(energy.box, trajectory)
        & jnp.all(jnp.diff(levels - work) <= rounding)
    )
    return Rollout(trajectory, levels, ok)


def sample_rollout(
    basis: Basis,
    flow: Flow,
    weights: Float[Array, "*grid"],
    posterior: EnergyPosterior,
    state: Float[Array, "*grid field"],
    times: Instants,
    key: Array,
    substeps: int = 4,
    supplied: Float[Array, "time *grid field"] | None = None,
) -> Rollout:
    """Draw an energy with its dissipation and roll it out; vmap over states and keys for a batch, one energy each.

    Args:
      basis: sizes of the basis.
      flow: (efforts, parameters) -> rates of the structure.
      weights: quadrature weights of the grid.
      posterior: posterior over energies.
      state: initial state.
      times: output times, the first one included.
      key: random key.
      substeps: steps between output times that the classical Runge-Kutta method would need, see `num_steps`.
      supplied: rates G u at the output times, None where nothing is put in.
    Returns:
      the sample's rollout.
    """
    energy, parameters = sample_system(posterior, key)
    return roll_out(basis, flow, weights, energy, parameters, state, times, substeps, supplied)
