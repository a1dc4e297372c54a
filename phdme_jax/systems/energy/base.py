"""Static records for port-Hamiltonian structures and systems, and the functions every system shares.

A `Structure` knows J, R and the boundary conditions, but no energy; a `System` adds the energy density and the
values of the dissipation parameters. The learned prior uses the structure alone.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from phdme_jax.numerics.bound import Bound
from phdme_jax.numerics.grid import Grid

Parameters = Mapping[str, Float[Array, ""]]
Density = Callable[[Float[Array, "field"]], Float[Array, ""]]


@dataclass(frozen=True)
class Structure:
    """Operators of a port-Hamiltonian system, x_t = (J - R(theta)) e + G u with the efforts e = dH/dx.

    A system of finite dimension has a grid without axes: its state is (field,).

    Attributes:
      name: name used in results.
      grid: static grid.
      fields: names of the state's fields, in order.
      units: unit of each field.
      parameters: names of the dissipation parameters theta; `flow` is affine in them.
      flow: (efforts (*grid, field), parameters) -> rates (*grid, field), linear in the efforts.
      constrain: state -> state with the boundary values imposed.
      weights: quadrature weights on the grid, as a function of nothing, shape (*grid).
      boundary: state -> what must vanish at the boundary, shape (condition,).
      parity: per field and grid axis, -1 where it continues past the ends as an odd function (zero there), +1 as an
        even one.
      ports: names of the inputs u.
      inject: G, inputs (port,) -> rates (*grid, field), linear; None without ports.
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
    parity: tuple[tuple[int, ...], ...]
    ports: tuple[str, ...] = ()
    inject: Callable[[Array], Array] | None = None


def line_parity(structure: Structure) -> tuple[int, ...]:
    """Parity of each field about the ends of a grid of one axis.

    Raises:
      ValueError: the grid has another number of axes.
    """
    if len(structure.grid.points) != 1:
        raise ValueError(f"expected a grid of one axis, got {structure.name!r} with {len(structure.grid.points)}")
    return tuple(parity for (parity,) in structure.parity)


def unknown_density(state: Float[Array, "field"]) -> Float[Array, ""]:
    """Stands for an energy that nobody knows.

    Raises:
      ValueError: always.
    """
    del state
    raise ValueError("expected a system whose true energy is known; this one has a structure and measurements alone")


@dataclass(frozen=True)
class System:
    """A structure and what else is known: a problem whose methods learn an energy.

    Attributes:
      structure: operators.
      density: true energy density of one point's state, where it is known.
      values: true dissipation parameters.
      initial_states: families, key -> state.
      invariants: what the dynamics keep beside the energy, with dissipation too, such as the mass: state -> scalar.
      inversion: index of the field that vanishes at the ends and the sign s in J = s [[0, d_z], [d_z, 0]], where J is
        such, see `phdme_jax.gp.independent`.
      coordinates: what was measured of states (*points, field), and back, where it is not the structure's fields.
      even_times: whether frames are evenly spaced.
    """

    structure: Structure
    density: Density = unknown_density
    values: tuple[tuple[str, float], ...] = ()
    initial_states: tuple[tuple[str, Callable[[Array], Array]], ...] = ()
    invariants: tuple[tuple[str, Callable[[Array], Array]], ...] = ()
    inversion: tuple[int, float] | None = None
    coordinates: tuple[Callable[[Array], Array], Callable[[Array], Array]] | None = None
    even_times: bool = True

    @property
    def name(self) -> str:
        """In results."""
        return self.structure.name

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields."""
        return self.structure.fields

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of each field."""
        return self.structure.units

    @property
    def grid(self) -> Grid:
        """Static grid."""
        return self.structure.grid

    @property
    def offers(self) -> frozenset[str]:
        """Parts that a method may need."""
        parts = {
            "structure": True,
            "true_energy": self.density is not unknown_density,
            "inversion": self.inversion is not None,
            "ports": bool(self.structure.ports),
            "even_times": self.even_times,
        }
        return frozenset(name for name, there in parts.items() if there)

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


@lru_cache
def conserved_fields(structure: Structure) -> tuple[bool, ...]:
    """Fields that move but whose integral over the grid nothing changes.

        sum_i w_i [(J - R) e + G u]_i = 0 for all efforts e and inputs u

    J is skew and R symmetric, so that such a field may be counted from any constant: its effort is another by a
    constant, which the operators do not see. Told from one state of efforts without symmetry.
    """
    shape = (*structure.grid.points, len(structure.fields))
    efforts = jnp.cos(1.0 + 0.7 * jnp.arange(math.prod(shape), dtype=float).reshape(shape))
    rates = jax.jit(structure.flow)(efforts, dict.fromkeys(structure.parameters, jnp.asarray(0.7, efforts.dtype)))
    if structure.ports:
        rates = rates + injected(structure, jnp.ones(len(structure.ports), efforts.dtype))
    parts = (np.asarray(structure.weights())[..., None] * np.asarray(rates)).reshape(-1, shape[-1])
    size = np.abs(parts).sum(axis=0)
    tolerance = float(jnp.finfo(efforts.dtype).eps) ** 0.5
    return tuple(((size > 0) & (np.abs(parts.sum(axis=0)) <= tolerance * size)).tolist())


