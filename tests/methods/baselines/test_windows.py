"""Networks of one trajectory: a trained one is found again for the same data alone; measured coordinates."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.files import InputError
from phdme_jax.methods.base import Examples, Start, Task
from phdme_jax.methods.baselines import windows
from phdme_jax.methods.baselines.field_networks import fit_fourier, fit_hamiltonian, fit_neural
from phdme_jax.methods.draws import draw_forecasts
from phdme_jax.systems.energy.base import System
from phdme_jax.systems.energy.oscillators import oscillator_structure
from phdme_jax.training.stages import Trainer

TIMES = tuple(np.linspace(0.0, 4.0, 40).tolist())
STATES = np.stack([np.cos(TIMES), -np.sin(TIMES)], axis=1)
GROUP = {"network": {"width": 4, "depth": 1}, "training": {"windows": (4,), "steps": 5, "batch": 2, "rate": 1e-3}}
OPTIONS, KEY = {"baselines": GROUP}, jax.random.key(0)


def task(states=STATES, driven=False, coordinates=None):
    structure = oscillator_structure(driven=driven)
    inputs = 0.1 * np.sin(np.asarray(TIMES))[None, :, None] if driven else np.zeros((1, 40, 0))
    train = Examples(states[None], Start(states[None, 0], inputs), TIMES)
    system = System(structure, coordinates=coordinates)
    return Task(system, lambda: train, lambda key, count: None, KEY, TIMES)


def untrained(factory, window, options, data, key):
    return factory.init(jnp.std(data.states, axis=0), key)


@pytest.mark.slow
def test_a_kept_network_is_read_for_the_same_data_and_trained_anew_for_others(tmp_path, monkeypatch):
    def fit(states, key=KEY):
        return fit_neural(task(states), OPTIONS, Trainer(shared=tmp_path), None, key)

    monkeypatch.setattr(windows, "train_network", untrained)
    first, louder = fit(STATES), fit(10 * STATES)
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr(windows, "train_network", None)
    again = fit(STATES)
    assert again.seconds == first.seconds and again.model is first.model
    original, other, loud = (jax.tree.leaves(fitted.params) for fitted in (first, again, louder))
    assert all(np.array_equal(left, right) for left, right in zip(original, other, strict=True))
    assert not all(np.array_equal(left, right) for left, right in zip(original, loud, strict=True))
    monkeypatch.setattr(windows, "train_network", untrained)
    fit(STATES, jax.random.key(1))
    assert len(list(tmp_path.iterdir())) == 3


def test_the_window_with_the_least_error_on_the_last_fifth_is_trained_anew_on_all(monkeypatch):
    trained = []

    def train(factory, window, options, data, key):
        trained.append((window, len(data.times)))
        return [jnp.asarray(float(window))]

    def forecast(factory, params, data):
        return data.states + (jnp.nan if params[0] == 3 else jnp.abs(params[0] - 8.0))

    monkeypatch.setattr(windows, "train_network", train)
    monkeypatch.setattr(windows, "_forecast", forecast)
    options = {"baselines": {**GROUP, "training": {**GROUP["training"], "windows": (3, 5, 9, 20)}}}
    fitted = fit_neural(task(), options, Trainer(), None, KEY)
    assert trained == [(3, 32), (5, 32), (9, 32), (20, 32), (9, 40)]
    assert fitted.params == [9.0]


@pytest.mark.slow
def test_an_oscillator_is_learned_well_enough_to_beat_its_mean():
    """The energy network knows the structure: few steps bring it close."""
    options = {"baselines": {**GROUP, "training": {"windows": (10,), "steps": 100, "batch": 8, "rate": 1e-2}}}
    fitted = fit_hamiltonian(task(), options, Trainer(), None, KEY)
    found = draw_forecasts(fitted, task().train().condition, 1, KEY)
    assert found.samples is None and bool(found.ok.all())
    assert np.mean((found.mean[0] - STATES) ** 2) < 0.05 * STATES.var()
    assert set(fitted.found) == {"viscous_damping"} and 0 < fitted.found["viscous_damping"] < 0.05


@pytest.mark.slow
def test_a_network_without_structure_learns_what_was_measured():
    """Fields that are twice what was measured: the same network as on the measurements, its forecasts doubled."""
    doubled = task(2 * STATES, coordinates=(lambda fields: fields / 2, lambda measured: 2 * measured))
    ways = [fit_neural(each, OPTIONS, Trainer(), None, KEY) for each in (task(), doubled)]
    plain, other = (
        draw_forecasts(fitted, each.train().condition, 1, KEY).mean
        for fitted, each in zip(ways, (task(), doubled), strict=True)
    )
    np.testing.assert_allclose(other, 2 * plain, rtol=1e-9)
    for left, right in zip(jax.tree.leaves(ways[0].params), jax.tree.leaves(ways[1].params), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-9)


@pytest.mark.slow
def test_forecasts_feel_their_inputs(monkeypatch):
    monkeypatch.setattr(windows, "train_network", untrained)
    fitted = fit_neural(task(driven=True), OPTIONS, Trainer(), None, KEY)
    starts = Start(np.repeat(STATES[:1], 2, axis=0), np.stack([np.zeros((40, 1)), np.ones((40, 1))]))
    still, pushed = draw_forecasts(fitted, starts, 1, KEY).mean
    np.testing.assert_array_equal(still[0], pushed[0])
    assert np.abs(still - pushed).max() > 1e-2


def test_two_trajectories_or_an_operator_of_fields_are_refused():
    given = task()
    twice = jax.tree.map(lambda leaf: np.repeat(leaf, 2, axis=0), given.train()._replace(times=()))
    two = replace(given, train=lambda: twice._replace(times=TIMES))
    with pytest.raises(InputError, match="windows of one trajectory"):
        fit_neural(two, OPTIONS, Trainer(), None, KEY)
    with pytest.raises(InputError, match="frame to frame"):
        fit_fourier(given, OPTIONS, Trainer(), None, KEY)
    with pytest.raises(TypeError, match="rates"):
        fit_neural(
            given, {"baselines": {**GROUP, "training": {**GROUP["training"], "rates": 1.0}}}, Trainer(), None, KEY
        )
