"""Energy and damping of a real spring from one recording, and what they say of the motion of any.

    p_t = d_z [V'(r + q) - V'(r)] - c p + eta p_zz,   q_t = p_z,   p = s_t, q = s_z, p = 0 at both ends

Length in node distances, mass one: the energy density is p^2/2 + V. The kinetic part is known, and V is even in the
strain, because tension depends on how much a spring is stretched, not on the side to which it leans. r is the strain of
the rest curve of a recording, which the weight of the spring holds: a third field that never changes, so that the same
energy serves every recording. V is a Gaussian process around a quadratic mean; V, that mean, the noise and both
dampings follow by marginal likelihood from weak-form rows in time, with no derivative of the data.
"""

import time
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from experiments.spring.recording import SpringRecording, modal_states, sine_modes
from phdme_jax.gp.basis import Basis, Box, Energy, density, efforts, make_box
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
from phdme_jax.gp.sampling import Rollout
from phdme_jax.methods.base import Dynamics, Fitted, Options, Start, Times
from phdme_jax.methods.energy.dynamics import learned_dynamics, rollout_model
from phdme_jax.systems.energy.base import Parameters, Structure, System
from phdme_jax.systems.energy.vibrating_string import KELVIN_VOIGT, VISCOUS, string_structure

SAMPLING_RATE = 960.0
REST = 2  # index of the field that never changes, and number of those that do
SHAPES = ("known", "even")


@dataclass(frozen=True)
class SpringOptions:
    """The group `prior`.

    Attributes:
      main: sines in the basis.
      margin: half width of the box over the largest strain.
      lengthscale: of the kernel in the strain, in half widths of the box; stated, not learned.
      damping_ratio: share of critical damping where the search for the dampings starts.
      first_frame: first frame used, counted from the release.
      last_frame: frame after the last one used.
      half_width: half the support of a window of the rows [s].
      spacing: distance between these windows [s].
      draws: of the hyperparameters.
      substeps: integration steps between the frames of a forecast.
    """

    main: int
    margin: float
    lengthscale: float
    damping_ratio: float
    first_frame: int
    last_frame: int
    half_width: float
    spacing: float
    draws: int
    substeps: int


class SpringPrior(NamedTuple):
    """What one recording says about energy and damping.

    Attributes:
      best: posterior at the best hyperparameters; its mean is the mean energy.
      draws: posteriors at hyperparameters drawn from theirs, leaves with a leading axis.
    """

    best: EnergyPosterior
    draws: EnergyPosterior


@lru_cache
def spring_structure(num_points: int) -> Structure:
    """Operators of a string of length one with viscous and Kelvin-Voigt damping; the same record for the same grid."""
    return string_structure(num_points, length=1.0, order=4, damping=(VISCOUS, KELVIN_VOIGT), name="spring")


@lru_cache
def spring_problem(num_points: int) -> System:
    """The spring with the rest strain as a third field of rate zero; nobody knows its energy."""
    spring = spring_structure(num_points)

    def flow(efforts: Array, parameters: Parameters) -> Array:
        rate = spring.flow(efforts[..., :REST], parameters)
        return jnp.concatenate([rate, jnp.zeros_like(rate[..., :1])], axis=-1)

    extended = replace(
        spring,
        fields=(*spring.fields, "rest_strain"),
        units=(*spring.units, spring.units[1]),
        parity=(*spring.parity, (1,)),
        flow=flow,
        constrain=lambda state: state.at[..., :REST].set(spring.constrain(state[..., :REST])),
        boundary=lambda state: spring.boundary(state[..., :REST]),
    )
    return System(extended)


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


def learned_images(
    recording: SpringRecording, options: SpringOptions
) -> tuple[Float[np.ndarray, " time"], Float[np.ndarray, "time mode"]]:
    """Times and amplitudes of the stretch of a recording that is learned from.

    Raises:
      ValueError: fewer than ten images in the stretch, or no room for a window.
    """
    first, last, half_width = options.first_frame, options.last_frame, options.half_width
    since = recording.frame - recording.release
    chosen = (since >= first) & (since < last)
    times = recording.time[chosen]
    if times.size < 10 or times[-1] - times[0] <= 2 * half_width:
        raise ValueError(
            f"expected ten images or more and room for a window of {2 * half_width:.3f} s in frames {first} to "
            f"{last} after the release, got {times.size} images, try a longer stretch"
        )
    return times, recording.amplitude[chosen, : recording.modes]


