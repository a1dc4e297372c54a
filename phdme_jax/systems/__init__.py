"""Floor 1: what the physics is. One file per system; adding a system is one file and one line here.

`SYSTEMS` have an energy and move in time; `EQUATIONS` are known and hold for fields.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from phdme_jax.systems.energy.base import Structure as Structure
from phdme_jax.systems.energy.base import System as System
from phdme_jax.systems.energy.oscillators import make_driven_pendulum, make_mass_spring
from phdme_jax.systems.energy.shallow_water import make_shallow_water
from phdme_jax.systems.energy.vibrating_string import make_string
from phdme_jax.systems.equations.advection import make_advection
from phdme_jax.systems.equations.base import Equations as Equations
from phdme_jax.systems.equations.burgers import make_burgers
from phdme_jax.systems.equations.closed_form import make_circle, make_poisson
from phdme_jax.systems.equations.dam_break import make_dam_break
from phdme_jax.systems.equations.darcy import make_darcy_kle, make_darcy_nodal
from phdme_jax.systems.equations.darcy_binary import make_darcy_binary
from phdme_jax.systems.equations.elliptic import make_helmholtz_2d, make_poisson_2d
from phdme_jax.systems.equations.heat import make_heat, make_stokes
from phdme_jax.systems.equations.inviscid_burgers import make_inviscid_burgers
from phdme_jax.systems.equations.navier_stokes import make_navier_stokes
from phdme_jax.systems.equations.porous_medium import make_porous_medium
from phdme_jax.systems.equations.reaction_diffusion import make_reaction_diffusion
from phdme_jax.systems.equations.stefan import make_stefan
from phdme_jax.systems.equations.topology import make_topology
from phdme_jax.systems.equations.viscous_burgers import make_viscous_burgers
from phdme_jax.systems.particles.bodies import make_gravity, make_three_body
from phdme_jax.systems.particles.charged import make_charged
from phdme_jax.systems.particles.springs import make_springs

SYSTEMS: dict[str, Callable[..., System]] = {
    "vibrating_string": make_string,
    "shallow_water_1d": partial(make_shallow_water, 1),
    "shallow_water_2d": partial(make_shallow_water, 2, num_points=32),
    "mass_spring": make_mass_spring,
    "driven_pendulum": make_driven_pendulum,
}


def make_system(name: str, **options: object) -> System:
    """Build a system of the registry by name: the same record for the same options, so that nothing compiles anew.

    Args:
      name: a key of `SYSTEMS`.
      **options: keyword arguments of its factory, hashable.
    Returns:
      the system.
    Raises:
      ValueError: unknown name.
    """
    if name not in SYSTEMS:
        raise ValueError(f"expected a system among {sorted(SYSTEMS)}, got {name!r}")
    return _build(SYSTEMS[name], tuple(sorted(options.items())))


@lru_cache
def _build(factory: Callable[..., Any], options: tuple[tuple[str, object], ...]) -> Any:
    return factory(**dict(options))


EQUATIONS: dict[str, Callable[..., Equations]] = {
    "circle": make_circle,
    "poisson_1d": make_poisson,
    "darcy_kle": make_darcy_kle,
    "darcy_nodal": make_darcy_nodal,
    "poisson_2d": make_poisson_2d,
    "helmholtz_2d": make_helmholtz_2d,
    "darcy_binary": make_darcy_binary,
    "burgers": make_burgers,
    "burgers_ic": partial(make_inviscid_burgers, "burgers_ic"),
    "burgers_bc": partial(make_inviscid_burgers, "burgers_bc"),
    "heat": make_heat,
    "stokes": make_stokes,
    "porous_medium": make_porous_medium,
    "stefan": make_stefan,
    "reaction_diffusion": make_reaction_diffusion,
    "navier_stokes": make_navier_stokes,
    "topology": make_topology,
    "advection": make_advection,
    "viscous_burgers": make_viscous_burgers,
    "dam_break": make_dam_break,
    "five_springs": make_springs,
    "three_body": make_three_body,
    "charged_particles": make_charged,
    "gravity": make_gravity,
}


def make_equations(name: str, **options: object) -> Equations:
    """Build known equations of the registry by name: the same record for the same options.

    Args:
      name: a key of `EQUATIONS`.
      **options: keyword arguments of their factory, hashable.
    Returns:
      the equations.
    Raises:
      ValueError: unknown name.
    """
    if name not in EQUATIONS:
        raise ValueError(f"expected equations among {sorted(EQUATIONS)}, got {name!r}")
    return _build(EQUATIONS[name], tuple(sorted(options.items())))
