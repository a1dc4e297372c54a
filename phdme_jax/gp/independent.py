"""Baseline: one independent Gaussian process per effort of a field on a line, as in the code published with GP-dPHS.

The operator J = s [[0, d_z], [d_z, 0]] is inverted by integrating measured rates over z, dissipation ignored; each
effort is then a plain regression on the state (p, q), for a string momentum and strain, with s = 1. Nothing makes the
two efforts the gradient of one energy, so rollouts have no energy to conserve: they are integrated by the classical
Runge-Kutta method.
Source: Tan et al. (2024), arXiv 2406.11809, and the code published with it.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from phdme_jax.gp.kernels import squared_exponential
from phdme_jax.numerics.arrays import Instants, one_type, static_times
from phdme_jax.numerics.minimise import minimise
from phdme_jax.numerics.stepping import rk4_step, rollout

Flow = Callable[[Array, dict[str, Array]], Array]


class Inversion(NamedTuple):
    """Which field is which in J = s [[0, d_z], [d_z, 0]].

    Attributes:
      odd: index of the field p that vanishes at the ends; the other one is q.
      sign: s.
    """

    odd: int
    sign: float


STRING = Inversion(odd=0, sign=1.0)


class IndependentEfforts(NamedTuple):
    """Two regressions e_p(p, q) and e_q(p, q), the fields stacked.

    Attributes:
      states: training states, shape (site, field).
      solved: K^{-1} (efforts - constant) per field, shape (site, field).
      constant: mean of each effort, shape (field,).
      lengthscale: isotropic, one per effort, shape (field,).
      amplitude: prior standard deviation of each effort, shape (field,).
      noise: standard deviation of the noise of each effort, shape (field,).
      ok: everything finite.
    """

    states: Float[Array, "site field"]
    solved: Float[Array, "site field"]
    constant: Float[Array, "field"]
    lengthscale: Float[Array, "field"]
    amplitude: Float[Array, "field"]
    noise: Float[Array, "field"]
    ok: Bool[Array, ""]


def invert_operator(
    states: Float[Array, "frame grid field"],
    rates: Float[Array, "frame grid field"],
    spacing: float,
    inversion: Inversion = STRING,
    rest: Float[Array, ""] | float = 0.0,
) -> Float[Array, "frame grid field"]:
    """Efforts of two fields from their rates, dissipation ignored, by the trapezoid rule.

        e_p(z) = s int_0^z q_t dz,   e_q(z) = s int_0^z p_t dz minus its value where |q - r| is smallest

    Args:
      states: the two fields.
      rates: their time derivatives.
      spacing: distance between grid points.
      inversion: which field is p, and s.
      rest: q at rest, r.
    Returns:
      efforts; e_p vanishes at the left end (fixed), e_q where |q - r| is smallest (the gauge e_q(q = r) = 0).
    """
    odd, even = inversion.odd, 1 - inversion.odd
    steps = 0.5 * spacing * (rates[:, 1:] + rates[:, :-1])
    integral = jnp.pad(jnp.cumsum(steps, axis=1), ((0, 0), (1, 0), (0, 0)))
    nearest = jnp.argmin(jnp.abs(states[..., even] - rest), axis=1)
    stress = integral[..., odd] - jnp.take_along_axis(integral[..., odd], nearest[:, None], axis=1)
    efforts = jnp.zeros_like(states).at[..., odd].set(integral[..., even]).at[..., even].set(stress)
    return inversion.sign * efforts


def published_sites(num_frames: int, num_points: int, columns: int = 20, count: int = 81) -> Int[Array, "site index"]:
    """Every n-th of the points in `columns` grid columns, counted along time first.

    201 frames give every 50th and 81 sites with the defaults, as in the published study of the string. A step that
    shares a factor with the number of frames would see few of them: the next smaller one without is taken.

    Args:
      num_frames: observed frames.
      num_points: grid points.
      columns: grid columns used, evenly spread.
      count: sites at least, where there are so many points.
    Returns:
      (frame, grid) indices, shape (site, 2).
    """
    stride = max(1, math.ceil(columns * num_frames / count))
    while math.gcd(stride, num_frames) > 1:
        stride -= 1
    grid = np.arange(columns) * num_points // columns
    flat = np.arange(0, columns * num_frames, stride)
    return jnp.asarray(np.stack([flat % num_frames, grid[flat // num_frames]], axis=1))


def local_polynomial_rates(
    states: Float[Array, "frame grid field"], times: Instants, window: int = 7, degree: int = 4
) -> tuple[Float[Array, "frame grid field"], Float[Array, "frame grid field"]]:
    """Smoothed states and their rates: least-squares polynomials in time through the nearest frames.

    The error of the rates is O(dt^degree) for smooth states; noise of deviation s in the states leaves one of order
    s/dt, which is why rows integrated in time are preferred elsewhere.

    Args:
      states: observed states.
      times: observation times, increasing, uneven allowed.
      window: frames used for each polynomial (clipped to the number of frames).
      degree: of the polynomial, below the window.
    Returns:
      smoothed states and rates [1/time].
    Raises:
      ValueError: window too small for the degree, or fewer frames than degree + 1.
    Source: Savitzky and Golay (1964), Anal. Chem. 36, 1627-1639.
    """
    nodes = np.asarray(static_times(times))
    count = min(window, nodes.size)
    if not 0 < degree < count:
        raise ValueError(f"expected a degree between 1 and {count - 1} for {count} frames a window, got {degree}")
    weights = np.zeros((2, nodes.size, nodes.size))
    for k, time in enumerate(nodes):
        start = int(np.clip(k - count // 2, 0, nodes.size - count))
        local = slice(start, start + count)
        scale = nodes[start + count - 1] - nodes[start]
        coefficients = np.linalg.pinv(np.vander((nodes[local] - time) / scale, degree + 1, increasing=True))
        weights[0, k, local], weights[1, k, local] = coefficients[0], coefficients[1] / scale
    smoothed, rates = jnp.tensordot(jnp.asarray(weights, states.dtype), states, axes=1)
    return smoothed, rates


def _covariance(left: Array, right: Array, lengthscale: Array, amplitude: Array) -> Array:
    scale = jnp.broadcast_to(lengthscale, left.shape[1:])
    pair = jax.vmap(lambda x, y: squared_exponential(x, y, scale, amplitude).value, (None, 0))
    return jax.vmap(pair, (0, None))(left, right)


def _regression(states: Array, values: Array, logarithms: Array) -> tuple[Array, Array, Array]:
    """Negative log likelihood, K^{-1}(values - constant) and the constant, the latter by generalised least squares."""
    lengthscale, amplitude, noise = jnp.exp(logarithms)
    identity = jnp.eye(len(values), dtype=values.dtype)
    root = jnp.linalg.cholesky(_covariance(states, states, lengthscale, amplitude) + noise**2 * identity)
    solved, ones = jax.scipy.linalg.cho_solve((root, True), jnp.stack([values, jnp.ones_like(values)], axis=1)).T
    constant = jnp.sum(solved) / jnp.sum(ones)
    solved = solved - constant * ones
    return 0.5 * (values - constant) @ solved + jnp.sum(jnp.log(jnp.diagonal(root))), solved, constant


def fit_independent(
    states: Float[Array, "frame grid field"],
    rates: Float[Array, "frame grid field"],
    sites: Int[Array, "site index"],
    spacing: float,
    inversion: Inversion = STRING,
    rest: Float[Array, ""] | float = 0.0,
    noise_floor: float = 1e-3,
    max_iterations: int = 150,
) -> IndependentEfforts:
    """Fit both efforts by marginal likelihood, isotropic squared-exponential kernels, constant means.

    Args:
      states: the two observed fields.
      rates: their time derivatives (exact, or of `local_polynomial_rates`).
      sites: (frame, grid) indices of the training points (`published_sites`), shape (site, 2).
      spacing: distance between grid points.
      inversion: which field is which.
      rest: state of q at rest.
      noise_floor: smallest noise, as a fraction of the efforts' standard deviation, for well-conditioned matrices.
      max_iterations: at the most, on the three logarithms of each effort.
    Returns:
      the fitted efforts; float64 is recommended.
    """
    inputs = states[sites[:, 0], sites[:, 1]]
    targets = invert_operator(states, rates, spacing, inversion, rest)[sites[:, 0], sites[:, 1]]
    spread = jnp.sqrt(jnp.mean(jnp.var(inputs, axis=0)))

    def regress(values: Array) -> tuple[Array, Array, Array]:
        deviation = jnp.std(values)
        start = jnp.log(jnp.stack([spread, deviation, 0.1 * deviation]))

        def actual(logarithms: Array) -> Array:
            # lengthscales within e^{+-5} of the spread of the states, noise above its floor
            shift = 5 * jnp.tanh((logarithms - start) / 5)
            floor = jnp.log(noise_floor * deviation)
            return (start + shift).at[2].set(jnp.logaddexp(floor, start[2] + shift[2]))

        def misfit(logarithms: Array) -> Array:
            return _regression(inputs, values, actual(logarithms))[0]

        found = actual(minimise(misfit, start, max_evaluations=max_iterations)[0])
        _, solved, constant = _regression(inputs, values, found)
        return solved, constant, jnp.exp(found)

    solved, constant, scales = jax.lax.map(regress, targets.T)
    ok = jnp.all(jnp.isfinite(solved)) & jnp.all(jnp.isfinite(scales))
    return IndependentEfforts(inputs, solved.T, constant, scales[:, 0], scales[:, 1], scales[:, 2], ok)


def independent_efforts(
    fitted: IndependentEfforts, state: Float[Array, "*points field"]
) -> Float[Array, "*points field"]:
    """Efforts e(p, q), each from its own regression.

    Args:
      fitted: fitted efforts.
      state: states, any number of leading axes.
    Returns:
      efforts, same shape as the state.
    """
    flat = jnp.reshape(state, (-1, state.shape[-1]))

    def predict(solved: Array, constant: Array, lengthscale: Array, amplitude: Array) -> Array:
        return constant + _covariance(flat, fitted.states, lengthscale, amplitude) @ solved

    values = jax.vmap(predict, (1, 0, 0, 0))(fitted.solved, fitted.constant, fitted.lengthscale, fitted.amplitude)
    return jnp.reshape(values.T, state.shape)


def roll_out_independent(
    flow: Flow,
    fitted: IndependentEfforts,
    parameters: dict[str, Float[Array, ""]],
    state: Float[Array, "grid field"],
    times: Instants,
    substeps: int = 4,
) -> tuple[Float[Array, "time grid field"], Bool[Array, ""]]:
    """Roll the fitted efforts out from one initial state.

    Args:
      flow: (efforts, parameters) -> rates of the structure.
      fitted: fitted efforts.
      parameters: dissipation parameters; the published study takes them as known.
      state: initial state, boundary values imposed.
      times: output times, the first one included.
      substeps: Runge-Kutta steps between output times.
    Returns:
      states at the output times, of the type that holds all that is given, and whether all are finite.
    """
    ok = fitted.ok
    fitted, parameters, state, times = one_type(fitted, parameters, state, jnp.asarray(times))
    step = partial(rk4_step, lambda x: flow(independent_efforts(fitted, x), parameters))
    trajectory = rollout(lambda x, dt: (step(x, dt), dt), state, times, substeps)
    return trajectory, jnp.all(jnp.isfinite(trajectory)) & ok
