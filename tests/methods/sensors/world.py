"""A linear world with Gaussian states, in which the posterior of a window behind some readings is known."""

import jax
import jax.numpy as jnp
import numpy as np

from phdme_jax.gp.sampling import Rollout
from phdme_jax.methods.base import Dynamics
from phdme_jax.methods.sensors.assimilation import AssimilationParams
from phdme_jax.methods.sensors.background import Background
from phdme_jax.methods.sensors.sensed import Sensed

GRID, WINDOW, FRAMES, DIRECTIONS = 5, 3, 6, 4
TIMES = tuple(np.linspace(0.0, 1.0, FRAMES).tolist())
RANDOM = np.random.default_rng(0)
STEP = jnp.asarray(np.linalg.qr(RANDOM.normal(size=(2 * GRID, 2 * GRID)))[0])
DEVIATION = jnp.array([0.3, 0.5])
MASK = jnp.zeros((GRID, 2)).at[1, 0].set(1.0).at[3, 1].set(1.0).at[3, 0].set(1.0)


def trajectory(state, frames):
    """State after state of a rotation."""
    path = [jnp.ravel(state)]
    for _ in range(frames - 1):
        path.append(STEP @ path[-1])
    return jnp.stack(path).reshape(frames, GRID, 2)


def _rolled(params, start, key, times, substeps):
    del params, key, substeps
    found = trajectory(start.state, len(times))
    return Rollout(found, jnp.zeros(len(times)), jnp.asarray(True))


DYNAMICS = Dynamics(
    rate=lambda params, state: state,
    rollout=lambda params, start, times, substeps: _rolled(params, start, None, times, substeps),
    sample=_rolled,
    variance=None,
    substeps=1,
)


def background():
    # orthogonal columns, as those of `fit_background` are
    axes = np.linalg.qr(RANDOM.normal(size=(2 * GRID, DIRECTIONS)))[0] * np.array([2.0, 1.0, 0.7, 0.3])
    return Background(jnp.asarray(RANDOM.normal(size=(GRID, 2))), jnp.asarray(axes.reshape(GRID, 2, DIRECTIONS)))


BACKGROUND = background()
PARAMS = AssimilationParams(jnp.zeros(()), BACKGROUND, DEVIATION)


def phi(z):
    """Coordinates -> window."""
    return trajectory(BACKGROUND.state(z), WINDOW)


def readings():
    window = phi(jnp.array([1.0, -0.5, 0.3, 1.2]))
    noise = DEVIATION * jax.random.normal(jax.random.key(5), window.shape)
    return Sensed(MASK * (window + noise), MASK)


def posterior(sensed, frames=WINDOW):
    """Mean and covariance of the coordinates, by the rules of Gaussians, from the first frames alone."""
    slope = np.asarray(jax.jacfwd(phi)(jnp.zeros(DIRECTIONS)))[:frames].reshape(-1, DIRECTIONS)
    seen = np.broadcast_to(np.asarray(sensed.mask) > 0, (frames, GRID, 2)).ravel()
    noise = np.broadcast_to(np.asarray(DEVIATION), (frames, GRID, 2)).ravel()[seen]
    missed = (np.asarray(sensed.values - phi(jnp.zeros(DIRECTIONS)))[:frames]).ravel()[seen]
    seen_slope = slope[seen]
    gram = seen_slope @ seen_slope.T + np.diag(noise**2)
    gain = seen_slope.T @ np.linalg.inv(gram)
    return gain @ missed, np.eye(DIRECTIONS) - gain @ seen_slope


def coordinates(fields):
    """Of the first frame of many trajectories."""
    return np.asarray(jax.vmap(BACKGROUND.coordinates)(jnp.asarray(fields)[:, 0]))
