"""One-step integrators, one of them with an energy balance that closes, and the rollout that repeats them.

Each step advances a state by dt. Relaxation takes the port-Hamiltonian pieces apart: `effort(x)` is the gradient of the
energy in the inner product, `flow(e) = (J - R) e` is linear with <e, flow(e)> <= 0.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, PyTree

from phdme_jax.numerics.arrays import Instants, one_type, require_steps

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


# Bogacki and Shampine (1996), Comput. Math. Appl. 32 (6), 15-28: fifth order, no negative weight, and stable up to a
# phase of 1.67 a step
NUM_STAGES = 7
_STAGES = np.zeros((NUM_STAGES, NUM_STAGES))
_STAGES[1, :1] = 1 / 6
_STAGES[2, :2] = 2 / 27, 4 / 27
_STAGES[3, :3] = 183 / 1372, -162 / 343, 1053 / 1372
_STAGES[4, :4] = 68 / 297, -4 / 11, 42 / 143, 1960 / 3861
_STAGES[5, :5] = 597 / 22528, 81 / 352, 63099 / 585728, 58653 / 366080, 4617 / 20480
_STAGES[6, :6] = (
    174197 / 959244, -30942 / 79937, 8152137 / 19744439, 666106 / 1039181, -29421 / 29068, 482048 / 414219
)  # fmt: skip
_WEIGHTS = np.array([587 / 8064, 0, 4440339 / 15491840, 24353 / 124800, 387 / 44800, 2152 / 5985, 7267 / 94080])


class Pieces(NamedTuple):
    """A port-Hamiltonian system taken apart.

    Attributes:
      effort: variational derivative of the energy, shape of the state.
      flow: (J - R) applied to efforts.
      energy: total energy of a state, scalar.
      inner: inner product in which `effort` is the gradient of `energy`.
      supply: rates G u at a time counted from the start of the step, None where nothing is put in.
    """

    effort: Callable[[Field], Field]
    flow: Callable[[Field], Field]
    energy: Callable[[Field], Scalar]
    inner: Callable[[Field, Field], Scalar]
    supply: Callable[[Scalar], Field] | None = None


class Advance(NamedTuple):
    """Where a step ended.

    Attributes:
      state: the new state.
      time: the time really advanced.
      energy: of the new state.
      work: what was put in meanwhile.
    """

    state: Field
    time: Scalar
    energy: Scalar
    work: Scalar


def integrating_factor_step(
    rate: Callable[[Array], Array], decay: Float[Array, "*shape"], state: Inexact[Array, "*shape"], dt: Scalar | float
) -> Inexact[Array, "*shape"]:
    """One classical Runge-Kutta step of x' = L x + N(x), L diagonal and followed exactly.

        x <- E^2 (x + k1 / 6) + E (k2 + k3) / 3 + k4 / 6,   E = exp(L dt / 2),   k_i = dt N(...)

    Args:
      rate: N.
      decay: E, of the shape of the state.
      state: x, real or complex.
      dt: the step.
    Returns:
      the state after it; of fourth order.
    Source: Cox and Matthews (2002), J. Comput. Phys. 176, 430-455, section 2.
    """
    first = dt * rate(state)
    second = dt * rate(decay * (state + 0.5 * first))
    third = dt * rate(decay * state + 0.5 * second)
    fourth = dt * rate(decay * (decay * state + third))
    return decay**2 * (state + first / 6) + decay * (second + third) / 3 + fourth / 6


def relaxed_step(pieces: Pieces, state: Field, energy: Scalar, dt: Scalar, parts: int = 1) -> Advance:
    """Fifth-order Runge-Kutta steps, the last of which is as long as lets the energy balance close.

        x' = x + h sum_k d_k,   d_k = sum_i b_i f_ki,   the last h replaced by gamma h
        H(x') - H(x) = h sum_k sum_i b_i <e_ki, (J - R) e_ki + G u_ki>

    No weight b_i is negative, so that the energy never grows by more than was put in. The scalar equation in gamma is
    solved by the secant method from the slope that the last stage gives: three energies, and seven efforts a part.

    Args:
      pieces: of the system.
      state: x.
      energy: H(x), as the step before left it.
      dt: nominal length [time].
      parts: how many steps of h = dt / parts.
    Returns:
      state after (parts - 1 + gamma) h, gamma = 1 + O(h^4); that time; its energy; the work that was put in.
    Source: Ketcheson (2019), SIAM J. Numer. Anal. 57, 2850-2870; Ranocha et al. (2020), SIAM J. Sci. Comput. 42, A612.
    """
    length, nothing, still = dt / parts, jnp.zeros((), state.dtype), jnp.zeros_like(state)
    table, weights = jnp.asarray(_STAGES, state.dtype), jnp.asarray(_WEIGHTS, state.dtype)

    # loops instead of repeated calls: the energy is large code when compiled
    def part(index: Array, carry: tuple) -> tuple:
        base, direction, _, level, done, power, work = carry
        base, level, done = base + length * direction, level + length * power, done + length * work

        def stage(carry: tuple, item: tuple[Array, Array, Array]) -> tuple[tuple, None]:
            rates, power, work, _ = carry
            number, row, weight = item
            here = pieces.effort(base + length * sum(row[j] * rates[j] for j in range(NUM_STAGES - 1)))
            rate = pieces.flow(here)
            if pieces.supply is not None:
                put_in = pieces.supply(length * (index + jnp.sum(row)))
                rate, work = rate + put_in, work + weight * pieces.inner(here, put_in)
            return (rates.at[number].set(rate), power + weight * pieces.inner(here, rate), work, here), None

        rates = jnp.zeros((NUM_STAGES, *state.shape), state.dtype)
        carry, _ = jax.lax.scan(stage, (rates, nothing, nothing, still), (jnp.arange(NUM_STAGES), table, weights))
        rates, power, work, last = carry
        return base, sum(weights[i] * rates[i] for i in range(NUM_STAGES)), last, level, done, power, work

    first = (state, still, still, energy, nothing, nothing, nothing)
    base, direction, last, level, done, power, work = jax.lax.fori_loop(0, parts, part, first)
    slope = length * (pieces.inner(last, direction) - power)
    # where the step hardly moves, the balance is below rounding and gamma is not determined: keep one
    determined = jnp.abs(slope) > jnp.finfo(state.dtype).eps * jnp.abs(level)

    def secant(carry: tuple, _: None) -> tuple[tuple, Array]:
        gamma, slope, gamma_before, defect_before = carry
        defect = pieces.energy(base + gamma * length * direction) - level - gamma * length * power
        moved = gamma != gamma_before
        found = (defect - defect_before) / jnp.where(moved, gamma - gamma_before, 1.0)
        # differences of rounding errors give no slope
        slope = jnp.where(moved & (jnp.abs(found - slope) < 0.5 * jnp.abs(slope)), found, slope)
        return (gamma - jnp.where(determined, defect / slope, 0.0), slope, gamma, defect), defect

    one = jnp.ones_like(level)
    start = (one, jnp.where(determined, slope, 1.0), one, nothing)
    (gamma, *_), defects = jax.lax.scan(secant, start, None, length=3)
    closed = determined & (jnp.abs(gamma - 1.0) < 0.5)
    gamma = jnp.where(closed, gamma, 1.0)
    level = level + gamma * length * power + jnp.where(closed, 0.0, defects[0])
    time = (parts - 1 + gamma) * length
    return Advance(base + gamma * length * direction, time, level, done + gamma * length * work)


def rollout(
    step: Callable[[PyTree, Scalar], tuple[PyTree, Scalar]],
    state: PyTree[Array],
    times: Instants,
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
    state, instants = one_type(state, jnp.asarray(times))
    if not isinstance(instants, jax.core.Tracer) and np.any(np.diff(instants) <= 0):
        raise ValueError(f"expected increasing times, got {np.asarray(instants).tolist()}; sort them, drop duplicates")
    intervals = jnp.diff(instants)
    intervals = jnp.where(intervals > 0, intervals, jnp.nan)

    def substep(index: Array, carry: tuple[PyTree, Scalar]) -> tuple[PyTree, Scalar]:
        current, remaining = carry
        new, advanced = step(current, remaining / (substeps - index).astype(remaining.dtype))
        return new, remaining - advanced

    def frame(carry: tuple[PyTree, Scalar], interval: Scalar) -> tuple[tuple[PyTree, Scalar], PyTree]:
        current, overdue = carry
        new, left = jax.lax.fori_loop(0, substeps, substep, (current, interval + overdue))
        return (new, left), new

    (_, _), later = jax.lax.scan(frame, (state, jnp.zeros_like(instants[0])), intervals)
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest], axis=0), state, later)
