"""Vibrating string with fixed ends as a distributed port-Hamiltonian system.

    p_t = d_z e_q + damping(e_p),   q_t = d_z e_p,   e = grad h(p, q),   p = 0 at both ends

with momentum p = s_t and strain q = s_z of the deflection s. Dissipation is viscous, -c e_p, Kelvin-Voigt, c d_zz e_p,
or both.
Source: Tan et al. (2024), arXiv 2406.11809, equation 15 (viscous); the stress law and the Kelvin-Voigt term follow
the code published with it.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phdme_jax.numerics import quadrature, stencils
from phdme_jax.numerics.bound import Bound
from phdme_jax.numerics.grid import Grid
from phdme_jax.systems.energy.base import Parameters, Structure, System

LENGTH = 10.0
KELVIN_VOIGT, VISCOUS = "kelvin_voigt_damping", "viscous_damping"


def softening_density(state: Float[Array, "field"]) -> Float[Array, ""]:
    """Energy density h = p^2/2 + ln(cosh q)/2 of the softening string, zero at rest.

    Its stress is h_q = tanh(q)/2 = 1/(1 + e^{-2q}) - 1/2.
    """
    momentum, strain = state
    return 0.5 * momentum**2 + 0.5 * (jnp.logaddexp(0.0, 2 * strain) - strain - jnp.log(2.0))


def linear_density(state: Float[Array, "field"], stiffness: float = 0.5) -> Float[Array, ""]:
    """Energy density p^2/2 + k q^2/2 of the linear string."""
    momentum, strain = state
    return 0.5 * momentum**2 + 0.5 * stiffness * strain**2


def _interior(field: Array) -> Array:
    return field.at[jnp.array([0, -1])].set(0.0)


def _fixed_ends(state: Array) -> Array:
    return state.at[jnp.array([0, -1]), 0].set(0.0)


def _ends(state: Array) -> Array:
    return state[jnp.array([0, -1]), 0]


def _flow(
    efforts: Array, parameters: Parameters, *, spacing: float, order: int, closure: str, damping: tuple[str, ...]
) -> Array:
    effort_p, effort_q = _interior(efforts[..., 0]), efforts[..., 1]
    if closure == "mirror":
        gradient = partial(stencils.mirror_derivative, spacing=spacing, order=order)
        stress_slope, strain_rate = gradient(effort_q, parity=1), gradient(effort_p, parity=-1)
        bending = partial(stencils.mirror_second_derivative, effort_p, spacing, order, -1)
    else:
        stress_slope = stencils.sbp_derivative(effort_q, spacing, order)
        strain_rate = stencils.sbp_derivative(effort_p, spacing, order)
        bending = partial(stencils.sbp_derivative, strain_rate, spacing, order)
    rate = stress_slope
    if KELVIN_VOIGT in damping:
        rate = rate + parameters[KELVIN_VOIGT] * bending()
    if VISCOUS in damping:
        rate = rate - parameters[VISCOUS] * effort_p
    return jnp.stack([_interior(rate), strain_rate], axis=-1)


def string_structure(
    num_points: int = 64,
    length: float = LENGTH,
    order: int = 4,
    closure: str = "mirror",
    damping: tuple[str, ...] = (KELVIN_VOIGT,),
    name: str = "vibrating_string",
) -> Structure:
    """Operators of the string with fixed ends.

    Args:
      num_points: grid points, both ends included.
      length: length of the string.
      order: of the spatial stencils; 2, 4, 6, 8 with the mirror closure, 2 or 4 with the sbp closure.
      closure: "mirror" (p odd, q even about the ends, full order there) or "sbp" (one-sided closures, no assumption).
      damping: which dissipation parameters exist, of "kelvin_voigt_damping" and "viscous_damping".
      name: name used in results.
    Returns:
      the structure; fields are momentum and strain.
    Raises:
      ValueError: unknown closure or damping.
    """
    if closure not in ("mirror", "sbp"):
        raise ValueError(f"expected closure 'mirror' or 'sbp', got {closure!r}")
    unknown = set(damping) - {KELVIN_VOIGT, VISCOUS}
    if unknown:
        raise ValueError(f"expected damping among {[KELVIN_VOIGT, VISCOUS]}, got {sorted(unknown)}")
    grid = Grid((num_points,), (length,))
    spacing = grid.spacing[0]
    if closure == "mirror":
        weights = Bound(quadrature.trapezoid_weights, num_points, spacing)
    else:
        weights = Bound(stencils.sbp_weights, num_points, spacing, order)
    return Structure(
        name=name,
        grid=grid,
        fields=("momentum", "strain"),
        units=("m/s", "1"),
        parameters=damping,
        flow=Bound(_flow, spacing=spacing, order=order, closure=closure, damping=damping),
        constrain=_fixed_ends,
        weights=weights,
        boundary=_ends,
        parity=((-1,), (1,)),
    )


def deflection(strain: Float[Array, "grid"], length: float = LENGTH) -> Float[Array, "grid"]:
    """Deflection s(z) = int_0^z q dz of a string whose left end is fixed, sixth order.

    Args:
      strain: q at the grid points.
      length: length of the string.
    Returns:
      deflection at the grid points.
    """
    return quadrature.cumulative_integral(strain, length / (strain.shape[0] - 1))


def pulse_state(
    coordinates: Float[Array, "grid"],
    amplitude: Array | float = 2.0,
    centre: Array | float = 5.0,
    width: Array | float = 1.0,
) -> Float[Array, "grid field"]:
    """String at rest, deflected by a Gaussian pulse s = a exp(-((z - centre)/width)^2)."""
    offset = (coordinates - centre) / width
    strain = -2 * amplitude / width * offset * jnp.exp(-(offset**2))
    return jnp.stack([jnp.zeros_like(strain), strain], axis=-1)


def modes_state(
    coordinates: Float[Array, "grid"],
    deflections: Float[Array, "mode"],
    velocities: Float[Array, "mode"],
    length: float = LENGTH,
) -> Float[Array, "grid field"]:
    """State with deflection sum_k a_k sin(k pi z/L) and velocity sum_k b_k sin(k pi z/L)."""
    wavenumbers = jnp.arange(1, deflections.shape[0] + 1, dtype=coordinates.dtype) * (np.pi / length)
    phase = coordinates[:, None] * wavenumbers
    momentum = _interior(jnp.sin(phase) @ velocities)
    return jnp.stack([momentum, jnp.cos(phase) @ (wavenumbers * deflections)], axis=-1)


def _draw_sine(key: Array, grid: Grid) -> Array:
    coordinates, length = jnp.asarray(grid.coordinates()), grid.lengths[0]
    mode_key, amplitude_key = jax.random.split(key)
    mode = jax.random.randint(mode_key, (), 1, 4)
    strain = jax.random.uniform(amplitude_key, (), coordinates.dtype, 0.2, 0.6)
    wavenumbers = jnp.arange(1, 4, dtype=coordinates.dtype) * (np.pi / length)
    deflections = jnp.where(jnp.arange(1, 4) == mode, strain / wavenumbers, 0.0)
    return modes_state(coordinates, deflections, jnp.zeros_like(deflections), length)


def _draw_pulse(key: Array, grid: Grid) -> Array:
    coordinates, length = jnp.asarray(grid.coordinates()), grid.lengths[0]
    sign_key, amplitude_key, centre_key, width_key = jax.random.split(key, 4)
    width = jax.random.uniform(width_key, (), coordinates.dtype, 0.08, 0.11) * length
    strain = jax.random.uniform(amplitude_key, (), coordinates.dtype, 0.2, 0.6)
    sign = jax.random.rademacher(sign_key, (), coordinates.dtype)
    centre = jax.random.uniform(centre_key, (), coordinates.dtype, 0.45, 0.55) * length
    # the steepest strain of a pulse s = a exp(-(z/w)^2) is sqrt(2/e) a/w
    return pulse_state(coordinates, sign * strain * width / (2 / np.e) ** 0.5, centre, width)


def _draw_smooth(key: Array, grid: Grid, num_modes: int = 5) -> Array:
    coordinates, length = jnp.asarray(grid.coordinates()), grid.lengths[0]
    deflection_key, velocity_key, size_key = jax.random.split(key, 3)
    mode = jnp.arange(1, num_modes + 1, dtype=coordinates.dtype)
    wavenumbers = mode * (np.pi / length)
    strains = jax.random.normal(deflection_key, (num_modes,), coordinates.dtype) * mode**-1.5
    velocities = jax.random.normal(velocity_key, (num_modes,), coordinates.dtype) * mode**-1.5
    # 0.7 is the wave speed of small waves, so that motion and deflection hold equal energy on average
    state = modes_state(coordinates, strains / wavenumbers, 0.7 * velocities, length)
    size = jax.random.uniform(size_key, (), coordinates.dtype, 0.2, 0.6)
    return state * size / jnp.max(jnp.abs(state))


def make_string(
    stress: str = "softening",
    damping: float = 0.01,
    dissipation: tuple[str, ...] = (KELVIN_VOIGT,),
    **structure: object,
) -> System:
    """The string of the study.

    Args:
      stress: "softening" or "linear".
      damping: value of each dissipation parameter.
      dissipation: which dissipation parameters exist, of "kelvin_voigt_damping" and "viscous_damping".
      **structure: other keyword arguments of `string_structure`.
    Returns:
      the system, with the initial-state families sine (one mode), pulse (Gaussian, at rest) and random_smooth.
    Raises:
      ValueError: unknown stress law.
    """
    densities = {"softening": softening_density, "linear": linear_density}
    if stress not in densities:
        raise ValueError(f"expected a stress law among {sorted(densities)}, got {stress!r}")
    operators = string_structure(damping=tuple(dissipation), **structure)  # type: ignore[arg-type]
    families = (("sine", _draw_sine), ("pulse", _draw_pulse), ("random_smooth", _draw_smooth))
    return System(
        structure=operators,
        density=densities[stress],
        values=tuple((name, damping) for name in operators.parameters),
        initial_states=tuple((name, Bound(draw, grid=operators.grid)) for name, draw in families),
        inversion=(0, 1.0),
    )
