"""What all trajectories of particles share: their layout, their symmetry, their invariants, an exact projection.

A trajectory is a field over frames and particles, (time, particle, field), whose fields are the D coordinates of the
position and after them those of the velocity. Masses are one. What couples particles is given as a condition, channel
j of particle i being that of the pair, the same in all frames. Positions are told from their mean over frames and
particles: of a law that does not change under translations nothing else has a distribution.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phdme_jax.numerics.bound import Bound
from phdme_jax.numerics.grid import Grid
from phdme_jax.systems.equations.base import Equations, Residuals, Sample
from phdme_jax.systems.priors import Feasibility, Priors, Symmetry

AXES = ("x", "y", "z")
NEAREST = 0.1  # distance below which a term 1 / r counts as one of this distance, in penalties


class Motion(NamedTuple):
    """Where particles are and how fast, of any number of frames.

    Attributes:
      position: (*time, particle, D).
      velocity: of the same shape.
    """

    position: Float[Array, "*time particle axis"]
    velocity: Float[Array, "*time particle axis"]


Potential = Callable[[Array, Array], Array]  # (position (particle, D), coupling (particle, particle)) -> energy
Advance = Callable[[Array], Callable[[Motion], Motion]]  # coupling -> one frame on
Terms = Callable[[Array, Array], Array]  # (position, coupling) -> terms whose weighted sum is the potential energy


def motion_of(fields: Float[Array, "*time particle field"]) -> Motion:
    """Positions and velocities of a trajectory or a frame."""
    position, velocity = jnp.split(fields, 2, axis=-1)
    return Motion(position, velocity)


def fields_of(motion: Motion) -> Float[Array, "*time particle field"]:
    """The fields of positions and velocities."""
    return jnp.concatenate(motion, axis=-1)


def coupling_of(
    fields: Float[Array, "time particle field"], condition: Float[Array, "time particle channel"]
) -> Float[Array, "particle particle"]:
    """Coupling of each pair; ones where nothing is given, as all pairs are alike."""
    count = fields.shape[-2]
    return condition[0] if condition.shape[-1] else jnp.ones((count, count), fields.dtype)


def centred(fields: Float[Array, "time particle field"]) -> Float[Array, "time particle field"]:
    """The trajectory with positions told from their mean over frames and particles."""
    position, velocity = motion_of(fields)
    return fields_of(Motion(position - jnp.mean(position, axis=(0, 1)), velocity))


def separations(position: Float[Array, "particle axis"]) -> Float[Array, "particle particle axis"]:
    """Position of each particle told from each other's."""
    return position[:, None] - position[None]


def distances(position: Float[Array, "particle axis"]) -> Float[Array, "particle particle"]:
    """Distance of each pair; one for a particle and itself, so that all slopes are finite."""
    square = jnp.sum(separations(position) ** 2, axis=-1)
    return jnp.sqrt(square + jnp.eye(len(position), dtype=position.dtype))


def distinct_pairs(count: int) -> Float[np.ndarray, "particle particle"]:
    """One for each pair counted once, zero elsewhere."""
    return np.triu(np.ones((count, count)), 1)


def energy_of(potential: Potential, fields: Array, condition: Array) -> Float[Array, "time"]:
    """Kinetic and potential energy of each frame."""
    motion, coupling = motion_of(fields), coupling_of(fields, condition)
    kinetic = 0.5 * jnp.sum(motion.velocity**2, axis=(-2, -1))
    return kinetic + jax.vmap(potential, (0, None))(motion.position, coupling)


def momentum_of(fields: Array, condition: Array) -> Float[Array, "time axis"]:
    """Total momentum of each frame."""
    del condition
    return jnp.sum(motion_of(fields).velocity, axis=-2)


