"""Burgers' equation in space and time, periodic in space: u_t + u u_x = nu u_xx on [0, 1] x [0, 1].

    u(x, 0) = sum_n sqrt(2) s (4 pi^2 n^2 + tau^2)^(-alpha / 2) (a_n cos 2 pi n x + b_n sin 2 pi n x),   a, b normal

Solved by Fourier series on a finer grid, the diffusion exactly, the rest by the classical Runge-Kutta method. The
residual is that of each step between frames: change less the integral of the rate through the eight nearest frames,
spectral in space. Of the data it has the error of that quadrature, largest in the first frames, and of the waves that
the grid does not hold.
Source: Li et al. (2021), arXiv 2010.08895, for the initial states; Cox and Matthews (2002), J. Comput. Phys. 176, for
integrating factors.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phdme_jax.numerics.arrays import cached_arrays
from phdme_jax.numerics.bound import Bound
from phdme_jax.numerics.grid import Grid
from phdme_jax.numerics.quadrature import integrate, interval_rule
from phdme_jax.numerics.stepping import integrating_factor_step
from phdme_jax.systems.equations.base import Equations, Residuals, Sample, unconditional
from phdme_jax.systems.equations.published import burgers_residual

SMOOTHNESS, INVERSE_LENGTH, AMPLITUDE = 2.5, 7.0, 49.0
FINEST = 512  # points of the solver, at least
SUBSTEPS = 8  # of the solver between frames, where there are 128 of them in a unit of time


def periodic_derivative(values: Float[Array, "x ..."], order: int) -> Float[Array, "x ..."]:
    """Derivative along the first axis of the trigonometric polynomial through values on [0, 1), period one."""
    matrix = jnp.asarray(_fourier_matrix(len(values), order), values.dtype)
    return jnp.tensordot(matrix, values, axes=1, precision="highest")


@cached_arrays
def _fourier_matrix(num_points: int, order: int) -> np.ndarray:
    wave = 2j * np.pi * np.fft.fftfreq(num_points, 1.0 / num_points)
    if num_points % 2 == 0 and order % 2:
        wave[num_points // 2] = 0.0  # the slope of the highest cosine vanishes at the points
    return np.real(np.fft.ifft(wave[:, None] ** order * np.fft.fft(np.eye(num_points), axis=0), axis=0))


def periodic_resample(values: Float[Array, "x"], num_points: int) -> Float[Array, "points"]:
    """The trigonometric polynomial through values at other points, more of them."""
    count = len(values)
    spectrum = jnp.fft.rfft(values)
    if count % 2 == 0:
        spectrum = spectrum.at[-1].multiply(0.5)  # the highest cosine is shared by both signs
    return jnp.fft.irfft(spectrum, num_points) * (num_points / count)


def solve_burgers(
    initial: Float[Array, "x"], num_frames: int, viscosity: float, duration: float = 1.0, cells: bool = False
) -> Float[Array, "x time"]:
    """Solution at evenly spaced frames on [0, T], of the trigonometric polynomial through the initial values.

    Args:
      initial: values on [0, 1), period one.
      num_frames: frames, both ends included.
      viscosity: nu.
      duration: T.
      cells: whether values are means of the cells around the places; the mean of all is then kept also where fronts are
        narrower than the cells.
    Returns:
      u at the places of the initial values.
    """
    count = len(initial)
    finest = max(FINEST, 4 * count)
    finest = count * -(-finest // count)  # places of the initial values are among its points
    substeps = math.ceil(SUBSTEPS * 127 * duration / (num_frames - 1))
    dt, wave = duration / (num_frames - 1) / substeps, 2 * np.pi * np.arange(finest // 2 + 1)
    mean = np.sinc(np.arange(finest // 2 + 1) / count if cells else 0.0 * wave)  # of a wave over a cell
    held = jnp.asarray(np.where(wave <= np.pi * count, mean, 1.0), initial.dtype)
    start = jnp.fft.rfft(periodic_resample(initial, finest)) / held
    decay = jnp.asarray(np.exp(-0.5 * dt * viscosity * wave**2), initial.dtype)
    kept = jnp.asarray(wave <= 2 / 3 * wave[-1], initial.dtype)  # two thirds: products do not fold back
    slope = -0.5 * jnp.asarray(wave, initial.dtype) * kept

    def advection(spectrum: Array) -> Array:
        return 1j * slope * jnp.fft.rfft(jnp.fft.irfft(spectrum, finest) ** 2)

    def step(spectrum: Array, _: None) -> tuple[Array, None]:
        return integrating_factor_step(advection, decay, spectrum, dt), None

    def frame(spectrum: Array, _: None) -> tuple[Array, Array]:
        ends, _ = jax.lax.scan(step, spectrum, None, length=substeps)
        return ends, ends

    _, later = jax.lax.scan(frame, start, None, length=num_frames - 1)
    whole = jnp.asarray(mean, initial.dtype) * jnp.concatenate([start[None], later])
    return jax.vmap(partial(jnp.fft.irfft, n=finest))(whole)[:, :: finest // count].T


def _rate(viscosity: float, values: Float[Array, "x time"]) -> Float[Array, "x time"]:
    # not half the slope of u^2, whose highest waves would fold back
    return viscosity * periodic_derivative(values, 2) - values * periodic_derivative(values, 1)


def _residual(viscosity: float, fields: Float[Array, "x time 1"], condition: Array) -> Residuals:
    """Mean of u_t + u u_x - nu u_xx over each step, at the frame where it ends; zero at the first frame."""
    del condition
    values = fields[..., 0]
    num_frames = values.shape[1]
    steps = num_frames - 1
    integral = integrate(interval_rule(np.linspace(0.0, 1.0, num_frames)), _rate(viscosity, values).T).T
    return {"balance": jnp.pad(steps * (jnp.diff(values, axis=1) - integral), ((0, 0), (1, 0)))}


def _central_residual(viscosity: float, fields: Float[Array, "x time 1"], condition: Array) -> Residuals:
    """The same at the middle of each step by differences of second order in both directions."""
    del condition
    values = fields[..., 0]
    spacing, steps = 1.0 / len(values), values.shape[1] - 1
    middle = 0.5 * (values[:, 1:] + values[:, :-1])
    before, after = jnp.roll(middle, 1, axis=0), jnp.roll(middle, -1, axis=0)
    rate = viscosity * (after - 2 * middle + before) / spacing**2 - (after**2 - before**2) / (4 * spacing)
    return {"balance": jnp.pad(steps * jnp.diff(values, axis=1) - rate, ((0, 0), (1, 0)))}


def _resolve(viscosity: float, fields: Array, condition: Array) -> Array:
    del condition
    return solve_burgers(fields[:, 0, 0], fields.shape[1], viscosity)[..., None]


def _draw(num_points: int, num_frames: int, viscosity: float, key: Array) -> Sample:
    highest = min(64, num_points // 2 - 1)
    order = np.arange(1, highest + 1)
    size = np.sqrt(2) * AMPLITUDE * ((2 * np.pi * order) ** 2 + INVERSE_LENGTH**2) ** (-SMOOTHNESS / 2)
    phase = 2 * np.pi * order[:, None] * np.arange(num_points) / num_points
    cosine, sine = jax.random.normal(key, (2, highest))
    initial = (size * cosine) @ jnp.asarray(np.cos(phase)) + (size * sine) @ jnp.asarray(np.sin(phase))
    return unconditional(solve_burgers(initial, num_frames, viscosity)[..., None])


def make_burgers(num_points: int = 64, num_frames: int = 64, viscosity: float = 0.01) -> Equations:
    """Burgers' equation as one field over space and time, from random smooth initial states.

    Args:
      num_points: places on [0, 1), even; initial states have as many waves as they hold, 64 at the most.
      num_frames: times on [0, 1], both ends included.
      viscosity: nu.
    Returns:
      the equations; the field velocity on (x, t). `resolve` solves from the field's own first frame.
    Raises:
      ValueError: an odd number of places, too few places or frames, or no viscosity.
    """
    if not viscosity > 0:
        raise ValueError(f"expected a positive viscosity, got {viscosity}; try 0.01")
    if num_points % 2 or num_points < 8 or num_frames < 8:
        raise ValueError(
            f"expected an even number of points and at least 8 points and frames, got {num_points} and {num_frames}"
        )
    return Equations(
        name="burgers",
        grid=Grid((num_points, num_frames), (1.0 - 1.0 / num_points, 1.0)),
        fields=("velocity",),
        units=("1",),
        residual=Bound(_residual, viscosity),
        draw=Bound(_draw, num_points, num_frames, viscosity),
        resolve=Bound(_resolve, viscosity),
        unseen=Bound(_central_residual, viscosity),
        published=Bound(burgers_residual, viscosity),
        time_axis=1,
    )
