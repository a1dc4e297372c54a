"""Ports through the generator: rollouts feel their inputs, and so do the residual and the samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import driven_pendulum
from experiments.configs.driven_pendulum import get_config
from experiments.data import driven as driven_generator
from phdme_jax.methods.energy import generator as generators
from phdme_jax.methods.energy import prior as priors
from phdme_jax.methods.energy.physics import dynamics_residual
from phdme_jax.methods.legacy import make_method
from phdme_jax.systems.energy.base import parameter_values, vector_field, with_inputs


@pytest.fixture(scope="module")
def learned():
    config = get_config("smoke")
    config.data.noise = 0.0
    data = driven_pendulum.make_data(config, 0)
    return config, data, driven_pendulum.learn_energy(config, data, config.prior.main)


def test_the_rollout_under_the_observed_input_returns_the_observed_motion(learned):
    _, data, prior = learned
    times = tuple(data.times[:201].tolist())
    driven = priors.mean_rollouts(prior, data.states[:1], times, data.inputs[None, :201]).trajectory[0]
    free = priors.mean_rollouts(prior, data.states[:1], times).trajectory[0]
    assert np.abs(driven - data.states[:201]).max() < 0.05
    # 0.1 sin t over three periods moves the pendulum by far more than the energy's error
    assert np.abs(free - data.states[:201]).max() > 0.5


def test_the_residual_of_a_driven_motion_vanishes_with_its_input_alone(learned):
    _, data, prior = learned
    rate = driven_generator.driven_dynamics(prior).rate
    times = tuple(data.times[:101].tolist())

    def size(inputs):
        states = jnp.asarray(np.concatenate([data.states[:101], inputs], axis=-1), jnp.float32)
        return float(jnp.sqrt(jnp.mean(dynamics_residual(rate, states, times)[:, :2] ** 2)))

    told = size(data.inputs[:101])
    assert told < 0.01
    # the root mean square of 0.1 sin t in one of two fields is 0.05
    assert size(np.zeros_like(data.inputs[:101])) == pytest.approx(0.05, rel=0.2)
    assert size(-data.inputs[:101]) == pytest.approx(0.1, rel=0.2)


def test_the_true_rate_is_that_of_the_port(learned):
    config, _, prior = learned
    system = driven_pendulum.pendulum(config.system.damping)
    state, force = jnp.array([1.0, -0.5], jnp.float32), jnp.array([0.08], jnp.float32)
    found = driven_generator.driven_dynamics(prior).rate(jnp.concatenate([state, force]))
    true = vector_field(system.structure, system.density, state, parameter_values(system, state.dtype), force)
    np.testing.assert_allclose(found[:2], true, atol=0.05)
    assert found[2] == 0.0


def test_the_rows_of_inputs_weigh_nothing_and_inputs_are_known(learned, tmp_path, monkeypatch):
    config, data, prior = learned
    given = []

    def catch(generator, structure, synthetic, *others, **named):
        given.append(synthetic)
        return generator

    monkeypatch.setattr(generators, "train_generator", catch)
    driven_generator.train_driven(
        make_method("phdme_rollout"), prior, data.states, config, np.random.default_rng(0), jax.random.key(0), "x",
        tmp_path,
    )  # fmt: skip
    (example,) = given
    assert np.all(example.weight[..., 2] == 0) and np.all(example.weight[..., :2] > 0)
    np.testing.assert_array_equal(example.state[..., 2], example.mean[..., 2])
    known = driven_generator.known_values(with_inputs(prior.structure), tuple(np.arange(5.0)), 2)
    np.testing.assert_array_equal(known, [[1, 1, 1]] + 4 * [[0, 0, 1]])


def test_samples_keep_start_and_inputs_and_follow_the_input(learned, tmp_path):
    config, data, prior = learned
    config = config.copy_and_resolve_references()
    config.generator.num_frames, config.generator.duration = 32, 10.0
    generator, rejected = driven_generator.train_driven(
        make_method("phdme_rollout"), prior, data.states, config, np.random.default_rng(0), jax.random.key(0), "x",
        tmp_path,
    )  # fmt: skip
    starts, times = np.array([[2.0, 0.0], [2.0, 0.0]]), np.asarray(generator.times)
    inputs = np.stack([0.1 * np.sin(times), -0.1 * np.sin(times)])[..., None]
    mean, samples = driven_generator.sample_driven(generator, prior, starts, inputs, 4, jax.random.key(1))
    assert samples.shape == (2, 4, 32, 2) and rejected < 0.5
    np.testing.assert_allclose(samples[:, :, 0], np.broadcast_to(starts[:, None], (2, 4, 2)), atol=1e-5)
    means = driven_generator.drive(prior, starts, generator.times, inputs)[..., :2]
    np.testing.assert_array_equal(mean, means)
    apart = np.abs(means[0] - means[1]).max()
    assert apart > 0.3
    assert np.abs(samples.mean(axis=1) - means).max() < 0.5 * apart
    with pytest.raises(ValueError, match="sample_around"):
        generator.dynamics.roll_out(starts)