def _unsteady(values: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
    return values - jnp.mean(values, axis=0)


def _momentum_terms(at_rest: bool, predicted: Array, clean: Array, condition: Array) -> Array:
    del clean
    found = momentum_of(predicted, condition)
    return found if at_rest else _unsteady(found)


def steadily_moving(interval: float, at_rest: bool, fields: Float[Array, "time particle field"]) -> Array:
    """The trajectory whose centre moves at one speed, and whose mean velocity is that speed; linear in the fields.

        V = sum_l (V_l + (t_l - t) X_l) / sum_l (1 + (t_l - t)^2),   X_l <- X + V (t_l - t),   V_l <- V

    X_l, V_l are means over the particles and X, t means over the frames: least squares, positions and velocities
    weighing alike. Where the momentum is zero V is.

    Args:
      interval: time between frames.
      at_rest: whether the momentum is zero.
      fields: of a trajectory.
    """
    motion = motion_of(fields)
    centre, drift = (jnp.mean(part, axis=1, keepdims=True) for part in motion)
    frames = len(fields)
    time = (interval * (np.arange(frames) - 0.5 * (frames - 1)))[:, None, None].astype(fields.dtype)
    speed = jnp.sum(drift + time * centre, axis=0, keepdims=True) / np.sum(1.0 + time**2)
    speed = jnp.zeros_like(speed) if at_rest else speed
    path = jnp.mean(centre, axis=0, keepdims=True) + time * speed
    return fields_of(Motion(motion.position + (path - centre), motion.velocity + (speed - drift)))


def led_by(
    fields: Float[Array, "time particle field"], line: Float[Array, "time particle field"]
) -> Float[Array, "time particle field"]:
    """The trajectory moved so that its centre and its mean velocity are in each frame those of another."""
    motion, other = motion_of(fields), motion_of(line)
    parts = zip(motion, other, strict=True)
    return fields_of(Motion(*(part + jnp.mean(goal - part, axis=1, keepdims=True) for part, goal in parts)))


def _energy_terms(potential: Potential, predicted: Array, clean: Array, condition: Array) -> Array:
    return energy_of(potential, predicted, condition) - energy_of(potential, clean, condition)


def _square_speeds(fields: Array) -> Float[Array, "time particle"]:
    return jnp.sum(motion_of(fields).velocity ** 2, axis=-1)


def _potential_terms(terms: Terms, fields: Array, condition: Array) -> Float[Array, "time particle part"]:
    """Terms of the potential energy of each particle."""
    return jax.vmap(terms, (0, None))(motion_of(fields).position, coupling_of(fields, condition))


def _speed_terms(predicted: Array, clean: Array, condition: Array) -> Array:
    del condition
    return _square_speeds(predicted) - _square_speeds(clean)


def _pair_terms(terms: Terms, predicted: Array, clean: Array, condition: Array) -> Array:
    return _potential_terms(terms, predicted, condition) - _potential_terms(terms, clean, condition)


def _features(terms: Terms, predicted: Array, clean: Array, condition: Array) -> Float[Array, "time particle 2"]:
    """Squared speed of each particle, and the sum of its terms of the potential energy: two invariants a particle."""
    del predicted
    return jnp.stack([_square_speeds(clean), jnp.sum(_potential_terms(terms, clean, condition), axis=-1)], axis=-1)


class Element(NamedTuple):
    """An element of the group: an orthogonal matrix, and the new order of the particles."""

    rotation: Float[Array, "axis axis"]
    order: Array


def draw_element(dimension: int, count: int, key: Array) -> Element:
    """Even on the orthogonal matrices (Q of a normal matrix, columns with the signs of R) and on the orders."""
    matrix_key, order_key = jax.random.split(key)
    matrix, upper = jnp.linalg.qr(jax.random.normal(matrix_key, (dimension, dimension)))
    return Element(matrix * jnp.sign(jnp.diagonal(upper)), jax.random.permutation(order_key, count))


def act(element: Element, fields: Array, condition: Array) -> tuple[Array, Array]:
    """The trajectory turned, maybe mirrored, its particles in another order, and its coupling in that order."""
    rotation = element.rotation.astype(fields.dtype)
    turned = Motion(*(part[:, element.order] @ rotation.T for part in motion_of(fields)))
    moved = condition[:, element.order]
    return fields_of(turned), moved[..., element.order] if condition.shape[-1] else moved


def particle_symmetry(dimension: int, count: int, coupled: bool) -> Symmetry:
    """Rotations, reflections, orders of the particles and, by `centre`, translations."""
    mixed = tuple(tuple(range(start, start + dimension)) for start in (0, dimension))
    return Symmetry(
        name=f"E({dimension}) x S({count})",
        draw=Bound(draw_element, dimension, count),
        act=act,
        centre=centred,
        mixed=mixed,
        mixed_conditions=(tuple(range(count)),) if coupled else (),
    )


def projected(potential: Potential, fields: Array, condition: Array) -> Float[Array, "time particle field"]:
    """The trajectory with the same momentum and, where velocities can bear it, the same energy in all frames.

        v_i <- P / N + s_t (v_i - P_t / N),   s_t^2 = max(E - U_t - |P|^2 / 2N, 0) / K_t
        P, E means over the frames,   U_t the potential energy, K_t the kinetic energy of the motion around P_t / N

    Where the potential energy alone is more than E, or nothing moves around the mean, the particles are left at the
    speed of their mean and the energy is not E.
    """
    motion, coupling = motion_of(fields), coupling_of(fields, condition)
    count = fields.shape[-2]
    drift = jnp.mean(motion.velocity, axis=1, keepdims=True)
    around = motion.velocity - drift
    mean_drift = jnp.mean(drift, axis=0, keepdims=True)
    kinetic = 0.5 * jnp.sum(around**2, axis=(1, 2))
    stored = jax.vmap(potential, (0, None))(motion.position, coupling)
    moving = 0.5 * count * jnp.sum(mean_drift**2)
    target = jnp.mean(kinetic + 0.5 * count * jnp.sum(drift**2, axis=(1, 2)) + stored)
    moves = kinetic > 0
    scale = moves * jnp.sqrt(jnp.maximum(target - stored - moving, 0.0) / jnp.where(moves, kinetic, 1.0))
    return fields_of(Motion(motion.position, mean_drift + scale[:, None, None] * around))


def _residual(advance: Advance, interval: float, fields: Array, condition: Array) -> Residuals:
    """What each frame misses of the one that the frame before leads to, over the time between; zero at the first."""
    motion, coupling = motion_of(fields), coupling_of(fields, condition)
    before, after = (jax.tree.map(lambda part: part[cut], motion) for cut in (slice(None, -1), slice(1, None)))
    ahead = jax.vmap(advance(coupling))(before)
    missed = jax.tree.map(
        lambda left, right: jnp.pad((left - right) / interval, ((1, 0), (0, 0), (0, 0))), after, ahead
    )
    axes = AXES[: motion.position.shape[-1]]
    return {
        f"{name} {axis}": part[..., index]
        for name, part in zip(("position", "velocity"), missed, strict=True)
        for index, axis in enumerate(axes)
    }


def simulate(advance: Advance, start: Motion, coupling: Array, num_frames: int) -> Float[Array, "time particle field"]:
    """Frames from a first one."""
    ahead = advance(coupling)

    def frame(motion: Motion, _: None) -> tuple[Motion, Motion]:
        later = ahead(motion)
        return later, later

    _, later = jax.lax.scan(frame, start, None, length=num_frames - 1)
    return fields_of(jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, later))


