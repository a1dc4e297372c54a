"""Flow in two dimensions by its vorticity, periodic and forced: w_t + u . grad w = nu Laplacian w + f on [0, 1]^2.

    u = (psi_y, -psi_x),   -Laplacian psi = w,   f = a (sin 2 pi (x + y) + cos 2 pi (x + y)),   a = 0.1, nu = 0.001
    w(0) normal without a mean, of covariance 7^3 (49 - Laplacian)^(-5/2)

A few evenly spaced frames are channels, the first of them last: it is the cause, the others are the solution. Solved by
Fourier series on the points themselves, products of waves below a third of them alone, so that none folds back; the
diffusion exactly, the rest by the classical Runge-Kutta method, 8 steps in a unit of time on 32 points. The residual
is the solver's own, one for each interval between frames: what a frame misses of the solver's answer to the one before.
It vanishes to rounding, and costs as much as `resolve`, a millisecond of one core on 32 x 32 points.

On 32 points the first frame holds waves up to ten, and frames at T = 1 are those of ever smaller steps to 2e-7 of their
size, and of three times as many points, from the same first frame, to 8e-5. Of five frames the other residual, of
second order, leaves 3e-3 in the root mean square, of rates of 0.1. Until T = 1 the flow is gentle: without advection
the last frame would differ by 8 % of its size, at T = 5 by 13 %.

A curl has no mean: that of every frame vanishes, whatever else is there.
Source: Li et al. (2021), arXiv 2010.08895, section 5.3, here with the covariance of the released code, where the text
has 7^(3/2); Cox and Matthews (2002), J. Comput. Phys. 176, for integrating factors; Orszag (1971), J. Atmos. Sci. 28,
for the two thirds.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from phdme_jax.numerics.arrays import cached_arrays
from phdme_jax.numerics.bound import Bound
from phdme_jax.numerics.grid import Grid
from phdme_jax.numerics.stepping import integrating_factor_step
from phdme_jax.systems.equations.base import Equations, Residuals, Sample, unconditional

SMOOTHNESS, INVERSE_LENGTH = 2.5, 7.0
STEPS = 0.25  # of the solver in a unit of time, for each point along an axis


@cached_arrays
def _waves(num_points: int) -> tuple[np.ndarray, np.ndarray]:
    """Wave numbers along x and y of the half spectrum."""
    x = 2 * np.pi * np.fft.fftfreq(num_points, 1.0 / num_points)
    y = 2 * np.pi * np.arange(num_points // 2 + 1)
    return x[:, None] + 0.0 * y, 0.0 * x[:, None] + y


@cached_arrays
def _kept(num_points: int) -> np.ndarray:
    """Waves below a third of the points, whose products do not fold back onto them."""
    x, y = _waves(num_points)
    return 1.0 * (3 * np.maximum(np.abs(x), np.abs(y)) < 2 * np.pi * num_points * (1 - 1e-9))


def forcing_of(num_points: int, forcing: float) -> Float[np.ndarray, "x y"]:
    """The curl of the force at the points."""
    place = np.arange(num_points) / num_points
    phase = 2 * np.pi * (place[:, None] + place)
    return forcing * (np.sin(phase) + np.cos(phase))


def _advection(num_points: int, spectrum: Complex[Array, "x wave"]) -> Complex[Array, "x wave"]:
    """-(u w_x + v w_y) = (k_x^2 - k_y^2) (u v) + k_x k_y (v^2 - u^2) of the spectra, with four transforms."""
    x, y = _waves(num_points)
    square = x**2 + y**2
    inverse = _kept(num_points) / np.where(square > 0, square, np.inf)
    real = spectrum.real.dtype

    def values(factor: np.ndarray) -> Array:
        return jnp.fft.irfft2(1j * jnp.asarray(factor, real) * spectrum, (num_points, num_points))

    u, v = values(y * inverse), values(-x * inverse)
    products = jnp.fft.rfft2(jnp.stack([u * v, v**2 - u**2]))
    factors = np.stack([x**2 - y**2, x * y]) * _kept(num_points)
    return jnp.sum(jnp.asarray(factors, real) * products, axis=0)


def advance(
    vorticity: Float[Array, "x y"], duration: float, steps: int, viscosity: float, forcing: float
) -> Float[Array, "x y"]:
    """Vorticity after a while.

    Args:
      vorticity: w at the points of [0, 1)^2.
      duration: until then.
      steps: of the classical Runge-Kutta method, the diffusion exactly.
      viscosity: nu.
      forcing: amplitude of the force's curl.
    Returns:
      w at the same points.
    """
    count, dt = len(vorticity), duration / steps
    x, y = _waves(count)
    decay = jnp.asarray(np.exp(-0.5 * dt * viscosity * (x**2 + y**2)), vorticity.dtype)
    pushed = jnp.fft.rfft2(jnp.asarray(forcing_of(count, forcing), vorticity.dtype))

    def rate(spectrum: Array) -> Array:
        return _advection(count, spectrum) + pushed

    def step(spectrum: Array, _: None) -> tuple[Array, None]:
        return integrating_factor_step(rate, decay, spectrum, dt), None

    ends, _ = jax.lax.scan(step, jnp.fft.rfft2(vorticity), None, length=steps)
    return jnp.fft.irfft2(ends, (count, count))


def random_vorticity(num_points: int, key: Array) -> Float[Array, "x y"]:
    """Periodic Gaussian field of covariance 7^3 (49 - Laplacian)^-2.5 without a mean, of the waves that are kept."""
    x, y = _waves(num_points)
    square = x**2 + y**2
    scale = INVERSE_LENGTH ** (SMOOTHNESS - 1.0)
    size = scale * (square + INVERSE_LENGTH**2) ** (-SMOOTHNESS / 2) * _kept(num_points) * (square > 0)
    white = jax.random.normal(key, (num_points, num_points))
    return num_points * jnp.fft.irfft2(jnp.asarray(size) * jnp.fft.rfft2(white), (num_points, num_points))


class Flow(NamedTuple):
    """What is fixed of a flow.

    Attributes:
      viscosity: nu.
      forcing: a.
      interval: time between frames.
    """

    viscosity: float
    forcing: float
    interval: float


def _next_frame(flow: Flow, vorticity: Float[Array, "x y"]) -> Float[Array, "x y"]:
    steps = math.ceil(STEPS * len(vorticity) * flow.interval)
    return advance(vorticity, flow.interval, steps, flow.viscosity, flow.forcing)


def _in_time(fields: Float[Array, "x y frame"]) -> Float[Array, "frame x y"]:
    return jnp.roll(jnp.moveaxis(fields, -1, 0), 1, axis=0)


def _by_interval(missed: Float[Array, "interval x y"]) -> Residuals:
    return {f"interval {number + 1}": one for number, one in enumerate(missed)}


def _residual(flow: Flow, fields: Float[Array, "x y frame"], condition: Array) -> Residuals:
    """What each frame misses of the solver's answer to the one before, over the time between them."""
    del condition
    frames = _in_time(fields)
    answers = jax.vmap(Bound(_next_frame, flow))(frames[:-1])
    return _by_interval((frames[1:] - answers) / flow.interval)


