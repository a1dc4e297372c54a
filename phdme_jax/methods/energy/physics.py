"""The residual of a learned energy on a trajectory, its predicted variance, and the weight both give.

The same operator (J - R) and the same integration in time serve the observation rows, the rollouts and the loss.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phdme_jax.gp.basis import Basis, Energy, efforts, feature_efforts
from phdme_jax.gp.fit import EnergyPosterior
from phdme_jax.numerics.arrays import Instants
from phdme_jax.numerics.quadrature import integrate, interval_rule

Flow = Callable[[Array, dict[str, Array]], Array]


def dynamics_residual(
    rate: Callable[[Array], Array], trajectory: Float[Array, "time *grid field"], times: Instants
) -> Float[Array, "interval *grid field"]:
    """Mean rate over each interval between frames, minus what the dynamics say it is.

        r_k = [x(t_{k+1}) - x(t_k)] / dt_k - (1/dt_k) int_{t_k}^{t_{k+1}} f(x) dt

    The integral interpolates f through the eight nearest frames, so that frames may be far apart.

    Args:
      rate: f, maps a state (*grid, field) to its rate.
      trajectory: states in physical units.
      times: times of the frames, static.
    Returns:
      residual, shape (time - 1, *grid, field), in units of the rate.
    """
    durations = jnp.asarray(np.diff(times), trajectory.dtype)
    integral = integrate(interval_rule(times), jax.vmap(rate)(trajectory))
    return (jnp.diff(trajectory, axis=0) - integral) / jnp.reshape(durations, (-1,) + (1,) * (trajectory.ndim - 1))


def learned_rate(basis: Basis, flow: Flow, energy: Energy, parameters: dict[str, Array]) -> Callable[[Array], Array]:
    """Rate (J - R) grad h of a learned energy as a function of the state."""
    return lambda state: flow(efforts(basis, energy, state), parameters)


def residual_variance(
    basis: Basis,
    flow: Flow,
    posterior: EnergyPosterior,
    trajectory: Float[Array, "time *grid field"],
    times: Instants,
) -> Float[Array, "interval *grid field"]:
    """Posterior variance of the residual, all cross-covariances between stencil points and frames included.

        sigma_r^2 = || F^T psi ||^2,   psi = the residual's operator applied to the basis functions,  F F^T = Cov[w]

    and the slope of the operator in the dissipation parameters, where they are uncertain too.

    Args:
      basis: sizes of the basis.
      flow: (efforts, parameters) -> rates of the structure.
      posterior: posterior over energies.
      trajectory: states in physical units.
      times: times of the frames, static.
    Returns:
      variance, shape (time - 1, *grid, field), squared units of the rate.
    """
    durations = np.diff(times)
    rule = interval_rule(times)
    rule = rule._replace(weights=rule.weights / durations[:, None])
    apply = jax.vmap(flow, in_axes=(-1, None), out_axes=-1)

    def frame(state: Array) -> Array:
        features = feature_efforts(basis, posterior.mean.box, state)[..., : basis.size]
        columns = apply(features @ posterior.factor, posterior.parameters)
        if not posterior.spread:
            return columns
        known, best = efforts(basis, posterior.mean, state), posterior.parameters

        def dissipated(noise: Array) -> Array:
            return flow(
                known, {name: best[name] * jnp.exp(spread @ noise) for name, spread in posterior.spread.items()}
            )

        count = len(posterior.spread)
        return columns.at[..., -count:].add(jax.jacfwd(dissipated)(jnp.zeros(count, state.dtype)))

    return jnp.sum(integrate(rule, jax.lax.map(frame, trajectory)) ** 2, axis=-1)
