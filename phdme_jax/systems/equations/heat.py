"""Diffusion whose strength is not told: heat on a circle, and Stokes' second problem, a fluid beside a moving wall.

    heat:    u_t = nu u_xx on [0, 2 pi), periodic,   u = sin(x + phi) exp(-nu t),   nu on [1, 5], phi on [0, pi]
    stokes:  u_t = nu u_yy on [0, 1],   u = 2 exp(-k y) cos(k y - omega t),   nu = omega / (2 k^2),
             k on [2, 20], omega on [2, 8];   all drawn evenly, t on [0, 1]

No field holds nu, which changes from example to example. The residual takes the one that fits the whole field best,
nu = <d, a> / <a, a>, where d is the change over each step and a the integral of the second derivative: a field that
obeys the equation with any one nu has none. Integrals are through the twelve nearest frames; derivatives are spectral
on the circle, and of the nine nearest points beside the wall. The residual of the data is the error of those,
at most: 1e-8 of heat on 16 frames and rounding on 32; of Stokes' problem on 64 points and frames 1e-3 where k is 20,
3e-6 where it is 8 (5e-5 and 2e-7 in the root mean square). What the other residual, of second order, leaves of heat is
rounding too: of a single wave the nu that fits best takes its error.

On the circle the mean is conserved. Beside the wall nothing is without knowing the slope at the wall.
Source: Hansen et al. (2023), arXiv 2302.11002, and Cheng et al. (2025), arXiv 2412.01786, for the families.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phdme_jax.numerics.arrays import cached_arrays, ratio
from phdme_jax.numerics.bound import Bound
from phdme_jax.numerics.grid import Grid
from phdme_jax.numerics.quadrature import integrate, interval_rule
from phdme_jax.systems.equations.base import Equations, Residuals, Sample, unconditional, uniform_unless
from phdme_jax.systems.equations.burgers import periodic_derivative

NODES, STENCIL = 12, 9
GAUSS_NEWTON_STEPS = 10
DIFFUSIVITIES, PHASES = (1.0, 5.0), (0.0, float(np.pi))
WAVE_NUMBERS, FREQUENCIES = (2.0, 20.0), (2.0, 8.0)
TRIED = np.concatenate([[0.0], np.geomspace(1e-2, 1e4, 121)])
SecondDerivative = Callable[[Array], Array]


def curvature(values: Float[Array, "x ..."], spacing: float, width: int = STENCIL) -> Float[Array, "x ..."]:
    """Second derivative along the first axis of the polynomials through the nearest points, one-sided at the ends."""
    matrix = jnp.asarray(_curvature_matrix(len(values), width) / spacing**2, values.dtype)
    return jnp.tensordot(matrix, values, axes=1, precision="highest")


@cached_arrays
def _curvature_matrix(num_points: int, width: int) -> np.ndarray:
    matrix = np.zeros((num_points, num_points))
    for row in range(num_points):
        first = int(np.clip(row - width // 2, 0, num_points - width))
        offsets = np.arange(first, first + width) - row
        powers = np.vander(offsets.astype(float), increasing=True).T
        matrix[row, first : first + width] = np.linalg.solve(powers, 2.0 * np.eye(width)[2])
    return matrix


def _periodic_central(values: Float[Array, "x time"]) -> Float[Array, "x time"]:
    square = (2 * np.pi / len(values)) ** 2
    return (jnp.roll(values, 1, axis=0) - 2 * values + jnp.roll(values, -1, axis=0)) / square


def _circle(values: Float[Array, "x time"]) -> Float[Array, "x time"]:
    """Spectral on a circle of length two pi."""
    return periodic_derivative(values, 2) / (2 * np.pi) ** 2


def _beside_wall(width: int, values: Float[Array, "x time"]) -> Float[Array, "x time"]:
    return curvature(values, 1.0 / (len(values) - 1), width)


def fitted_diffusivity(change: Float[Array, "x step"], integral: Float[Array, "x step"]) -> Float[Array, ""]:
    """The nu for which change = nu integral holds best in the mean square."""
    return ratio(jnp.sum(change * integral), jnp.sum(integral**2))


def _steps(
    second: SecondDerivative, nodes: int, values: Float[Array, "x time"]
) -> tuple[Float[Array, "x step"], Float[Array, "x step"]]:
    """Change over each step, and the integral of the second derivative."""
    rule = interval_rule(np.linspace(0.0, 1.0, values.shape[1]), nodes)
    return jnp.diff(values, axis=1), integrate(rule, second(values).T).T


def _residual(
    second: SecondDerivative, nodes: int, ends: int, fields: Float[Array, "x time 1"], condition: Array
) -> Residuals:
    """Mean of u_t - nu u_xx over each step, at the frame where it ends; zero at the first frame and at given ends."""
    del condition
    change, integral = _steps(second, nodes, fields[..., 0])
    inner = slice(ends, len(change) - ends)
    change, integral = change[inner], integral[inner]
    missed = (fields.shape[1] - 1) * (change - fitted_diffusivity(change, integral) * integral)
    return {"balance": jnp.pad(missed, ((ends, ends), (1, 0)))}


def _mean_conserved(fields: Float[Array, "x time 1"], condition: Array) -> Float[Array, "later"]:
    """Mean of each later frame less that of the first."""
    del condition
    mean = jnp.mean(fields[..., 0], axis=0)
    return mean[1:] - mean[0]


def _resolve_heat(fields: Float[Array, "x time 1"], condition: Array) -> Float[Array, "x time 1"]:
    """Solution from the first frame with the nu >= 0 of least squares: min over nu of sum (u - S(nu) u_0)^2.

    Of values, not of the residual: noise of u makes the nu of the least residual too small, as its second derivative
    has more noise than u. The best of `TRIED`, then Gauss-Newton steps between its neighbours: that of a field that is
    no solution may be any, and free steps can go without bound.
    """
    del condition
    values = fields[..., 0]
    squares = jnp.asarray(np.arange(len(values) // 2 + 1) ** 2, values.dtype)[:, None]
    ages = squares * jnp.linspace(0.0, 1.0, values.shape[1], dtype=values.dtype)
    first = jnp.fft.rfft(values[:, 0])[:, None]

    def waves(nu: Array) -> Array:
        return first * jnp.exp(-nu * ages)

    def of_waves(found: Array) -> Array:
        return jnp.fft.irfft(found, len(values), axis=0)

    def nearer(nu: Array, _: None) -> tuple[Array, None]:
        found = waves(nu)
        slope, missed = of_waves(-ages * found), values - of_waves(found)
        return jnp.clip(nu + ratio(jnp.sum(slope * missed), jnp.sum(slope**2)), lowest, highest), None

    tried = jnp.asarray(TRIED, values.dtype)
    best = jnp.argmin(jax.lax.map(lambda nu: jnp.sum((values - of_waves(waves(nu))) ** 2), tried))
    lowest, highest = (tried[jnp.clip(best + side, 0, len(TRIED) - 1)] for side in (-1, 1))
    nu, _ = jax.lax.scan(nearer, tried[best], length=GAUSS_NEWTON_STEPS)
    return of_waves(waves(nu))[..., None]


def _draw_heat(num_points: int, num_frames: int, diffusivity: float | None, phase: float | None, key: Array) -> Sample:
    first, second = jax.random.split(key)
    nu, phi = uniform_unless(diffusivity, DIFFUSIVITIES, first), uniform_unless(phase, PHASES, second)
    places, times = 2 * np.pi * np.arange(num_points) / num_points, np.linspace(0.0, 1.0, num_frames)
    return unconditional((jnp.sin(places + phi)[:, None] * jnp.exp(-nu * times))[..., None])


def _draw_stokes(
    num_points: int, num_frames: int, wave_number: float | None, frequency: float | None, key: Array
) -> Sample:
    first, second = jax.random.split(key)
    k, omega = uniform_unless(wave_number, WAVE_NUMBERS, first), uniform_unless(frequency, FREQUENCIES, second)
    depth = k * np.linspace(0.0, 1.0, num_points)[:, None]
    return unconditional((2 * jnp.exp(-depth) * jnp.cos(depth - omega * np.linspace(0.0, 1.0, num_frames)))[..., None])


def _require(num_points: int, num_frames: int, least: int) -> None:
    if num_points < least or num_frames < NODES:
        raise ValueError(
            f"expected at least {least} points and {NODES} frames, got {num_points} and {num_frames}; try 64 and 64"
        )


def make_heat(
    num_points: int = 64, num_frames: int = 64, diffusivity: float | None = None, phase: float | None = None
) -> Equations:
    """Heat on a circle as one field over space and time, a wave that decays.

    Args:
      num_points: places on [0, 2 pi).
      num_frames: times on [0, 1], both ends included.
      diffusivity: nu; None draws it.
      phase: phi, all that the first frame depends on; None draws it.
    Returns:
      the equations; the field temperature on (x, t). `resolve` solves from the field's own first frame with the nu
      whose solution is nearest to the field, up to 1e4.
    Raises:
      ValueError: few places or frames.
    """
    _require(num_points, num_frames, 4)
    return Equations(
        name="heat",
        grid=Grid((num_points, num_frames), (2 * np.pi * (1.0 - 1.0 / num_points), 1.0)),
        fields=("temperature",),
        units=("1",),
        residual=Bound(_residual, _circle, NODES, 0),
        draw=Bound(_draw_heat, num_points, num_frames, diffusivity, phase),
        resolve=_resolve_heat,
        unseen=Bound(_residual, _periodic_central, 2, 0),
        conserved=_mean_conserved,
        affine_conserved=True,
        time_axis=1,
    )


def make_stokes(
    num_points: int = 64, num_frames: int = 64, wave_number: float | None = None, frequency: float | None = None
) -> Equations:
    """Stokes' second problem as one field over the distance from the wall and time.

    Args:
      num_points: distances on [0, 1], both ends included.
      num_frames: times on [0, 1], both ends included.
      wave_number: k, all that the first frame depends on; None draws it.
      frequency: omega, all that the values at the wall depend on; None draws it.
    Returns:
      the equations; the field velocity on (y, t), without `resolve`: its first frame and both ends would have to be
      interpolated.
    Raises:
      ValueError: few places or frames.
    """
    _require(num_points, num_frames, STENCIL + 2)
    return Equations(
        name="stokes",
        grid=Grid((num_points, num_frames), (1.0, 1.0)),
        fields=("velocity",),
        units=("1",),
        residual=Bound(_residual, Bound(_beside_wall, STENCIL), NODES, 1),
        draw=Bound(_draw_stokes, num_points, num_frames, wave_number, frequency),
        unseen=Bound(_residual, Bound(_beside_wall, 3), 2, 1),
        time_axis=1,
    )
