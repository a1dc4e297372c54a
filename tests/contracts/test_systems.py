"""What every port-Hamiltonian system of the registry keeps, whatever its order, closure, energy or dissipation."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.systems import SYSTEMS, make_system
from phdme_jax.systems.energy.base import (
    at_points,
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
        {"order": 4, "closure": "sbp", "dissipation": BOTH},
    ],
    "shallow_water_1d": [{"order": 8}, {"closure": "sbp"}],
    "shallow_water_2d": [{"order": 6, "num_points": (14, 17), "lengths": (1.0, 1.4)}],
    "mass_spring": [{"damping": 0.2}],
}
# walls imposed weakly are open to rounding and to the error of the scheme
WEAK_WALLS = ("shallow_water_1d", "sbp")
CASES = [(name, options) for name in SYSTEMS for options in [{}, *VARIANTS.get(name, [])]]


def random_fields(structure, seed):
    shape = (*structure.grid.points, len(structure.fields))
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


class Measured(NamedTuple):
    """What one compiled function measures of a system at a state, with random efforts and a random direction."""

    energy: jax.Array
    gradient: tuple[jax.Array, jax.Array]
    skewness: jax.Array
    flipped_skewness: jax.Array
    powers: tuple[jax.Array, ...]
    linearity: jax.Array
    affinity: jax.Array
    balance: jax.Array
    boundary_rates: jax.Array
    invariant_rates: tuple[jax.Array, ...]


def measure(system, state, efforts, direction):
    structure = system.structure
    energy = partial(total_energy, structure, system.density)
    none, values = zero_parameters(structure, state.dtype), parameter_values(system, state.dtype)
    full, half = ({name: jnp.asarray(value) for name in structure.parameters} for value in (1.0, 0.5))

    def cosine(left, right):
        return inner(structure, left, right) / jnp.sqrt(inner(structure, left, left) * inner(structure, right, right))

    conservative = structure.flow(efforts, none)
    gradient = at_points(jax.grad(system.density), state)
    rates = vector_field(structure, system.density, state, values)
    change = jax.jvp(energy, (state,), (rates,))[1]
    combined = structure.flow(2 * efforts - 3 * direction, full)
    apart = 2 * structure.flow(efforts, full) - 3 * structure.flow(direction, full)
    middle = 0.5 * (conservative + structure.flow(efforts, full))
    return Measured(
        energy=energy(state),
        gradient=(inner(structure, gradient, direction), jax.jvp(energy, (state,), (direction,))[1]),
        skewness=cosine(efforts, conservative),
        flipped_skewness=cosine(efforts, conservative.at[..., 0].multiply(-1.0)),
        powers=tuple(
            dissipated_power(structure, part, none | {name: full[name]})
            for name in structure.parameters
            for part in (efforts, direction, gradient)
        ),
        linearity=jnp.max(jnp.abs(combined - apart)) / jnp.max(jnp.abs(apart)),
        affinity=jnp.max(jnp.abs(structure.flow(efforts, half) - middle)) / jnp.max(jnp.abs(middle)),
        balance=(change + dissipated_power(structure, gradient, values)) / jnp.max(jnp.abs(rates)),
        boundary_rates=structure.boundary(rates),
        invariant_rates=tuple(jax.jvp(function, (state,), (rates,))[1] for _, function in system.invariants),
    )


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join([case[0], *map(str, case[1].values())]))
def system(request):
    name, options = request.param
    return make_system(name, **options)


@pytest.fixture(scope="module")
def measured(system):
    state, efforts, direction = (random_fields(system.structure, seed) for seed in range(3))
    return jax.jit(partial(measure, system))(system.structure.constrain(0.3 * state), efforts, direction)


def test_efforts_are_the_gradient_of_the_energy_in_the_discrete_inner_product(measured):
    np.testing.assert_allclose(*measured.gradient, rtol=1e-12)
    assert float(measured.energy) > 0


def test_interconnection_is_skew_and_a_flipped_sign_is_caught(measured):
    assert abs(float(measured.skewness)) < 1e-14
    assert abs(float(measured.flipped_skewness)) > 1e-3


def test_every_dissipation_parameter_takes_energy_out(measured):
    assert np.all(np.array(measured.powers) > 1e-3)


def test_flow_is_linear_in_the_efforts_and_affine_in_the_parameters(measured):
    assert float(measured.linearity) < 1e-14
    assert float(measured.affinity) < 1e-14


def test_energy_balance_closes_along_the_vector_field_and_boundary_values_stay(system, measured, request):
    assert abs(float(measured.balance)) < 1e-13
    name, options = request.node.callspec.params["system"]
    if (name, options.get("closure")) != WEAK_WALLS:
        np.testing.assert_allclose(measured.boundary_rates, 0.0, atol=1e-14)


def test_invariants_are_kept_with_dissipation(measured):
    np.testing.assert_allclose(np.array(measured.invariant_rates), 0.0, atol=1e-11)


@pytest.mark.slow
def test_dtype_follows_and_batches_are_loops(system):
    structure = system.structure

    def evaluate(state):
        values = parameter_values(system, state.dtype)

        def rates(x):
            return vector_field(structure, system.density, x, values)

        energy = total_energy(structure, system.density, state)
        gradient = jax.grad(lambda x: jnp.sum(rates(x) ** 2))(state)
        return energy, rates(state), gradient, dissipated_power(structure, state, values)

    states = jnp.stack([random_fields(structure, seed) for seed in range(3)]).astype(jnp.float32)
    for dtype in (jnp.float32, jnp.float64):
        assert {leaf.dtype for leaf in jax.eval_shape(evaluate, states[0].astype(dtype))} == {jnp.dtype(dtype)}
    batched, looped = jax.jit(lambda x: (jax.vmap(evaluate)(x), jax.lax.map(evaluate, x)))(states)
    for one, other in zip(batched, looped, strict=True):
        assert bool(jnp.all(jnp.isfinite(one)))
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * float(jnp.max(jnp.abs(other))) + 1e-7)


@pytest.mark.parametrize("name", SYSTEMS)
def test_initial_states_meet_the_boundary_conditions_and_differ_by_key(name):
    system = make_system(name)
    structure = system.structure
    draws = [system.initial_state(family) for family, _ in system.initial_states]
    for states in jax.jit(jax.vmap(lambda key: [draw(key) for draw in draws]))(jax.random.split(jax.random.key(0), 4)):
        assert states.shape == (4, *structure.grid.points, len(structure.fields))
        np.testing.assert_allclose(jax.vmap(structure.boundary)(states), 0.0, atol=1e-12)
        np.testing.assert_allclose(jax.vmap(structure.constrain)(states), states, atol=1e-12)
        assert float(jnp.max(jnp.abs(states[0] - states[1]))) > 1e-3
    with pytest.raises(ValueError, match="initial-state family"):
        system.initial_state("nonsense")


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="expected a system among"):
        make_system("nonsense")
