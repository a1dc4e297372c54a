"""Forecasts of the spring from a few of its tracked points, and from all: the models, functions of one window.

    y_ij = sum_k a_k(t_i) sin(k pi z_ij) + noise,   a_k(t) of the rollout of a state x_0 = b + B z

A sample has an energy and dampings of its own, drawn from the posterior. `searched` looks for the state at the first
image that was read, through that energy, and draws it from Laplace's approximation, so that where the energy is
quadratic and states are Gaussian a sample is one of the posterior given the energy. `interpolated` fits every image by
itself, and the momentum by a polynomial in time. `measured` is told the state as the study measures it from all points.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float, Key

from experiments.spring.prior import SpringPrior, at_rest_strain, spring_structure
from experiments.spring.recording import FITTED_MODES, modal_amplitudes, sine_modes, sine_slopes
from phdme_jax.gp.basis import Basis, Energy
from phdme_jax.gp.sampling import roll_out, sample_system
from phdme_jax.methods.base import Model
from phdme_jax.methods.sensors.background import Background
from phdme_jax.methods.sensors.gauss_newton import Laplace, laplace
from phdme_jax.methods.sensors.sensed import Sensed

System = tuple[Energy, dict[str, Array]]


@dataclass(frozen=True)
class Instrument:
    """All of the models but the arrays.

    Attributes:
      basis: of the energies.
      points: of the grid.
      window: images that are read.
      scored_modes: that are forecast.
      substeps: integration steps between images.
      steps: of Gauss-Newton, from the background.
      sample_steps: the same for a sample, from what was found through the mean energy.
      degree: of the polynomial in time through interpolated images.
    """

    basis: Basis
    points: int
    window: int
    scored_modes: int
    substeps: int
    steps: int
    sample_steps: int
    degree: int


class Params(NamedTuple):
    """Arrays of all windows.

    Attributes:
      prior: energies and dampings.
      background: of momentum and strain before any reading.
      noise: standard deviation of a reading (1,) [length].
    """

    prior: SpringPrior
    background: Background
    noise: Float[Array, "field"]


class Readings(NamedTuple):
    """What is read of the first images of a window; leaves may have a leading axis.

    Attributes:
      shapes: the sines at each tracked pixel, zero where there is none.
      values: its displacement [length], zero where it is hidden.
      mask: one where a pixel is read.
      times: of the images that are read, then of those that are forecast [s].
      still: the spring at rest, its rest strain the third field.
    """

    shapes: Float[Array, "window pixel mode"]
    values: Float[Array, "window pixel"]
    mask: Float[Array, "window pixel"]
    times: Float[Array, "image"]
    still: Float[Array, "grid 3"]


class Measured(NamedTuple):
    """The start as it is measured from all points; leaves may have a leading axis.

    Attributes:
      state: at the last image before the forecast.
      errors: possible ones of it.
      times: of that image, then of those that are forecast [s].
    """

    state: Float[Array, "grid 3"]
    errors: Float[Array, "error grid 3"]
    times: Float[Array, "image"]


def mean_system(prior: SpringPrior, still: Float[Array, "grid 3"]) -> System:
    """The mean energy and its dampings."""
    best = at_rest_strain(prior.best, still)
    return best.mean, best.parameters


def drawn_system(prior: SpringPrior, still: Float[Array, "grid 3"], key: Key[Array, ""]) -> System:
    """An energy with its dampings, hyperparameters among those drawn."""
    choice_key, key = jax.random.split(key)
    index = jax.random.randint(choice_key, (), 0, prior.draws.objective.shape[0])
    return sample_system(at_rest_strain(jax.tree.map(lambda leaf: leaf[index], prior.draws), still), key)


def rolled_amplitudes(
    instrument: Instrument, system: System, state: Float[Array, "grid 2"], times: Float[Array, "image"]
) -> Float[Array, "image mode"]:
    """Amplitudes of the sine modes along the rollout of an energy, the state at the first time [length]."""
    structure, grid = spring_structure(instrument.points), np.linspace(0.0, 1.0, instrument.points)
    rolled = roll_out(
        instrument.basis,
        structure.flow,
        jnp.asarray(structure.weights(), times.dtype),
        *system,
        state,
        times,
        instrument.substeps,
    )
    return rolled.trajectory[..., 1] @ modal_amplitudes(grid, np.eye(instrument.points), FITTED_MODES)


def search(
    instrument: Instrument,
    params: Params,
    readings: Readings,
    system: System,
    begin: Float[Array, "direction"],
    steps: int,
) -> Laplace:
    """The state at the first image through one energy, by Gauss-Newton from some coordinates of the background."""

    def window(z: Array) -> Array:
        state = params.background.state(z)
        amplitude = rolled_amplitudes(instrument, system, state, readings.times[: instrument.window])
        return jnp.einsum("ipk,ik->ip", readings.shapes, amplitude)[..., None]

    sensed = Sensed(readings.values[..., None], readings.mask[..., None])
    return laplace(window, sensed, params.noise, begin, steps, furthest=float("inf"))


@lru_cache
def make_searched(instrument: Instrument) -> Model:
    """Search through the energy: what `prepare` finds through the mean energy is the mean and where samples begin."""

    def prepare(params: Params, readings: Readings) -> tuple[Readings, Laplace]:
        begin = jnp.zeros(params.background.root.shape[-1])
        system = mean_system(params.prior, readings.still)
        return readings, search(instrument, params, readings, system, begin, instrument.steps)

    def forecast(params: Params, readings: Readings, system: System, z: Array) -> Array:
        path = rolled_amplitudes(instrument, system, params.background.state(z), readings.times)
        return path[instrument.window :, : instrument.scored_modes]

    def mean(params: Params, prepared: tuple[Readings, Laplace]) -> Array:
        readings, found = prepared
        return forecast(params, readings, mean_system(params.prior, readings.still), found.mode)

    def draw(params: Params, prepared: tuple[Readings, Laplace], latent: Array, key: Array) -> Array:
        readings, found = prepared
        system = drawn_system(params.prior, readings.still, jax.random.split(key)[1])
        own = search(instrument, params, readings, system, found.mode, instrument.sample_steps)
        xi = jax.random.normal(latent, own.mode.shape, own.mode.dtype)
        return forecast(params, readings, system, own.coordinates(xi))

    # the first half of a key makes the latent, the second is for the draw
    return Model(prepare=prepare, draw=draw, latent=lambda key: jax.random.split(key)[0], mean=mean)


def interpolate_images(
    params: Params, readings: Readings
) -> tuple[Float[Array, "window mode"], Float[Array, "window mode mode"]]:
    """Amplitudes of each image from its own readings, N(mean, root root^T); before them those of the background."""
    grid = np.linspace(0.0, 1.0, readings.still.shape[0])
    modes = readings.shapes.shape[-1]
    project = jnp.asarray(modal_amplitudes(grid, np.eye(grid.size), modes).T)
    middle, prior = project @ params.background.mean[:, 1], project @ params.background.root[:, 1]

    def one(shapes: Array, values: Array, mask: Array) -> tuple[Array, Array]:
        design = (mask / params.noise)[:, None] * shapes @ prior
        lower = jnp.linalg.cholesky(jnp.eye(prior.shape[-1]) + design.T @ design)
        z = cho_solve((lower, True), design.T @ (mask * (values - shapes @ middle) / params.noise))
        root = solve_triangular(lower, jnp.eye(len(lower)), lower=True).T
        return middle + prior @ z, prior @ root

    return jax.vmap(one)(readings.shapes, readings.values, readings.mask)


@lru_cache
def make_interpolated(instrument: Instrument) -> Model:
    """Interpolation in space, then a polynomial in time, then the energy from the last image that was read."""
    grid, last = np.linspace(0.0, 1.0, instrument.points), instrument.window - 1

    def forecast(readings: Readings, system: System, amplitude: Array) -> Array:
        since = readings.times[: instrument.window] - readings.times[last]
        powers = (since / since[0])[:, None] ** jnp.arange(instrument.degree + 1)
        value, rate = jnp.linalg.pinv(powers)[:2] @ amplitude / jnp.stack([jnp.ones(()), since[0]])[:, None]
        momentum = sine_modes(grid, FITTED_MODES) @ rate
        state = jnp.stack([momentum, sine_slopes(grid, FITTED_MODES) @ value], axis=-1)
        path = rolled_amplitudes(instrument, system, state, readings.times[last:])
        return path[1:, : instrument.scored_modes]

    def prepare(params: Params, readings: Readings) -> tuple[Readings, Array, Array]:
        return readings, *interpolate_images(params, readings)

    def mean(params: Params, prepared: tuple[Readings, Array, Array]) -> Array:
        readings, amplitude, _ = prepared
        return forecast(readings, mean_system(params.prior, readings.still), amplitude)

    def draw(params: Params, prepared: tuple[Readings, Array, Array], latent: Array, key: Array) -> Array:
        readings, amplitude, root = prepared
        system = drawn_system(params.prior, readings.still, jax.random.split(key)[1])
        xi = jax.random.normal(latent, (len(root), root.shape[-1]), root.dtype)
        return forecast(readings, system, amplitude + jnp.einsum("ikd,id->ik", root, xi))

    return Model(prepare=prepare, draw=draw, latent=lambda key: jax.random.split(key)[0], mean=mean)


@lru_cache
def make_measured(instrument: Instrument) -> Model:
    """The energy from the state that the study measures, a sample from one that it may have been."""

    def forecast(measured: Measured, system: System, state: Array) -> Array:
        path = rolled_amplitudes(instrument, system, state[:, :2], measured.times)
        return path[1:, : instrument.scored_modes]

    def draw(params: Params, measured: Measured, latent: Array, key: Array) -> Array:
        system = drawn_system(params.prior, measured.state, jax.random.split(key)[1])
        index = jax.random.randint(latent, (), 0, measured.errors.shape[0])
        return forecast(measured, system, measured.state - measured.errors[index])

    return Model(
        prepare=lambda params, measured: measured,
        draw=draw,
        latent=lambda key: jax.random.split(key)[0],
        mean=lambda params, measured: forecast(measured, mean_system(params.prior, measured.state), measured.state),
    )
