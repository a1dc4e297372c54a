"""Structures that a fit knows, and the internal units in which it fits.

A user's string may be a guitar's or a bridge's. Everything is therefore fitted in internal units, chosen from the data
so that waves travel at speed one along a string ten long, and converted back at every public border.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from phdme_jax.files import InputError
from phdme_jax.forecasting.files import FileLayout
from phdme_jax.methods.base import Times
from phdme_jax.systems.energy.base import Structure
from phdme_jax.systems.energy.vibrating_string import KELVIN_VOIGT, VISCOUS, string_structure

INTERNAL_LENGTH, INTERNAL_EXCURSION = 10.0, 0.6


@dataclass(frozen=True)
class Units:
    """Internal units: physical = unit x internal, with the first frame at internal time zero.

    Attributes:
      start: time of the first frame.
      time: unit of time.
      length: unit of length.
      fields: unit of each field.
    """

    start: float
    time: float
    length: float
    fields: tuple[float, ...]

    @property
    def scale(self) -> Float[np.ndarray, " field"]:
        """Unit of each field as an array."""
        return np.asarray(self.fields)

    def frames(self, time: Float[np.ndarray, " time"]) -> Times:
        """Internal times of frames."""
        return tuple(((time - self.start) / self.time).tolist())


@dataclass(frozen=True)
class KnownStructure:
    """A structure that a fit knows.

    Attributes:
      layout: what its files hold.
      build: (num_points=, length=, order=, closure=, damping=) -> Structure.
      orders: closure -> stencil orders it has.
      units: (stiffness, excursion, length, start) -> internal units; the first two per field, physical.
      energy_unit: physical energy density in internal ones.
      parameter_units: unit of each dissipation parameter by name.
    """

    layout: FileLayout
    build: Callable[..., Structure]
    orders: Mapping[str, tuple[int, ...]]
    units: Callable[[np.ndarray, np.ndarray, float, float], Units]
    energy_unit: Callable[[Units], float]
    parameter_units: Callable[[Units], dict[str, float]]


def string_units(stiffness: np.ndarray, excursion: np.ndarray, length: float, start: float) -> Units:
    """Units in which the string is ten long, both stiffnesses at rest are one and the largest excursion is 0.6.

        c = sqrt(kappa_p kappa_q),   T = Z/c,   P/Q = sqrt(kappa_q/kappa_p)

    Args:
      stiffness: kappa of momentum and strain, physical units.
      excursion: largest momentum and strain, a constant strain left out.
      length: of the string.
      start: time of the first frame.
    Returns:
      the units.
    """
    unit, ratio = length / INTERNAL_LENGTH, float(np.sqrt(stiffness[1] / stiffness[0]))
    strain = float(max(excursion[0] / ratio, excursion[1])) / INTERNAL_EXCURSION
    return Units(start, unit / float(np.sqrt(stiffness[0] * stiffness[1])), unit, (ratio * strain, strain))


def _string_energy_unit(units: Units) -> float:
    # both p_t = (e_q)_z and q_t = (e_p)_z keep their form exactly when E T = P Q Z
    return units.fields[0] * units.fields[1] * units.length / units.time


def _string_parameter_units(units: Units) -> dict[str, float]:
    momentum, strain = units.fields
    return {KELVIN_VOIGT: momentum * units.length / strain, VISCOUS: momentum / (strain * units.length)}


STRUCTURES: dict[str, KnownStructure] = {
    "vibrating_string": KnownStructure(
        layout=FileLayout("vibrating_string", ("momentum", "strain"), 1, 0, min_grid_points=8),
        build=string_structure,
        orders={"mirror": (2, 4, 6, 8), "sbp": (2, 4)},
        units=string_units,
        energy_unit=_string_energy_unit,
        parameter_units=_string_parameter_units,
    ),
}


def known_structure(name: str) -> KnownStructure:
    """The structure of a name; raises InputError that names those there are."""
    if name not in STRUCTURES:
        raise InputError(f"unknown structure {name!r}; fit knows {', '.join(STRUCTURES)}")
    return STRUCTURES[name]


def stencil_order(order: int, closure: str, num_points: int, orders: Mapping[str, tuple[int, ...]]) -> int:
    """The highest order of a closure that is not above the one asked for and fits on the grid (2 order + 1 points).

    Raises:
      ValueError: unknown closure, or no order fits.
    """
    if closure not in orders:
        raise ValueError(f"expected a closure among {sorted(orders)}, got {closure!r}")
    fitting = [known for known in orders[closure] if known <= order and 2 * known + 1 <= num_points]
    if not fitting:
        raise ValueError(
            f"no stencil of order {order} or less fits on {num_points} grid points; {closure} has {orders[closure]}"
        )
    return max(fitting)
