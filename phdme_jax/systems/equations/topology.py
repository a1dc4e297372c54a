"""Topology optimisation: the stiffest plane body of a given volume under given supports and one load.

    min_rho  u^T K(E) u,   K(E) u = f,   mean rho = volume fraction,   E = E_void + (1 - E_void) rho^3 while optimising

Examples are optimised by SIMP with optimality criteria, then made black and white, with the displacements of the black
and white body. Fields and conditions live at the nodes of a mesh of unit squares; the density of a square is kept at
its corner of lowest coordinates, and the last row and column of that channel are zero.
Source: Bendsoe and Sigmund (2003), Topology Optimization, sections 1.2 and 1.3.1; conditions as in Maze and Ahmed
(2023), arXiv 2208.09591; equations as in Bastek, Sun, Kochmann (2024), arXiv 2403.14404, section 4.2.
"""

from itertools import combinations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from phdme_jax.numerics.bound import Bound
from phdme_jax.numerics.grid import Grid
from phdme_jax.systems.equations import elasticity
from phdme_jax.systems.equations.base import Equations, Residuals, Sample

STIFFNESS_VOID = 1e-3
PENALTY = 3
VOLUME_FRACTIONS = tuple(np.linspace(0.30, 0.50, 11).round(2))
NUM_DIRECTIONS = 12
MOVE = 0.2
FIELDS = ("displacement_x", "displacement_y", "density")
CONDITIONS = (
    "volume_fraction", "strain_energy", "von_mises", "support_x", "support_y", "load_x", "load_y",
    "full_displacement_x", "full_displacement_y",
)  # fmt: skip


class Task(NamedTuple):
    """What a body is asked for; arrays only."""

    fixed: Float[Array, "x y 2"]
    load: Float[Array, "x y 2"]
    volume_fraction: Float[Array, ""]


def support_masks(num_squares: int, unseen: bool = False) -> np.ndarray:
    """Sets of nodes that are held, shape (support, nodes, nodes): 42 to learn from or 5 others.

    To learn from: one side, half a side from a corner, two of the corners and middles of sides, two opposite sides.
    Others: three corners, all four.
    """
    last, half = num_squares, num_squares // 2
    whole, first, second = range(last + 1), range(half + 1), range(half, last + 1)

    def side(number: int, along: range) -> list[tuple[int, int]]:
        return [((0, i), (last, i), (i, 0), (i, last))[number] for i in along]

    corners = [(0, 0), (0, last), (last, 0), (last, last)]
    middles = [(0, half), (last, half), (half, 0), (half, last)]
    if unseen:
        sets = [list(three) for three in combinations(corners, 3)] + [corners]
    else:
        sets = [side(number, along) for number in range(4) for along in (whole, first, second)]
        sets += [list(two) for two in combinations(corners + middles, 2)]
        sets += [side(0, whole) + side(1, whole), side(2, whole) + side(3, whole)]
    masks = np.zeros((len(sets), last + 1, last + 1), bool)
    for mask, nodes in zip(masks, sets, strict=True):
        mask[tuple(np.array(nodes).T)] = True
    return masks


def draw_task(key: Array, num_squares: int, unseen: bool = False) -> Task:
    """A support, a load on one free node of the boundary in one of twelve directions, and a volume fraction.

    Args:
      key: random key.
      num_squares: squares along each side.
      unseen: whether the support is of the five others.
    Returns:
      the task.
    """
    masks = jnp.asarray(support_masks(num_squares, unseen))
    support, place, angle, volume = jax.random.split(key, 4)
    held = masks[jax.random.randint(support, (), 0, masks.shape[0])]
    edge = np.zeros((num_squares + 1, num_squares + 1), bool)
    edge[[0, -1]] = edge[:, [0, -1]] = True
    free = (jnp.asarray(edge) & ~held).ravel()
    node = jax.random.categorical(place, jnp.where(free, 0.0, -jnp.inf))
    turn = jax.random.randint(angle, (), 0, NUM_DIRECTIONS) * (2.0 * np.pi / NUM_DIRECTIONS)
    fractions = jnp.asarray(VOLUME_FRACTIONS)
    fraction = fractions[jax.random.randint(volume, (), 0, fractions.shape[0])]
    there = (jnp.arange(free.shape[0]) == node).reshape(held.shape)
    load = there[..., None] * jnp.stack([jnp.cos(turn), jnp.sin(turn)]).astype(fraction.dtype)
    return Task(jnp.stack([held, held], -1).astype(fraction.dtype), load, fraction)


def _filter_weights(radius: float) -> np.ndarray:
    reach = int(np.ceil(radius)) - 1
    line = np.arange(-reach, reach + 1)
    return np.maximum(radius - np.hypot(line[:, None], line), 0.0)


def _smoothed(field: Float[Array, "ex ey"], radius: float) -> Float[Array, "ex ey"]:
    """Sum over the neighbours of each square, weighted by the radius less their distance."""
    weights = jnp.asarray(_filter_weights(radius), field.dtype)
    return jax.scipy.signal.convolve2d(field, weights, mode="same")


