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
every_case = pytest.mark.parametrize(("name", "options"), CASES)


def random_efforts(structure, seed=0):
    shape = (*structure.grid.points, len(structure.fields))
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def skewness(structure, efforts):
    """<e, J e> relative to the norms of both; zero where J is skew-adjoint."""


    def relative(efforts):
        rates = structure.flow(efforts, zero_parameters(structure, efforts.dtype))
        norms = inner(structure, efforts, efforts) * inner(structure, rates, rates)
        return inner(structure, efforts, rates) / jnp.sqrt(norms)

    return float(jax.jit(relative)(efforts))


def a_state(system, seed=0, dtype=jnp.float64):
    _, draw = system.initial_states[-1]
    state = draw(jax.random.key(seed))
    # drawn at rest or not, make every field move
    return system.structure.constrain(state + 0.1 * random_efforts(system.structure, seed)).astype(dtype)


@every_case
def test_efforts_are_the_gradient_of_the_energy_in_the_discrete_inner_product(name, options):
    system = make_system(name, **options)

    @jax.jit
    def compare(state, direction):
        energy, change = jax.jvp(lambda x: total_energy(system.structure, system.density, x), (state,), (direction,))
        return energy, change, inner(system.structure, jax.vmap(jax.grad(system.density))(state), direction)

    energy, change, product = compare(a_state(system), random_efforts(system.structure, 1))
    np.testing.assert_allclose(product, change, rtol=1e-12)
    assert float(energy) > 0


@every_case
def test_interconnection_is_skew_and_a_flipped_sign_is_caught(name, options):
    structure = make_system(name, **options).structure
    efforts = random_efforts(structure)
    assert abs(skewness(structure, efforts)) < 1e-14

    def flipped(efforts, parameters):
        return structure.flow(efforts, parameters).at[..., 0].multiply(-1.0)

    assert abs(skewness(dataclasses.replace(structure, flow=flipped), efforts)) > 1e-3


@every_case
def test_every_dissipation_parameter_takes_energy_out(name, options):
    structure = make_system(name, **options).structure
    for parameter in structure.parameters:
        values = zero_parameters(structure, jnp.float64) | {parameter: jnp.asarray(0.7)}
        efforts = jnp.stack([random_efforts(structure, seed) for seed in range(5)])
        power = jax.jit(jax.vmap(lambda e, v: dissipated_power(structure, e, v), (0, None)))(efforts, values)
        assert np.all(power > 1e-3)


@every_case
def test_flow_is_linear_in_the_efforts_and_affine_in_the_parameters(name, options):
    structure = make_system(name, **options).structure
    left, right = random_efforts(structure, 0), random_efforts(structure, 1)
    ones = {parameter: jnp.asarray(1.0) for parameter in structure.parameters}
    zero, half = ({key: scale * value for key, value in ones.items()} for scale in (0.0, 0.5))
    flow = jax.jit(structure.flow)
    np.testing.assert_allclose(
        flow(2 * left - 3 * right, ones), 2 * flow(left, ones) - 3 * flow(right, ones), atol=1e-11
    )
    np.testing.assert_allclose(flow(left, half), 0.5 * (flow(left, zero) + flow(left, ones)), atol=1e-11)


@every_case
def test_energy_balance_along_the_vector_field_and_boundary_values_that_stay(name, options):
    system = make_system(name, **options)
    structure = system.structure
    values = parameter_values(system, jnp.float64)

    @jax.jit
    def compare(state):
        rates = vector_field(structure, system.density, state, values)
        _, change = jax.jvp(lambda x: total_energy(structure, system.density, x), (state,), (rates,))
        efforts = jax.vmap(jax.grad(system.density))(state)
        scale = jnp.sqrt(inner(structure, efforts, efforts) * inner(structure, rates, rates))
        return (change + dissipated_power(structure, efforts, values)) / scale, structure.boundary(rates)

    defect, boundary = compare(a_state(system))
    assert abs(float(defect)) < 1e-13
    np.testing.assert_allclose(boundary, 0.0, atol=1e-14)


@pytest.mark.parametrize("name", SYSTEMS)
def test_initial_states_meet_the_boundary_conditions_and_differ_by_key(name):
    system = make_system(name)
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


@every_case
def test_jit_vmap_grad_and_dtype(name, options):
    system = make_system(name, **options)
    structure = system.structure

    def evaluate(state):
        values = parameter_values(system, state.dtype)
        energy = total_energy(structure, system.density, state)
        rates = vector_field(structure, system.density, state, values)
        gradient = jax.grad(lambda x: jnp.sum(vector_field(structure, system.density, x, values) ** 2))(state)
        return energy, rates, gradient, dissipated_power(structure, rates, values)

    states = jnp.stack([a_state(system, seed, jnp.float32) for seed in range(3)])
    for dtype in (jnp.float32, jnp.float64):
        assert {leaf.dtype for leaf in jax.eval_shape(evaluate, states[0].astype(dtype))} == {jnp.dtype(dtype)}
    batched, looped = jax.jit(lambda x: (jax.vmap(evaluate)(x), jax.lax.map(evaluate, x)))(states)
    for one, other in zip(batched, looped, strict=True):
        assert bool(jnp.all(jnp.isfinite(one)))
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="expected a system among"):
        make_system("nonsense")
