"""Bodies that attract each other, masses and the constant of gravity one: three on a plane, and a softened cloud.

    x_i'' = -sum_j (x_i - x_j) / (|x_i - x_j|^2 + s^2)^(3/2)

`three_body`: the corners of an equilateral triangle at a distance of 0.9 to 1.2 from its middle, at the speed at which
they would circle it, each component of the velocities changed by up to a fifth; s = 0, by a
composition of leapfrogs of sixth order. The
momentum that this leaves is removed, and the whole is turned, mirrored and its bodies put in another order at random,
which the published law is not: its bodies circle one way, numbered in that order, and its disturbance knows the axes.
`gravity`: normal positions and velocities without momentum, s = 0.1, by the leapfrog with which it was published.
Source: Greydanus et al. (2019), arXiv 1906.01563, appendix A, for the first; Han et al. (2024), arXiv 2410.13027, for
the second.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phdme_jax.numerics.bound import Bound
from phdme_jax.systems.equations.base import Equations
from phdme_jax.systems.particles.base import (
    NEAREST,
    Motion,
    World,
    distances,
    distinct_pairs,
    draw_element,
    make_trajectories,
    separations,
)

RADII, DISTURBANCE = (0.9, 1.2), 0.2
STEPS = 100  # of the leapfrog between frames
SOFTENING = 0.1


def attraction(softening: float, position: Float[Array, "particle axis"]) -> Float[Array, "particle axis"]:
    """Acceleration of each body."""
    between = separations(position)
    square = jnp.sum(between**2, axis=-1) + softening**2 + jnp.eye(len(position), dtype=position.dtype)
    return -jnp.sum(between / (square * jnp.sqrt(square))[..., None], axis=1)


def _potential(softening: float, position: Array, coupling: Array) -> Array:
    del coupling
    size = jnp.sqrt(distances(position) ** 2 + softening**2)
    return -jnp.sum(distinct_pairs(len(position)) / size)


def _terms(softening: float, position: Array, coupling: Array) -> Float[Array, "particle particle"]:
    del coupling
    size = jnp.sqrt(distances(position) ** 2 + softening**2)
    return (1.0 - jnp.eye(len(position), dtype=position.dtype)) / jnp.maximum(size, NEAREST)


# Kahan and Li (1997), Math. Comput. 66, 1089-1099, table 3: a symmetric composition of nine leapfrogs of sixth order,
# the first four, of which the last mirrors and the middle makes the sum one
_STAGES = (0.39216144400731413927925056, 0.33259913678935943859974864, -0.70624617255763935980996482,
           0.082213596293550800230149045)  # fmt: skip
_FRACTIONS = (*_STAGES, 1 - 2 * sum(_STAGES), *reversed(_STAGES))


def composed_leapfrog(
    acceleration: Callable[[Array], Array], dt: float, steps: int, motion: Motion, fractions: tuple[float, ...] = (1.0,)
) -> Motion:
    """Steps made of leapfrogs over fractions of them: half a kick, a drift, half a kick.

    Args:
      acceleration: of positions.
      dt: length of a step.
      steps: of them.
      motion: where it begins.
      fractions: of a step, with sum one.
    Returns:
      the motion after the steps.
    """
    kicks = [0.5 * (left + right) for left, right in zip((0.0, *fractions), (*fractions, 0.0), strict=True)]

    def step(_: Array, carried: tuple[Motion, Array]) -> tuple[Motion, Array]:
        (position, velocity), pull = carried
        for kick, drift in zip(kicks, fractions, strict=False):
            velocity = velocity + kick * dt * pull
            position = position + drift * dt * velocity
            pull = acceleration(position)
        return Motion(position, velocity + kicks[-1] * dt * pull), pull

    return jax.lax.fori_loop(0, steps, step, (motion, acceleration(motion.position)))[0]


def _leapt(interval: float, softening: float, steps: int, fractions: tuple[float, ...], coupling: Array) -> Any:
    del coupling
    pull = Bound(attraction, softening)
    return lambda motion: composed_leapfrog(pull, interval / steps, steps, motion, fractions)


def _at_rest(velocity: Float[Array, "particle axis"]) -> Float[Array, "particle axis"]:
    return velocity - jnp.mean(velocity, axis=0)


def _triangle(key: Array) -> tuple[Motion, Array]:
    radius_key, phase_key, disturbance_key, element_key = jax.random.split(key, 4)
    radius = jax.random.uniform(radius_key, (), minval=RADII[0], maxval=RADII[1])
    phase = jax.random.uniform(phase_key, (), maxval=2 * np.pi) + 2 * np.pi * np.arange(3) / 3
    outward = jnp.stack([jnp.cos(phase), jnp.sin(phase)], axis=-1)
    across = jnp.stack([-outward[:, 1], outward[:, 0]], axis=-1)
    circling = across * jnp.sqrt(1 / np.sqrt(3) / radius)
    factor = 1 + DISTURBANCE * jax.random.uniform(disturbance_key, (3, 2), minval=-1.0)
    element = draw_element(2, 3, element_key)
    parts = radius * outward, _at_rest(factor * circling)
    return Motion(*(part[element.order] @ element.rotation.T for part in parts)), jnp.ones((3, 3), radius.dtype)


def _cloud(dimension: int, count: int, key: Array) -> tuple[Motion, Array]:
    position, velocity = jax.random.normal(key, (2, count, dimension))
    return Motion(position, _at_rest(velocity)), jnp.ones((count, count), position.dtype)


def make_three_body(num_frames: int = 20, duration: float = 5.0, steps: int = 40) -> Equations:
    """Three bodies on a plane, close to circling each other.

    Args:
      num_frames: frames, the first included.
      duration: time of the last.
      steps: of sixth order, nine forces each, between frames.
    Returns:
      the equations, see `make_trajectories`; no coupling is given, as all bodies are alike.
    Raises:
      ValueError: no steps.
    """
    if steps < 1:
        raise ValueError(f"expected at least one step between frames, got {steps}; try 40")
    interval = duration / (num_frames - 1)
    world = World(
        initial=_triangle,
        advance=Bound(_leapt, interval, 0.0, steps, _FRACTIONS),
        potential=Bound(_potential, 0.0),
        terms=Bound(_terms, 0.0),
        at_rest=True,
    )
    return make_trajectories("three_body", world, 2, 3, num_frames, interval)


def make_gravity(num_particles: int = 10, num_frames: int = 20, dimension: int = 3, interval: float = 0.1) -> Equations:
    """A cloud of bodies that attract each other, softened.

    Args:
      num_particles: of them.
      num_frames: frames, the first included.
      dimension: two or three.
      interval: time between frames.
    Returns:
      the equations, see `make_trajectories`. The energy is that of the softened force, not of 1 / r as published code
      prints it.
    """
    world = World(
        initial=Bound(_cloud, dimension, num_particles),
        advance=Bound(_leapt, interval, SOFTENING, STEPS, (1.0,)),
        potential=Bound(_potential, SOFTENING),
        terms=Bound(_terms, SOFTENING),
        at_rest=True,
    )
    return make_trajectories("gravity", world, dimension, num_particles, num_frames, interval)
