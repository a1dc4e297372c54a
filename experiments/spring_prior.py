"""Energy and damping of a real spring from one recording, and forecasts of another one.

    p_t = d_z [V'(r + q) - V'(r)] - c p + kappa p_zz,   q_t = p_z,   p = s_t, q = s_z, p = 0 at both ends

Length in node distances, mass one: the energy density is p^2/2 + V, the kinetic part is known, V is even in the strain because
the tension of a spring depends on how much it is stretched, not on where it leans. r is the strain of the sagging rest
curve of the recording. V is a Gaussian process around a quadratic mean; V, its mean, both dampings and a noise level for each
spatial mode are learned by marginal likelihood from weak-form rows in time, with no derivative of the data.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.interpolate import CubicSpline

from experiments.spring_data import SpringRecording, sine_modes, sine_slopes
from phdme_jax.gp.basis import Basis, Box, Energy, make_box
from phdme_jax.gp.fit import EnergyPosterior, condition, fit, sample_hyperparameters
from phdme_jax.gp.observations import Observations, TimeTests, displacement_rows
from phdme_jax.gp.sampling import sample_energy
from phdme_jax.systems.base import Structure
from phdme_jax.systems.vibrating_string import KELVIN_VOIGT, VISCOUS, string_structure

FIELDS = ("momentum", "strain")
SAMPLING_RATE = 960.0


class SpringPrior(NamedTuple):
    """Energies and dampings a recording allows: the best one and draws.

    Attributes:
      posterior: at the best hyperparameters.
      energies: draws, with a leading axis.
      parameters: dampings of the draws, each of shape (draw,).
    """

    posterior: EnergyPosterior
    energies: Energy
    parameters: dict[str, Float[Array, "draw"]]


def spring_structure(recording: SpringRecording, order: int = 4) -> Structure:
    """The string with fixed ends, of length one, with viscous and Kelvin-Voigt damping, on the grid of a recording."""
    return string_structure(
        num_points=recording.grid.size, length=1.0, order=order, damping=(VISCOUS, KELVIN_VOIGT), name="spring"
    )


def preload_of(recording: SpringRecording) -> Float[Array, "grid field"]:
    """State the spring's weight holds: no momentum, the strain of the rest curve."""
    return jnp.stack([jnp.zeros(recording.grid.size), jnp.asarray(recording.rest_strain)], axis=-1)


def window_tests(
    times: Float[np.ndarray, " time"], centres: Float[np.ndarray, " test"], half_width: float
) -> TimeTests:
    """Windows w = (1 - u^2)^4, u = (t - centre)/half_width, with their derivatives, on evenly spaced times.

    Args:
      times: sampling times [s].
      centres: centres of the windows [s].
      half_width: half the support [s].
    Returns:
      quadrature weights of w, w' and w'', by the trapezoid rule (w and its first three derivatives vanish at the ends).
    """
    u = np.clip((times - centres[:, None]) / half_width, -1.0, 1.0)
    rest, step = 1.0 - u**2, times[1] - times[0]
    slope = -8.0 * u * rest**3 / half_width
    curvature = (48.0 * u**2 * rest**2 - 8.0 * rest**3) / half_width**2
    return TimeTests(*(jnp.asarray(step * part) for part in (rest**4, slope, curvature)))


def spring_rows(
    structure: Structure,
    basis: Basis,
    recording: SpringRecording,
    *,
    first_frame: int,
    last_frame: int,
    half_width: float,
    spacing: float,
    margin: float,
) -> tuple[Box, Observations]:
    """Weak-form rows of a stretch of a recording and the box its strains need.

    Args:
      structure: operators.
      basis: sizes and shapes of the basis.
      recording: the recording to learn from.
      first_frame: first frame used, counted from the release.
      last_frame: frame after the last one used.
      half_width: half the support of a window in time [s].
      spacing: distance between windows in time [s].
      margin: half width of the box over the largest strain.
    Returns:
      the box, with the recording's rest strain as preload, and the rows, one noise group for each spatial mode.
    """
    since = recording.frame - recording.release
    chosen = (since >= first_frame) & (since < last_frame)
    if np.count_nonzero(chosen) < 10:
        raise ValueError(
            f"expected ten or more images from frame {first_frame} to {last_frame} after the release, got "
            f"{np.count_nonzero(chosen)}, try a longer stretch"
        )
    time, amplitude = recording.time[chosen], recording.amplitude[chosen, : recording.modes]
    fine = np.arange(time[0], time[-1], 1.0 / SAMPLING_RATE)
    curve = CubicSpline(time, amplitude)(fine)
    modes, slopes = sine_modes(recording.grid, recording.modes), sine_slopes(recording.grid, recording.modes)
    states = jnp.asarray(np.stack([curve @ modes.T, curve @ slopes.T], axis=-1))
    preload = preload_of(recording)
    box = make_box(states + preload, jnp.zeros(2), margin)._replace(preload=preload)
    tests = window_tests(fine, np.arange(time[0] + half_width, time[-1] - half_width, spacing), half_width)
    shapes = jnp.asarray(2.0 * modes.T * structure.weights())
    return box, displacement_rows(basis, box, structure.flow, structure.parameters, states, tests, shapes)


@partial(jax.jit, static_argnames=("structure", "basis", "draws"))
def _learn(
    structure: Structure, basis: Basis, box: Box, rows: Observations, start: Any, draws: int, key: Array
) -> tuple[EnergyPosterior, Energy, dict[str, Array]]:
    posterior = fit(basis, box, rows, start, structure.parameters, max_iterations=200, tolerance=1e-3)
    hyper_key, energy_key = jax.random.split(key)
    draw = sample_hyperparameters(basis, box, rows, posterior.hyperparameters, draws, hyper_key)

    def complete(hyperparameters: Any, key: Array) -> tuple[Energy, dict[str, Array]]:
        conditioned = condition(basis, box, rows, hyperparameters, structure.parameters)
        energy = sample_energy(conditioned, key)
        return energy._replace(box=energy.box._replace(preload=None)), conditioned.parameters

    energies, parameters = jax.vmap(complete)(draw, jax.random.split(energy_key, draws))
    return posterior, energies, parameters