def _resolve(advance: Advance, fields: Array, condition: Array) -> Array:
    """The motion computed anew from the trajectory's own first frame."""
    start = motion_of(fields[0])
    return simulate(advance, start, coupling_of(fields, condition), len(fields))


def _conserved(fields: Array, condition: Array) -> Float[Array, "later axis"]:
    found = momentum_of(fields, condition) / fields.shape[-2]
    return found[1:] - found[0]


def _draw(
    initial: Callable[[Array], tuple[Motion, Array]], advance: Advance, num_frames: int, coupled: bool, key: Array
) -> Sample:
    start, coupling = initial(key)
    fields = centred(simulate(advance, start, coupling, num_frames))
    count = fields.shape[1]
    channels = coupling if coupled else jnp.zeros((count, 0), fields.dtype)
    condition = jnp.broadcast_to(channels, (num_frames, *channels.shape))
    return Sample(fields, condition, jnp.all(jnp.isfinite(fields)))


class World(NamedTuple):
    """What tells particles apart from others; functions hashable.

    Attributes:
      initial: key -> first frame, and the coupling of each pair.
      advance: coupling -> one frame on.
      potential: energy.
      terms: of the potential energy, see `Terms`; of each particle, (particle, term).
      coupled: whether the coupling is given to methods, as it differs from example to example.
      convex: whether the energy is convex in the fields.
      at_rest: whether the total momentum is zero.
    """

    initial: Callable[[Array], tuple[Motion, Array]]
    advance: Advance
    potential: Potential
    terms: Terms
    coupled: bool = False
    convex: bool = False
    at_rest: bool = False


