"""Shallow water in a closed basin as a distributed port-Hamiltonian system, in one and two dimensions.

    z_t = -div e_v,   v_t = -grad e_z + viscosity lap e_v,   e = grad h,   e_v . n = 0 at the walls
    h(z, v) = (D + z) |v|^2 / 2 + g z^2 / 2,   e_z = |v|^2 / 2 + g z,   e_v = (D + z) v

with elevation z of the surface above rest, depth at rest D, and velocity v of an irrotational flow: in two dimensions
the vorticity term omega/(D + z) of J is left out, which is exact while curl v = 0. Viscosity acts on the discharge,
R = -viscosity lap on e_v, and takes energy out. Counted from the water at rest, state and efforts vanish at rest; the
energy differs from that of the depth by a multiple of the mass, which the basin keeps.
Source: van der Schaft and Maschke (2002), J. Geom. Phys. 42, 166-194, section 4.2 (structure); Ranocha et al. (2020),
SIAM J. Sci. Comput. 42, A612 (entropy as energy); Svaerd and Nordstroem (2014), J. Comput. Phys. 268, 17-38 (weak
walls).
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phdme_jax.numerics import quadrature, stencils
from phdme_jax.numerics.bound import Bound
from phdme_jax.numerics.grid import Grid
from phdme_jax.systems.energy.base import Parameters, Structure, System

VISCOSITY = "viscosity"


def water_density(state: Float[Array, "field"], gravity: float = 1.0, depth: float = 1.0) -> Float[Array, ""]:
    """Energy density (D + z) |v|^2/2 + g z^2/2 above water at rest."""
    elevation, velocity = state[0], state[1:]
    return 0.5 * (depth + elevation) * jnp.sum(velocity**2) + 0.5 * gravity * elevation**2


def _along(axis: int, function: Callable[[Array], Array], field: Array) -> Array:
    """Apply a function of the first axis along another one."""
    return jnp.moveaxis(function(jnp.moveaxis(field, axis, 0)), 0, axis)


def _walls_at_rest(field: Array, axis: int) -> Array:
    """A component of the velocity or discharge with zeros at the walls it meets."""
    return _along(axis, lambda values: values.at[jnp.array([0, -1])].set(0.0), field)


def _mirror_flow(efforts: Array, parameters: Parameters, *, spacing: tuple[float, ...], order: int) -> Array:
    head, axes = efforts[..., 0], range(len(spacing))
    discharge = [_walls_at_rest(efforts[..., 1 + axis], axis) for axis in axes]
    depth_rate, rates = jnp.zeros_like(head), []
    for axis in axes:
        slope = partial(stencils.mirror_derivative, spacing=spacing[axis], order=order)
        depth_rate = depth_rate - _along(axis, partial(slope, parity=-1), discharge[axis])
        rate = -_along(axis, partial(slope, parity=1), head)
        for other in axes:
            # free slip: a component is odd about the walls it meets and even about the others
            bend = partial(
                stencils.mirror_second_derivative, spacing=spacing[other], order=order, parity=1 - 2 * (other == axis)
            )
            rate = rate + parameters[VISCOSITY] * _along(other, bend, discharge[axis])
        rates.append(_walls_at_rest(rate, axis))
    return jnp.stack([depth_rate, *rates], axis=-1)


def _weak_flow(efforts: Array, parameters: Parameters, *, spacing: tuple[float, ...], order: int) -> Array:
    head, discharge = efforts[..., 0], efforts[..., 1]
    num_points = head.shape[0]
    slope = partial(stencils.sbp_derivative, spacing=spacing[0], order=order)
    weights = jnp.asarray(stencils.sbp_weights(num_points, spacing[0], order), head.dtype)
    # simultaneous approximation term: the flux through either wall is returned
    through = jnp.zeros_like(head).at[0].set(-discharge[0]).at[-1].set(discharge[-1])
    depth_rate = -slope(discharge) + through / weights
    matrix = jnp.asarray(stencils.sbp_matrix(num_points, spacing[0], order), head.dtype)
    inside = _walls_at_rest(discharge, 0)
    bending = _walls_at_rest(-(matrix.T @ (weights * slope(inside))) / weights, 0)
    return jnp.stack([depth_rate, -slope(head) + parameters[VISCOSITY] * bending], axis=-1)


def _trapezoid(grid: Grid) -> np.ndarray:
    lines = [quadrature.trapezoid_weights(n, h) for n, h in zip(grid.points, grid.spacing, strict=True)]
    return lines[0] if len(lines) == 1 else np.multiply.outer(*lines)


def _within_walls(state: Array) -> Array:
    walls = [_walls_at_rest(state[..., 1 + axis], axis) for axis in range(state.ndim - 1)]
    return jnp.stack([state[..., 0], *walls], axis=-1)


def _at_walls(state: Array) -> Array:
    ends = [jnp.moveaxis(state[..., 1 + axis], axis, 0)[jnp.array([0, -1])] for axis in range(state.ndim - 1)]
    return jnp.concatenate([jnp.ravel(end) for end in ends])


def shallow_water_structure(
    num_points: tuple[int, ...] = (64,),
    lengths: tuple[float, ...] = (1.0,),
    order: int = 4,
    closure: str = "mirror",
) -> Structure:
    """Operators of the closed basin.

    Args:
      num_points: grid points along each axis, walls included; one axis or two.
      lengths: of the basin.
      order: of the spatial stencils; 2, 4, 6, 8 with the mirror closure, 2 or 4 with the sbp closure.
      closure: "mirror" (elevation even and normal velocity odd about the walls), or in one dimension "sbp" (one-sided
        closures, walls imposed weakly by a simultaneous approximation term).
    Returns:
      the structure; fields are elevation and the components of the velocity.
    Raises:
      ValueError: unknown closure, more than two axes, or the sbp closure in two dimensions.
    """
    dimension = len(num_points)
    if dimension not in (1, 2):
        raise ValueError(f"expected one or two axes, got {dimension}")
    if closure not in ("mirror", "sbp") or (closure == "sbp" and dimension > 1):
        raise ValueError(f"expected closure 'mirror', or 'sbp' in one dimension, got {closure!r} in {dimension}")
    grid = Grid(tuple(num_points), tuple(lengths))
    flow = Bound(_mirror_flow if closure == "mirror" else _weak_flow, spacing=grid.spacing, order=order)
    weights = Bound(_trapezoid, grid)
    if closure == "sbp":
        weights = Bound(stencils.sbp_weights, num_points[0], grid.spacing[0], order)
    axes = range(dimension)
    return Structure(
        name=f"shallow_water_{dimension}d",
        grid=grid,
        fields=("elevation", "velocity") if dimension == 1 else ("elevation", "velocity_x", "velocity_y"),
        units=("m",) + ("m/s",) * dimension,
        parameters=(VISCOSITY,),
        flow=flow,
        constrain=_within_walls,
        weights=weights,
        boundary=_at_walls,
        parity=tuple(tuple(1 - 2 * (field == axis) for axis in axes) for field in (-1, *axes)),
    )


def bump_state(
    coordinates: tuple[Float[Array, "points"], ...],
    lengths: tuple[float, ...],
    amplitude: Array | float,
    centre: Float[Array, "axis"],
    width: Array | float,
) -> Float[Array, "*grid field"]:
    """Water at rest, raised by a Gaussian a exp(-|z - c|^2/(2 w^2)) and its mirror images behind the walls."""
    rise: Array = jnp.asarray(amplitude)
    for axis, (line, length) in enumerate(zip(coordinates, lengths, strict=True)):
        images = [2 * shift * length + sign * centre[axis] for shift in (-1, 0, 1) for sign in (-1, 1)]
        profile = sum(jnp.exp(-0.5 * ((line - image) / width) ** 2) for image in images)
        rise = rise[..., None] * profile
    return jnp.stack([rise, *(jnp.zeros_like(rise) for _ in lengths)], axis=-1)


def _draw_bump(key: Array, grid: Grid) -> Array:
    amplitude_key, centre_key, width_key = jax.random.split(key, 3)
    lines = tuple(jnp.asarray(grid.coordinates(axis)) for axis in range(len(grid.points)))
    dtype = lines[0].dtype
    amplitude = jax.random.uniform(amplitude_key, (), dtype, 0.02, 0.1)
    centre = jax.random.uniform(centre_key, (len(lines),), dtype, 0.2, 0.8) * jnp.asarray(grid.lengths)
    width = jax.random.uniform(width_key, (), dtype, 0.08, 0.2)
    return bump_state(lines, grid.lengths, amplitude, centre, width)


def _draw_smooth(key: Array, grid: Grid, num_modes: int = 4) -> Array:
    """Random cosines of the elevation, and a velocity that is the gradient of random cosines: no vorticity."""
    elevation_key, velocity_key, size_key = jax.random.split(key, 3)
    axes = range(len(grid.points))
    lines = [jnp.asarray(grid.coordinates(axis)) for axis in axes]
    orders = np.meshgrid(*[np.arange(num_modes + 1)] * len(lines), indexing="ij")
    square = sum(order**2 for order in orders)
    allowed = (square > 0) & (square <= num_modes**2)
    fall = jnp.asarray(np.where(allowed, np.maximum(square, 1), np.inf) ** -0.75, lines[0].dtype)
    numbers = [np.pi * np.arange(num_modes + 1) / length for length in grid.lengths]
    angle = [line[:, None] * number for line, number in zip(lines, numbers, strict=True)]

    def combine(coefficients: Array, slope_axis: int | None = None) -> Array:
        for axis in axes:
            wave = jnp.cos(angle[axis])
            if axis == slope_axis:
                wave = -jnp.sin(angle[axis]) * numbers[axis]
            coefficients = jnp.tensordot(coefficients, wave.T, axes=[[0], [0]])
        return coefficients

    elevation = combine(jax.random.normal(elevation_key, fall.shape, fall.dtype) * fall)
    potential = jax.random.normal(velocity_key, fall.shape, fall.dtype) * fall
    potential = potential / (np.pi * jnp.sqrt(jnp.maximum(jnp.asarray(square, fall.dtype), 1.0)))
    velocity = [combine(potential, axis) for axis in axes]
    size = jax.random.uniform(size_key, (), fall.dtype, 0.02, 0.1)
    state = jnp.stack([elevation, *velocity], axis=-1)
    return state * size / jnp.max(jnp.abs(state))


def _mass(structure: Structure, depth: float, state: Array) -> Array:
    """Volume of the water, which is its mass at density one."""
    return jnp.sum(jnp.asarray(structure.weights(), state.dtype) * (depth + state[..., 0]))


def make_shallow_water(
    dimension: int,
    gravity: float = 1.0,
    depth: float = 1.0,
    viscosity: float = 2e-3,
    num_points: int | tuple[int, ...] = 64,
    lengths: tuple[float, ...] = (),
    **structure: object,
) -> System:
    """Shallow water of the study.

    Args:
      dimension: 1 or 2.
      gravity: g.
      depth: of the water at rest.
      viscosity: value of the viscosity.
      num_points: along each axis, or one number for all.
      lengths: of the basin; one along every axis where empty.
      **structure: other keyword arguments of `shallow_water_structure`.
    Returns:
      the system, with the initial-state families bump (a Gaussian at rest) and random_smooth.
    """
    points = (num_points,) * dimension if isinstance(num_points, int) else num_points
    operators = shallow_water_structure(points, lengths or (1.0,) * dimension, **structure)  # type: ignore[arg-type]
    families = (("bump", _draw_bump), ("random_smooth", _draw_smooth))
    return System(
        structure=operators,
        density=Bound(water_density, gravity=gravity, depth=depth),
        values=((VISCOSITY, viscosity),),
        initial_states=tuple((name, Bound(draw, grid=operators.grid)) for name, draw in families),
        invariants=(("mass", Bound(_mass, operators, depth)),),
        inversion=(1, -1.0) if dimension == 1 else None,
    )
