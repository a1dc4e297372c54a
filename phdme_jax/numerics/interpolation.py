"""Values between samples in time."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def interpolate(
    times: Float[Array, "time"], values: Float[Array, "time *shape"], time: Float[Array, ""]
) -> Float[Array, "*shape"]:
    """Cubic Lagrange interpolation through the four samples nearest to the interval that holds a time.

    Fourth order; continuous; exact for cubics. Beyond the samples the last cubic goes on.

    Args:
      times: increasing sample times, at least four, even spacing not needed.
      values: samples.
      time: where to evaluate.
    Returns:
      value at the time.
    Raises:
      ValueError: fewer than four samples.
    """
    if times.shape[0] < 4:
        raise ValueError(f"expected at least four samples, got {times.shape[0]}")
    start = jnp.clip(jnp.searchsorted(times, time, side="right") - 2, 0, times.shape[0] - 4)
    nodes = times[start + jnp.arange(4)]
    gaps = nodes[:, None] - nodes[None, :] + jnp.eye(4, dtype=times.dtype)
    ratios = jnp.where(jnp.eye(4, dtype=bool), 1.0, (time - nodes[None, :]) / gaps)
    return jnp.tensordot(jnp.prod(ratios, axis=1), values[start + jnp.arange(4)], axes=1)
