"""Distances between two sets of fields, by samples alone; each has a floor, that of two sets of one distribution."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from phdme_jax.numerics.arrays import ratio, root


def sliced_wasserstein(
    left: Float[Array, "sample *grid"], right: Float[Array, "other *grid"], key: PRNGKeyArray, num_slices: int = 256
) -> Float[Array, ""]:
    """Sliced 2-Wasserstein distance of one channel, in units of the right set's standard deviation at a place.

        SW^2 = mean over unit directions v of  W_2(v . x, v . y)^2,   W_2^2 = mean (x_(i) - y_(i))^2 over sorted values

    Args:
      left: fields of one set.
      right: as many of the other.
      key: of the random directions.
      num_slices: directions.
    Returns:
      the distance; infinity where the right set's fields are all the same and the left's are not.
    Raises:
      ValueError: sets of different shapes.
    Source: Bonneel et al. (2015), J. Math. Imaging Vis. 51, eq. 8.
    """
    left, right, deviation = _standard(left, right)
    directions = jax.random.normal(key, (left.shape[1], num_slices), left.dtype)
    directions = directions / jnp.linalg.norm(directions, axis=0)
    one, other = (jnp.sort(part @ directions, axis=0) for part in (left, right))
    return ratio(root(jnp.mean((one - other) ** 2)), deviation)


def wasserstein_of_values(left: Float[Array, "sample *grid"], right: Float[Array, "other *grid"]) -> Float[Array, ""]:
    """1-Wasserstein distance between the values of all places and samples taken together, in the field's units.

    Raises:
      ValueError: sets of different shapes.
    """
    left, right = _flat(left, right)
    return jnp.mean(jnp.abs(jnp.sort(left.ravel()) - jnp.sort(right.ravel())))


def energy_distance(
    left: Float[Array, "sample *grid"], right: Float[Array, "other *grid"], paired: bool = False
) -> Float[Array, ""]:
    """Energy distance with root mean square distances between fields, in units of the right set's deviation.

        D^2 = 2 E|X - Y| - E|X - X'| - E|Y - Y'|

    Unbiased: about zero, and as often below it, for sets of one distribution.

    Args:
      left: fields of one set.
      right: as many of the other.
      paired: whether fields at the same place in both sets are answers to the same task, hence nearer to each other
        than two of the distribution: their distances are left out, as those of a field from itself are.
    Returns:
      D^2, in units of the deviation; infinity where the right set's fields are all the same and the left's are not.
    Raises:
      ValueError: sets of different shapes, or of one field.
    Source: Szekely and Rizzo (2013), J. Stat. Plan. Inference 143, eq. 1.
    """
    count = left.shape[0]
    if count < 2:
        raise ValueError(f"expected at least two fields in a set, got {count}; one has no distance from another")
    left, right, deviation = _standard(left, right)

    def mean_distance(one: Array, other: Array, apart: bool) -> Array:
        """Between all fields, or between those at different places."""
        squares = jnp.sum(one**2, 1)[:, None] + jnp.sum(other**2, 1) - 2.0 * one @ other.T
        if apart:
            squares = jnp.where(jnp.eye(count, dtype=bool), 0.0, squares)
        return jnp.sum(root(squares / one.shape[1])) / (count * (count - 1) if apart else count**2)

    within = mean_distance(left, left, True) + mean_distance(right, right, True)
    return ratio(2.0 * mean_distance(left, right, paired) - within, deviation)


def mean_discrepancy(
    left: Float[Array, "sample *grid"], right: Float[Array, "other *grid"], paired: bool = False
) -> Float[Array, ""]:
    """Squared maximum mean discrepancy with Gaussian kernels, unbiased: about zero for sets of one distribution.

        MMD^2 = E k(X, X') + E k(Y, Y') - 2 E k(X, Y),   k = mean over s of exp(-|x - y|^2 / 2 s^2)

    The widths s are half, one and two times the median distance within the right set.

    Args:
      left: fields of one set.
      right: as many of the other.
      paired: see `energy_distance`.
    Returns:
      MMD^2.
    Raises:
      ValueError: sets of different shapes, or of one field.
    Source: Gretton et al. (2012), J. Mach. Learn. Res. 13, eq. 3.
    """
    count = left.shape[0]
    if count < 2:
        raise ValueError(f"expected at least two fields in a set, got {count}; one has no distance from another")
    left, right, _ = _standard(left, right)

    def squares(one: Array, other: Array) -> Array:
        found = jnp.sum(one**2, 1)[:, None] + jnp.sum(other**2, 1) - 2.0 * one @ other.T
        return jnp.maximum(found, 0.0)

    apart = ~np.eye(count, dtype=bool)
    within = squares(right, right)
    middle = jnp.median(within[apart])
    widths = middle * jnp.asarray([0.25, 1.0, 4.0], left.dtype)

    def kernel(square: Array) -> Array:
        return jnp.mean(jnp.exp(-0.5 * square[..., None] / widths), axis=-1)

    def among(square: Array) -> Array:
        return jnp.sum(jnp.where(apart, kernel(square), 0.0)) / (count * (count - 1))

    between = squares(left, right)
    across = among(between) if paired else jnp.mean(kernel(between))
    return among(squares(left, left)) + among(within) - 2.0 * across


def radial_spectrum(fields: Float[Array, "sample *grid"]) -> Float[Array, " wave"]:
    """Mean power of the cosine waves of each whole wave number, over samples.

    Cosines, as the fields do not continue past the ends of the grid.

    Args:
      fields: fields on a grid of one axis or more.
    Returns:
      power by wave number, from 0 to the shortest axis.
    """
    axes = tuple(range(1, fields.ndim))
    waves = fields
    for axis in axes:
        waves = jax.scipy.fft.dct(waves, axis=axis, norm="ortho")
    power = jnp.mean(waves**2, axis=0)
    numbers = np.meshgrid(*(np.arange(size) for size in fields.shape[1:]), indexing="ij")
    ring = np.round(np.sqrt(sum(number.astype(float) ** 2 for number in numbers))).astype(int)
    count = min(fields.shape[1:])
    return jnp.stack([jnp.sum(jnp.where(ring == wave, power, 0.0)) for wave in range(count)])


def spectrum_error(left: Float[Array, "sample *grid"], right: Float[Array, "other *grid"]) -> Float[Array, ""]:
    """Mean absolute difference of the logarithms (base 10) of two radial spectra, over wave numbers that carry power.

    Wave numbers with less than a millionth of the right set's largest power are left out. Infinity where power is on
    one side alone.
    """
    unit = _largest(right)
    one, other = radial_spectrum(left / unit), radial_spectrum(right / unit)
    kept = (other >= 1e-6 * jnp.max(other)) & (one != other)
    apart = jnp.abs(jnp.log10(jnp.where(kept, one, 1.0)) - jnp.log10(jnp.where(kept, other, 1.0)))
    return jnp.sum(apart) / jnp.sum(other >= 1e-6 * jnp.max(other))


def _flat(left: Array, right: Array) -> tuple[Array, Array]:
    if left.shape != right.shape:
        raise ValueError(f"expected sets of the same shape, got {left.shape} and {right.shape}; take as many of each")
    count = left.shape[0]
    return left.reshape(count, -1), right.reshape(count, -1)


def _standard(left: Array, right: Array) -> tuple[Array, Array, Array]:
    """Both sets, flat, about the mean of the right one and in a unit of its own, and the right one's deviation in it.

    Squares of values far from zero, or of very small ones, would be rounding alone.
    """
    left, right = _flat(left, right)
    centre = jnp.mean(right, axis=0)
    left, right = left - centre, right - centre
    unit = _largest(right)
    left, right = left / unit, right / unit
    return left, right, root(jnp.mean(jnp.var(right, axis=0)))


def _largest(values: Array) -> Array:
    """Largest absolute value, one where all are zero."""
    largest = jnp.max(jnp.abs(values))
    return jnp.where(largest > 0, largest, 1)
