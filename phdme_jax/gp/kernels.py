"""Squared-exponential kernels on energy densities in closed form, with the derivatives that effort rows need.

Every function takes one pair of states. The closed forms are smooth where the two states coincide: no norm, hence no
square root, is ever taken.
"""

from itertools import combinations
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from phdme_jax.gp.basis import Kernel


class KernelJet(NamedTuple):
    """A kernel k(x, x') and its derivatives at one pair of states.

    Attributes:
      value: k, the covariance of h(x) and h(x').
      left: dk/dx_a, the covariance of the effort e_a(x) and h(x'), shape (field,).
      right: dk/dx'_b, the covariance of h(x) and the effort e_b(x'), shape (field,).
      cross: d^2k/dx_a dx'_b, the covariance of the efforts e_a(x) and e_b(x'), shape (field, field).
    """

    value: Float[Array, ""]
    left: Float[Array, "field"]
    right: Float[Array, "field"]
    cross: Float[Array, "field field"]


def squared_exponential(
    left: Float[Array, "field"],
    right: Float[Array, "field"],
    lengthscale: Float[Array, "field"],
    amplitude: Float[Array, ""],
) -> KernelJet:
    """Squared-exponential kernel with one lengthscale per field.

        k = sigma^2 exp(-sum_a r_a^2 / (2 l_a^2)),   r = x - x'
        d^2k/dx_a dx'_b = k (delta_ab / l_a^2 - r_a r_b / (l_a^2 l_b^2))

    Args:
      left: state x.
      right: state x'.
      lengthscale: per field, in the field's unit.
      amplitude: sigma, prior standard deviation of the energy density.
    Returns:
      the kernel and its derivatives.
    Source: Solak et al. (2003), NIPS 15, equations 2 and 3.
    """
    scaled = (left - right) / lengthscale
    value = amplitude**2 * jnp.exp(-0.5 * jnp.sum(scaled**2))
    direction = scaled / lengthscale
    cross = value * (jnp.diag(lengthscale**-2) - jnp.outer(direction, direction))
    return KernelJet(value, -value * direction, value * direction, cross)


def additive_squared_exponential(
    left: Float[Array, "field"], right: Float[Array, "field"], kernel: Kernel
) -> KernelJet:
    """Sum of one squared-exponential kernel per field and one product of two per pair of fields.

        k = sum_a s_a^2 k_a(x_a, x'_a) + sum_{a<b} s_ab^2 k_a(x_a, x'_a) k_b(x_b, x'_b)

    with unit kernels k_a. This is the prior that the reduced-rank basis approximates.

    Args:
      left: state x.
      right: state x'.
      kernel: hyperparameters; pairs in the order (0, 1), (0, 2), ..., or none for a separable energy.
    Returns:
      the kernel and its derivatives.
    Raises:
      ValueError: the number of pair amplitudes is neither zero nor that of all pairs.
    """
    num_fields = left.shape[0]
    pairs = list(combinations(range(num_fields), 2))
    if kernel.pair_amplitude.shape[0] not in (0, len(pairs)):
        raise ValueError(f"expected no pair amplitude or {len(pairs)}, got {kernel.pair_amplitude.shape[0]}")
    scaled = (left - right) / kernel.lengthscale
    unit = jnp.exp(-0.5 * scaled**2)
    slope = unit * scaled / kernel.lengthscale
    curvature = unit * (1 - scaled**2) / kernel.lengthscale**2
    own = kernel.amplitude**2
    value, gradient, cross = jnp.sum(own * unit), own * slope, jnp.diag(own * curvature)
    for (a, b), amplitude in zip(pairs, kernel.pair_amplitude, strict=False):
        variance = amplitude**2
        value = value + variance * unit[a] * unit[b]
        gradient = gradient.at[a].add(variance * slope[a] * unit[b]).at[b].add(variance * unit[a] * slope[b])
        mixed = -variance * slope[a] * slope[b]
        cross = cross.at[a, a].add(variance * curvature[a] * unit[b]).at[b, b].add(variance * unit[a] * curvature[b])
        cross = cross.at[a, b].add(mixed).at[b, a].add(mixed)
    return KernelJet(value, -gradient, gradient, cross)
