"""Shallow water over a flat ground by finite volumes: depth h and momenta m = h u, n = h v, where gravity is one.

    h_t + m_x + n_y = 0,   m_t + (m u + h^2 / 2)_x + (m v)_y = 0,   n_t + (n u)_x + (n v + h^2 / 2)_y = 0

Linear in each cell along each axis, with slopes limited by the monotonized central limiter; the flux between two cells
is that of Rusanov; two stages in time, by Heun's method, which keeps what one step of Euler's keeps. Around the box
stand walls, by mirror images: the sum of the depths changes by rounding alone. Second order where the flow is smooth,
first at fronts.
Source: LeVeque (2002), Finite Volume Methods for Hyperbolic Problems, sections 6.9 and 12.5, for limiter and flux;
Gottlieb, Shu, Tadmor (2001), SIAM Rev. 43, 89-112, for the stages.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

LEAST_DEPTH = 0.1  # velocities are momenta over no less, so that rough states have one
FASTEST, COURANT = 2.0, 0.4  # waves of this speed pass this part of a cell in a step
ACROSS_X, ACROSS_Y = (1.0, -1.0, 1.0), (1.0, 1.0, -1.0)  # signs of depth and momenta in a mirror across an axis
State = Float[Array, "x y 3"]


def velocities(states: Float[Array, "*batch 3"]) -> Float[Array, "*batch 2"]:
    """Momenta over depth."""
    return states[..., 1:] / jnp.maximum(states[..., :1], LEAST_DEPTH)


def turned(states: Float[Array, "*batch x y 3"]) -> Float[Array, "*batch y x 3"]:
    """The same flow with x and y exchanged."""
    return jnp.swapaxes(states, -3, -2)[..., np.array([0, 2, 1])]


def _flux_along_x(states: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
    along = velocities(states)[..., :1] * states
    pressure = 0.5 * states[..., 0] ** 2
    return jnp.stack([states[..., 1], along[..., 1] + pressure, along[..., 2]], axis=-1)


def _fastest_along_x(states: Float[Array, "*batch 3"]) -> Float[Array, "*batch 1"]:
    return jnp.abs(velocities(states)[..., :1]) + jnp.sqrt(jnp.maximum(states[..., :1], LEAST_DEPTH))


def limited_slope(before: Float[Array, "*shape"], after: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The mean of two differences, no more than twice the smaller one; zero where their signs differ."""
    size = jnp.minimum(2 * jnp.minimum(jnp.abs(before), jnp.abs(after)), 0.5 * jnp.abs(before + after))
    return jnp.where(before * after > 0, jnp.sign(before) * size, 0)


def _gain_along_x(state: State) -> State:
    """What the fluxes through the faces across x bring into each cell, walls at both ends."""
    mirror = jnp.asarray(ACROSS_X, state.dtype)
    cells = jnp.concatenate([mirror * state[1::-1], state, mirror * state[:-3:-1]])
    change = jnp.diff(cells, axis=0)
    half = 0.5 * limited_slope(change[:-1], change[1:])
    left, right = (cells[1:-1] + half)[:-1], (cells[1:-1] - half)[1:]
    speed = jnp.maximum(_fastest_along_x(left), _fastest_along_x(right))
    flux = 0.5 * (_flux_along_x(left) + _flux_along_x(right) - speed * (right - left))
    return -jnp.diff(flux, axis=0)


def shallow_water_rate(state: State, spacing: float) -> State:
    """Rates of depth and momenta in square cells."""
    return (_gain_along_x(state) + turned(_gain_along_x(turned(state)))) / spacing


def solve_shallow_water(initial: State, num_frames: int, duration: float, spacing: float) -> Float[Array, "time x y 3"]:
    """Solution at evenly spaced frames.

    Args:
      initial: depth and momenta in the cells, at least two along each axis.
      num_frames: frames, both ends included.
      duration: time of the last frame.
      spacing: of the cells.
    Returns:
      depth and momenta at all frames; stable while no wave is faster than 1.2 `FASTEST`.
    """
    interval = duration / (num_frames - 1)
    steps = math.ceil(interval * FASTEST / (COURANT * spacing))
    dt = interval / steps

    def step(state: Array, _: None) -> tuple[Array, None]:
        euler = state + dt * shallow_water_rate(state, spacing)
        return 0.5 * (state + euler + dt * shallow_water_rate(euler, spacing)), None

    def frame(state: Array, _: None) -> tuple[Array, Array]:
        ends, _ = jax.lax.scan(step, state, None, length=steps)
        return ends, ends

    _, later = jax.lax.scan(frame, initial, None, length=num_frames - 1)
    return jnp.concatenate([initial[None], later])