def optimise(
    task: Task, num_iterations: int = 60, radius: float = 1.5
) -> tuple[Float[Array, "ex ey"], Float[Array, " iteration"]]:
    """Densities of the stiffest body, by SIMP with filtered sensitivities and optimality criteria.

        rho <- clip(rho sqrt(-dc/drho / lambda)),  at most 0.2 from before,  lambda so that the volume is kept

    Args:
      task: what is asked for.
      num_iterations: steps, one equilibrium each.
      radius: of the filter of the sensitivities [squares].
    Returns:
      densities between 0.001 and 1, and the compliance before each step.
    Source: Bendsoe and Sigmund (2003), equations 1.12 and 1.18.
    """
    shape = (task.load.shape[0] - 1, task.load.shape[1] - 1)
    start = jnp.broadcast_to(task.volume_fraction, shape)
    normal = _smoothed(jnp.ones_like(start), radius)

    def step(density: Array, _: None) -> tuple[Array, Array]:
        stiffness = penalised_stiffness(density)
        displacement = elasticity.solve_equilibrium(stiffness, task.load, task.fixed)
        unit = 2.0 * elasticity.strain_energy(displacement)
        gain = PENALTY * (1.0 - STIFFNESS_VOID) * density ** (PENALTY - 1) * unit
        gain = _smoothed(density * gain, radius) / (normal * density)

        def updated(log_multiplier: Array) -> Array:
            new = density * jnp.sqrt(gain * jnp.exp(-log_multiplier))
            return jnp.clip(jnp.clip(new, density - MOVE, density + MOVE), 1e-3, 1.0)

        def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = ends
            middle = 0.5 * (low + high)
            heavy = jnp.mean(updated(middle)) > task.volume_fraction
            return jnp.where(heavy, middle, low), jnp.where(heavy, high, middle)

        # at these ends every square has made its whole move
        largest = jnp.log(jnp.max(gain))
        low, high = jax.lax.fori_loop(0, 50, halve, (largest - 100.0, largest + 10.0))
        return updated(0.5 * (low + high)), jnp.sum(stiffness * unit)

    return jax.lax.scan(step, start, None, length=num_iterations)


def penalised_stiffness(density: Float[Array, "ex ey"]) -> Float[Array, "ex ey"]:
    """E_void + (1 - E_void) rho^3."""
    return STIFFNESS_VOID + (1.0 - STIFFNESS_VOID) * density**PENALTY


def linear_stiffness(density: Float[Array, "ex ey"]) -> Float[Array, "ex ey"]:
    """E_void + (1 - E_void) rho, what a finished body is judged by."""
    return STIFFNESS_VOID + (1.0 - STIFFNESS_VOID) * density


def black_and_white(density: Float[Array, "ex ey"], volume_fraction: Float[Array, ""]) -> Float[Array, "ex ey"]:
    """One in the densest squares, as many as the volume fraction allows, zero in the others."""
    flat = density.ravel()
    rank = jnp.argsort(jnp.argsort(-flat))
    return (rank < jnp.round(volume_fraction * flat.size)).astype(density.dtype).reshape(density.shape)


def connected_to(solid: Bool[Array, "ex ey"], start: Bool[Array, "ex ey"]) -> Bool[Array, "ex ey"]:
    """Solid squares that a walk over sides and corners of solid squares reaches from the start."""

    def grow(reached: Array) -> Array:
        padded = jnp.pad(reached, 1)
        nx, ny = reached.shape
        near = [padded[a : a + nx, b : b + ny] for a in range(3) for b in range(3)]
        return solid & jnp.any(jnp.stack(near), axis=0)

    def going(state: tuple[Array, Array]) -> Array:
        return jnp.any(state[0] != state[1])

    start = solid & start
    _, reached = jax.lax.while_loop(going, lambda state: (state[1], grow(state[1])), (jnp.zeros_like(start), start))
    return reached


def to_nodes(squares: Float[Array, "ex ey"]) -> Float[Array, "x y"]:
    """Mean over the squares around each node."""
    padded = jnp.pad(squares, 1)
    count = jnp.pad(jnp.ones_like(squares), 1)
    total, number = (a[:-1, :-1] + a[1:, :-1] + a[:-1, 1:] + a[1:, 1:] for a in (padded, count))
    return total / number


def conditions(task: Task) -> Float[Array, "x y 9"]:
    """Channels that tell a network the task: volume, energy and stress of the full body, supports, load.

    The displacements of the full body, which are not among the published channels, come last.
    """
    full = jnp.ones((task.load.shape[0] - 1, task.load.shape[1] - 1), task.load.dtype)
    displacement = elasticity.solve_equilibrium(full, task.load, task.fixed)
    energy, stress = elasticity.strain_energy(displacement), elasticity.von_mises(displacement)
    volume = jnp.broadcast_to(task.volume_fraction, task.load.shape[:2])
    parts = [volume, to_nodes(energy), to_nodes(stress)]
    return jnp.concatenate([jnp.stack(parts, -1), task.fixed, task.load, displacement], axis=-1)


