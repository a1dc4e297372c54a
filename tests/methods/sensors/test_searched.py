"""A search for the state behind readings, and the forecaster from there: the posterior where the world is linear."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.methods.base import Fitted, Model
from phdme_jax.methods.draws import draw_forecasts
from phdme_jax.methods.sensors.searched import Search, SearchParams, make_searched
from phdme_jax.methods.sensors.sensed import Sensed
from phdme_jax.systems.energy.vibrating_string import string_structure
from tests.methods.sensors import world

SPREAD = 0.2
# nothing is held at the ends of this world
FREE = string_structure(2 * world.GRID, length=1.0, order=2)
STRUCTURE = type(FREE)(**{**vars(FREE), "constrain": lambda state: state})


def forecaster() -> Model:
    """The rotation of a told state, and white deviations from it after the first frame."""
    shape = (world.FRAMES, world.GRID, 2)
    mean = lambda params, start: world.trajectory(start.state, world.FRAMES)  # noqa: E731
    return Model(
        prepare=lambda params, start: start,
        draw=lambda params, start, latent, key: mean(params, start) + SPREAD * latent.at[0].set(0.0),
        latent=lambda key: jax.random.normal(key, shape, jnp.float64),
        mean=mean,
        times=world.TIMES,
    )


def gaussian(sensed, noise):
    """Mean and covariance of all frames given the readings, by the rules of Gaussians."""
    root = np.asarray(world.BACKGROUND.root).reshape(-1, world.DIRECTIONS)
    step = np.asarray(world.STEP)
    slope = np.concatenate([np.linalg.matrix_power(step, k) @ root for k in range(world.FRAMES)])
    middle = np.asarray(world.trajectory(world.BACKGROUND.mean, world.FRAMES)).ravel()
    read = np.asarray(sensed.mask).ravel() > 0
    seen = slope[: read.size][read]
    deviation = np.broadcast_to(noise, sensed.mask.shape).ravel()[read]
    gram = seen @ seen.T + np.diag(deviation**2)
    missed = np.asarray(sensed.values).ravel()[read] - middle[: read.size][read]
    gain = np.linalg.solve(gram, seen).T
    z, covariance = gain @ missed, np.eye(world.DIRECTIONS) - gain @ seen
    return middle + slope @ z, slope @ covariance @ slope.T


@pytest.mark.slow
def test_forecasts_are_those_of_the_posterior_whatever_frames_were_read():
    """Sensors of one field or both, of several qualities, none of them in the second frame."""
    mask = np.zeros((4, world.GRID, 2))
    mask[[0, 3], 1, 0] = mask[2, 3] = mask[3, 4, 1] = 1.0
    noise = 0.1 + np.arange(2.0 * world.GRID).reshape(world.GRID, 2) / 20
    random = np.random.default_rng(5)
    truth = np.asarray(world.trajectory(world.BACKGROUND.state(jnp.array([1.0, -0.5, 0.3, 1.2])), 4))
    sensed = Sensed(mask * (truth + noise * random.normal(size=truth.shape)), mask)
    model = make_searched(Search(STRUCTURE, forecaster(), None, world.DYNAMICS))
    params = SearchParams(world.BACKGROUND, jnp.asarray(noise), (), jnp.zeros(()))
    drawn = draw_forecasts(
        Fitted(model, params, {}), Sensed(*(leaf[None] for leaf in sensed)), 20000, jax.random.key(3)
    )
    mean, covariance = gaussian(sensed, noise)
    np.testing.assert_allclose(drawn.mean[0].ravel(), mean, atol=1e-9)
    covariance += SPREAD**2 * np.diag(np.arange(len(mean)) >= 2 * world.GRID)
    found = drawn.samples[0].reshape(20000, -1)
    np.testing.assert_allclose(found.mean(axis=0), mean, atol=0.03)
    np.testing.assert_allclose(np.cov(found.T), covariance, atol=0.03)


@pytest.mark.slow
def test_the_misfit_is_the_mean_square_of_what_is_missed_in_units_of_the_noise():
    """Readings that are away from all that the background can be, three deviations in the mean square."""
    mask, noise = np.zeros((2, world.GRID, 2)), np.full((world.GRID, 2), 1e-3)
    mask[:, :, 0] = 1.0  # ten numbers, and four directions to explain them by
    truth = np.asarray(world.trajectory(world.BACKGROUND.mean, 2))
    slope = np.asarray(jax.jacfwd(lambda z: world.trajectory(world.BACKGROUND.state(z), 2))(jnp.zeros(4)))
    seen = slope[:, :, 0].reshape(10, 4).T
    unseen = np.linalg.svd(seen)[2][-1].reshape(2, world.GRID)
    values = truth.copy()
    values[..., 0] += 3.0 * 1e-3 * np.sqrt(10) * unseen
    model = make_searched(Search(STRUCTURE, forecaster(), None, world.DYNAMICS))
    params = SearchParams(world.BACKGROUND, jnp.asarray(noise), (), jnp.zeros(()))
    found = model.prepare(params, Sensed(jnp.asarray(mask * values), jnp.asarray(mask)))
    np.testing.assert_allclose(found.misfit, 9.0, rtol=1e-6)
    np.testing.assert_allclose(found.mode, 0.0, atol=1e-4)