def spring_rows(basis: Basis, recording: SpringRecording, options: SpringOptions) -> tuple[Box, Observations]:
    """Weak-form rows of a stretch of a recording, and the box its strains need.

    All modes share one noise level: an error of the displacement that is alike in all modes is an error of the force
    that grows like the squared wave number, and forces are what the rows see.

    Args:
      basis: sizes and shapes of the basis.
      recording: the recording to learn from.
      options: stretch, windows and margin.
    Returns:
      the box, with the recording's rest strain as preload, and the rows.
    Raises:
      ValueError: see `learned_images`.
    """
    from scipy.interpolate import CubicSpline

    times, amplitude = learned_images(recording, options)
    half_width = options.half_width
    fine = np.arange(times[0], times[-1], 1.0 / SAMPLING_RATE)
    curve = CubicSpline(times, amplitude)
    moving = modal_states(recording.grid, curve(fine), curve(fine, 1))
    modes = sine_modes(recording.grid, recording.modes)
    displaced = np.stack([curve(fine) @ modes.T, moving[..., 1]], axis=-1)
    preload = jnp.stack([jnp.zeros(recording.grid.size), jnp.asarray(recording.rest_strain)], axis=-1)
    box = make_box(jnp.asarray(moving) + preload, jnp.zeros(2), options.margin)._replace(preload=preload)
    structure = spring_structure(recording.grid.size)
    tests = window_tests(fine, np.arange(times[0] + half_width, times[-1] - half_width, options.spacing), half_width)
    shapes = jnp.asarray(2.0 * modes.T * structure.weights())
    rows = _rows(basis, structure, box, jnp.asarray(displaced), tests, shapes)
    share = (1.0 + rows.group) ** 4
    return box, rows._replace(group=jnp.zeros_like(rows.group), state_share=share.astype(rows.target.dtype))


@partial(jax.jit, static_argnums=(0, 1))
def _rows(basis: Basis, structure: Structure, box: Box, states: Array, tests: TimeTests, shapes: Array) -> Observations:
    return displacement_rows(basis, box, structure.flow, structure.parameters, states, tests, shapes)


def spring_hyperprior(
    basis: Basis, box: Box, rows: Observations, options: SpringOptions, quadratic: bool
) -> Hyperprior:
    """Hyperprior on the scale of the recording, with a lengthscale that is stated, not learned.

    Stiffness k by least squares of the rows; amplitude k l^2, for which the nonlinear part bends as much as the
    quadratic one; both dampings such that each alone gives the first mode the damping ratio.

    Args:
      basis: sizes and shapes of the basis.
      box: where it lives.
      rows: weak-form rows.
      options: lengthscale and damping ratio.
      quadratic: holds the amplitude of the nonlinear part at zero, which leaves the quadratic mean alone.
    Returns:
      the hyperprior.
    """
    column = rows.design[0, :, -1]
    stiffness = jnp.abs(column @ rows.target / (column @ column))
    noise = jnp.sqrt(jnp.mean((rows.target - stiffness * column) ** 2 / rows.state_share))
    damping = 2.0 * options.damping_ratio * np.pi * jnp.sqrt(stiffness)
    length, curved = options.lengthscale * box.half_width[1], float(not quadratic)
    start = initial_hyperparameters(basis, box, 2)
    centre = start._replace(
        lengthscale=jnp.full_like(start.lengthscale, np.log(options.lengthscale)),
        amplitude=jnp.log(jnp.stack([jnp.ones_like(length), curved * stiffness * length**2])),
        stiffness=jnp.log(jnp.stack([jnp.ones_like(stiffness), stiffness])),
        state_noise=jnp.log(noise)[None],
        rate_noise=jnp.log(noise)[None],
        dissipation=jnp.log(jnp.stack([damping, damping / np.pi**2])),
    )
    amplitude = jnp.array([0.0, WIDTHS.amplitude * curved])
    return Hyperprior(centre, WIDTHS._replace(lengthscale=jnp.zeros(()), amplitude=amplitude))


def fit_spring(
    recording: SpringRecording, times: Times, options: Options, key: Key[Array, ""], quadratic: bool
) -> Fitted:
    """Fit energy and damping to a recording and draw hyperparameters: what `Task.energy` asks for.

    Args:
      recording: the recording to learn from.
      times: of the frames of forecasts.
      options: the group `prior`, see `SpringOptions`.
      key: random key.
      quadratic: the quadratic mean alone, without the Gaussian process.
    Returns:
      rollouts of what was learned; parameters are the `SpringPrior`, `found` holds the dampings.
    """
    chosen = SpringOptions(**options["prior"])
    basis = Basis(2, chosen.main, 0, SHAPES)
    box, rows = spring_rows(basis, recording, chosen)
    hyperprior = spring_hyperprior(basis, box, rows, chosen, quadratic)
    learn = partial(_learn, basis, spring_structure(recording.grid.size).parameters, chosen.draws)
    jax.block_until_ready(learn(box, rows, hyperprior, key))  # compiles; the second run is timed
    began = time.perf_counter()
    prior = jax.block_until_ready(learn(box, rows, hyperprior, key))
    seconds = time.perf_counter() - began
    model = rollout_model(spring_dynamics(basis, recording.grid.size, chosen.substeps), times, REST)
    return Fitted(model, prior, {"fit": seconds}, {name: float(value) for name, value in prior.best.parameters.items()})


