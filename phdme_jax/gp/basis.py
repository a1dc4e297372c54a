"""Reduced-rank Gaussian process on the energy density: sines on a box, weighted by the kernel's spectral density.

    h(x) = 1/2 sum_a kappa_a (x_a - c_a)^2 + sum_j w_j phi_j(x),   w_j ~ N(0, S(sqrt(lambda_j)))

The kernel is a sum of one squared-exponential kernel per field and one per pair of fields, so that the marginal
likelihood decides how separable the energy is. Because the basis does not depend on the hyperparameters, the design
matrix of all observations is built once; and because every sample is a smooth function of the state, a sampled
weight vector is a whole energy, hence a whole port-Hamiltonian system.
Source: Solin and Saerkkae (2020), Stat. Comput. 30, 419-446, equations 20, 56 and 60.
"""

from dataclasses import dataclass
from itertools import combinations
from math import factorial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

SHAPES = ("free", "even", "quadratic", "known")


@dataclass(frozen=True)
class Basis:
    """Sizes of the basis, and what is known of the energy beforehand.

    Attributes:
      num_fields: number of fields.
      main: sines per field.
      pair: sines per field of each pair, 0 for a separable energy.
      shapes: per field "free", "even" (about the centre of the box), "quadratic" (no sines, stiffness learned) or
        "known" (no sines, stiffness given); empty where all are free.

    Raises:
      ValueError: an unknown shape, or not one per field.
    """

    num_fields: int
    main: int = 48
    pair: int = 12
    shapes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.shapes and (len(self.shapes) != self.num_fields or not set(self.shapes) <= set(SHAPES)):
            raise ValueError(f"expected one shape among {SHAPES} per field ({self.num_fields}), got {self.shapes}")

    def shape(self, field: int) -> str:
        """What is known of the energy in one field."""
        return self.shapes[field] if self.shapes else "free"

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Pairs of fields that have an interaction."""
        curved = [field for field in range(self.num_fields) if self.shape(field) in ("free", "even")]
        return tuple(combinations(curved, 2)) if self.pair else ()

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.num_fields * self.main + len(self.pairs) * self.pair**2


class Box(NamedTuple):
    """Box that carries the basis; the energy is meaningful well inside it.

    Attributes:
      centre: state at rest, where the energy and its gradient vanish, shape (field,).
      half_width: half the box's width per field, shape (field,).
      preload: state r held by dead loads, such as the strain of a string that sags; broadcast against the states, which
        are then counted from r, and the energy is what is available above it: h(r + x) - h(r) - grad h(r) . x.
    """

    centre: Float[Array, "field"]
    half_width: Float[Array, "field"]
    preload: Float[Array, "*points field"] | None = None


class Energy(NamedTuple):
    """One energy density: a pytree that the functions of this module evaluate.

    Attributes:
      box: where the basis lives.
      stiffness: kappa of the quadratic part, shape (field,).
      weights: coefficients of the sines, shape (weight,).
    """

    box: Box
    stiffness: Float[Array, "field"]
    weights: Float[Array, "weight"]


class Kernel(NamedTuple):
    """Hyperparameters of the prior.

    Attributes:
      lengthscale: per field, in the field's unit, shape (field,).
      amplitude: prior standard deviation of each field's own part of h, shape (field,).
      pair_amplitude: of each pair's part, shape (pair,).
    """

    lengthscale: Float[Array, "field"]
    amplitude: Float[Array, "field"]
    pair_amplitude: Float[Array, "pair"]


def _quarter_turns(turns: Array) -> tuple[Array, Array]:
    """Sine and cosine of (pi/2) turns to rounding: polynomials that compile to vector code, unlike the library's calls.

    Taylor's polynomials on half a turn either side of the nearest whole number, where the remainder is below 1e-17.
    """
    whole = jnp.round(turns)
    part = (turns - whole) * (np.pi / 2)
    square = part * part
    sine, cosine = jnp.zeros_like(part), jnp.zeros_like(part)
    for order in range(16, -2, -2):
        sign = (-1) ** (order // 2)
        sine, cosine = sine * square + sign / factorial(order + 1), cosine * square + sign / factorial(order)
    sine = sine * part
    phase = whole - 4 * jnp.floor(whole / 4)
    odd = (phase == 1) | (phase == 3)
    sine, cosine = jnp.where(odd, cosine, sine), jnp.where(odd, sine, cosine)
    return jnp.where(phase >= 2, -sine, sine), jnp.where((phase == 1) | (phase == 2), -cosine, cosine)


class _Phase(NamedTuple):
    """Position of a field's values in the box: sine and cosine of the phase, its slope, the sines' normalisation."""

    sine: Array
    cosine: Array
    slope: Array
    scale: Array


def _phase(box: Box, state: Array, field: int) -> _Phase:
    half = box.half_width[field]
    # the phase runs from 0 to pi across the box: a quarter turn ahead of the distance to the centre
    sine, cosine = _quarter_turns((state[..., field] - box.centre[field]) / half)
    return _Phase(cosine, -sine, (np.pi / 2) / half, 1 / jnp.sqrt(half))


def _waves(basis: Basis, box: Box, state: Array, count: int) -> tuple[list[Array], list[Array]]:
    """Per field: the normalised sines and their derivatives at the given points, shape (*points, count).

    All sines and cosines follow by doubling from the first.
    """
    values, slopes = [], []
    order = jnp.arange(1, count + 1, dtype=state.dtype)
    for field in range(basis.num_fields):
        phase = _phase(box, state, field)
        sines, cosines = phase.sine[..., None], phase.cosine[..., None]
        while sines.shape[-1] < count:
            top_s, top_c = sines[..., -1:], cosines[..., -1:]
            sines, cosines = (
                jnp.concatenate([sines, top_s * cosines + top_c * sines], axis=-1),
                jnp.concatenate([cosines, top_c * cosines - top_s * sines], axis=-1),
            )
        values.append(phase.scale * sines[..., :count])
        slopes.append(phase.scale * order * phase.slope * cosines[..., :count])
    return values, slopes


def _split(basis: Basis, weights: Array) -> tuple[list[Array], list[Array]]:
    """The weights as one vector per field and one square matrix per pair."""
    cut = basis.num_fields * basis.main
    mains = list(jnp.reshape(weights[:cut], (basis.num_fields, basis.main)))
    pairs = list(jnp.reshape(weights[cut:], (len(basis.pairs), basis.pair, basis.pair))) if basis.pairs else []
    return mains, pairs


def _clenshaw(cosine: Array, coefficients: Array) -> tuple[Array, Array]:
    """Last two terms of Clenshaw's recurrence b_j = c_j + 2 cos b_{j+1} - b_{j+2}; stores nothing beyond the points."""
    twice = 2 * cosine
    last, before = jnp.zeros_like(cosine), jnp.zeros_like(cosine)
    for order in range(coefficients.shape[0] - 1, -1, -1):
        # this order of the sums keeps one operation on the critical path
        last, before = (coefficients[order] - before) + twice * last, last
    return last, before