def task_of(condition: Float[Array, "x y 9"]) -> Task:
    """The task that the channels tell."""
    return Task(condition[..., 3:5], condition[..., 5:7], condition[0, 0, 0])


def draw_topology(key: Array, num_squares: int, num_iterations: int, unseen: bool) -> Sample:
    """One optimised body with its displacements.

    Its `ok` is false where it came out in pieces or without hold.
    """
    task = draw_task(key, num_squares, unseen)
    density, _ = optimise(task, num_iterations)
    solid = black_and_white(density, task.volume_fraction)
    stiffness = linear_stiffness(solid)
    displacement = elasticity.solve_equilibrium(stiffness, task.load, task.fixed)
    loaded = jnp.any(elasticity.corner_values(task.load) != 0, axis=(2, 3))
    held = jnp.any(elasticity.corner_values(task.fixed) > 0, axis=(2, 3))
    reached = connected_to(solid > 0.5, loaded)
    whole = jnp.all(reached == (solid > 0.5)) & jnp.any(reached & held)
    fields = jnp.concatenate([displacement, jnp.pad(solid, ((0, 1), (0, 1)))[..., None]], axis=-1)
    return Sample(fields, conditions(task), whole & jnp.all(jnp.isfinite(fields)))


def topology_residual(fields: Float[Array, "x y 3"], condition: Float[Array, "x y 9"]) -> Residuals:
    """Force out of balance in x and y at the nodes, displacements where they are held."""
    task = task_of(condition)
    stiffness = linear_stiffness(fields[:-1, :-1, 2])
    residual = elasticity.equilibrium_residual(fields[..., :2], stiffness, task.load, task.fixed)
    return {"balance_x": residual[..., 0], "balance_y": residual[..., 1]}


def _resolve(fields: Array, condition: Array) -> Array:
    task = task_of(condition)
    displacement = elasticity.solve_equilibrium(linear_stiffness(fields[:-1, :-1, 2]), task.load, task.fixed)
    return jnp.concatenate([displacement, fields[..., 2:]], axis=-1)


def log_compliance(fields: Float[Array, "x y 3"], condition: Float[Array, "x y 9"]) -> Float[Array, ""]:
    """Logarithm of the compliance at the equilibrium of the density, whatever the displacements, and its true slope.

        c = max_u 2 f . u - u^T K(rho) u,   so that dc/drho = -u^T dK/drho u at the equilibrium u

    The stiffness is the penalised one of the examples' optimiser, which is that of the finished body where a square is
    full or empty, and asks for such squares. No slope goes through the solution, which is the maximum. Zero, without
    slope, for a body that cannot be solved.

    Args:
      fields: density between 0 and 1; displacements are not read.
      condition: what tells the task.
    Returns:
      log c.
    """
    task = task_of(condition)
    stiffness = penalised_stiffness(fields[:-1, :-1, 2])
    solved = elasticity.solve_equilibrium(jax.lax.stop_gradient(stiffness), task.load, task.fixed)
    usable = jnp.all(jnp.isfinite(solved))
    solved = jnp.where(usable, solved, 0.0)
    compliance = 2.0 * jnp.sum(task.load * solved) - elasticity.compliance(solved, stiffness)
    usable = usable & (compliance > 0.0)
    return jnp.where(usable, jnp.log(jnp.where(usable, compliance, 1.0)), 0.0)


def _excess_volume(fields: Array, condition: Array) -> Array:
    return jnp.mean(fields[:-1, :-1, 2]) - condition[0, 0, 0]


def _compliance(fields: Array, condition: Array) -> Array:
    del condition
    return elasticity.compliance(fields[..., :2], linear_stiffness(fields[:-1, :-1, 2]))


def make_topology(num_squares: int = 64, num_iterations: int = 60, unseen_supports: bool = False) -> Equations:
    """Stiffest bodies of given volume, support and load.

    Args:
      num_squares: squares along each side of the mesh, even.
      num_iterations: steps of the optimiser of the examples.
      unseen_supports: whether examples have the supports that are not learned from.
    Returns:
      the equations; fields displacement_x, displacement_y [sides of a square], density; nine conditions.
    Raises:
      ValueError: odd number of squares.
    """
    if num_squares % 2:
        raise ValueError(f"expected an even number of squares, got {num_squares}; try {num_squares + 1}")

    return Equations(
        name="topology",
        grid=Grid((num_squares + 1,) * 2, (float(num_squares),) * 2),
        fields=FIELDS,
        units=("1", "1", "1"),
        conditions=CONDITIONS,
        cell_fields=("density",),
        residual=topology_residual,
        draw=Bound(draw_topology, num_squares=num_squares, num_iterations=num_iterations, unseen=unseen_supports),
        resolve=_resolve,
        num_solution=2,
        inequality=_excess_volume,
        objective=_compliance,
        solved_objective=log_compliance,
    )