def make_trajectories(
    name: str, world: World, dimension: int, num_particles: int, num_frames: int, interval: float
) -> Equations:
    """Trajectories of particles as known equations.

    Args:
      name: name used in results.
      world: what moves them.
      dimension: D, two or three.
      num_particles: of them.
      num_frames: frames, the first included.
      interval: time between frames.
    Returns:
      the equations on (time, particle). The residual is the change that each frame misses of what follows from the
      frame before, over the time between. `resolve` is the motion from the own first frame.
    Raises:
      ValueError: another dimension, fewer than two particles or frames, or no time between frames.
    """
    if dimension not in (2, 3) or num_particles < 2 or num_frames < 2 or not interval > 0:
        raise ValueError(
            f"expected dimension 2 or 3, at least 2 particles and frames and a positive interval, got {dimension}, "
            f"{num_particles}, {num_frames} and {interval}"
        )
    axes = AXES[:dimension]
    steady = Bound(steadily_moving, interval, world.at_rest)
    linear = Feasibility("momentum", "linear", Bound(_momentum_terms, world.at_rest), steady, led_by)
    convex = Feasibility("energy", "convex", Bound(_energy_terms, world.potential))
    # one each: squared speeds and terms of the potential have sizes of their own
    speeds = Feasibility("kinetic", "reducible", _speed_terms)
    pairs = Feasibility("potential", "reducible", Bound(_pair_terms, world.terms))
    general = Feasibility("energy", "general", Bound(_features, world.terms))
    priors = Priors(
        symmetry=particle_symmetry(dimension, num_particles, world.coupled),
        feasibilities=(linear, *((convex,) if world.convex else ()), speeds, pairs, general),
        invariants=(("momentum", momentum_of), ("energy", Bound(energy_of, world.potential))),
        project=Bound(projected, world.potential),
    )
    return Equations(
        name=name,
        grid=Grid((num_frames, num_particles), (interval * (num_frames - 1), float(num_particles - 1))),
        fields=(*(f"position {axis}" for axis in axes), *(f"velocity {axis}" for axis in axes)),
        units=("1",) * (2 * dimension),
        conditions=tuple(f"coupling {number + 1}" for number in range(num_particles)) if world.coupled else (),
        residual=Bound(_residual, world.advance, interval),
        draw=Bound(_draw, world.initial, world.advance, num_frames, world.coupled),
        resolve=Bound(_resolve, world.advance),
        num_solution=2 * dimension,
        conserved=_conserved,
        affine_conserved=True,
        priors=priors,
        time_axis=0,
        particles=True,
    )
