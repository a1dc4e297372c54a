"""The spring with hidden points, on a linear string that is known: the posterior of what is hidden in closed form."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.spring.hidden import HiddenAnswer, at_places, hidden_scores
from experiments.spring.hidden_models import (
    Instrument,
    Measured,
    Params,
    Readings,
    make_interpolated,
    make_measured,
    make_searched,
)
from experiments.spring.hidden_readings import Tracked, draw_layouts, make_readings, stretch_middles, stretch_of
from experiments.spring.prior import SHAPES, SpringPrior
from experiments.spring.recording import FITTED_MODES, SpringRecording, modal_states, sine_modes
from experiments.spring.windows import Windows
from phdme_jax.forecasting import bands
from phdme_jax.forecasting.bands import Forecasts
from phdme_jax.gp.basis import Basis, Box, Energy
from phdme_jax.gp.fit import EnergyPosterior, initial_hyperparameters
from phdme_jax.methods.base import Fitted
from phdme_jax.methods.draws import draw_forecasts
from phdme_jax.methods.sensors.background import Background
from phdme_jax.systems.energy.vibrating_string import KELVIN_VOIGT, VISCOUS

POINTS, MODES, STRETCHES, SAMPLES = 17, 2, 12, 400
GRID = np.linspace(0.0, 1.0, POINTS)
STIFFNESS, FRICTION, CREEP = 80.0, 2.0, 0.05
SIZES = np.array([0.1, 0.03, 3.0, 2.0])  # of both values and both rates before any reading
NOISE = 0.004
TIMES = np.cumsum([0.0, 5, 9, 4, 5, 5, 9, 5, 40, 60, 80]) * 1e-3  # eight images are read, three forecast
WINDOW = 8
INSTRUMENT = Instrument(Basis(2, 12, 0, SHAPES), POINTS, WINDOW, MODES, 8, 1, 1, 4)
TOLD = np.array([0.08, -0.02, -1.5, 1.0])


def amplitudes(times: np.ndarray) -> np.ndarray:
    """Matrix (time, mode, coefficient) from values and rates at time zero, a'' + 2 g a' + k w^2 a = 0."""
    wave = np.pi * np.arange(1, MODES + 1)
    decay = 0.5 * (FRICTION + CREEP * wave**2)
    turn = np.sqrt(STIFFNESS * wave**2 - decay**2)
    phase, fall = turn * times[:, None], np.exp(-decay * times[:, None])
    value = fall * (np.cos(phase) + decay / turn * np.sin(phase))
    rate = fall * np.sin(phase) / turn
    eye = np.eye(MODES)
    return np.concatenate([value[:, :, None] * eye, rate[:, :, None] * eye], axis=2)


@pytest.fixture(scope="module")
def params() -> Params:
    """A linear spring, known exactly, and the background of its first two modes."""
    basis = INSTRUMENT.basis
    box = Box(jnp.zeros(2), jnp.array([40.0, 9.0]), jnp.zeros((POINTS, 2)))
    known = EnergyPosterior(
        mean=Energy(box, jnp.array([1.0, STIFFNESS]), jnp.zeros(basis.size)),
        factor=jnp.zeros((basis.size, basis.size)),
        parameters={VISCOUS: jnp.asarray(FRICTION), KELVIN_VOIGT: jnp.asarray(CREEP)},
        hyperparameters=initial_hyperparameters(basis, box, 2),
        objective=jnp.zeros(()),
        ok=jnp.asarray(True),
    )
    prior = SpringPrior(known, jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), known))
    root = np.stack([state_of(SIZES * row) for row in np.eye(2 * MODES)], axis=-1)
    return Params(prior, Background(jnp.zeros((POINTS, 2)), jnp.asarray(root)), jnp.full(1, NOISE))


def state_of(coefficients: np.ndarray) -> np.ndarray:
    return modal_states(GRID, coefficients[:MODES], coefficients[MODES:])