def _sine_series(phase: _Phase, coefficients: Array) -> Array:
    """sum_j c_j sin(j angle), normalised; each c_j broadcasts against the points."""
    return phase.scale * _clenshaw(phase.cosine, coefficients)[0] * phase.sine


def _sine_series_slope(phase: _Phase, coefficients: Array) -> Array:
    """Derivative of `_sine_series` in the field."""
    order = jnp.arange(1, coefficients.shape[0] + 1, dtype=coefficients.dtype)
    last, before = _clenshaw(phase.cosine, jnp.reshape(order, (-1,) + (1,) * (coefficients.ndim - 1)) * coefficients)
    return phase.scale * phase.slope * (phase.cosine * last - before)


def _phases(basis: Basis, box: Box, state: Array) -> list[_Phase]:
    phases = [_phase(box, state, field) for field in range(basis.num_fields)]
    # kept in memory where pairs use them: fused into each order of a pair they would be computed that often
    return jax.lax.optimization_barrier(phases) if basis.pairs else phases


def _across(weight: Array, points: int) -> Array:
    """A pair's matrix with axes for the points, so that a series in the first field keeps the second's orders."""
    return jnp.reshape(weight, weight.shape + (1,) * points)


def _sines_at(basis: Basis, energy: Energy, state: Array) -> Array:
    mains, pairs = _split(basis, energy.weights)
    phases = _phases(basis, energy.box, state)
    total = jnp.zeros_like(state[..., 0])
    for phase, weight in zip(phases, mains, strict=True):
        total = total + _sine_series(phase, weight)
    for (a, b), weight in zip(basis.pairs, pairs, strict=True):
        value = jax.lax.optimization_barrier(_sine_series(phases[a], _across(weight, total.ndim)))
        total = total + _sine_series(phases[b], value)
    return total


