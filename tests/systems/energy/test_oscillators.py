"""One degree of freedom against closed forms, and the work of its port."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.numerics.reference import solve_reference
from phdme_jax.systems import make_system
from phdme_jax.systems.energy.base import (
    injected,
    parameter_values,
    port_outputs,
    total_energy,
    vector_field,
    with_inputs,
)
from phdme_jax.systems.energy.oscillators import chain_structure, elongation_matrix


def test_damped_oscillation_in_closed_form():
    system = make_system("mass_spring", damping=0.3, stiffness=2.0, mass=0.5)
    times = np.linspace(0.0, 6.0, 25)
    values = parameter_values(system, jnp.float64)

    def field(state, parameters):
        return vector_field(system.structure, system.density, state, parameters)

    path, ok = solve_reference(field, jnp.array([1.0, 0.0]), jnp.asarray(times), values)
    # m q'' + c q' + k q = 0 with c the damping
    decay, frequency = 0.3 / (2 * 0.5), np.sqrt(2.0 / 0.5 - (0.3 / (2 * 0.5)) ** 2)
    position = np.exp(-decay * times) * (np.cos(frequency * times) + decay / frequency * np.sin(frequency * times))
    assert ok
    np.testing.assert_allclose(path[:, 0], position, atol=1e-8)


def test_the_pendulum_is_the_published_one():
    system = make_system("driven_pendulum")
    state, force = jnp.array([0.7, -0.4]), jnp.array([0.3])
    rates = vector_field(system.structure, system.density, state, parameter_values(system, state.dtype), force)
    # x1' = x2, x2' = -(x1 - 2 sin x1) - 0.1 x2 + u
    np.testing.assert_allclose(rates, [-0.4, -(0.7 - 2 * np.sin(0.7)) + 0.04 + 0.3], rtol=1e-14)
    assert float(total_energy(system.structure, system.density, jnp.zeros(2))) == pytest.approx(1.0)


def test_the_power_of_a_port_is_input_times_output():
    system = make_system("driven_pendulum")
    state, force = jnp.array([0.7, -0.4]), jnp.array([0.3])
    values = parameter_values(system, state.dtype)
    efforts = jax.grad(system.density)(state)
    rates = vector_field(system.structure, system.density, state, values, force)
    change = jax.jvp(lambda x: total_energy(system.structure, system.density, x), (state,), (rates,))[1]
    dissipated = 0.1 * efforts[1] ** 2
    supplied = force @ port_outputs(system.structure, efforts)
    assert float(change) == pytest.approx(float(supplied - dissipated), rel=1e-13)


def test_a_chain_obeys_newton_and_loses_only_what_dissipates():
    masses, stiffness, damping = np.array([1.0, 2.5]), np.array([1.4, 0.6, 0.9]), np.array([0.1, 0.3])
    structure = chain_structure("chain", tuple(masses))
    displacement, velocity = np.array([0.4, -0.3]), np.array([0.2, 0.7])
    values = dict(zip(structure.parameters, jnp.asarray(damping), strict=True))

    def density(state):
        return 0.5 * jnp.sum(stiffness * state[:3] ** 2) + 0.5 * jnp.sum(masses * state[3:] ** 2)

    elongation = np.array([displacement[0], displacement[1] - displacement[0], -displacement[1]])
    np.testing.assert_allclose(elongation_matrix(2) @ displacement, elongation)
    state = jnp.asarray(np.concatenate([elongation, velocity]))
    rates = np.asarray(vector_field(structure, density, state, values))
    # each mass is pulled by the spring on its right and pushed by the one on its left
    force = -stiffness[:2] * elongation[:2] + stiffness[1:] * elongation[1:] - damping * velocity
    np.testing.assert_allclose(rates[3:], force / masses, rtol=1e-14)
    np.testing.assert_allclose(rates[:3], [velocity[0], velocity[1] - velocity[0], -velocity[1]], rtol=1e-14)
    assert float(jax.grad(density)(state) @ rates) == pytest.approx(-np.sum(damping * velocity**2), rel=1e-12)


def test_inputs_that_ride_along_drive_as_the_port_does():
    system = make_system("driven_pendulum")
    extended = with_inputs(system.structure)
    state, force = jnp.array([0.7, -0.4]), jnp.array([0.3])
    values = parameter_values(system, state.dtype)
    efforts = jnp.concatenate([jax.grad(system.density)(state), force])
    rates = vector_field(system.structure, system.density, state, values, force)
    np.testing.assert_allclose(extended.flow(efforts, values), [*rates, 0.0], rtol=1e-14)
    assert extended.fields == (*system.structure.fields, "force") and not extended.ports
    with pytest.raises(ValueError, match="ports"):
        with_inputs(make_system("mass_spring").structure)


def test_inputs_without_a_port_are_refused():
    system = make_system("mass_spring")
    with pytest.raises(ValueError, match="ports"):
        injected(system.structure, jnp.ones(1))
