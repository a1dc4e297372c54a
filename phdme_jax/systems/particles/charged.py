"""Charged particles: x_i'' = sum_j c_i c_j (x_i - x_j) / |x_i - x_j|^3, charges of one sign or the other, even odds.

    x_i ~ N(0, scale^2) per axis, scale = (N / 5)^(1/3),   |v_i| = 1/2,   v <- v + dt F(x),   x <- x + dt v

Opposite charges come close, and the published steps of 1/100 of the time between frames do not keep the energy then,
the less as forces are cut off at 100. The published cut is of each component of a particle's force, which knows the
axes and moves the momentum; here it is of the size of the force of a pair.
Source: Kipf et al. (2018), arXiv 1802.04687, section 5.1; Satorras et al. (2021), arXiv 2102.09844, in three
dimensions; Han et al. (2024), arXiv 2410.13027, whose trajectories these are.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from phdme_jax.numerics.bound import Bound
from phdme_jax.systems.equations.base import Equations
from phdme_jax.systems.particles.base import (
    NEAREST,
    Motion,
    World,
    distances,
    distinct_pairs,
    make_trajectories,
    separations,
)
from phdme_jax.systems.particles.springs import start_motion

STEPS = 100  # of the scheme between frames
SPEED, LARGEST = 0.5, 100.0


def repulsion(
    coupling: Float[Array, "particle particle"], position: Float[Array, "particle axis"]
) -> Float[Array, "particle axis"]:
    """Acceleration of each particle, the force of no pair larger than `LARGEST`."""
    distance = distances(position)
    size = jnp.minimum(1.0 / distance**2, LARGEST) / distance
    return jnp.sum((coupling * _other(coupling) * size)[..., None] * separations(position), axis=1)


def _other(coupling: Array) -> Array:
    return 1.0 - jnp.eye(len(coupling), dtype=coupling.dtype)


def _advance(interval: float, coupling: Array) -> Callable[[Motion], Motion]:
    dt = interval / STEPS

    def step(_: Array, motion: Motion) -> Motion:
        velocity = motion.velocity + dt * repulsion(coupling, motion.position)
        return Motion(motion.position + dt * velocity, velocity)

    return lambda motion: jax.lax.fori_loop(0, STEPS, step, motion)


def _potential(position: Array, coupling: Array) -> Array:
    return jnp.sum(distinct_pairs(len(position)) * coupling / distances(position))


def _terms(position: Array, coupling: Array) -> Float[Array, "particle particle"]:
    return coupling * _other(coupling) / jnp.maximum(distances(position), NEAREST)


def _initial(dimension: int, count: int, interval: float, key: Array) -> tuple[Motion, Array]:
    motion_key, charge_key = jax.random.split(key)
    charge = 2.0 * jax.random.bernoulli(charge_key, 0.5, (count,)) - 1.0
    coupling = charge[:, None] * charge[None]
    scale = (count / 5) ** (1 / 3)
    return _advance(interval, coupling)(start_motion(dimension, count, scale, SPEED, motion_key)), coupling


def make_charged(num_particles: int = 5, num_frames: int = 20, dimension: int = 3, interval: float = 0.1) -> Equations:
    """Charged particles, the product of the charges of each pair being given.

    Args:
      num_particles: of them.
      num_frames: frames; the published world has 49.
      dimension: two or three.
      interval: time between frames.
    Returns:
      the equations, see `make_trajectories`.
    """
    world = World(
        initial=Bound(_initial, dimension, num_particles, interval),
        advance=Bound(_advance, interval),
        potential=_potential,
        terms=_terms,
        coupled=True,
    )
    return make_trajectories("charged_particles", world, dimension, num_particles, num_frames, interval)