def recording_of(coefficients: np.ndarray) -> SpringRecording:
    amplitude = np.zeros((TIMES.size, FITTED_MODES))
    amplitude[:, :MODES] = amplitudes(TIMES) @ coefficients
    frame = np.arange(TIMES.size)
    rest = np.zeros(POINTS)
    return SpringRecording(
        "synthetic", MODES, 0, frame, TIMES, GRID, amplitude, amplitude, amplitude, np.zeros(FITTED_MODES), rest
    )


@pytest.fixture(scope="module")
def recording() -> SpringRecording:
    return recording_of(TOLD)


@pytest.fixture(scope="module")
def tracked(recording) -> Tracked:
    """Forty pixels an image at places that differ from image to image, the last five missing in some."""
    rng = np.random.default_rng(0)
    place = np.sort(rng.uniform(0.04, 0.95, (TIMES.size, 40)), axis=1)
    exact = np.stack([sine_modes(z, FITTED_MODES) @ a for z, a in zip(place, recording.amplitude, strict=True)])
    there = np.ones_like(place)
    there[::3, -5:] = 0.0
    return Tracked(place, (exact + NOISE * rng.normal(size=place.shape)) * there, there)


def windows_of(recording: SpringRecording) -> Windows:
    images = recording.displacement[None, WINDOW:, :, None]
    return Windows(np.array([0]), np.array([WINDOW - 1]), recording.time[None, WINDOW - 1 :], images)


def read(recording: SpringRecording, tracked: Tracked, visible: tuple[int, ...]) -> Readings:
    layout = np.isin(np.arange(STRETCHES), visible).astype(float)[None]
    return make_readings(recording, tracked, windows_of(recording), layout, WINDOW)


