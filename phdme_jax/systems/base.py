"""Static records for port-Hamiltonian structures and systems, and the functions every system shares.

A `Structure` knows J, R and the boundary conditions, but no energy; a `System` adds the energy density and the
values of the dissipation parameters. The learned prior uses the structure alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from phdme_jax.numerics.grid import Grid

Parameters = Mapping[str, Float[Array, ""]]
Density = Callable[[Float[Array, "field"]], Float[Array, ""]]


@dataclass(frozen=True)
class Structure:
    """Operators of a port-Hamiltonian system, x_t = (J - R(theta)) e with the efforts e = dH/dx.

    Attributes:
      name: name used in results.
      grid: static grid.
      fields: names of the state's fields, in order.
      units: unit of each field.
      parameters: names of the dissipation parameters theta; `flow` is affine in them.
      flow: (efforts (grid, field), parameters) -> rates (grid, field), linear in the efforts.
      constrain: state -> state with the boundary values imposed.
      weights: quadrature weights on the grid, as a function of nothing, shape (grid,).
      boundary: state -> what must vanish at the boundary, shape (condition,).
      parity: per field, -1 where it continues past the ends as an odd function (zero there), +1 as an even one.
    """

    name: str
    grid: Grid
    fields: tuple[str, ...]
    units: tuple[str, ...]
    parameters: tuple[str, ...]
    flow: Callable[[Array, Parameters], Array]
    constrain: Callable[[Array], Array]
    weights: Callable[[], np.ndarray]
    boundary: Callable[[Array], Array]
    parity: tuple[int, ...]


@dataclass(frozen=True)
class System:
    """A structure with its true energy density, parameter values and families of initial states."""

    structure: Structure
    density: Density
    values: tuple[tuple[str, float], ...]
    initial_states: tuple[tuple[str, Callable[[Array], Array]], ...]

    def initial_state(self, family: str) -> Callable[[Array], Array]:
        """The drawing function `key -> state` of one family.

        Raises:
          ValueError: unknown family.
        """
        families = dict(self.initial_states)
        if family not in families:
            raise ValueError(f"expected an initial-state family among {sorted(families)}, got {family!r}")
        return families[family]


def parameter_values(system: System, dtype: DTypeLike) -> dict[str, Float[Array, ""]]:
    """The system's true dissipation parameters as scalars of the given dtype."""
    return {name: jnp.asarray(value, dtype) for name, value in system.values}


def zero_parameters(structure: Structure, dtype: DTypeLike) -> dict[str, Float[Array, ""]]:
    """Every dissipation parameter zero: the conservative system."""
    return {name: jnp.zeros((), dtype) for name in structure.parameters}


def inner(
    structure: Structure, left: Float[Array, "grid field"], right: Float[Array, "grid field"]
) -> Float[Array, ""]:
    """Discrete inner product sum_i w_i left_i . right_i in the structure's quadrature."""
    weights = jnp.asarray(structure.weights(), left.dtype)
    return jnp.sum(weights[:, None] * left * right)


def total_energy(structure: Structure, density: Density, state: Float[Array, "grid field"]) -> Float[Array, ""]:
    """Total energy H = sum_i w_i h(x_i).

    Args:
      structure: gives the quadrature.
      density: energy density h of one point's state.
      state: state on the grid.
    Returns:
      energy, scalar.
    """
    return jnp.sum(jnp.asarray(structure.weights(), state.dtype) * jax.vmap(density)(state))


def vector_field(
    structure: Structure, density: Density, state: Float[Array, "grid field"], parameters: Parameters
) -> Float[Array, "grid field"]:
    """Right-hand side (J - R) grad h(x) of the semi-discrete system.

    Args:
      structure: operators.
      density: energy density h of one point's state.
      state: state on the grid.
      parameters: dissipation parameters.
    Returns:
      rates, shape of the state.
    """
    return structure.flow(jax.vmap(jax.grad(density))(state), parameters)


def dissipated_power(
    structure: Structure, efforts: Float[Array, "grid field"], parameters: Parameters
) -> Float[Array, ""]:
    """Power <e, R e> taken out by dissipation, never negative for non-negative parameters; dH/dt = -<e, R e>."""
    return -inner(structure, efforts, structure.flow(efforts, parameters))