@partial(jax.jit, static_argnums=(0, 1, 2))
def _learn(
    basis: Basis, names: tuple[str, ...], draws: int, box: Box, rows: Observations, hyperprior: Hyperprior, key: Array
) -> SpringPrior:
    best = fit(basis, box, rows, hyperprior, names, max_iterations=200, tolerance=1e-3)
    drawn = sample_hyperparameters(basis, box, rows, hyperprior, best.hyperparameters, draws, key)
    return SpringPrior(best, jax.vmap(lambda chosen: condition(basis, box, rows, chosen, names))(drawn))


@lru_cache
def spring_dynamics(basis: Basis, num_points: int, substeps: int) -> Dynamics:
    """What a `SpringPrior` says of the motion, the rest strain taken from the state.

    Args:
      basis: sizes and shapes of the basis.
      num_points: of the grid.
      substeps: integration steps between the frames of a forecast.
    Returns:
      the dynamics, whose samples take hyperparameters among those drawn; the same record for the same arguments.
    """
    moving = learned_dynamics(spring_structure(num_points), basis, substeps)

    def split(start: Start) -> Start:
        errors = None if start.errors is None else start.errors[..., :REST]
        return start._replace(state=start.state[..., :REST], errors=errors)

    def completed(rolled: Rollout, start: Start) -> Rollout:
        rest = jnp.broadcast_to(start.state[..., REST:], (*rolled.trajectory.shape[:-1], 1))
        return rolled._replace(trajectory=jnp.concatenate([rolled.trajectory, rest], axis=-1))

    def roll_out(prior: SpringPrior, start: Start, times: Times, steps: int) -> Rollout:
        here = at_rest_strain(prior.best, start.state)
        return completed(moving.rollout(here, split(start), times, steps), start)

    def sample(prior: SpringPrior, start: Start, key: Array, times: Times, steps: int) -> Rollout:
        choice_key, key = jax.random.split(key)
        index = jax.random.randint(choice_key, (), 0, prior.draws.objective.shape[0])
        here = at_rest_strain(jax.tree.map(lambda leaf: leaf[index], prior.draws), start.state)
        return completed(moving.sample(here, split(start), key, times, steps), start)

    def rate(prior: SpringPrior, state: Array) -> Array:
        moved = moving.rate(at_rest_strain(prior.best, state), state[..., :REST])
        return jnp.concatenate([moved, jnp.zeros_like(moved[..., :1])], axis=-1)

    def variance(prior: SpringPrior, trajectory: Array, times: Times) -> Array:
        assert moving.variance is not None
        moved = moving.variance(at_rest_strain(prior.best, trajectory[0]), trajectory[..., :REST], times)
        return jnp.concatenate([moved, jnp.zeros_like(moved[..., :1])], axis=-1)

    return Dynamics(rate, roll_out, sample, variance, substeps)


def at_rest_strain(posterior: EnergyPosterior, state: Float[Array, "grid 3"]) -> EnergyPosterior:
    """The posterior with the rest strain of a state as preload."""
    rest = state[:, REST:]
    box = posterior.mean.box._replace(preload=jnp.concatenate([jnp.zeros_like(rest), rest], axis=-1))
    return posterior._replace(mean=posterior.mean._replace(box=box))


def basis_of(energy: Energy) -> Basis:
    """Sizes and shapes of the basis of an energy."""
    return Basis(2, energy.weights.shape[-1] // 2, 0, SHAPES)


def total_energy(
    posterior: EnergyPosterior, states: Float[np.ndarray, "*points grid 3"]
) -> Float[np.ndarray, "*points"]:
    """Energy of states of one recording under a mean energy."""
    points = states.shape[-2]
    here = at_rest_strain(posterior, jnp.asarray(states.reshape(-1, points, REST + 1)[0]))
    levels = density(basis_of(here.mean), here.mean, jnp.asarray(states[..., :REST]))
    return np.asarray(levels) @ spring_structure(points).weights()


def stress(energy: Energy, strain: Float[Array, " point"]) -> Float[Array, " point"]:
    """Stress V'(q) of an energy at total strains q."""
    straight = energy._replace(box=energy.box._replace(preload=None))
    return efforts(basis_of(energy), straight, jnp.stack([jnp.zeros_like(strain), strain], axis=-1))[:, 1]
