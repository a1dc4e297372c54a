"""Energy and damping of a real spring from one recording, and rollouts of what was learned.

    p_t = d_z [V'(r + q) - V'(r)] - c p + eta p_zz,   q_t = p_z,   p = s_t, q = s_z, p = 0 at both ends

Length in node distances, mass one: the energy density is p^2/2 + V. The kinetic part is known, and V is even in the
strain, because tension depends on how much a spring is stretched, not on the side to which it leans. r is the strain of
the rest curve of a recording, which the weight of the spring holds. V is a Gaussian process around a quadratic mean; V,
that mean, the noise and both dampings follow by marginal likelihood from weak-form rows in time, with no derivative of
the data.
"""

from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.interpolate import CubicSpline

from experiments.spring.recording import SpringRecording, sine_modes, sine_slopes
from phdme_jax.gp.basis import Basis, Box, Energy, efforts, make_box
from phdme_jax.gp.fit import (
    WIDTHS,
    EnergyPosterior,
    Hyperprior,
    condition,
    fit,
    initial_hyperparameters,
    sample_hyperparameters,
)
from phdme_jax.gp.observations import Observations, TimeTests, displacement_rows
from phdme_jax.gp.sampling import Rollout, roll_out, sample_energy
from phdme_jax.systems.energy.base import Structure
from phdme_jax.systems.energy.vibrating_string import KELVIN_VOIGT, VISCOUS, string_structure

SAMPLING_RATE = 960.0


class Candidate(NamedTuple):
    """One energy with its damping; a leading axis holds several.

    Attributes:
      stiffness: of the quadratic part, shape (field,).
      weights: of the sines, shape (weight,).
      parameters: dampings by name.
    """

    stiffness: Float[Array, "field"]
    weights: Float[Array, "weight"]
    parameters: dict[str, Float[Array, ""]]


class SpringPrior(NamedTuple):
    """What one recording says about energy and damping.

    Attributes:
      posterior: energy and damping at the best hyperparameters.
      draws: energies and dampings drawn from the posterior, hyperparameters included.
    """

    posterior: EnergyPosterior
    draws: Candidate

    @property
    def best(self) -> Candidate:
        """Posterior mean of the energy at the best hyperparameters, with its damping."""
        mean = self.posterior.mean
        return Candidate(mean.stiffness, mean.weights, self.posterior.parameters)


@lru_cache
def spring_structure(num_points: int) -> Structure:
    """Operators of a string of length one with viscous and Kelvin-Voigt damping; the same record for the same grid."""
    return string_structure(num_points, length=1.0, order=4, damping=(VISCOUS, KELVIN_VOIGT), name="spring")


def preload_of(recording: SpringRecording) -> Float[Array, "grid field"]:
    """State that the spring's weight holds: no momentum, the strain of the rest curve."""
    return jnp.stack([jnp.zeros(recording.grid.size), jnp.asarray(recording.rest_strain)], axis=-1)


def window_tests(
    times: Float[np.ndarray, " time"], centres: Float[np.ndarray, " test"], half_width: float
) -> TimeTests:
    """Windows w = (1 - u^2)^4, u = (t - centre) / half_width, on evenly spaced times.

    Args:
      times: sampling times [s].
      centres: centres of the windows [s].
      half_width: half the support [s].
    Returns:
      weights of the trapezoid rule for w, w' and w''.
    """
    u = np.clip((times - centres[:, None]) / half_width, -1.0, 1.0)
    rest, step = 1.0 - u**2, times[1] - times[0]
    slope = -8.0 * u * rest**3 / half_width
    curvature = (48.0 * u**2 * rest**2 - 8.0 * rest**3) / half_width**2
    return TimeTests(*(jnp.asarray(step * part) for part in (rest**4, slope, curvature)))


