"""Initial states of rollouts follow the observed frames."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from phdme_jax.methods.energy.initial_states import FrameMixture, draw_initial_states, mode_matrix
from phdme_jax.systems.energy.base import line_parity
from phdme_jax.systems.energy.vibrating_string import string_structure
from tests.forecasting.string_files import POINTS, waves


@pytest.mark.slow
def test_initial_states_have_the_covariance_of_the_frames():
    structure = string_structure(POINTS, 10.0, 4)
    frames = waves(2, 5)["state"]
    frames = frames / np.abs(frames).max((0, 1, 2))
    mixture = FrameMixture(modes=6, shrinkage=0.0, frame_share=0.0, amplitude=(1.0, 1.0))
    drawn = draw_initial_states(structure, frames, 40000, mixture, jax.random.key(0)).reshape(40000, -1)
    flat = frames.reshape(-1, frames.shape[2] * 2)
    np.testing.assert_allclose(drawn.T @ drawn / len(drawn), flat.T @ flat / len(flat), atol=0.012)
    # with full shrinkage modes are independent: momentum and strain no longer move together
    alone = draw_initial_states(structure, frames, 40000, replace(mixture, shrinkage=1.0), jax.random.key(1))
    parities = enumerate(line_parity(structure))
    amplitudes = [alone[..., f] @ np.linalg.pinv(mode_matrix(p, POINTS, 6)).T for f, p in parities]
    correlation = np.corrcoef(np.concatenate([amplitudes[0][:, :3], amplitudes[1][:, 1:4]], axis=1).T)
    assert np.abs(correlation - np.eye(6)).max() < 0.03
    assert (alone[:, [0, -1], 0] == 0).all()


def test_initial_states_are_the_same_in_any_units_and_whatever_the_signs_of_axes(monkeypatch):
    structure, frames = string_structure(POINTS, 10.0, 4), waves(2, 5)["state"]
    frames = frames / np.abs(frames).max((0, 1, 2))

    def drawn(units):
        return draw_initial_states(structure, frames * units, 20, FrameMixture(modes=6), jax.random.key(0)) / units

    expected = drawn(np.ones(2))
    for units in ([1e9, 1e-9], [1e-9, 1e-9], [1.0, 3.7e5]):
        np.testing.assert_allclose(drawn(np.array(units)), expected, atol=1e-7)
    eigh = np.linalg.eigh

    def other_signs(matrix):
        values, axes = eigh(matrix)
        return values, axes * (-1.0) ** np.arange(len(values))

    monkeypatch.setattr(np.linalg, "eigh", other_signs)
    np.testing.assert_allclose(drawn(np.ones(2)), expected, atol=1e-12)


@pytest.mark.slow
def test_initial_states_may_be_scaled_frames():
    structure = string_structure(POINTS, 10.0, 4)
    frames = waves(2, 5)["state"]
    mixture = FrameMixture(modes=8, frame_share=1.0)
    drawn = draw_initial_states(structure, frames, 50, mixture, jax.random.key(0)).reshape(50, -1)
    flat = frames.reshape(-1, drawn.shape[1])
    factors = drawn @ flat.T / (flat**2).sum(1)
    misfit = np.abs(drawn[:, None] - factors[..., None] * flat).max(-1)
    best = misfit.argmin(1)
    assert misfit.min(1).max() < 1e-9 * np.abs(flat).max()
    used = factors[np.arange(50), best]
    assert 0.5 <= used.min() < 0.6 and 1.1 < used.max() <= 1.2
