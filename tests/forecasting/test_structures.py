"""Known structures: internal units keep the dynamics, stencils fit on the grid."""

import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.forecasting.structures import STRUCTURES, stencil_order, string_units
from phdme_jax.systems.energy.vibrating_string import KELVIN_VOIGT, VISCOUS, string_structure
from tests.forecasting.string_files import LENGTH, POINTS, STIFFNESS


def test_internal_dynamics_are_the_physical_ones():
    """The internal structure with internal efforts and parameters gives the internal rates, damping included."""
    random = np.random.default_rng(4)
    state = random.normal(size=(POINTS, 2)) * [3.0, 0.01]
    damping = {KELVIN_VOIGT: 0.7, VISCOUS: 11.0}
    physical = string_structure(POINTS, LENGTH, 4, damping=tuple(damping))
    internal = string_structure(POINTS, 10.0, 4, damping=tuple(damping))
    units = string_units(np.asarray(STIFFNESS), np.abs(state).max(0), LENGTH, 0.0)
    known = STRUCTURES["vibrating_string"]
    scale, energy = np.asarray(units.fields), known.energy_unit(units)
    efforts = state * STIFFNESS + 0.1 * state**3
    rates = physical.flow(jnp.asarray(efforts), {name: jnp.asarray(value) for name, value in damping.items()})
    inside = {name: jnp.asarray(value / known.parameter_units(units)[name]) for name, value in damping.items()}
    inner = internal.flow(jnp.asarray(efforts * scale / energy), inside)
    np.testing.assert_allclose(np.asarray(inner) * scale / units.time, rates, rtol=1e-10)
    # stiffnesses one, largest excursion 0.6
    np.testing.assert_allclose(np.asarray(STIFFNESS) * scale**2 / energy, 1.0, rtol=1e-12)
    assert np.abs(state / scale).max() == pytest.approx(0.6)


@pytest.mark.parametrize(("points", "order"), [(64, 8), (17, 8), (16, 6), (13, 6), (12, 4), (9, 4), (8, 2), (5, 2)])
def test_stencil_order_falls_with_the_grid(points, order):
    orders = STRUCTURES["vibrating_string"].orders
    assert stencil_order(8, "mirror", points, orders) == order
    assert stencil_order(2, "mirror", points, orders) == 2
    assert stencil_order(8, "sbp", points, orders) == min(order, 4)