def _sines_at_centre(basis: Basis, energy: Energy) -> Array:
    """The same at the centre of the box, where the phase is a quarter turn: the sines are 1, 0, -1, 0, ..."""
    mains, pairs = _split(basis, energy.weights)
    scale = jax.lax.rsqrt(energy.box.half_width)
    signs = jnp.asarray(np.resize([1, 0, -1, 0], max(basis.main, basis.pair)), scale.dtype)
    total = scale @ (jnp.stack(mains) @ signs[: basis.main])
    for (a, b), weight in zip(basis.pairs, pairs, strict=True):
        total = total + scale[a] * scale[b] * (signs[: basis.pair] @ weight @ signs[: basis.pair])
    return total


def density(basis: Basis, energy: Energy, state: Float[Array, "*points field"]) -> Float[Array, "*points"]:
    """Energy density h at every point, zero at rest (the gauge: constants of h are invisible to the dynamics).

    Args:
      basis: sizes.
      energy: the energy to evaluate.
      state: states, any number of leading axes.
    Returns:
      h, shape (*points).
    """
    preload = energy.box.preload
    if preload is None:
        return _density(basis, energy, state) - _sines_at_centre(basis, energy)
    linear = jnp.sum(_gradient(basis, energy, preload) * state, axis=-1)
    return _density(basis, energy, preload + state) - _density(basis, energy, preload) - linear


def _density(basis: Basis, energy: Energy, state: Array) -> Array:
    # field by field: a reduction over the short field axis would keep the compiler from fusing the recurrences
    total = _sines_at(basis, energy, state)
    for field in range(basis.num_fields):
        total = total + 0.5 * energy.stiffness[field] * (state[..., field] - energy.box.centre[field]) ** 2
    return total


def efforts(basis: Basis, energy: Energy, state: Float[Array, "*points field"]) -> Float[Array, "*points field"]:
    """Efforts e = grad h at every point, in closed form.

    Args:
      basis: sizes.
      energy: the energy to evaluate.
      state: states, any number of leading axes.
    Returns:
      gradient of h with respect to the state, same shape as the state.
    """
    preload = energy.box.preload
    if preload is None:
        return _gradient(basis, energy, state)
    return _gradient(basis, energy, preload + state) - _gradient(basis, energy, preload)


def _gradient(basis: Basis, energy: Energy, state: Array) -> Array:
    mains, pairs = _split(basis, energy.weights)
    phases = _phases(basis, energy.box, state)
    parts = []
    for field, weight in enumerate(mains):
        linear = energy.stiffness[field] * (state[..., field] - energy.box.centre[field])
        parts.append(linear + _sine_series_slope(phases[field], weight))
    for (a, b), weight in zip(basis.pairs, pairs, strict=True):
        wide = _across(weight, parts[a].ndim)
        value, slope = jax.lax.optimization_barrier(
            (_sine_series(phases[a], wide), _sine_series_slope(phases[a], wide))
        )
        parts[a] = parts[a] + _sine_series(phases[b], slope)
        parts[b] = parts[b] + _sine_series_slope(phases[b], value)
    return jnp.stack(parts, axis=-1)