def constant_parts(
    structure: Structure, states: Float[np.ndarray, "*batch field"]
) -> Float[np.ndarray, "*batch_of_ones field"]:
    """What each state has of a constant that the dynamics keep and do not feel: mean depth, strain of a string at rest.

    The mean over the grid of a conserved field, where it is larger than what is left without it; zero elsewhere, as for
    fields that the structure does not know (inputs that ride along).

    Args:
      structure: operators.
      states: any number of states, (*batch, *grid, field).
    Returns:
      constants, broadcast against the states.
    """
    grid = tuple(range(states.ndim - 1 - len(structure.grid.points), states.ndim - 1))
    conserved = np.zeros(states.shape[-1], bool)
    conserved[: len(structure.fields)] = conserved_fields(structure)
    weights = np.asarray(structure.weights(), states.dtype)[..., None]
    means = np.where(conserved, np.sum(states * (weights / weights.sum()), axis=grid, keepdims=True), 0)
    everywhere = tuple(range(states.ndim - 1))
    size, left = (np.sqrt(np.mean(values**2, axis=everywhere)) for values in (means, states - means))
    # what is left of a field that is constant everywhere is rounding
    there = (size > left) & (left > 10 * np.finfo(states.dtype).eps * size)
    return np.where(there, means, 0).astype(states.dtype)


def inner(
    structure: Structure, left: Float[Array, "*grid field"], right: Float[Array, "*grid field"]
) -> Float[Array, ""]:
    """Discrete inner product sum_i w_i left_i . right_i in the structure's quadrature."""
    weights = jnp.asarray(structure.weights(), left.dtype)
    return jnp.sum(weights[..., None] * left * right)


def at_points(function: Callable[[Array], Array], state: Float[Array, "*grid field"]) -> Array:
    """Apply a function of one point's fields at every point of the grid."""
    for _ in range(state.ndim - 1):
        function = jax.vmap(function)
    return function(state)


def total_energy(structure: Structure, density: Density, state: Float[Array, "*grid field"]) -> Float[Array, ""]:
    """Total energy H = sum_i w_i h(x_i).

    Args:
      structure: gives the quadrature.
      density: energy density h of one point's state.
      state: state on the grid.
    Returns:
      energy, scalar.
    """
    return jnp.sum(jnp.asarray(structure.weights(), state.dtype) * at_points(density, state))


def vector_field(
    structure: Structure,
    density: Density,
    state: Float[Array, "*grid field"],
    parameters: Parameters,
    inputs: Float[Array, "port"] | None = None,
) -> Float[Array, "*grid field"]:
    """Right-hand side (J - R) grad h(x) + G u of the semi-discrete system.

    Args:
      structure: operators.
      density: energy density h of one point's state.
      state: state on the grid.
      parameters: dissipation parameters.
      inputs: u at this instant; None leaves the ports at rest.
    Returns:
      rates, shape of the state.
    """
    rates = structure.flow(at_points(jax.grad(density), state), parameters)
    return rates if inputs is None else rates + injected(structure, inputs)


def injected(structure: Structure, inputs: Float[Array, "port"]) -> Float[Array, "*grid field"]:
    """Rates G u that the inputs cause.

    Raises:
      ValueError: the structure has no ports.
    """
    if structure.inject is None:
        raise ValueError(f"expected a structure with ports, got {structure.name!r} without; leave the inputs out")
    return structure.inject(inputs)


def port_outputs(structure: Structure, efforts: Float[Array, "*grid field"]) -> Float[Array, "port"]:
    """Outputs y = G* e, so that u . y is the power that the ports bring in; empty without ports."""
    unit = jnp.eye(len(structure.ports), dtype=efforts.dtype)
    powers = [inner(structure, injected(structure, row), efforts) for row in unit]
    return jnp.stack(powers) if powers else jnp.zeros((0,), efforts.dtype)


def with_inputs(structure: Structure) -> Structure:
    """The structure with its inputs as further fields, so that they can be told as an initial state is.

        (x, u)_t = ((J - R) e + G u, 0)

    The effort of an input is the input itself. How an input changes is not for the dynamics to say: its rate is
    written as zero, and its rows are to be left out of a residual.

    Raises:
      ValueError: the structure has no ports, or a grid with axes.
    """
    if not structure.ports or structure.grid.points:
        raise ValueError(f"expected a structure with ports and without a grid, got {structure.name!r}")
    return replace(
        structure,
        fields=(*structure.fields, *structure.ports),
        units=(*structure.units, *("1",) * len(structure.ports)),
        flow=Bound(_driven_flow, structure),
        constrain=Bound(_driven_constrain, structure),
        boundary=Bound(_driven_boundary, structure),
        parity=(*structure.parity, *((),) * len(structure.ports)),
        ports=(),
        inject=None,
    )


def _driven_flow(structure: Structure, efforts: Array, parameters: Parameters) -> Array:
    moving = len(structure.fields)
    rates = structure.flow(efforts[:moving], parameters) + injected(structure, efforts[moving:])
    return jnp.concatenate([rates, jnp.zeros_like(efforts[moving:])])


def _driven_constrain(structure: Structure, state: Array) -> Array:
    moving = len(structure.fields)
    return jnp.concatenate([structure.constrain(state[:moving]), state[moving:]])


def _driven_boundary(structure: Structure, state: Array) -> Array:
    return structure.boundary(state[: len(structure.fields)])


def dissipated_power(
    structure: Structure, efforts: Float[Array, "*grid field"], parameters: Parameters
) -> Float[Array, ""]:
    """Power <e, R e> taken out by dissipation, never negative for non-negative parameters; dH/dt = u . y - <e, R e>."""
    return -inner(structure, efforts, structure.flow(efforts, parameters))
