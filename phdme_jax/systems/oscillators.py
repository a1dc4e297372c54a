"""Port-Hamiltonian systems of finite dimension: a mass on a spring, and the driven pendulum of the literature.

    x_t = (J - R) grad H(x) + G u,   J = [[0, 1], [-1, 0]],   R = diag(0, viscous_damping),   G = (0, 1)

with position and momentum.
Source: Beckers, Seidman, Perdikaris, Pappas (2022), arXiv 2305.09017, section 4 (pendulum); Greydanus, Dzamba, Yosinski
(2019), arXiv 1906.01563, section 3 (mass and spring).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phdme_jax.numerics.grid import Grid
from phdme_jax.systems.base import Parameters, Structure, System

VISCOUS = "viscous_damping"


def _flow(efforts: Array, parameters: Parameters) -> Array:
    position, momentum = efforts
    rate = -position
    if VISCOUS in parameters:
        rate = rate - parameters[VISCOUS] * momentum
    return jnp.stack([momentum, rate])


def oscillator_structure(
    name: str = "mass_spring", damped: bool = True, driven: bool = False, units: tuple[str, str] = ("m", "kg m/s")
) -> Structure:
    """Operators of one degree of freedom.

    Args:
      name: name used in results.
      damped: whether viscous damping exists.
      driven: whether a force is an input.
      units: of position and momentum.
    Returns:
      the structure; fields are position and momentum, the grid has no axes.
    """
    return Structure(
        name=name,
        grid=Grid((), ()),
        fields=("position", "momentum"),
        units=units,
        parameters=(VISCOUS,) if damped else (),
        flow=_flow,
        constrain=lambda state: state,
        weights=lambda: np.ones(()),
        boundary=lambda state: state[:0],
        parity=((), ()),
        ports=("force",) if driven else (),
        inject=(lambda inputs: jnp.concatenate([jnp.zeros_like(inputs), inputs])) if driven else None,
    )


def spring_density(state: Float[Array, "field"], stiffness: float = 1.0, mass: float = 1.0) -> Float[Array, ""]:
    """Energy k q^2/2 + p^2/(2 m)."""
    position, momentum = state
    return 0.5 * stiffness * position**2 + 0.5 * momentum**2 / mass


def pendulum_density(state: Float[Array, "field"]) -> Float[Array, ""]:
    """Energy x1^2/2 + 2 cos x1 + x2^2/2 - 1 of the reference case: two wells beside an upright hump at the origin."""
    position, momentum = state
    return 0.5 * position**2 + 2.0 * jnp.cos(position) + 0.5 * momentum**2 - 1.0


def _annulus(low: float, high: float) -> Callable[[Array], Array]:
    def draw(key: Array) -> Array:
        radius_key, angle_key = jax.random.split(key)
        radius = jax.random.uniform(radius_key, (), minval=low, maxval=high)
        angle = jax.random.uniform(angle_key, (), maxval=2 * np.pi)
        return radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])

    return draw


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
        density=lambda state: spring_density(state, stiffness, mass),
        values=tuple((name, damping) for name in structure.parameters),
        initial_states=(("annulus", _annulus(0.2, 1.0)), ("wide", _annulus(1.0, 1.5))),
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
        initial_states=(("annulus", _annulus(2.0, 5.0)), ("wide", _annulus(5.0, 7.0))),
    )