def posterior(tracked: Tracked, visible: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the coefficients, in the form of covariances: P G^T (G P G^T + s^2)^-1."""
    rows, values = [], []
    for image, matrix in enumerate(amplitudes(TIMES[:WINDOW])):
        chosen = (tracked.there[image] > 0) & np.isin(stretch_of(tracked.place[image], STRETCHES), visible)
        rows.append(sine_modes(tracked.place[image, chosen], MODES) @ matrix)
        values.append(tracked.displacement[image, chosen])
    design, told = np.concatenate(rows), np.concatenate(values)
    before = np.diag(SIZES**2)
    gain = before @ design.T @ np.linalg.inv(design @ before @ design.T + NOISE**2 * np.eye(told.size))
    return gain @ told, before - gain @ design @ before


@pytest.mark.slow
@pytest.mark.parametrize("visible", [(1, 4, 6, 10), (2,)], ids=["four", "one"])
def test_what_is_hidden_has_the_posterior_of_linear_regression(params, recording, tracked, visible):
    """Mean and spread of the forecast at the hidden places; the grid's fourth-order differences leave 1e-3."""
    places = np.delete(stretch_middles(STRETCHES), visible)
    mean, covariance = posterior(tracked, visible)
    onto = np.einsum("pk,tkc->tpc", sine_modes(places, MODES), amplitudes(TIMES[WINDOW:]))
    deviation = np.sqrt(np.einsum("tpc,cd,tpd->tp", onto, covariance, onto))
    fitted = Fitted(make_searched(INSTRUMENT), params, {})
    drawn = draw_forecasts(fitted, read(recording, tracked, visible), SAMPLES, jax.random.key(1))
    found, samples = (at_places(part, places[None])[0, ..., 0] for part in (drawn.mean, drawn.samples))
    assert np.abs(found - onto @ mean).max() < 0.1 * deviation.min() + 2e-4
    # the mean of so many samples has a twentieth of their deviation, and that a relative error of a twenty-eighth
    assert (np.abs(samples.mean(axis=0) - found) < 4.5 / np.sqrt(SAMPLES) * deviation).all()
    np.testing.assert_allclose(samples.std(axis=0), deviation, rtol=4.5 / np.sqrt(2 * SAMPLES))
    # what is told is narrower than what was believed
    before = np.sqrt(np.einsum("tpc,c,tpc->tp", onto, SIZES**2, onto))
    assert (deviation < 0.5 * before).mean() > 0.5


def test_hidden_pixels_do_not_enter(recording, tracked):
    visible = (0, 7)
    hidden = ~np.isin(stretch_of(tracked.place, STRETCHES), visible)
    other = tracked._replace(displacement=np.where(hidden, 9.0, tracked.displacement))
    one, two = (read(recording, each, visible) for each in (tracked, other))
    for leaf, same in zip(one, two, strict=True):
        np.testing.assert_array_equal(leaf, same)
    seen = (tracked.there > 0)[:WINDOW] & ~hidden[:WINDOW]
    np.testing.assert_array_equal(one.mask[0] > 0, seen)
    predicted = np.einsum("ipk,ik->ip", one.shapes[0], recording.amplitude[:WINDOW])
    assert np.abs((predicted - one.values[0])[seen]).max() < 5 * NOISE


@pytest.mark.slow
def test_from_one_place_only_motion_tells_the_modes_apart(params, recording, tracked):
    """Interpolation of every image cannot; from four places it can."""
    scored = recording.displacement[WINDOW:]

    def error(model, visible):
        drawn = draw_forecasts(Fitted(model, params, {}), read(recording, tracked, visible), 2, jax.random.key(0))
        mean = drawn.mean[0] @ sine_modes(GRID, MODES).T
        return float(np.mean((mean - scored) ** 2) / scored.var())

    searched, interpolated = make_searched(INSTRUMENT), make_interpolated(INSTRUMENT)
    assert error(searched, (2,)) < 0.2 * error(interpolated, (2,))
    assert error(interpolated, (1, 4, 6, 10)) < 0.2 * error(interpolated, (2,))


@pytest.mark.slow
def test_from_the_measured_state_the_motion_is_that_of_the_string(params):
    still = np.zeros((1, POINTS, 1))
    state = np.concatenate([state_of(TOLD)[None], still], axis=-1)
    wrong = np.concatenate([state_of(0.1 * TOLD)[None], still], axis=-1)
    measured = Measured(state, wrong[:, None], TIMES[None])
    drawn = draw_forecasts(Fitted(make_measured(INSTRUMENT), params, {}), measured, 2, jax.random.key(0))
    exact = amplitudes(TIMES[1:]) @ TOLD
    np.testing.assert_allclose(drawn.mean[0], exact, atol=2e-4)
    # a sample begins at the state less its error
    np.testing.assert_allclose(drawn.samples[0, 0], 0.9 * exact, atol=2e-4)


def test_layouts_read_as_many_stretches_as_told_and_every_one_as_often():
    layouts = draw_layouts(4, STRETCHES, 3000, jax.random.key(2))
    assert (layouts.sum(axis=1) == 4).all()
    np.testing.assert_allclose(layouts.mean(axis=0), 1 / 3, atol=4.5 * np.sqrt(2 / 9 / 3000))
    np.testing.assert_array_equal(stretch_of(stretch_middles(STRETCHES), STRETCHES), np.arange(STRETCHES))


@pytest.mark.slow
def test_scores_of_a_forecast_that_is_off_by_a_deviation():
    """nmse is the square of the shift over the variance, coverage that of a band two or half a shift wide."""
    rng = np.random.default_rng(3)
    truth, shift = rng.normal(size=(40, 9, 5, 1)), 0.5
    samples = truth[:, None] + shift + rng.normal(size=(40, 30, 9, 5, 1)) * 1e-3
    forecasts = Forecasts(truth + shift, samples, np.ones(40, bool), 0.0)
    floor = np.array([0.1])
    score = partial(bands.band_scores, truth, forecasts, floor)
    for ratio, covered in ((2.0, 1.0), (0.5, 0.0)):
        calibration = bands.Calibration(floor, ratio * shift / 0.1, 1.0, 40)
        rows = hidden_scores(truth, HiddenAnswer(forecasts, calibration, score(), 0.1))
        assert rows["coverage"].value == rows["coverage_points"].value == covered
        np.testing.assert_allclose(rows["band_width"].value, 2 * ratio * shift, rtol=0.02)
    expected = np.mean(shift**2 / truth.var(axis=(1, 2, 3)))
    np.testing.assert_allclose(rows["nmse"].value, expected)
    np.testing.assert_allclose(rows["crps"].value, shift, rtol=0.01)
