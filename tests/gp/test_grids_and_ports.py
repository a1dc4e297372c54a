"""Rows and rollouts without a grid, on a plane, and with something put in: the same truths as on a line."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.gp.basis import Basis, Box, Energy
from phdme_jax.gp.observations import grid_tests, integral_rows, interval_tests
from phdme_jax.gp.sampling import roll_out
from phdme_jax.numerics.reference import solve_reference
from phdme_jax.systems import make_system
from phdme_jax.systems.energy.base import injected, parameter_values, vector_field
from phdme_jax.systems.energy.oscillators import oscillator_structure

DAMPING = {"viscous_damping": jnp.asarray(0.1)}
STIFFNESS = jnp.array([1.7, 0.6])


def force(t):
    return 0.3 * jnp.sin(1.3 * t)[..., None]


def driven_path(times):
    """A linear oscillator with damping under a force, solved with time as a third field."""
    structure = oscillator_structure(driven=True)

    def field(extended, _):
        rates = structure.flow(STIFFNESS * extended[:2], DAMPING) + injected(structure, force(extended[2]))
        return jnp.append(rates, 1.0)

    path, ok = solve_reference(field, jnp.array([0.8, -0.2, 0.0]), times, None, rtol=1e-11, atol=1e-12)
    assert ok
    return structure, path[:, :2]


def misfit(rows, truth, parameters):
    """Rows minus what the true energy, quadratic with the given stiffness, says."""
    size = rows.design.shape[-1] - truth.size
    weights = jnp.concatenate([jnp.zeros(size), truth])
    design = rows.design[0] + sum(value * block for value, block in zip(parameters, rows.design[1:], strict=True))
    return float(jnp.max(jnp.abs(rows.target - design @ weights)) / jnp.max(jnp.abs(rows.target)))


@pytest.mark.slow
def test_rows_of_a_driven_oscillator_hold_for_its_energy_only_with_what_was_put_in():
    times = np.linspace(0.0, 12.0, 121)
    structure, path = driven_path(jnp.asarray(times))
    box, basis = Box(jnp.zeros(2), jnp.full(2, 3.0)), Basis(2, 6, 3)
    tests = interval_tests(times, path[None], 40)
    build = partial(integral_rows, basis, box, structure.flow, structure.parameters, path, tests, 1)
    supplied = jax.vmap(partial(injected, structure))(force(jnp.asarray(times)))
    rows = build(supplied=supplied)
    assert rows.target.shape == (40 * 2,)
    assert misfit(rows, STIFFNESS, [0.1]) < 1e-6
    assert misfit(build(), STIFFNESS, [0.1]) > 0.1


@pytest.mark.slow
def test_rows_on_a_plane_hold_for_the_energy_of_small_waves():
    system = make_system("shallow_water_2d", num_points=(17, 20), gravity=1.7, viscosity=0.01, order=4)
    state = 1e-6 * system.initial_state("random_smooth")(jax.random.key(0))
    times = np.linspace(0.0, 1.0, 33)
    values = parameter_values(system, jnp.float64)

    def field(x, parameters):
        return vector_field(system.structure, system.density, x, parameters)

    path, ok = solve_reference(field, state, jnp.asarray(times), values, rtol=1e-10, atol=1e-16)
    assert ok
    box, basis = Box(jnp.zeros(3), jnp.full(3, 1e-5)), Basis(3, 4, 2)
    tests = interval_tests(times, path[None], 12)
    rows = jax.jit(lambda x: integral_rows(basis, box, system.structure.flow, ("viscosity",), x, tests, 5))(path)
    assert rows.target.shape == (12 * 25 * 3,)
    assert misfit(rows, jnp.array([1.7, 1.0, 1.0]), [0.01]) < 1e-5
    assert misfit(rows, jnp.array([1.7, 1.0, 1.0]), [0.0]) > 1e-3


def test_tests_on_a_plane_are_orthonormal_products():
    tests = grid_tests((6, 9), 3)
    np.testing.assert_allclose(tests @ tests.T, np.eye(9), atol=1e-14)
    assert grid_tests((), 5).shape == (1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("driven", [True, False])
def test_a_driven_rollout_follows_its_reference_and_accounts_for_the_work(driven):
    times = jnp.linspace(0.0, 12.0, 61)
    structure, path = driven_path(times)
    basis = Basis(2, 2, 0)
    energy = Energy(Box(jnp.zeros(2), jnp.full(2, 3.0)), STIFFNESS, jnp.zeros(4))
    supplied = jax.vmap(partial(injected, structure))(force(times)) if driven else None
    rolled = jax.jit(
        lambda x: roll_out(
            basis, structure.flow, jnp.ones(()), energy, DAMPING, x, times, substeps=8, supplied=supplied
        )
    )(path[0])
    assert bool(rolled.ok)
    error = float(jnp.max(jnp.abs(rolled.trajectory - path)))
    assert error < 1e-4 if driven else error > 0.1
    # the force does work: the energy itself rises now and then
    assert bool(jnp.any(jnp.diff(rolled.energy) > 1e-3)) == driven
