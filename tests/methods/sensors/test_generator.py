"""The generator of states behind readings, where the forecaster's step is linear and the posterior is known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion.mlp import make_mlp
from phdme_jax.diffusion.propagator import Propagator, init_propagator, propagate
from phdme_jax.files import RunFailed
from phdme_jax.methods.base import Fitted, Model, Normaliser
from phdme_jax.methods.draws import draw_forecasts
from phdme_jax.methods.energy.conditional import GeneratorParams
from phdme_jax.methods.energy.rollouts import kept_rollouts
from phdme_jax.methods.energy.training import limited_amplitude, size_ratio
from phdme_jax.methods.sensors.background import Background
from phdme_jax.methods.sensors.generator import Design, SensedParams, draw_example, make_model
from phdme_jax.methods.sensors.sensed import draw_places, read_window
from phdme_jax.systems import make_system
from phdme_jax.training.stages import Trainer
from tests.rough import rough

STRUCTURE = make_system("vibrating_string", num_points=9, order=2).structure
STEP = Propagator(STRUCTURE.parity, radius=2, width=4, depth=0)
WINDOW, DIRECTIONS, FRAMES = 4, 3, 5
UNITS = Normaliser(jnp.array([2.0, 0.5], "float32"), jnp.array([0.0, 3.0], "float32"))


# told a state, it answers with that state at every frame
FORECASTER = Model(
    prepare=lambda params, start: start.state,
    draw=lambda params, state, latent, key: jnp.broadcast_to(state, (FRAMES, *state.shape)),
    latent=lambda key: jnp.zeros(()),
    times=tuple(np.linspace(0.0, 1.0, FRAMES).tolist()),
)
DESIGN = Design(
    structure=STRUCTURE,
    denoiser=make_mlp(shape=(DIRECTIONS,)),  # not called
    num_calls=0,
    shape=(DIRECTIONS,),
    steps=2,
    window=WINDOW,
    propagator=STEP,
    forecaster=FORECASTER,
)


@pytest.fixture(scope="module")
def params():
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(18, DIRECTIONS)))[0] * np.array([1.5, 1.0, 0.5])
    root = axes.reshape(9, 2, DIRECTIONS)
    root[[0, -1], :, :] = 0.0  # the ends are held
    root = np.linalg.svd(root.reshape(18, -1), full_matrices=False)
    root = (root[0] * root[1]).reshape(9, 2, DIRECTIONS)
    background = Background(jnp.zeros((9, 2), "float32"), jnp.asarray(root, "float32"))
    # linear but for the biases of a network without hidden layers
    step = rough(init_propagator(STEP, jnp.zeros((9, 2), "float32"), jax.random.key(0)), kept=0.0)
    forecaster = GeneratorParams(UNITS, propagator=step)
    return SensedParams(background, jnp.full(2, 0.2, "float32"), None, jnp.ones(DIRECTIONS, "float32"), forecaster)


def posterior(params, mask, values):
    """Mean and covariance of z, by the rules of Gaussians."""
    phi = lambda z: propagate(STEP, params.forecaster.propagator, params.background.state(z), WINDOW)  # noqa: E731
    origin, slope = phi(jnp.zeros(DIRECTIONS, "float32")), jax.jacfwd(phi)(jnp.zeros(DIRECTIONS, "float32"))
    seen = np.broadcast_to(np.asarray(mask) > 0, values.shape).ravel()
    slope = np.asarray(slope, float).reshape(-1, DIRECTIONS)[seen]
    missed = np.asarray(values - origin, float).ravel()[seen]
    gain = slope.T @ np.linalg.inv(slope @ slope.T + 0.04 * np.eye(len(slope)))
    return gain @ missed, np.eye(DIRECTIONS) - gain @ slope


@pytest.mark.slow
def test_without_a_call_samples_are_those_of_the_posterior(params):
    mask = draw_places(STRUCTURE, 2, jax.random.key(3))
    state = params.background.state(jnp.array([1.0, -1.0, 0.5], "float32"))
    window = propagate(STEP, params.forecaster.propagator, state, WINDOW)
    readings = read_window(window, mask, params.noise, jax.random.key(4))
    physical = readings._replace(values=readings.mask * UNITS.physical(readings.values))
    fitted = Fitted(make_model(DESIGN), params, {})
    found = draw_forecasts(fitted, jax.tree.map(lambda leaf: leaf[None], physical), 20000, jax.random.key(5)).samples[0]
    states = UNITS.normalised(jnp.asarray(found[:, 0]))
    z = np.asarray(jax.vmap(params.background.coordinates)(states))
    mean, covariance = posterior(params, mask, readings.values)
    np.testing.assert_allclose(z.mean(axis=0), mean, atol=0.03)
    np.testing.assert_allclose(np.cov(z.T), covariance, atol=0.03)
    np.testing.assert_array_equal(found[:, -1], found[:, 0])


@pytest.mark.slow
def test_what_is_left_of_a_state_is_white_noise_whatever_the_layout(params):
    z = jax.random.normal(jax.random.key(6), (6000, DIRECTIONS), "float32")
    roll = lambda z: propagate(STEP, params.forecaster.propagator, params.background.state(z), WINDOW)  # noqa: E731
    window = jax.jit(jax.vmap(roll))
    draw = jax.jit(jax.vmap(partial(draw_example, DESIGN, (1, 3), params)))
    xi = np.asarray(draw((window(z), jax.random.split(jax.random.key(7), len(z)))).xi)
    np.testing.assert_allclose(xi.mean(axis=0), 0.0, atol=0.05)
    np.testing.assert_allclose(np.cov(xi.T), np.eye(DIRECTIONS), atol=0.06)


def test_the_size_of_samples_is_corrected_by_direction_within_bounds():
    ratio = size_ratio(np.array([1.0, 2.0, 9.0, 0.0]), np.array([0.5, 2.0, 1.0, 1.0]))
    np.testing.assert_allclose(limited_amplitude(ratio), [2.0, 1.0, 3.0, 1.0])


def test_rollouts_that_a_host_has_not_are_a_sentence():
    with pytest.raises(RunFailed, match="fit it with the same host first"):
        kept_rollouts(Trainer(), "rollouts")
