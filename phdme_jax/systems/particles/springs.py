"""Particles on springs of no length: x_i'' = -k sum_j A_ij (x_i - x_j), A_ij = A_ji zero or one with even odds.

    x_i ~ N(0, scale^2) per axis,   |v_i| = speed in an even direction,   first frame after one time between frames
    v <- v - dt K x,   x <- x + dt v,   K = k (diag(A 1) - A)

The published generator repeats the step; both lines are linear, and here a power of their matrix makes a frame, the
same numbers to rounding. The published box, whose walls two thousand of its trajectories never reached, is left out.
Source: Kipf et al. (2018), arXiv 1802.04687, section 5.1, for the world; Han et al. (2024), arXiv 2410.13027, for the
same in three dimensions.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from phdme_jax.numerics.bound import Bound
from phdme_jax.systems.equations.base import Equations
from phdme_jax.systems.particles.base import (
    Motion,
    World,
    distinct_pairs,
    make_trajectories,
    separations,
)

STEPS = 100  # of the scheme between frames
SCALE, SPEED = 0.5, 0.5


def start_motion(dimension: int, count: int, scale: float, speed: float, key: Array) -> Motion:
    """Normal positions, and velocities of one size in even directions."""
    place_key, direction_key = jax.random.split(key)
    position = scale * jax.random.normal(place_key, (count, dimension))
    direction = jax.random.normal(direction_key, (count, dimension))
    return Motion(position, speed * direction / jnp.linalg.norm(direction, axis=-1, keepdims=True))


def frame_matrix(
    coupling: Float[Array, "particle particle"], stiffness: float, interval: float
) -> Float[Array, "state state"]:
    """What a frame is times of the positions and velocities of the frame before, along each axis."""
    dt, one = interval / STEPS, jnp.eye(len(coupling), dtype=coupling.dtype)
    force = stiffness * (jnp.diag(jnp.sum(coupling, axis=1)) - coupling)
    step = jnp.block([[one - dt**2 * force, dt * one], [-dt * force, one]])
    return jnp.linalg.matrix_power(step, STEPS)


def _advance(stiffness: float, interval: float, coupling: Array) -> Callable[[Motion], Motion]:
    matrix = frame_matrix(coupling, stiffness, interval)

    def ahead(motion: Motion) -> Motion:
        state = jnp.matmul(matrix, jnp.concatenate(motion), precision="highest")
        return Motion(*jnp.split(state, 2))

    return ahead


def _potential(stiffness: float, position: Array, coupling: Array) -> Array:
    square = jnp.sum(separations(position) ** 2, axis=-1)
    return 0.5 * stiffness * jnp.sum(distinct_pairs(len(position)) * coupling * square)


def _terms(position: Array, coupling: Array) -> Float[Array, "particle particle"]:
    return coupling * jnp.sum(separations(position) ** 2, axis=-1)


def _initial(dimension: int, count: int, stiffness: float, interval: float, key: Array) -> tuple[Motion, Array]:
    motion_key, pair_key = jax.random.split(key)
    drawn = distinct_pairs(count) * jax.random.bernoulli(pair_key, 0.5, (count, count))
    coupling = drawn + drawn.T
    return _advance(stiffness, interval, coupling)(start_motion(dimension, count, SCALE, SPEED, motion_key)), coupling


def make_springs(
    num_particles: int = 5,
    num_frames: int = 20,
    dimension: int = 2,
    interval: float = 0.1,
    stiffness: float = 0.1,
) -> Equations:
    """Particles on springs, which of them hang together being given.

    Args:
      num_particles: of them.
      num_frames: frames; the published world has 49.
      dimension: two or three.
      interval: time between frames.
      stiffness: k.
    Returns:
      the equations, see `make_trajectories`. The energy is that of the exact motion; the scheme, of first order, moves
      it by some 1e-4.
    """
    world = World(
        initial=Bound(_initial, dimension, num_particles, stiffness, interval),
        advance=Bound(_advance, stiffness, interval),
        potential=Bound(_potential, stiffness),
        terms=_terms,
        coupled=True,
        convex=True,
    )
    return make_trajectories("five_springs", world, dimension, num_particles, num_frames, interval)
