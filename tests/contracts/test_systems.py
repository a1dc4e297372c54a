"""What every port-Hamiltonian system of the registry keeps, whatever its order, closure, energy or dissipation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.systems import SYSTEMS, make_system
from phdme_jax.systems.base import (
    dissipated_power,
    inner,
    parameter_values,
    total_energy,
    vector_field,
    zero_parameters,
)

BOTH = ("kelvin_voigt_damping", "viscous_damping")
VARIANTS = {
    "vibrating_string": [
        {"order": 2, "stress": "linear", "dissipation": BOTH},
        {"order": 8, "dissipation": ("viscous_damping",)},
        {"order": 4, "closure": "sbp"},
        {"order": 2, "closure": "sbp", "dissipation": BOTH},
        {"dissipation": ()},
    ],
}
CASES = [
    pytest.param(name, options, id="-".join([name, *(str(value) for value in options.values())]))
    for name in SYSTEMS
    for options in [{}, *VARIANTS.get(name, [])]
]
pytestmark = pytest.mark.parametrize(("name", "options"), CASES)


def random_efforts(structure, seed=0):
    shape = (*structure.grid.points, len(structure.fields))
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def skewness(structure, efforts):
    """<e, J e> relative to the norms of both; zero where J is skew-adjoint."""
    rates = structure.flow(efforts, zero_parameters(structure, efforts.dtype))
    norms = inner(structure, efforts, efforts) * inner(structure, rates, rates)
    return float(inner(structure, efforts, rates) / jnp.sqrt(norms))


def a_state(system, seed=0, dtype=jnp.float64):
    _, draw = system.initial_states[-1]
    state = draw(jax.random.key(seed))
    # drawn at rest or not, make every field move
    return system.structure.constrain(state + 0.1 * random_efforts(system.structure, seed)).astype(dtype)


def test_efforts_are_the_gradient_of_the_energy_in_the_discrete_inner_product(name, options):
    system = make_system(name, **options)
    state, direction = a_state(system), random_efforts(system.structure, 1)
    energy, change = jax.jvp(lambda x: total_energy(system.structure, system.density, x), (state,), (direction,))
    efforts = jax.vmap(jax.grad(system.density))(state)
    np.testing.assert_allclose(inner(system.structure, efforts, direction), change, rtol=1e-12)
    assert float(energy) > 0


def test_interconnection_is_skew_and_a_flipped_sign_is_caught(name, options):
    structure = make_system(name, **options).structure
    efforts = random_efforts(structure)
    assert abs(skewness(structure, efforts)) < 1e-14

    def flipped(efforts, parameters):
        return structure.flow(efforts, parameters).at[..., 0].multiply(-1.0)

    assert abs(skewness(dataclasses.replace(structure, flow=flipped), efforts)) > 1e-3


def test_every_dissipation_parameter_takes_energy_out(name, options):
    structure = make_system(name, **options).structure
    for parameter in structure.parameters:
        values = zero_parameters(structure, jnp.float64) | {parameter: jnp.asarray(0.7)}
        efforts = jnp.stack([random_efforts(structure, seed) for seed in range(5)])
        power = jax.vmap(dissipated_power, (None, 0, None))(structure, efforts, values)
        assert np.all(power > 1e-3)


def test_flow_is_linear_in_the_efforts_and_affine_in_the_parameters(name, options):
    structure = make_system(name, **options).structure
    left, right = random_efforts(structure, 0), random_efforts(structure, 1)
    ones = {parameter: jnp.asarray(1.0) for parameter in structure.parameters}
    combined = structure.flow(2 * left - 3 * right, ones)
    np.testing.assert_allclose(combined, 2 * structure.flow(left, ones) - 3 * structure.flow(right, ones), atol=1e-11)
    zero, half = ({key: scale * value for key, value in ones.items()} for scale in (0.0, 0.5))
    middle = 0.5 * (structure.flow(left, zero) + structure.flow(left, ones))
    np.testing.assert_allclose(structure.flow(left, half), middle, atol=1e-11)


def test_energy_balance_along_the_vector_field_and_boundary_values_that_stay(name, options):
    system = make_system(name, **options)
    structure, state = system.structure, a_state(system)
    values = parameter_values(system, state.dtype)
    rates = vector_field(structure, system.density, state, values)
    _, change = jax.jvp(lambda x: total_energy(structure, system.density, x), (state,), (rates,))
    efforts = jax.vmap(jax.grad(system.density))(state)
    power = dissipated_power(structure, efforts, values)
    scale = jnp.sqrt(inner(structure, efforts, efforts) * inner(structure, rates, rates))
    assert abs(float(change + power)) < 1e-13 * float(scale)
    np.testing.assert_allclose(structure.boundary(rates), 0.0, atol=1e-14)


def test_initial_states_meet_the_boundary_conditions_and_differ_by_key(name, options):
    system = make_system(name, **options)
    structure = system.structure
    draws = [system.initial_state(family) for family, _ in system.initial_states]
    keys = jax.random.split(jax.random.key(0), 4)
    for states in jax.jit(jax.vmap(lambda key: [draw(key) for draw in draws]))(keys):
        assert states.shape == (4, *structure.grid.points, len(structure.fields))
        np.testing.assert_allclose(jax.vmap(structure.boundary)(states), 0.0, atol=1e-12)
        np.testing.assert_allclose(jax.vmap(structure.constrain)(states), states, atol=1e-12)
        assert float(jnp.max(jnp.abs(states[0] - states[1]))) > 1e-3
    with pytest.raises(ValueError, match="initial-state family"):
        system.initial_state("nonsense")


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_jit_vmap_grad_and_dtype(name, options, dtype):
    system = make_system(name, **options)
    structure = system.structure
    values = parameter_values(system, dtype)

    @jax.jit
    def evaluate(state):
        def energy(x):
            return total_energy(structure, system.density, x)

        rates = vector_field(structure, system.density, state, values)
        gradient = jax.grad(lambda x: jnp.sum(vector_field(structure, system.density, x, values) ** 2))(state)
        return energy(state), rates, gradient, dissipated_power(structure, rates, values)

    states = jnp.stack([a_state(system, seed, dtype) for seed in range(3)])
    batch = jax.vmap(evaluate)(states)
    for whole, one in zip(batch, evaluate(states[1]), strict=True):
        assert whole.dtype == dtype
        assert bool(jnp.all(jnp.isfinite(whole)))
        np.testing.assert_allclose(whole[1], one, rtol=1e-4, atol=1e-4)


def test_unknown_names_are_refused(name, options):
    with pytest.raises(ValueError, match="expected a system among"):
        make_system(name + "_nonsense", **options)
