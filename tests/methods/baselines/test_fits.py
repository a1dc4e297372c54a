"""Baselines on a grid as methods: they keep the start, learn a wave, and say what they found."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.methods.base import Examples, Start, Task
from phdme_jax.methods.baselines import field_networks, independent
from phdme_jax.methods.draws import draw_forecasts
from phdme_jax.methods.energy.dynamics import true_dynamics
from phdme_jax.systems import make_system
from phdme_jax.training.stages import Trainer

TIMES = tuple(np.linspace(0.0, 4.0, 17).tolist())
SYSTEM = make_system("vibrating_string", num_points=17, order=4, stress="linear", damping=0.05)
KEY = jax.random.key(0)
GROUP = {
    "hnn": {"width": 8, "depth": 1},
    "neural_ode": {"width": 8, "depth": 1, "radius": 1},
    "fno": {"modes": 4, "width": 8, "depth": 1},
    "substeps": 2,
    "start_noise": 0.0,
    "ema_decay": 0.9,
}


@pytest.fixture(scope="module")
def task():
    draw = SYSTEM.initial_state("random_smooth")
    dynamics = true_dynamics(SYSTEM, 4)
    roll = jax.jit(jax.vmap(lambda start: dynamics.rollout((), start, TIMES, 4).trajectory))
    states = jax.vmap(draw)(jax.random.split(KEY, 8))
    condition = Start(np.asarray(states), np.zeros((8, 17, 0)))
    train = Examples(np.asarray(roll(condition)), condition, TIMES)
    return Task(SYSTEM, lambda: train, lambda key, count: None, KEY, TIMES)


def error(fitted, task):
    """Mean squared error over the variance of the observed trajectories."""
    truth, drawn = task.train().fields, draw_forecasts(fitted, task.train().condition, 1, KEY)
    assert drawn.samples is None and bool(drawn.ok.all())
    np.testing.assert_allclose(drawn.mean[:, 0], truth[:, 0], atol=1e-6)
    return np.mean((drawn.mean - truth) ** 2) / truth.var()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fit", "rate"),
    [
        ("hnn", field_networks.fit_hamiltonian, 1e-2),
        ("neural_ode", field_networks.fit_neural, 1e-2),
        ("fno", field_networks.fit_fourier, 1e-2),
    ],
)
def test_networks_learn_waves_from_frames(name, fit, rate, task):
    """A step is enough to learn what a few hundred steps of training can tell of it."""
    options = {"baselines": {**GROUP, "stages": {name: ((4, 200, 16, rate),)}}}
    fitted = fit(task, options, Trainer(), None, KEY)
    assert list(fitted.seconds) == ["window_4"]
    assert error(fitted, task) < 0.5
    assert set(fitted.found) == ({"kelvin_voigt_damping"} if name == "hnn" else set())
    # the record is the same for the same sizes, so that the next seed compiles nothing
    options["baselines"]["stages"][name] = ()
    untrained = fit(task, options, Trainer(), None, jax.random.key(5))
    assert untrained.model is fitted.model
    assert error(untrained, task) > 2 * error(fitted, task)


def test_windows_longer_than_a_trajectory_are_cut_and_each_trains_once(task):
    trained = []

    class Recorder(Trainer):
        def train(self, stage, loss, params, data, key, *, steps, **numbers):
            jax.eval_shape(loss, params, jax.tree.map(lambda leaf: leaf[0], data), key)
            trained.append((stage, steps))
            return params, 0.0

    stages = ((4, 1, 16, 1e-2), (40, 2, 16, 1e-2), (50, 3, 16, 1e-2))
    options = {"baselines": {**GROUP, "stages": {"fno": stages}}}
    field_networks.fit_fourier(task, options, Recorder(), None, KEY)
    assert trained == [("window_4", 1), ("window_16", 2)]


@pytest.mark.slow
def test_independent_processes_forecast_a_linear_string_and_say_where_they_fail(task):
    few = jax.tree.map(lambda leaf: leaf[:2], task.train()._replace(times=()))._replace(times=TIMES)
    fitted = independent.fit(replace(task, train=lambda: few), {"prior": {"substeps": 4}}, Trainer(), None, KEY)
    assert error(fitted, task) < 0.1
    broken = fitted._replace(params=fitted.params._replace(ok=jnp.asarray(False)))
    assert not draw_forecasts(broken, task.train().condition, 1, KEY).ok.any()
