"""Constants that dynamics keep and do not feel: which fields have them, and when they count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.systems import make_system
from phdme_jax.systems.energy.alternatives import with_dissipation, with_opposite_sign
from phdme_jax.systems.energy.base import conserved_fields, constant_parts, vector_field
from phdme_jax.systems.energy.vibrating_string import string_structure
from tests.forecasting.string_files import waves

KEPT = {
    "vibrating_string": (False, True),
    "shallow_water_1d": (True, False),
    "shallow_water_2d": (True, False, False),
    "mass_spring": (False, False),
    "driven_pendulum": (False, False),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KEPT)
def test_strain_and_elevation_are_conserved_and_a_constant_of_their_effort_is_not_felt(name):
    system = make_system(name)
    structure = system.structure
    assert conserved_fields(structure) == KEPT[name]
    # what has a kept constant may be counted from any: an energy linear in it moves nothing
    state = structure.constrain(jax.random.normal(jax.random.key(0), (*structure.grid.points, len(KEPT[name]))))
    values = {parameter: jnp.asarray(0.3) for parameter in structure.parameters}
    rates = vector_field(structure, system.density, state, values)
    for field, kept in enumerate(KEPT[name]):
        tilted = vector_field(structure, lambda x, f=field: system.density(x) + 5.0 * x[f], state, values)
        assert bool(np.abs(tilted - rates).max() < 1e-9 * np.abs(rates).max()) == kept


@pytest.mark.parametrize(("closure", "order"), [("mirror", 2), ("mirror", 8), ("sbp", 4)])
def test_what_conserves_the_strain_is_told_whatever_closure_and_signs(closure, order):
    structure = string_structure(17, 1e-3, order, closure, ("kelvin_voigt_damping", "viscous_damping"))
    assert conserved_fields(structure) == conserved_fields(with_opposite_sign(structure, 0)) == (False, True)
    # a field that is dissipated forgets its constant
    assert conserved_fields(with_dissipation(structure, 1)) == (False, False)
    assert conserved_fields(with_dissipation(structure, 0)) == (False, True)


def test_a_constant_part_is_that_of_each_state_and_counts_from_one_deviation_on():
    structure, states = string_structure(12, 1.0, 4), waves(2, 0)["state"]
    deviation = states[..., 1].std()
    stretched = states + np.array([0.0, 7.0]) * deviation * np.array([1.0, 2.0])[:, None, None, None]
    found = constant_parts(structure, stretched)
    assert found.shape == (2, 14, 1, 2)
    np.testing.assert_array_equal(found[..., 0], 0.0)
    np.testing.assert_allclose(found[:, :, 0, 1], np.array([[7.0], [14.0]]) * deviation + np.zeros(14), rtol=1e-12)
    # smaller ones, momenta, inputs that ride along: none, to the last bit
    for other in (states, states + np.array([100.0, 0.5]) * deviation):
        assert not constant_parts(structure, other).any()
    ridden = np.concatenate([stretched, np.full_like(states[..., :1], 5.0)], axis=-1)
    np.testing.assert_array_equal(constant_parts(structure, ridden)[..., :2], found)
    np.testing.assert_array_equal(constant_parts(structure, ridden)[..., 2], 0.0)
    # nothing would be left of a strain that is the same everywhere
    assert not constant_parts(structure, np.full_like(states, 0.1)).any()
    assert constant_parts(structure, stretched.astype(np.float32)).dtype == np.float32
