"""Slices of a learned energy: the effort of each field along its own axis."""

import jax
import jax.numpy as jnp
import numpy as np

from phdme_jax.app.drawing import EffortSlice
from phdme_jax.methods.base import Fitted
from phdme_jax.systems.energy.base import Density

LEVELS = np.linspace(0.1, 0.95, 18)


def effort_slices(
    fitted: Fitted, density: Density | None, states: np.ndarray, labels: tuple[str, ...]
) -> list[EffortSlice]:
    """Learned effort of each field along its own axis, the other fields at rest, with the posterior's deviation.

    Args:
      fitted: a learned energy.
      density: true energy density of one point, or None.
      states: observed states, for the range of the data.
      labels: name of each field with its unit.
    Returns:
      one slice per field.
    """
    dynamics, rest, slices = fitted.model.dynamics, np.asarray(fitted.params.mean.box.centre), []
    assert dynamics is not None and dynamics.efforts is not None
    for field, label in enumerate(labels):
        low, high = states[..., field].min(), states[..., field].max()
        line = rest[field] + 1.25 * np.linspace(low - rest[field], high - rest[field], 161)
        points = jnp.broadcast_to(rest, (line.size, len(labels))).at[:, field].set(jnp.asarray(line))
        mean, deviation = (np.asarray(values[:, field]) for values in dynamics.efforts(fitted.params, points))
        truth = None if density is None else jax.vmap(jax.grad(density))(points)[:, field]
        slices.append(EffortSlice(line, mean, deviation, truth, (low, high), label, f"effort of {label}"))
    return slices
