"""Inputs of ports and fields that never change: rollouts, residual and samples feel them, and they are not drawn."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.methods.base import Examples, Start, Task
from phdme_jax.methods.draws import draw_forecasts
from phdme_jax.methods.energy import gp_rollout, oracle
from phdme_jax.methods.energy.conditional import Fields
from phdme_jax.methods.energy.dynamics import possible_state, resampled, true_dynamics
from phdme_jax.methods.energy.generator import make_fit
from phdme_jax.methods.energy.physics import dynamics_residual
from phdme_jax.methods.energy.rollouts import trajectory_weights
from phdme_jax.systems import make_system
from phdme_jax.systems.energy.base import System, parameter_values, vector_field
from phdme_jax.systems.energy.oscillators import oscillator_structure, spring_density
from phdme_jax.training.stages import Trainer

pytestmark = pytest.mark.slow

OPTIONS = {
    "prior": {"main": 24, "margin": 1.3, "time_tests": 100, "substeps": 4},
    "rollouts": {"count": 32},
    "network": {
        "unet": {"channels": 8, "multipliers": (1,), "num_blocks": 1, "embedding_size": 8, "heads": 0},
        "propagator": {"radius": 0, "width": 8, "depth": 1},
        "prediction": "x0",
    },
    "training": {
        "ema_decay": 0.9,
        "propagator_stages": ((1, 5, 8, 1e-2),),
        "residual_stage": (40, 8, 1e-3),
        "amplitude_draws": 8,
    },
    "physics": {"residual_weight": 0.1, "boundary_weight": 0.0, "residual_target": "trajectory"},
    "sampling": {"num_steps": 3},
}


def test_the_true_energy_under_an_input_moves_as_in_closed_form():
    """x'' = sin(2 t) - x from rest at one."""
    times = np.linspace(0.0, 4.0, 41)
    system = System(oscillator_structure(damped=False, driven=True), spring_density)
    start = Start(jnp.array([1.0, 0.0]), jnp.sin(2 * jnp.asarray(times))[:, None])
    rolled = jax.jit(lambda start: true_dynamics(system, 2).rollout((), start, tuple(times.tolist()), 2))(start)
    exact = [
        np.cos(times) + (2 * np.sin(times) - np.sin(2 * times)) / 3,
        -np.sin(times) + 2 * (np.cos(times) - np.cos(2 * times)) / 3,
    ]
    np.testing.assert_allclose(rolled.trajectory, np.stack(exact, axis=1), atol=5e-5)
    assert bool(rolled.ok)


def test_inputs_between_frames_are_those_of_a_cubic():
    times, wanted = tuple(np.linspace(0.0, 3.0, 13).tolist()), tuple(np.linspace(0.0, 3.0, 29).tolist())
    inputs = jnp.asarray(times)[:, None] ** 3
    assert resampled(inputs, times, times) is inputs
    np.testing.assert_allclose(resampled(inputs, times, wanted)[:, 0], np.asarray(wanted) ** 3, atol=1e-12)
    assert resampled(inputs[:, :0], times, wanted).shape == (29, 0)


class Driven:
    """A pendulum under 0.1 sin t, learned from without noise."""

    def __init__(self):
        self.system = make_system("driven_pendulum")
        self.times = tuple(np.linspace(0.0, 25.0, 251).tolist())
        self.inputs = 0.1 * np.sin(np.asarray(self.times))[:, None]
        start = Start(jnp.array([5.0, 0.0]), jnp.asarray(self.inputs))
        roll = jax.jit(lambda start: true_dynamics(self.system, 4).rollout((), start, self.times, 4))
        self.states = np.asarray(roll(start).trajectory)
        condition = Start(self.states[:1], self.inputs[None])
        train = Examples(self.states[None], condition, self.times)
        later = tuple(np.linspace(0.0, 6.0, 31).tolist())
        self.task = Task(self.system, lambda: train, self.starts, jax.random.key(0), later)
        self.fitted = gp_rollout.fit(self.task, OPTIONS, Trainer(), None, jax.random.key(0))

    def starts(self, key, count):
        index_key, phase_key = jax.random.split(key)
        index = np.asarray(jax.random.randint(index_key, (count,), 0, 251))
        phase = np.asarray(jax.random.uniform(phase_key, (count, 1), maxval=2 * np.pi))
        return Start(self.states[index], 0.1 * np.sin(np.asarray(self.task.times) + phase)[..., None])


@pytest.fixture(scope="module")
def driven():
    return Driven()


def test_the_learned_rollout_under_the_observed_input_returns_the_observed_motion(driven):
    dynamics, posterior = driven.fitted.model.dynamics, driven.fitted.params
    roll = jax.jit(lambda start: dynamics.rollout(posterior, start, driven.times, 4).trajectory)
    found, free = (roll(Start(driven.states[0], factor * driven.inputs)) for factor in (1.0, 0.0))
    assert np.abs(found - driven.states).max() < 0.05
    # 0.1 sin t over four periods moves the pendulum by far more than the energy's error
    assert np.abs(free - driven.states).max() > 0.5
    assert driven.fitted.found["viscous_damping"] == pytest.approx(0.1, rel=0.05)
    assert driven.fitted.seconds["fit"] > 0


def test_the_residual_of_a_driven_motion_vanishes_with_its_input_alone(driven):
    rate = partial(Fields(driven.system.structure).rate, driven.fitted.model.dynamics, driven.fitted.params)
    size = jax.jit(lambda states: jnp.sqrt(jnp.mean(dynamics_residual(rate, states, driven.times[:101])[:, :2] ** 2)))

    def told(inputs):
        return float(size(jnp.asarray(np.concatenate([driven.states[:101], inputs[:101]], axis=-1), jnp.float32)))

    assert told(driven.inputs) < 0.01
    # the root mean square of 0.1 sin t in one of two fields is 0.05
    assert told(0 * driven.inputs) == pytest.approx(0.05, rel=0.2)
    assert told(-driven.inputs) == pytest.approx(0.1, rel=0.2)
    state, force = jnp.array([1.0, -0.5], jnp.float32), jnp.array([0.08], jnp.float32)
    values = parameter_values(driven.system, state.dtype)
    true = vector_field(driven.system.structure, driven.system.density, state, values, force)
    found = rate(jnp.concatenate([state, force]))
    np.testing.assert_allclose(found[:2], true, atol=0.05)
    assert found[2] == 0.0


def test_a_generator_of_a_driven_system_keeps_start_and_inputs_and_follows_the_input(driven):
    host, options = Trainer(), {**OPTIONS, "generator": {"num_frames": 16, "duration": 6.0, "substeps": 6}}
    fitted = make_fit("rollout")(driven.task, options, host, driven.fitted, jax.random.key(1))
    rolled = host.keep("rollouts", dict)
    assert np.all(rolled["weights"][..., 2] == 0) and np.all(rolled["weights"][..., :2] > 0)
    np.testing.assert_array_equal(rolled["states"][..., 2], rolled["means"][..., 2])
    assert np.abs(rolled["states"][..., 2]).max() > 0.05 and rolled["states"].shape[1] == 16
    assert fitted.found["rejection_rate"] == float(rolled["rejected"]) < 0.5
    # normalised by what it is trained on, as there are no observed inputs at these times
    np.testing.assert_allclose(
        fitted.params.normaliser.scale, np.sqrt(np.mean(rolled["states"] ** 2, axis=(0, 1))), rtol=1e-5
    )
    known = Fields(driven.system.structure).known(16, True)
    np.testing.assert_array_equal(known, [[1, 1, 1]] + 15 * [[0, 0, 1]])
    later = np.asarray(driven.task.times)
    starts = Start(np.array([[2.0, 0.0], [2.0, 0.0]]), np.stack([0.1 * np.sin(later), -0.1 * np.sin(later)])[..., None])
    drawn = draw_forecasts(fitted, starts, 4, jax.random.key(2))
    assert drawn.samples.shape == (2, 4, 16, 2) and fitted.model.times == tuple(np.linspace(0.0, 6.0, 16).tolist())
    np.testing.assert_allclose(drawn.samples[:, :, 0], np.full((2, 4, 2), [2.0, 0.0]), atol=1e-5)
    # frames are every other one of the rollout that is asked for at the task's times
    mean = draw_forecasts(driven.fitted, starts, 2, jax.random.key(2)).mean
    np.testing.assert_allclose(drawn.mean, mean[:, ::2], atol=2e-3)
    apart = np.abs(drawn.mean[0] - drawn.mean[1]).max()
    assert apart > 0.2
    assert np.abs(drawn.samples.mean(axis=1) - drawn.mean).max() < 0.5 * apart


def spring_of_any_stiffness():
    """h = p^2/2 + k q^2/2 with the stiffness k as a third field that never changes."""
    plain = oscillator_structure("any_stiffness")
    structure = replace(
        plain,
        fields=(*plain.fields, "stiffness"),
        units=(*plain.units, "1"),
        parity=((),) * 3,
        flow=lambda efforts, values: jnp.append(plain.flow(efforts[:2], values), 0.0),
    )
    return System(structure, lambda x: 0.5 * x[1] ** 2 + 0.5 * x[2] * x[0] ** 2, (("viscous_damping", 0.1),))


def test_companions_ride_along_and_starts_that_are_measured_with_an_error_are_drawn_again():
    system, times = spring_of_any_stiffness(), tuple(np.linspace(0.0, 5.0, 16).tolist())
    errors = np.array([[0.1, 0.0, 0.0], [-0.2, 0.1, 0.0], [0.0, -0.15, 0.0]])

    def starts(key, count):
        states = np.asarray(jax.random.uniform(key, (count, 3), minval=0.5, maxval=2.0))
        return Start(states, np.zeros((count, 16, 0)), np.broadcast_to(errors, (count, 3, 3)))

    train = Examples(np.ones((1, 16, 3)), Start(np.ones((1, 3)), np.zeros((1, 16, 0))), times)
    task = Task(system, lambda: train, starts, jax.random.key(0), times, companions=1)
    host = Trainer()
    fitted = oracle.fit(task, OPTIONS, host, None, jax.random.key(1))
    rolled = host.keep("rollouts_true", dict)
    stiffness = rolled["means"][:, :, 2]
    np.testing.assert_array_equal(stiffness, np.broadcast_to(stiffness[:, :1], stiffness.shape))
    np.testing.assert_array_equal(rolled["states"][:, :, 2], stiffness)
    np.testing.assert_array_equal(rolled["weights"][..., 2], 1.0)
    differences = (rolled["means"] - rolled["states"])[:, 0]
    nearest = np.abs(differences[:, None] - errors).max(axis=-1)
    np.testing.assert_allclose(nearest.min(axis=1), 0.0, atol=1e-6)
    assert len(set(nearest.argmin(axis=1))) == 3
    # period 2 pi / sqrt(k): after half of it, damped, each is on the other side
    half = np.argmin(np.abs(np.asarray(times) - np.pi / np.sqrt(stiffness[:, :1])), axis=1)
    assert np.all(rolled["states"][np.arange(32), half, 0] < 0)
    # what is drawn are the moving fields, around the told start but not at it
    asked = jax.tree.map(lambda leaf: leaf[:2], starts(jax.random.key(3), 2))
    drawn = draw_forecasts(fitted, asked, 4, jax.random.key(2))
    assert drawn.samples.shape == (2, 4, 16, 2)
    assert np.abs(drawn.samples[:, :, 0] - asked.state[:, None, :2]).min() > 0
    np.testing.assert_allclose(drawn.mean[:, 0], asked.state[:, :2], rtol=1e-6)
    assert fitted.model.floor(fitted.params).shape == (2,)
    first = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), asked)
    states = jax.vmap(partial(possible_state, first))(jax.random.split(jax.random.key(4), 50))
    assert len({tuple(np.round(row, 6)) for row in np.asarray(first.state - states)}) == 3


def test_weights_of_trajectories_are_one_for_what_never_changes_and_zero_for_inputs():
    times = tuple(np.linspace(0.0, 2.0, 11).tolist())
    two = oscillator_structure(driven=True)
    structure = replace(
        two,
        fields=(*two.fields, "companion"),
        units=(*two.units, "1"),
        parity=(*two.parity, ()),
        flow=lambda efforts, parameters: jnp.append(two.flow(efforts[:2], parameters), 0.0),
        inject=lambda inputs: jnp.append(two.inject(inputs), 0.0),
    )
    dynamics = true_dynamics(System(two, spring_density), 2)
    states = np.random.default_rng(0).standard_normal((3, 11, 4)).astype(np.float32)
    weights = trajectory_weights(dynamics, (), states, times, Fields(structure, companions=1))
    assert weights.shape == (3, 10, 4) and np.all(weights[..., :2] > 0)
    np.testing.assert_array_equal(weights[..., 2:], np.broadcast_to([1.0, 0.0], (3, 10, 2)))
