"""Port-Hamiltonian systems of finite dimension: masses on springs, and the driven pendulum of the literature.

    x_t = (J - R) grad H(x) + G u,   J = [[0, 1], [-1, 0]],   R = diag(0, viscous damping),   G = (0, 1)

with positions, then momenta, each block of the size of the degrees of freedom. A chain of masses between springs, with
elongations e = B x of the springs in place of positions and velocities v in place of momenta, is

    e_t = B M^-1 dH/dv,   v_t = -M^-1 B^T dH/de - M^-1 C M^-1 dH/dv,   M = diag(masses), C = diag(viscous damping)

so that H = sum_j V_j(e_j) + v^T M v / 2 is a sum over fields and e_t = B v whatever the masses.
Source: Beckers, Seidman, Perdikaris, Pappas (2022), arXiv 2305.09017, section 4 (pendulum); Greydanus, Dzamba, Yosinski
(2019), arXiv 1906.01563, section 3 (mass and spring).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phdme_jax.numerics.bound import Bound
from phdme_jax.numerics.grid import Grid
from phdme_jax.systems.energy.base import Parameters, Structure, System

VISCOUS = "viscous_damping"


def _free(state: Array) -> Array:
    return state


def _none(state: Array) -> Array:
    return state[:0]


def _on_momenta(inputs: Array) -> Array:
    return jnp.concatenate([jnp.zeros_like(inputs), inputs])


def _flow(efforts: Array, parameters: Parameters, *, damping: tuple[str, ...]) -> Array:
    forces, velocities = jnp.split(efforts, 2)
    rate = -forces
    if damping:
        rate = rate - jnp.stack([parameters[name] for name in damping]) * velocities
    return jnp.concatenate([velocities, rate])


def oscillator_structure(
    name: str = "mass_spring",
    damped: bool = True,
    driven: bool = False,
    units: tuple[str, str] = ("m", "kg m/s"),
    degrees: int = 1,
) -> Structure:
    """Operators of a few degrees of freedom; how they are coupled is the energy's affair.

    Args:
      name: name used in results.
      damped: whether each degree of freedom has viscous damping.
      driven: whether each has a force as input.
      units: of positions and momenta.
      degrees: degrees of freedom.
    Returns:
      the structure; fields are the positions, then the momenta, the grid has no axes.
    """

    def each(word: str) -> tuple[str, ...]:
        return (word,) if degrees == 1 else tuple(f"{word}_{index + 1}" for index in range(degrees))

    damping = each(VISCOUS) if damped else ()
    return Structure(
        name=name,
        grid=Grid((), ()),
        fields=(*each("position"), *each("momentum")),
        units=(units[0],) * degrees + (units[1],) * degrees,
        parameters=damping,
        flow=Bound(_flow, damping=damping),
        constrain=_free,
        weights=Bound(np.ones, ()),
        boundary=_none,
        parity=((),) * (2 * degrees),
        ports=each("force") if driven else (),
        inject=_on_momenta if driven else None,
    )


def elongation_matrix(degrees: int) -> np.ndarray:
    """B, elongations (degrees + 1,) of the springs of a chain between two walls from displacements (degrees,)."""
    return np.eye(degrees + 1, degrees) - np.eye(degrees + 1, degrees, -1)


def _chain_flow(
    efforts: Array, parameters: Parameters, *, masses: tuple[float | Array, ...], damping: tuple[str, ...]
) -> Array:
    matrix, mass = jnp.asarray(elongation_matrix(len(masses)), efforts.dtype), jnp.asarray(masses, efforts.dtype)
    forces, momenta = efforts[: len(masses) + 1], efforts[len(masses) + 1 :]
    velocities = momenta / mass
    drag = jnp.stack([parameters[name] for name in damping]) * velocities
    return jnp.concatenate([matrix @ velocities, (-matrix.T @ forces - drag) / mass])


def chain_structure(name: str, masses: tuple[float | Array, ...]) -> Structure:
    """Operators of masses in a row between two walls, a spring between each two neighbours, viscously damped.

    Args:
      name: name used in results.
      masses: of which only the ratios matter, as they scale the energy; may be traced.
    Returns:
      the structure; fields are the elongations of the springs, then the velocities of the masses, without units.
    """
    springs = tuple(f"elongation_{index + 1}" for index in range(len(masses) + 1))
    velocities = tuple(f"velocity_{index + 1}" for index in range(len(masses)))
    damping = tuple(f"{VISCOUS}_{index + 1}" for index in range(len(masses)))
    return Structure(
        name=name,
        grid=Grid((), ()),
        fields=(*springs, *velocities),
        units=("1",) * (2 * len(masses) + 1),
        parameters=damping,
        flow=Bound(_chain_flow, masses=masses, damping=damping),
        constrain=_free,
        weights=Bound(np.ones, ()),
        boundary=_none,
        parity=((),) * (2 * len(masses) + 1),
    )


def spring_density(state: Float[Array, "field"], stiffness: float = 1.0, mass: float = 1.0) -> Float[Array, ""]:
    """Energy k q^2/2 + p^2/(2 m)."""
    position, momentum = state
    return 0.5 * stiffness * position**2 + 0.5 * momentum**2 / mass


def pendulum_density(state: Float[Array, "field"]) -> Float[Array, ""]:
    """Energy x1^2/2 + 2 cos x1 + x2^2/2 - 1 of the reference case: two wells beside an upright hump at the origin."""
    position, momentum = state
    return 0.5 * position**2 + 2.0 * jnp.cos(position) + 0.5 * momentum**2 - 1.0


def _draw_annulus(low: float, high: float, key: Array) -> Array:
    radius_key, angle_key = jax.random.split(key)
    radius = jax.random.uniform(radius_key, (), minval=low, maxval=high)
    angle = jax.random.uniform(angle_key, (), maxval=2 * np.pi)
    return radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def _annuli(near: tuple[float, float], wide: tuple[float, float]) -> tuple[tuple[str, Bound], ...]:
    return ("annulus", Bound(_draw_annulus, *near)), ("wide", Bound(_draw_annulus, *wide))


def make_mass_spring(damping: float = 0.0, stiffness: float = 1.0, mass: float = 1.0) -> System:
    """A mass on a linear spring.

    Args:
      damping: viscous damping; none where zero.
      stiffness: k.
      mass: m.
    Returns:
      the system, with the initial-state families annulus and wide.
    """
    structure = oscillator_structure("mass_spring", damped=damping > 0)
    return System(
        structure=structure,
        density=Bound(spring_density, stiffness=stiffness, mass=mass),
        values=tuple((name, damping) for name in structure.parameters),
        initial_states=_annuli((0.2, 1.0), (1.0, 1.5)),
    )


def make_driven_pendulum(damping: float = 0.1) -> System:
    """The driven reference case: H = x1^2/2 + 2 cos x1 + x2^2/2 - 1 with damping 0.1 and a force as input.

    Args:
      damping: viscous damping.
    Returns:
      the system, with the initial-state families annulus and wide.
    """
    return System(
        structure=oscillator_structure("driven_pendulum", driven=True, units=("1", "1")),
        density=pendulum_density,
        values=((VISCOUS, damping),),
        initial_states=_annuli((2.0, 5.0), (5.0, 7.0)),
    )