def _central_residual(flow: Flow, fields: Float[Array, "x y frame"], condition: Array) -> Residuals:
    """The equation at the middle of each interval by differences of second order, in time and both directions."""
    del condition
    frames = _in_time(fields)
    count, middle = frames.shape[1], 0.5 * (frames[1:] + frames[:-1])

    def slope(values: Array, axis: int) -> Array:
        return 0.5 * count * (jnp.roll(values, -1, axis) - jnp.roll(values, 1, axis))

    wave = np.stack(_waves(count))
    symbol = np.sum((2 * count * np.sin(0.5 * wave / count)) ** 2, axis=0)  # of the second differences
    inverse = np.where(symbol > 0, 1.0 / np.where(symbol > 0, symbol, 1.0), 0.0)

    def filtered(factor: np.ndarray) -> Array:
        return jnp.fft.irfft2(jnp.asarray(factor, frames.dtype) * jnp.fft.rfft2(middle), (count, count))

    stream, laplacian = filtered(inverse), filtered(-symbol)
    advected = slope(stream, 2) * slope(middle, 1) - slope(stream, 1) * slope(middle, 2)
    force = jnp.asarray(forcing_of(count, flow.forcing), frames.dtype)
    return _by_interval(jnp.diff(frames, axis=0) / flow.interval + advected - flow.viscosity * laplacian - force)


def _conserved(fields: Float[Array, "x y frame"], condition: Array) -> Float[Array, "frame"]:
    """Mean of every frame."""
    del condition
    return jnp.mean(fields, axis=(0, 1))


def _solve(flow: Flow, num_frames: int, initial: Float[Array, "x y"]) -> Float[Array, "x y frame"]:
    def ahead(vorticity: Array, _: None) -> tuple[Array, Array]:
        after = _next_frame(flow, vorticity)
        return after, after

    _, later = jax.lax.scan(ahead, initial, None, length=num_frames - 1)
    return jnp.moveaxis(jnp.concatenate([later, initial[None]]), 0, -1)


def _resolve(flow: Flow, fields: Array, condition: Array) -> Array:
    del condition
    return _solve(flow, fields.shape[-1], fields[..., -1])


def _draw(num_points: int, num_frames: int, flow: Flow, key: Array) -> Sample:
    return unconditional(_solve(flow, num_frames, random_vorticity(num_points, key)))


def make_navier_stokes(
    num_points: int = 32, num_frames: int = 5, duration: float = 1.0, viscosity: float = 1e-3, forcing: float = 0.1
) -> Equations:
    """Flow in two dimensions as a few frames of its vorticity, from random smooth initial states.

    Args:
      num_points: places on [0, 1) along both axes.
      num_frames: times on [0, duration], both ends included.
      duration: T.
      viscosity: nu.
      forcing: a, amplitude of the curl of the force.
    Returns:
      the equations; the fields on (x, y) are the vorticity of all later frames in their order, and of the first frame.
      `resolve` solves from that.
    Raises:
      ValueError: few places, one frame, no duration, or no viscosity.
    """
    if num_points < 8 or num_frames < 2 or not duration > 0 or not viscosity > 0:
        raise ValueError(
            "expected at least 8 points, 2 frames, a positive duration and a positive viscosity, got "
            f"{num_points}, {num_frames}, {duration} and {viscosity}; try 32, 5, 1.0 and 1e-3"
        )
    later, flow = num_frames - 1, Flow(viscosity, forcing, duration / (num_frames - 1))
    return Equations(
        name="navier_stokes",
        grid=Grid((num_points, num_points), (1.0 - 1.0 / num_points,) * 2),
        fields=(*(f"vorticity {number + 1}" for number in range(later)), "initial vorticity"),
        units=("1",) * num_frames,
        residual=Bound(_residual, flow),
        draw=Bound(_draw, num_points, num_frames, flow),
        resolve=Bound(_resolve, flow),
        num_solution=later,
        unseen=Bound(_central_residual, flow),
        conserved=_conserved,
        affine_conserved=True,
    )
