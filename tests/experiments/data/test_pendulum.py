"""The driven pendulum's data: its motion keeps the balance of power, starts and inputs are drawn as told."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import cumulative_trapezoid

from experiments.data import pendulum
from experiments.driven_pendulum import STUDY
from phdme_jax.methods.table import METHODS

CONFIG = STUDY.get_config("smoke")


@pytest.mark.slow
@pytest.mark.parametrize("force", [0.0, 0.1])
def test_energy_changes_by_what_the_force_brings_and_the_damping_takes(force):
    """H(t) - H(0) = int u p - c p^2 dt."""
    system, times = pendulum.pendulum_of(CONFIG, "driven_pendulum"), np.linspace(0.0, 20.0, 2001)
    states = pendulum.solve(system, (5.0, 0.0), times, force)
    energy = np.asarray(jax.vmap(system.density)(jnp.asarray(states)))
    power = force * np.sin(times) * states[:, 1] - CONFIG.system.damping * states[:, 1] ** 2
    np.testing.assert_allclose(energy[1:] - energy[0], cumulative_trapezoid(power, times), atol=2e-4)
    assert energy[0] - energy[-1] > 1.0


@pytest.mark.slow
@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_seed_draws_the_noise_and_nothing_of_the_test(split):
    context = SimpleNamespace(asked=split, validates=split == "validation")
    one, other = (pendulum.pendulum_bench(context, CONFIG, "driven_pendulum", seed) for seed in (0, 1))
    assert list(one.splits) == [split]
    np.testing.assert_array_equal(one.splits[split].truth, other.splits[split].truth)
    apart = one.task.train().fields - other.task.train().fields
    assert apart.std() == pytest.approx(np.sqrt(2) * CONFIG.data.noise, rel=0.05)
    keys = [jax.random.key_data(bench.sample_key(split, METHODS["gp_rollout"])) for bench in (one, other)]
    assert not np.array_equal(*keys)
    # the test starts exactly where it is told to, and is not driven
    start, count = one.splits[split].condition, 1 if split == "validation" else CONFIG.data.num_test
    if split == "validation":
        np.testing.assert_array_equal(start.state, [CONFIG.data.test_start])
    assert len(np.unique(start.state, axis=0)) == count and np.all(np.abs(start.state) <= [4.0, 2.0])
    np.testing.assert_array_equal(start.state, one.splits[split].truth[:, 0])
    assert start.inputs.shape == (count, len(one.task.times), 1) and not start.inputs.any()


def test_rollouts_start_in_observed_states_scaled_under_sines_of_the_frequencies_told():
    states, times = np.array([[1.0, 0.5], [2.0, -3.0], [4.0, 0.1]]), np.linspace(0.0, 10.0, 1001)
    options = {"scale": (0.4, 1.1), "size": 0.1, "frequency": (0.3, 2.0)}
    drawn = pendulum.draw_starts(states, times, 200, jax.random.key(0), **options)
    # each is a multiple of an observed state
    ratio = drawn.state[:, None] / states
    same = np.isclose(ratio[..., 0], ratio[..., 1])
    assert same.sum(axis=1).tolist() == [1] * 200 and same.any(axis=0).all()
    factor = ratio[..., 0][same]
    assert np.abs(factor).min() > 0.4 and 1.0 < np.abs(factor).max() < 1.1 and factor.min() < 0 < factor.max()
    # u'' = -w^2 u, u = a sin(w t + phi)
    inputs, step = drawn.inputs[..., 0], times[1]
    curve = (inputs[:, 2:] - 2 * inputs[:, 1:-1] + inputs[:, :-2]) / step**2
    rate = np.sqrt(-np.sum(curve * inputs[:, 1:-1], axis=1) / np.sum(inputs[:, 1:-1] ** 2, axis=1))
    assert 0.29 < rate.min() < 0.5 and 1.8 < rate.max() < 2.01
    assert 0.09 < np.abs(inputs).max() <= 0.1 and np.abs(inputs).max(axis=1).min() < 0.02
    again, other = (pendulum.draw_starts(states, times, 200, jax.random.key(key), **options) for key in (0, 1))
    np.testing.assert_array_equal(again.inputs, drawn.inputs)
    assert np.abs(other.inputs - drawn.inputs).max() > 0.01


def test_frames_of_a_generator_are_splined_to_those_of_the_test():
    drawn, wanted = tuple(np.linspace(0.0, 2.0, 9).tolist()), tuple(np.linspace(0.0, 2.0, 41).tolist())
    coarse = np.asarray(drawn)[None, :, None] ** np.array([2.0, 3.0])
    found = pendulum.splined(coarse, drawn, wanted)
    np.testing.assert_allclose(found, np.asarray(wanted)[None, :, None] ** np.array([2.0, 3.0]), atol=1e-12)
    assert pendulum.splined(coarse, drawn, drawn) is coarse
