"""Metrics of one forecast against one true trajectory.

Every metric takes one example; callers vmap over trajectories and average. Metrics that mix fields take an optional
`field_scale`, the unit of each field, without which fields of different units are added as they are.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from phdme_jax.numerics.arrays import ratio, require_same_shape, root


class SpreadSkill(NamedTuple):
    """Ensemble variance and squared error of the ensemble mean, whose expectations agree for a reliable ensemble.

    Attributes:
      variance: (n+1)/n times the unbiased ensemble variance, averaged over the trajectory.
      squared_error: squared error of the ensemble mean, averaged over the trajectory.
    """

    variance: Float[Array, ""]
    squared_error: Float[Array, ""]


def _deviations(truth: Array, samples: Array, field_scale: Array | None, least: int) -> Array:
    """Return samples minus truth in units of the field scale; centring keeps float32 differences exact."""
    if samples.shape[1:] != truth.shape:
        raise ValueError(
            f"expected samples of shape {('sample', *truth.shape)}, got {samples.shape}; put samples first."
        )
    if samples.shape[0] < least:
        raise ValueError(
            f"expected at least {least} samples, got {samples.shape[0]}; draw more, or score a single forecast with "
            "fair=False where the metric offers it."
        )
    deviations = samples - truth
    return deviations if field_scale is None else deviations / field_scale


def mse_per_field(
    truth: Float[Array, "time *grid field"], forecast: Float[Array, "time *grid field"]
) -> Float[Array, " field"]:
    """Mean squared error of each field.

        mse_c = mean_{t,z} (y − ŷ)²

    Args:
      truth: true trajectory y, shape (time, *grid, field).
      forecast: point forecast ŷ (a sample, or the ensemble mean), shape (time, *grid, field).
    Returns:
      error, shape (field,) [squared units of the field].
    Raises:
      ValueError: the shapes differ.
    """
    require_same_shape(truth=truth, forecast=forecast)
    return jnp.mean((truth - forecast) ** 2, axis=range(truth.ndim - 1))


def mse(truth: Float[Array, "time *grid field"], forecast: Float[Array, "time *grid field"]) -> Float[Array, ""]:
    """Mean squared error over time, grid and field.

        mse = mean_{t,z,c} (y − ŷ)²

    Args:
      truth: true trajectory y, shape (time, *grid, field).
      forecast: point forecast ŷ, shape (time, *grid, field).
    Returns:
      error, scalar [squared units of the fields, added as they are].
    Raises:
      ValueError: the shapes differ.
    """
    return jnp.mean(mse_per_field(truth, forecast))


def reference_variance(reference: Float[Array, "sample time *grid field"]) -> Float[Array, " field"]:
    """Variance of each field over a reference set, the denominator of the normalised error.

        var_c = mean_{i,t,z} (y − mean_{i,t,z} y)²

    Args:
      reference: trajectories, normally the test set itself, shape (sample, time, *grid, field).
    Returns:
      variance about the one mean of each field, shape (field,) [squared units of the field].
    """
    return jnp.var(reference, axis=range(reference.ndim - 1))


def nmse_per_field(
    truth: Float[Array, "time *grid field"],
    forecast: Float[Array, "time *grid field"],
    variance: Float[Array, " field"],
) -> Float[Array, " field"]:
    """Mean squared error of each field over the variance of that field in a reference set.

        nmse_c = mse_c/var_c

    The constant forecast "mean of the reference set" scores one on average over that set.

    Args:
      truth: true trajectory, shape (time, *grid, field).
      forecast: point forecast, shape (time, *grid, field).
      variance: from `reference_variance`, shape (field,).
    Returns:
      normalised error, shape (field,), dimensionless; infinity for an error in a field that does not vary.
    Raises:
      ValueError: the shapes differ.
    """
    return ratio(mse_per_field(truth, forecast), variance)


def nmse(
    truth: Float[Array, "time *grid field"],
    forecast: Float[Array, "time *grid field"],
    variance: Float[Array, " field"],
) -> Float[Array, ""]:
    """Normalised mean squared error: the mean over fields of mse_c/var_c, so that units do not matter.

    Args:
      truth: true trajectory, shape (time, *grid, field).
      forecast: point forecast, shape (time, *grid, field).
      variance: from `reference_variance`, shape (field,).
    Returns:
      normalised error, dimensionless scalar.
    Raises:
      ValueError: the shapes differ.
    """
    return jnp.mean(nmse_per_field(truth, forecast, variance))


def crps(
    truth: Float[Array, "time *grid field"],
    samples: Float[Array, "sample time *grid field"],
    field_scale: Float[Array, " field"] | None = None,
    fair: bool = True,
) -> Float[Array, ""]:
    """Continuous ranked probability score of an ensemble, averaged over time, grid and field.

        crps = mean_i |x_i − y| − Σ_{i<j} |x_i − x_j| / N,    Σ_{i<j} |x_i − x_j| = Σ_i (2i − n − 1) x_(i)

    with N = n(n−1) for the fair score, whose expectation does not depend on n, and N = n² for the score of the
    empirical distribution. Sorting costs O(n log n) where the double sum costs O(n²).

    Args:
      truth: true trajectory y, shape (time, *grid, field).
      samples: ensemble x_i, shape (sample, time, *grid, field).
      field_scale: positive unit of each field, shape (field,); None leaves physical units.
      fair: unbiased in the number of samples; needs two of them. False scores one sample as its absolute error.
    Returns:
      score, scalar, smaller is better; a single fair score may be negative.
    Raises:
      ValueError: the shapes do not match, or there are too few samples.
    Source: Gneiting and Raftery (2007), eq. 21; Ferro (2014) for the fair score.
    """
    deviations = _deviations(truth, samples, field_scale, least=2 if fair else 1)
    n = samples.shape[0]
    # Centred on the truth, which leaves the pair distances alone: the weights sum to zero.
    weights = (2 * jnp.arange(1, n + 1, dtype=deviations.dtype) - n - 1) / (n * (n - 1) if fair else n * n)
    pair_term = jnp.tensordot(weights, jnp.sort(deviations, axis=0), axes=1, precision="highest")
    return jnp.mean(jnp.mean(jnp.abs(deviations), axis=0) - pair_term)


def energy_score(
    truth: Float[Array, "time *grid field"],
    samples: Float[Array, "sample time *grid field"],
    field_scale: Float[Array, " field"] | None = None,
    fair: bool = True,
) -> Float[Array, ""]:
    """Energy score of an ensemble of whole trajectories.

        es = mean_i ‖x_i − y‖ − Σ_{i<j} ‖x_i − x_j‖ / N,    ‖v‖² = mean_{t,z,c} v²

    The multivariate CRPS: it also sees whether the samples depend over time and space as the truth does. The root mean
    square norm makes scores comparable between resolutions and equals the CRPS for a single number. N as in `crps`.

    Args:
      truth: true trajectory y, shape (time, *grid, field).
      samples: ensemble x_i, shape (sample, time, *grid, field).
      field_scale: positive unit of each field, shape (field,); None leaves physical units.
      fair: unbiased in the number of samples; needs two of them. False scores one sample as its distance.
    Returns:
      score, scalar, smaller is better; a single fair score may be negative.
    Raises:
      ValueError: the shapes do not match, or there are too few samples.
    Source: Gneiting and Raftery (2007), eq. 22. Differs from it in the norm, by a constant factor.
    """
    deviations = _deviations(truth, samples, field_scale, least=2 if fair else 1)
    n = samples.shape[0]

    def norms(vectors: Array) -> Array:
        return root(jnp.mean(vectors**2, axis=range(1, vectors.ndim)))

    # One row of the distance matrix at a time: all of it would hold n² trajectories.
    double_sum = jnp.sum(jax.lax.map(lambda sample: jnp.sum(norms(deviations - sample)), deviations))
    return jnp.mean(norms(deviations)) - double_sum / (2 * (n * (n - 1) if fair else n * n))


def spread_skill(
    truth: Float[Array, "time *grid field"],
    samples: Float[Array, "sample time *grid field"],
    field_scale: Float[Array, " field"] | None = None,
) -> SpreadSkill:
    """Ensemble variance beside the squared error of the ensemble mean.

        variance = (n+1)/n · mean_{t,z,c} s²,    squared_error = mean_{t,z,c} (y − x̄)²

    Args:
      truth: true trajectory y, shape (time, *grid, field).
      samples: ensemble x_i, at least two, shape (sample, time, *grid, field).
      field_scale: positive unit of each field, shape (field,); None leaves physical units.
    Returns:
      both terms, to be pooled over trajectories by `spread_skill_ratio`.
    Raises:
      ValueError: the shapes do not match, or there are fewer than two samples.
    Source: Fortin et al. (2014), who give the factor (n+1)/n.
    """
    deviations = _deviations(truth, samples, field_scale, least=2)
    n = samples.shape[0]
    return SpreadSkill(
        variance=(n + 1) / n * jnp.mean(jnp.var(deviations, axis=0, ddof=1)),
        squared_error=jnp.mean(jnp.mean(deviations, axis=0) ** 2),
    )


def spread_skill_ratio(
    variance: Float[Array, " trajectory"], squared_error: Float[Array, " trajectory"]
) -> Float[Array, ""]:
    """Spread over skill of many forecasts: one where reliable, below one where overconfident.

        ratio = √(mean_i variance_i / mean_i squared_error_i)

    Both terms are averaged before the division, as the mean of single ratios does not tend to one.

    Args:
      variance: from `spread_skill`, shape (trajectory,).
      squared_error: from `spread_skill`, shape (trajectory,).
    Returns:
      ratio, dimensionless scalar.
    Source: Fortin et al. (2014).
    """
    return jnp.sqrt(ratio(jnp.mean(variance), jnp.mean(squared_error)))


def energy_drift(energy: Float[Array, " time"], scale: Float[Array, ""] | float | None = None) -> Float[Array, ""]:
    """Largest departure of the energy from its initial value.

        drift = max_t |H_t − H_0| / scale

    An error only for a conservative system; for a damped one see `energy_increase`.

    Args:
      energy: energy along one trajectory, quadrature weights included, shape (time,) [J].
      scale: positive energy to compare with [J]; None takes |H_0|. Give it where the energy has a large constant part,
        which would hide the drift.
    Returns:
      drift, dimensionless scalar.
    """
    reference = jnp.abs(energy[0]) if scale is None else scale
    return ratio(jnp.max(jnp.abs(energy - energy[0])), jnp.asarray(reference, energy.dtype))


def energy_increase(energy: Float[Array, " time"]) -> Float[Array, ""]:
    """Largest rise of the energy above any earlier value.

        increase = max_{s ≤ t} (H_t − H_s)

    Zero exactly where the energy never increases, as it must in a passive system without input. Unlike the largest
    single step it does not shrink with the sampling interval. Call a trajectory in violation where the increase exceeds
    the tolerance set by the reference data's own.

    Args:
      energy: energy along one trajectory, quadrature weights included, shape (time,) [J].
    Returns:
      increase, non-negative scalar [J].
    """
    return jnp.max(energy - jax.lax.cummin(energy))


def band_width(
    lower: Float[Array, "time *grid field"],
    upper: Float[Array, "time *grid field"],
    field_scale: Float[Array, " field"] | None = None,
) -> Float[Array, ""]:
    """Mean width of a band: what its coverage costs.

        width = mean_{t,z,c} (upper − lower)

    Args:
      lower: lower edge, shape (time, *grid, field).
      upper: upper edge, shape (time, *grid, field).
      field_scale: positive unit of each field, shape (field,); None leaves physical units.
    Returns:
      width, scalar; infinity for an unbounded band.
    Raises:
      ValueError: the shapes differ.
    """
    require_same_shape(lower=lower, upper=upper)
    width = upper - lower
    return jnp.mean(width if field_scale is None else width / field_scale)