def feature_efforts(
    basis: Basis, box: Box, state: Float[Array, "*points field"]
) -> Float[Array, "*points field feature"]:
    """Gradients of all basis functions and, last, of the quadratic terms: the design of an effort observation.

    Args:
      basis: sizes.
      box: where the basis lives.
      state: states, any number of leading axes.
    Returns:
      gradients; the last axis holds `basis.size` sines followed by one quadratic per field.
    """
    if box.preload is None:
        return _feature_gradients(basis, box, state)
    return _feature_gradients(basis, box, box.preload + state) - _feature_gradients(basis, box, box.preload)


def _feature_gradients(basis: Basis, box: Box, state: Array) -> Array:
    values, slopes = _waves(basis, box, state, max(basis.main, basis.pair))
    rows = []
    for field in range(basis.num_fields):
        blocks = [
            slopes[a][..., : basis.main] if a == field else jnp.zeros_like(slopes[a][..., : basis.main])
            for a in range(basis.num_fields)
        ]
        for a, b in basis.pairs:
            left = (slopes if a == field else values)[a][..., : basis.pair]
            right = (slopes if b == field else values)[b][..., : basis.pair]
            outer = left[..., :, None] * right[..., None, :]
            outer = outer if field in (a, b) else jnp.zeros_like(outer)
            blocks.append(jnp.reshape(outer, (*outer.shape[:-2], -1)))
        quadratic = jax.nn.one_hot(field, basis.num_fields, dtype=state.dtype) * (
            state[..., field, None] - box.centre[field]
        )
        rows.append(jnp.concatenate([*blocks, quadratic], axis=-1))
    return jnp.stack(rows, axis=-2)


def _allowed(basis: Basis, count: int) -> np.ndarray:
    """Which sines each field's shape allows, one or zero, shape (field, count)."""
    order = np.arange(1, count + 1)
    rows = {"free": order > 0, "even": order % 2 == 1, "quadratic": order < 0, "known": order < 0}
    return np.stack([rows[basis.shape(field)] for field in range(basis.num_fields)]).astype(float)


def prior_deviations(basis: Basis, box: Box, kernel: Kernel) -> Float[Array, "weight"]:
    """Prior standard deviation of every weight, from the spectral density of the squared-exponential kernel.

        S(omega) = sigma^2 (2 pi)^{d/2} prod_a l_a exp(-l_a^2 omega_a^2 / 2)

    Weights that the basis's shapes rule out have none: all of a quadratic or known field, and in an even field those of
    the sines of even order, which are odd about the centre of the box.

    Args:
      basis: sizes.
      box: where the basis lives.
      kernel: hyperparameters.
    Returns:
      standard deviations, shape (weight,).
    """
    count = max(basis.main, basis.pair)
    order = jnp.arange(1, count + 1, dtype=box.half_width.dtype)
    frequency = order * (np.pi / 2) / box.half_width[:, None]
    scale = kernel.lengthscale[:, None]
    root = (2 * np.pi) ** 0.25 * jnp.sqrt(scale) * jnp.exp(-0.25 * (scale * frequency) ** 2)
    root = root * jnp.asarray(_allowed(basis, count), root.dtype)
    parts = [kernel.amplitude[a] * root[a, : basis.main] for a in range(basis.num_fields)]
    for index, (a, b) in enumerate(basis.pairs):
        outer = root[a, : basis.pair, None] * root[b, None, : basis.pair]
        parts.append(kernel.pair_amplitude[index] * jnp.ravel(outer))
    return jnp.concatenate(parts)


def make_box(states: Float[Array, "*points field"], centre: Float[Array, "field"], margin: float = 2.0) -> Box:
    """Box around the observed states: `margin` times the largest excursion from rest, per field.

    Args:
      states: observed states.
      centre: state at rest.
      margin: ratio of the box's half width to the largest excursion; the prior is distorted within about one
        lengthscale of the walls.
    Returns:
      the box.
    """
    excursion = jnp.max(jnp.abs(states - centre), axis=tuple(range(states.ndim - 1)))
    return Box(centre=centre, half_width=margin * jnp.maximum(excursion, jnp.finfo(states.dtype).eps))