def spring_rows(
    basis: Basis,
    recording: SpringRecording,
    *,
    margin: float,
    first_frame: int,
    last_frame: int,
    half_width: float,
    spacing: float,
) -> tuple[Box, Observations]:
    """Weak-form rows of a stretch of a recording, and the box its strains need.

    All modes share one noise level: an error of the displacement that is alike in all modes is an error of the force
    that grows like the squared wave number, and forces are what the rows see.

    Args:
      basis: sizes and shapes of the basis.
      recording: the recording to learn from.
      margin: half width of the box over the largest strain.
      first_frame: first frame used, counted from the release.
      last_frame: frame after the last one used.
      half_width: half the support of a window in time [s].
      spacing: distance between windows in time [s].
    Returns:
      the box, with the recording's rest strain as preload, and the rows.
    Raises:
      ValueError: fewer than ten images in the stretch, or no room for a window.
    """
    since = recording.frame - recording.release
    chosen = (since >= first_frame) & (since < last_frame)
    time, amplitude = recording.time[chosen], recording.amplitude[chosen, : recording.modes]
    if time.size < 10 or time[-1] - time[0] <= 2 * half_width:
        raise ValueError(
            f"expected ten images or more and room for a window of {2 * half_width:.3f} s in frames {first_frame} to "
            f"{last_frame} after the release, got {time.size} images, try a longer stretch"
        )
    fine = np.arange(time[0], time[-1], 1.0 / SAMPLING_RATE)
    curve = CubicSpline(time, amplitude)
    modes, slopes = sine_modes(recording.grid, recording.modes), sine_slopes(recording.grid, recording.modes)
    states = np.stack([curve(fine) @ modes.T, curve(fine) @ slopes.T], axis=-1)
    reached = np.stack([curve(fine, 1) @ modes.T, states[..., 1]], axis=-1)
    preload = preload_of(recording)
    box = make_box(jnp.asarray(reached) + preload, jnp.zeros(2), margin)._replace(preload=preload)
    structure = spring_structure(recording.grid.size)
    tests = window_tests(fine, np.arange(time[0] + half_width, time[-1] - half_width, spacing), half_width)
    shapes = jnp.asarray(2.0 * modes.T * structure.weights())
    rows = _rows(basis, structure, box, jnp.asarray(states), tests, shapes)
    share = (1.0 + rows.group) ** 4
    return box, rows._replace(group=jnp.zeros_like(rows.group), state_share=share.astype(rows.target.dtype))


@partial(jax.jit, static_argnums=(0, 1))
def _rows(basis: Basis, structure: Structure, box: Box, states: Array, tests: TimeTests, shapes: Array) -> Observations:
    return displacement_rows(basis, box, structure.flow, structure.parameters, states, tests, shapes)


def spring_hyperprior(
    basis: Basis, box: Box, rows: Observations, lengthscale: float, damping_ratio: float, nonlinear: bool
) -> Hyperprior:
    """Hyperprior on the scale of the recording, with a lengthscale that is stated, not learned.

    Stiffness k by least squares of the rows; amplitude k l^2, for which the nonlinear part bends as much as the
    quadratic one; both dampings such that each alone gives the first mode the damping ratio.

    Args:
      basis: sizes and shapes of the basis.
      box: where it lives.
      rows: weak-form rows.
      lengthscale: of the kernel in the strain, in half widths of the box.
      damping_ratio: share of critical damping.
      nonlinear: false holds the amplitude of the nonlinear part at zero, which leaves the quadratic mean alone.
    Returns:
      the hyperprior.
    """
    column = rows.design[0, :, -1]
    stiffness = jnp.abs(column @ rows.target / (column @ column))
    noise = jnp.sqrt(jnp.mean((rows.target - stiffness * column) ** 2 / rows.state_share))
    damping = 2.0 * damping_ratio * np.pi * jnp.sqrt(stiffness)
    length = lengthscale * box.half_width[1]
    start = initial_hyperparameters(basis, box, 2)
    centre = start._replace(
        lengthscale=jnp.full_like(start.lengthscale, np.log(lengthscale)),
        amplitude=jnp.log(jnp.stack([jnp.ones_like(length), nonlinear * stiffness * length**2])),
        stiffness=jnp.log(jnp.stack([jnp.ones_like(stiffness), stiffness])),
        state_noise=jnp.log(noise)[None],
        rate_noise=jnp.log(noise)[None],
        dissipation=jnp.log(jnp.stack([damping, damping / np.pi**2])),
    )
    amplitude = jnp.array([0.0, WIDTHS.amplitude * nonlinear])
    return Hyperprior(centre, WIDTHS._replace(lengthscale=jnp.zeros(()), amplitude=amplitude))


