"""The porous medium equation behind a front that travels: u_t = (u^m u_x)_x on [0, 1] x [0, 1].

    u = (m max(t - x, 0))^(1/m),   m even on [1, 6],   u(x, 0) = 0
    v_t = m v v_xx + v_x^2,   v = u^m / m, the pressure: here max(t - x, 0)

No field holds m, which changes from example to example. The residual is that of the pressure, with the m that fits the
values at x = 0 best: their logarithm is (log m + log t) / m, and the slope of the least-squares line in log t is 1 / m.
Differences are forward in time and, as the front moves to the right, backward in v_x. Of the data the residual vanishes
to rounding with as many frames as places, and is of order one beside the front alone with other numbers.

A wave of speed one has the flux -u^m u_x = u, so that the integral of u grows by that of u(0, t) - u(1, t): affine in
u, and of the data to rounding by the trapezoidal rule in both directions with as many frames as places, to second order
in the distance of frames, or worse where u is steep, with other numbers.
Source: Hansen et al. (2023), arXiv 2302.11002, and Cheng et al. (2025), arXiv 2412.01786, for the family; Vazquez
(2007), The Porous Medium Equation, section 2.2, for the pressure.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phdme_jax.numerics.bound import Bound
from phdme_jax.numerics.grid import Grid
from phdme_jax.numerics.quadrature import trapezoid_weights
from phdme_jax.systems.equations.base import Equations, Residuals, Sample, unconditional, uniform_unless

EXPONENTS = (1.0, 6.0)
LEAST = 1e-3  # below it values at x = 0 have no logarithm


def fitted_exponent(values: Float[Array, "x time"]) -> Float[Array, ""]:
    """The m of the least-squares line through log u(0, t) over log t, within the family's bounds."""
    times = np.log(np.linspace(0.0, 1.0, values.shape[1])[1:])
    away = jnp.asarray((times - times.mean()) / np.sum((times - times.mean()) ** 2), values.dtype)
    slope = jnp.log(jnp.maximum(values[0, 1:], LEAST)) @ away
    return 1.0 / jnp.clip(slope, 1.0 / EXPONENTS[1], 1.0 / EXPONENTS[0])


def _pressure(values: Float[Array, "x time"]) -> tuple[Float[Array, "x time"], Float[Array, ""]]:
    exponent = fitted_exponent(values)
    positive = values > 0
    safe = jnp.where(positive, values, 1.0)
    # values below zero keep their sign: they are no solutions
    return jnp.where(positive, safe**exponent, values) / exponent, exponent


def _residual(fields: Float[Array, "x time 1"], condition: Array) -> Residuals:
    """Of each step at the frame where it ends, of all but the first and last place; zero at the first frame."""
    del condition
    pressure, exponent = _pressure(fields[..., 0])
    spacing, dt = 1.0 / (len(pressure) - 1), 1.0 / (pressure.shape[1] - 1)
    before = pressure[:, :-1]
    slope = (before[1:-1] - before[:-2]) / spacing
    curvature = (before[2:] - 2 * before[1:-1] + before[:-2]) / spacing**2
    rate = exponent * before[1:-1] * curvature + slope**2
    return {"balance": jnp.pad(jnp.diff(pressure, axis=1)[1:-1] / dt - rate, ((1, 1), (1, 0)))}


def _central_residual(fields: Float[Array, "x time 1"], condition: Array) -> Residuals:
    """u_t - (u^(m + 1))_xx / (m + 1) at the middle of each step by differences of second order."""
    del condition
    values, exponent = fields[..., 0], fitted_exponent(fields[..., 0])
    spacing, dt = 1.0 / (len(values) - 1), 1.0 / (values.shape[1] - 1)
    middle = jnp.maximum(0.5 * (values[:, 1:] + values[:, :-1]), 0.0)
    potential = jnp.where(middle > 0, jnp.where(middle > 0, middle, 1.0) ** (exponent + 1.0), 0.0) / (exponent + 1.0)
    rate = (potential[2:] - 2 * potential[1:-1] + potential[:-2]) / spacing**2
    return {"balance": jnp.pad(jnp.diff(values, axis=1)[1:-1] / dt - rate, ((1, 1), (1, 0)))}


def _conserved(fields: Float[Array, "x time 1"], condition: Array) -> Float[Array, "later"]:
    """Mean of each later frame less that of the first and what came through the ends."""
    del condition
    values = fields[..., 0]
    weights = jnp.asarray(trapezoid_weights(len(values), 1.0 / (len(values) - 1)), values.dtype)
    mean, flux = weights @ values, values[0] - values[-1]
    came_in = jnp.cumsum(0.5 * (flux[1:] + flux[:-1])) / (values.shape[1] - 1)
    return mean[1:] - mean[0] - came_in


def _draw(num_points: int, num_frames: int, exponent: float | None, key: Array) -> Sample:
    m = uniform_unless(exponent, EXPONENTS, key)
    behind = np.linspace(0.0, 1.0, num_frames) - np.linspace(0.0, 1.0, num_points)[:, None]
    wet = behind > 1e-9
    return unconditional(jnp.where(wet, (m * np.where(wet, behind, 1.0)) ** (1.0 / m), 0.0)[..., None])


def make_porous_medium(num_points: int = 64, num_frames: int = 64, exponent: float | None = None) -> Equations:
    """The porous medium equation as one field over space and time, dry at first and wetted from its left end.

    Args:
      num_points: places on [0, 1], both ends included.
      num_frames: times on [0, 1], both ends included; as many as places, see the module's docstring.
      exponent: m; None draws it. The first frame is zero whatever it is.
    Returns:
      the equations; the field density on (x, t), without `resolve`: a solver would not know where the front is between
      two places.
    Raises:
      ValueError: few places or frames.
    """
    if num_points < 4 or num_frames < 4:
        raise ValueError(f"expected at least 4 points and 4 frames, got {num_points} and {num_frames}; try 64 and 64")
    return Equations(
        name="porous_medium",
        grid=Grid((num_points, num_frames), (1.0, 1.0)),
        fields=("density",),
        units=("1",),
        residual=_residual,
        draw=Bound(_draw, num_points, num_frames, exponent),
        unseen=_central_residual,
        conserved=_conserved,
        affine_conserved=True,
        time_axis=1,
    )
