"""Conformal scores of one trajectory: how far the truth lies from a forecast, as one number.

The unit of calibration is the whole trajectory, never the pixel: the entries of one trajectory are dependent, so only
trajectories can be exchangeable. Both scores therefore reduce over time, grid and field, and return infinity where the
forecast is not finite, so that a failed forecast counts as a miss instead of poisoning a quantile.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from phdme_jax.numerics.arrays import ratio, require_same_shape, root


def band_scale(
    samples_std: Float[Array, "time *grid field"], floor: Float[Array, " field"]
) -> Float[Array, "time *grid field"]:
    """Half-width, at quantile one, of the simultaneous band.

        scale(t, z, c) = σ(t, z, c) + ε_c

    The floor keeps a point where the ensemble happens to agree (a fixed end, the known initial state, a quiescent
    region) from deciding the maximum alone. Choose it before looking at the calibration trajectories, for example as
    one per cent of each field's standard deviation over the training data; a floor tuned on the calibration
    trajectories makes their scores unlike those of a fresh one, and the coverage is then no longer guaranteed.

    Args:
      samples_std: standard deviation over the samples of the forecast, shape (time, *grid, field) [units of the field].
      floor: ε, positive, shape (field,) [units of the field].
    Returns:
      scale, shape (time, *grid, field) [units of the field].
    Source: Lei et al. (2018), section 5.2 (locally weighted scores); the floor and the maximum over the trajectory are
      ours.
    """
    return samples_std + floor


def band_score(
    truth: Float[Array, "time *grid field"],
    mean: Float[Array, "time *grid field"],
    scale: Float[Array, "time *grid field"],
) -> Float[Array, ""]:
    """Score of the simultaneous band: the largest error over the trajectory, in units of the scale.

        s = max_{t,z,c} |y − ȳ| / scale,    with 0/0 = 0

    `s ≤ q` holds exactly when the whole trajectory lies inside `band(mean, scale, q)`. An entry without error scores
    zero whatever its scale (the known initial state has neither spread nor error); an error at scale zero scores
    infinity, as no finite quantile covers it.

    Args:
      truth: observed trajectory y, shape (time, *grid, field).
      mean: centre ȳ of the forecast, shape (time, *grid, field).
      scale: non-negative, from `band_scale`, shape (time, *grid, field).
    Returns:
      score, dimensionless scalar; infinity where the forecast is not a number.
    Raises:
      ValueError: the shapes differ.
    Source: Lei et al. (2018), section 5.2, with the maximum over the trajectory in place of a scalar response.
    """
    require_same_shape(truth=truth, mean=mean, scale=scale)
    error = ratio(jnp.abs(truth - mean), scale)
    return jnp.max(jnp.where(jnp.isnan(error), jnp.inf, error))


def band(
    mean: Float[Array, "time *grid field"],
    scale: Float[Array, "time *grid field"],
    quantile: Float[Array, ""] | float,
) -> tuple[Float[Array, "time *grid field"], Float[Array, "time *grid field"]]:
    """Simultaneous band around a forecast.

        lower, upper = ȳ ∓ q·scale

    An infinite quantile gives the whole line everywhere, also where the scale is zero. Count coverage with
    `band_score ≤ quantile`: at the calibration trajectory that set the quantile, the edges agree with it only up to
    rounding.

    Args:
      mean: centre ȳ of the forecast, shape (time, *grid, field).
      scale: from `band_scale`, shape (time, *grid, field).
      quantile: conformal quantile q of the band scores, scalar.
    Returns:
      lower and upper edge, each of shape (time, *grid, field) [units of the field].
    Raises:
      ValueError: the shapes differ.
    """
    require_same_shape(mean=mean, scale=scale)
    unbounded = jnp.isinf(quantile)
    half_width = quantile * scale
    lower = jnp.where(unbounded, -jnp.inf, mean - half_width)
    upper = jnp.where(unbounded, jnp.inf, mean + half_width)
    return lower, upper


def ball_score(
    truth: Float[Array, "time *grid field"],
    mean: Float[Array, "time *grid field"],
    field_scale: Float[Array, " field"] | None = None,
) -> Float[Array, ""]:
    """Score of the ball: root mean square error of the whole trajectory.

        s = √ mean_{t,z,c} ((y − ȳ)/scale_c)²

    Its prediction set is a ball around the forecast, usually far smaller in volume than the band, but silent about
    where in the trajectory the error lies.

    Args:
      truth: observed trajectory y, shape (time, *grid, field).
      mean: centre ȳ of the forecast, shape (time, *grid, field).
      field_scale: positive unit of each field, shape (field,), so that fields of different units weigh alike; chosen
        before calibration, as the floor of `band_scale`. None leaves physical units.
    Returns:
      score, scalar [units of the field, or dimensionless]; infinity where the forecast is not a number.
    Raises:
      ValueError: the shapes differ.
    """
    require_same_shape(truth=truth, mean=mean)
    error = truth - mean if field_scale is None else (truth - mean) / field_scale
    score = root(jnp.mean(error**2))
    return jnp.where(jnp.isnan(score), jnp.inf, score)