def learn_spring(
    recording: SpringRecording,
    *,
    nonlinear: bool,
    main: int,
    margin: float,
    lengthscale: float,
    damping_ratio: float,
    draws: int,
    key: Array,
    **stretch: Any,
) -> tuple[Basis, SpringPrior]:
    """Fit energy and damping to a recording and draw from the posterior.

    Args:
      recording: the recording to learn from.
      nonlinear: the Gaussian process, or its quadratic mean alone.
      main: sines in the basis.
      margin: half width of the box over the largest strain.
      lengthscale: of the kernel, in half widths of the box.
      damping_ratio: where the search for the dampings starts.
      draws: number of draws.
      key: random key.
      **stretch: first_frame, last_frame, half_width and spacing of `spring_rows`.
    Returns:
      the basis, and the prior for forecasts.
    """
    basis = Basis(2, main, 0, ("known", "even"))
    box, rows = spring_rows(basis, recording, margin=margin, **stretch)
    hyperprior = spring_hyperprior(basis, box, rows, lengthscale, damping_ratio, nonlinear)
    return basis, _learn(basis, spring_structure(recording.grid.size).parameters, box, rows, hyperprior, draws, key)


@partial(jax.jit, static_argnums=(0, 1, 5))
def _learn(
    basis: Basis, names: tuple[str, ...], box: Box, rows: Observations, hyperprior: Hyperprior, draws: int, key: Array
) -> SpringPrior:
    posterior = fit(basis, box, rows, hyperprior, names, max_iterations=200, tolerance=1e-3)
    hyper_key, energy_key = jax.random.split(key)
    drawn = sample_hyperparameters(basis, box, rows, hyperprior, posterior.hyperparameters, draws, hyper_key)

    def complete(hyperparameters: Any, key: Array) -> Candidate:
        conditioned = condition(basis, box, rows, hyperparameters, names)
        energy = sample_energy(conditioned, key)
        return Candidate(energy.stiffness, energy.weights, conditioned.parameters)

    return SpringPrior(posterior, jax.vmap(complete)(drawn, jax.random.split(energy_key, draws)))


@partial(jax.jit, static_argnums=(0, 5))
def roll_candidates(
    basis: Basis, box: Box, candidates: Candidate, states: Array, times: Array, substeps: int
) -> Rollout:
    """Rollouts of several energies in one window.

    Args:
      basis: sizes and shapes of the basis.
      box: where it lives, with the recording's preload.
      candidates: energies and dampings, leading axis (candidate).
      states: initial states, shape (candidate, grid, field).
      times: output times, shape (time,).
      substeps: steps between output times.
    Returns:
      rollouts, leading axis (candidate).
    """
    structure = spring_structure(states.shape[-2])
    weights = jnp.asarray(structure.weights(), states.dtype)

    def one(candidate: Candidate, state: Array) -> Rollout:
        energy = Energy(box, candidate.stiffness, candidate.weights)
        return roll_out(basis, structure.flow, weights, energy, candidate.parameters, state, times, substeps)

    return jax.vmap(one)(candidates, states)


def stress(basis: Basis, box: Box, candidate: Candidate, strain: Float[Array, " point"]) -> Float[Array, " point"]:
    """Stress V'(q) of one energy at total strains q."""
    energy = Energy(box._replace(preload=None), candidate.stiffness, candidate.weights)
    return efforts(basis, energy, jnp.stack([jnp.zeros_like(strain), strain], axis=-1))[:, 1]


def modal_displacement(
    strain: Float[np.ndarray, "*points grid"], grid: Float[np.ndarray, " grid"], modes: int
) -> Float[np.ndarray, "*points grid"]:
    """Displacement in the first sine modes, from the strain: what the tracked recordings show.

    Args:
      strain: strain on the grid.
      grid: evenly spaced positions, the nodes included.
      modes: number of modes.
    Returns:
      displacement on the grid.
    """
    wave_number = np.pi * np.arange(1, modes + 1)
    weights = spring_structure(grid.size).weights()
    amplitude = 2.0 * (strain * weights) @ sine_slopes(grid, modes) / wave_number**2
    return amplitude @ sine_modes(grid, modes).T
