"""Structures beside a given one: what they change and what they leave alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.systems import make_system
from phdme_jax.systems.energy.alternatives import is_skew, with_dissipation, with_opposite_sign, without_dissipation
from phdme_jax.systems.energy.base import dissipated_power, parameter_values

NAMES = ("vibrating_string", "shallow_water_1d", "shallow_water_2d", "driven_pendulum")


def system(name):
    return make_system(name) if name == "driven_pendulum" else make_system(name, num_points=16)


@pytest.mark.parametrize("name", NAMES)
def test_every_structure_is_skew_and_one_row_with_the_other_sign_is_not(name):
    structure = system(name).structure
    assert is_skew(structure)
    assert is_skew(with_opposite_sign(structure)) and not is_skew(with_opposite_sign(structure, 0))


@pytest.mark.parametrize("name", NAMES)
def test_rates_of_the_alternatives(name):
    structure, values = system(name).structure, parameter_values(system(name), jnp.float64)
    shape = (*structure.grid.points, len(structure.fields))
    efforts = structure.constrain(jax.random.normal(jax.random.key(0), shape, jnp.float64))
    rates = structure.flow(efforts, values)
    zero = {key: jnp.zeros(()) for key in values}
    conservative = structure.flow(efforts, zero)
    np.testing.assert_array_equal(without_dissipation(structure).flow(efforts, {}), conservative)
    opposite = with_opposite_sign(structure).flow(efforts, values)
    np.testing.assert_allclose(opposite, rates - 2 * conservative, atol=1e-12)
    more = with_dissipation(structure, 1)
    wider = {**values, more.parameters[-1]: jnp.asarray(0.3)}
    changed = more.flow(efforts, wider) - rates
    np.testing.assert_allclose(changed[..., 1], -0.3 * efforts[..., 1], atol=1e-12)
    np.testing.assert_array_equal(changed[..., 0], 0.0)
    assert float(dissipated_power(more, efforts, wider)) > float(dissipated_power(structure, efforts, values))


def test_an_unknown_field_is_refused():
    with pytest.raises(ValueError, match="field from 0 to 1"):
        with_opposite_sign(system("driven_pendulum").structure, 2)
