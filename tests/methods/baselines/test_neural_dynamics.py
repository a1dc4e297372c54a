"""Learned fields through the solver: closed forms, the loss of the truth, the balance of a Hamiltonian network."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.methods.baselines.neural_dynamics import HamiltonianField, NeuralField, solve_field, window_loss
from phdme_jax.systems import make_system
from phdme_jax.systems.energy.oscillators import oscillator_structure

TIMES = jnp.linspace(0.0, 4.0, 41)


def driven_oscillator(state, inputs):
    return jnp.stack([state[1], inputs[0] - state[0]])


def exact(times):
    """x'' = sin(2 t) - x from rest at one."""
    return jnp.stack(
        [
            jnp.cos(times) + (2 * jnp.sin(times) - jnp.sin(2 * times)) / 3,
            -jnp.sin(times) + 2 * (jnp.cos(times) - jnp.cos(2 * times)) / 3,
        ],
        axis=-1,
    )


@pytest.mark.slow
def test_a_driven_oscillator_in_closed_form():
    inputs = jnp.sin(2 * TIMES)[:, None]
    found = jax.jit(partial(solve_field, driven_oscillator))(jnp.array([1.0, 0.0]), TIMES, inputs)
    # the input between frames is a cubic through four of them
    np.testing.assert_allclose(found, exact(TIMES), atol=5e-5)


@pytest.mark.slow
def test_the_loss_of_the_truth_is_its_noise_and_that_of_another_field_is_larger():
    inputs, scale = jnp.sin(2 * TIMES)[:, None], jnp.array([0.5, 2.0])
    arguments = (exact(TIMES), TIMES, inputs, scale, 10, jax.random.key(0))
    assert float(window_loss(driven_oscillator, *arguments)) < 1e-9
    other = float(window_loss(lambda x, u: 1.1 * driven_oscillator(x, u), *arguments))
    assert other > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("driven", [True, False])
def test_a_hamiltonian_network_loses_energy_but_for_what_is_put_in(driven):
    structure = oscillator_structure(driven=driven)
    field = HamiltonianField(structure, jnp.array([1.0, 2.0]), 16, 2, jax.random.key(1))
    state, inputs = jnp.array([0.7, -0.4]), jnp.array([0.3]) if driven else jnp.zeros((0,))
    rates = field(state, inputs)
    slope = jax.grad(field.energy)(state)
    supplied = float(slope[1] * inputs[0]) if driven else 0.0
    damping = float(field.parameters()["viscous_damping"])
    assert damping == pytest.approx(0.03)
    assert float(slope @ rates) == pytest.approx(supplied - damping * float(slope[1]) ** 2, rel=1e-12)


def test_a_network_without_structure_takes_inputs_and_follows_the_scale():
    field = NeuralField(jnp.array([1.0, 2.0]), 1, 16, 2, jax.random.key(1))
    state = jnp.array([0.7, -0.4])
    assert float(jnp.max(jnp.abs(field(state, jnp.ones(1)) - field(state, jnp.zeros(1))))) > 1e-3
    slope = eqx.filter_grad(lambda f: jnp.sum(f(state, jnp.zeros(1))))(field)
    np.testing.assert_array_equal(slope.scale, 0.0)


def waves(points, times):
    """(cos a cos t, sin a sin t), a from 0 to pi: a standing wave of x_t = -v_a, v_t = -x_a between walls."""
    angle = jnp.pi * jnp.arange(points) / (points - 1)
    times = times[:, None]
    return jnp.stack([jnp.cos(angle) * jnp.cos(times), jnp.sin(angle) * jnp.sin(times)], axis=-1)


@pytest.mark.slow
def test_a_hamiltonian_field_on_a_grid_with_the_true_energy_carries_a_wave():
    """Its quadratic form alone is linear water of unit depth and gravity in a basin of length one."""
    structure = make_system("shallow_water_1d", num_points=33, viscosity=0.0, order=8).structure
    field = HamiltonianField(structure, jnp.ones(2), 8, 1, jax.random.key(0))
    zero = eqx.tree_at(
        lambda f: f.network, field, jax.tree.map(lambda x: 0 * x if eqx.is_inexact_array(x) else x, field.network)
    )
    zero = eqx.tree_at(lambda f: f.log_parameters, zero, jnp.full_like(zero.log_parameters, -50.0))
    truth = waves(33, TIMES)
    found = jax.jit(partial(solve_field, zero))(truth[0], TIMES / np.pi, jnp.zeros((len(TIMES), 0)))
    np.testing.assert_allclose(found, truth, atol=1e-4)


@pytest.mark.slow
def test_a_neural_field_on_a_grid_sees_its_neighbours_and_holds_odd_ends():
    field = NeuralField(jnp.array([1.0, 2.0]), 0, 8, 1, jax.random.key(0), parity=((1,), (-1,)), radius=2)
    state = jax.random.normal(jax.random.key(1), (11, 2))
    slope = jax.jacobian(lambda x: field(x, jnp.zeros((0,)))[5])(state)
    reached = np.abs(np.asarray(slope)).max(axis=(0, -1)) > 0
    np.testing.assert_array_equal(reached, np.abs(np.arange(11) - 5) <= 2)
    np.testing.assert_array_equal(field(state, jnp.zeros((0,)))[[0, -1], 1], 0.0)
