"""One-step integrators, one of them with an energy balance that closes, and the rollout that repeats them.

Each step advances a state by dt. Relaxation takes the port-Hamiltonian pieces apart: `effort(x)` is the gradient of the
energy in the inner product, `flow(e) = (J - R) e` is linear with <e, flow(e)> <= 0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from phdme_jax.numerics.arrays import one_type, require_steps

Field = Float[Array, "*state"]
Scalar = Float[Array, ""]


def rk4_step(vector_field: Callable[[Field], Field], state: Field, dt: Scalar) -> Field:
    """Classical fourth-order Runge-Kutta step.

    Args:
      vector_field: dx/dt as a function of the state.
      state: x, any shape.
      dt: step [time].
    Returns:
      state after dt.
    """
    k1 = vector_field(state)
    k2 = vector_field(state + 0.5 * dt * k1)
    k3 = vector_field(state + 0.5 * dt * k2)
    k4 = vector_field(state + dt * k3)
    return state + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def relaxation_rk4_step(
    effort: Callable[[Field], Field],
    flow: Callable[[Field], Field],
    energy: Callable[[Field], Scalar],
    inner: Callable[[Field, Field], Scalar],
    state: Field,
    dt: Scalar,
) -> tuple[Field, Scalar]:
    """`forced_relaxation_rk4_step` with nothing put in: the energy never grows.

    Args:
      effort: variational derivative of the energy, shape of the state.
      flow: (J - R) applied to efforts.
      energy: total energy of a state, scalar.
      inner: inner product in which `effort` is the gradient of `energy`.
      state: x.
      dt: nominal step [time].
    Returns:
      state at time + gamma dt, and the time really advanced, gamma dt (gamma = 1 + O(dt^3)).
    """
    new, advanced, _ = forced_relaxation_rk4_step(effort, flow, energy, inner, None, state, dt)
    return new, advanced


def forced_relaxation_rk4_step(
    effort: Callable[[Field], Field],
    flow: Callable[[Field], Field],
    energy: Callable[[Field], Scalar],
    inner: Callable[[Field, Field], Scalar],
    supply: Callable[[Scalar], Field] | None,
    state: Field,
    dt: Scalar,
) -> tuple[Field, Scalar, Scalar]:
    """Fourth-order Runge-Kutta step whose length is relaxed so that the energy balance closes.

        x' = x + gamma dt d,   H(x') - H(x) = gamma dt sum_i b_i <e_i, (J - R) e_i + G u_i>

    The scalar equation in gamma is solved by the secant method, started from the slope that the last stage gives: four
    efforts and four energies a step.

    Args:
      effort: variational derivative of the energy, shape of the state.
      flow: (J - R) applied to efforts.
      energy: total energy of a state, scalar.
      inner: inner product in which `effort` is the gradient of `energy`.
      supply: rates G u at a time counted from the start of the step, or None.
      state: x.
      dt: nominal step [time].
    Returns:
      state at time + gamma dt; the time really advanced, gamma dt (gamma = 1 + O(dt^3)); and the work that was put in.
    Source: Ketcheson (2019), SIAM J. Numer. Anal. 57, 2850-2870; Ranocha et al. (2020), SIAM J. Sci. Comput. 42, A612.
    """

    # loops instead of repeated calls: the energy is large code when compiled
    def stage(carry: tuple, item: tuple[Scalar, Scalar]) -> tuple[tuple, None]:
        rate, direction, power, work, _ = carry
        offset, weight = item
        here = effort(state + offset * dt * rate)
        rate = flow(here)
        if supply is not None:
            put_in = supply(offset * dt)
            rate, work = rate + put_in, work + weight * inner(here, put_in)
        return (rate, direction + weight * rate, power + weight * inner(here, rate), work, here), None

    zero, nothing = jnp.zeros_like(state), jnp.zeros((), state.dtype)
    tableau = jnp.asarray([[0, 1 / 2, 1 / 2, 1], [1 / 6, 1 / 3, 1 / 3, 1 / 6]], state.dtype)
    carry, _ = jax.lax.scan(stage, (zero, zero, nothing, nothing, zero), (tableau[0], tableau[1]))
    _, direction, power, work, last = carry
    start = energy(state)
    slope = dt * (inner(last, direction) - power)
    # where the step hardly moves, the balance is below rounding and gamma is not determined: keep one
    determined = jnp.abs(slope) > jnp.finfo(state.dtype).eps * jnp.abs(start)

    def secant(_: Array, carry: tuple) -> tuple:
        gamma, slope, gamma_before, defect_before = carry
        defect = energy(state + gamma * dt * direction) - start - gamma * dt * power
        moved = gamma != gamma_before
        found = (defect - defect_before) / jnp.where(moved, gamma - gamma_before, 1.0)
        # differences of rounding errors give no slope
        slope = jnp.where(moved & (jnp.abs(found - slope) < 0.5 * jnp.abs(slope)), found, slope)
        return gamma - jnp.where(determined, defect / slope, 0.0), slope, gamma, defect

    one = jnp.ones_like(start)
    first = (one, jnp.where(determined, slope, 1.0), one, jnp.zeros_like(start))
    gamma = jax.lax.fori_loop(0, 3, secant, first)[0]
    gamma = jnp.where(jnp.abs(gamma - 1.0) < 0.5, gamma, 1.0)
    return state + gamma * dt * direction, gamma * dt, gamma * dt * work


def rollout(
    step: Callable[[PyTree, Scalar], tuple[PyTree, Scalar]],
    state: PyTree[Array],
    times: Float[Array, "time"],
    substeps: int,
) -> PyTree[Array]:
    """Repeat a step from each output time to the next and keep the states at the output times.

    A step that reports another length than asked for (relaxation) is followed by one that aims at the same target,
    so that the output times are met to the order of the method.

    Args:
      step: (state, dt) -> (new state, time advanced).
      state: state at the first time, an array or a tree of them.
      times: increasing output times, the first one included.
      substeps: steps between neighbouring output times.
    Returns:
      states at the output times, the initial one first, each leaf with a leading axis of time, of the type that holds
      state and times; not a number after a time that traced times decrease to.
    Raises:
      ValueError: no step, or times that do not increase.
    """
    require_steps(substeps, "substeps")
    state, times = one_type(state, times)
    if not isinstance(times, jax.core.Tracer) and np.any(np.diff(times) <= 0):
        raise ValueError(f"expected increasing times, got {np.asarray(times).tolist()}; sort them, drop duplicates")
    intervals = jnp.diff(times)
    intervals = jnp.where(intervals > 0, intervals, jnp.nan)

    def substep(index: Array, carry: tuple[PyTree, Scalar]) -> tuple[PyTree, Scalar]:
        current, remaining = carry
        new, advanced = step(current, remaining / (substeps - index).astype(remaining.dtype))
        return new, remaining - advanced

    def frame(carry: tuple[PyTree, Scalar], interval: Scalar) -> tuple[tuple[PyTree, Scalar], PyTree]:
        current, overdue = carry
        new, left = jax.lax.fori_loop(0, substeps, substep, (current, interval + overdue))
        return (new, left), new

    (_, _), later = jax.lax.scan(frame, (state, jnp.zeros_like(times[0])), intervals)
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest], axis=0), state, later)
