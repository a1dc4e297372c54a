"""Slices of a learned energy: the effort of each field along its own axis."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phdme_jax.app.drawing import EffortSlice
from phdme_jax.gp import basis as gp_basis
from phdme_jax.methods.energy.prior import Prior

LEVELS = np.linspace(0.1, 0.95, 18)


def effort_slices(prior: Prior, density: Any, states: np.ndarray, labels: tuple[str, ...]) -> list[EffortSlice]:
    """Learned effort of each field along its own axis, the other fields at rest, with the posterior's deviation.

    Args:
      prior: the fitted energy.
      density: true energy density of one point, or None.
      states: observed states, for the range of the data.
      labels: name of each field with its unit.
    Returns:
      one slice per field.
    """
    posterior, slices = prior.posterior, []
    box = posterior.mean.box
    for field, label in enumerate(labels):
        low, high = states[..., field].min(), states[..., field].max()
        line = np.linspace(1.25 * low, 1.25 * high, 161)
        points = jnp.broadcast_to(box.centre, (line.size, len(labels))).at[:, field].set(jnp.asarray(line))
        features = gp_basis.feature_efforts(prior.basis, box, points)[:, field, : prior.basis.size]
        deviation = np.sqrt(np.sum(np.asarray(features @ posterior.factor) ** 2, axis=-1))
        mean = gp_basis.efforts(prior.basis, posterior.mean, points)[:, field]
        truth = None if density is None else jax.vmap(jax.grad(density))(points)[:, field]
        slices.append(EffortSlice(line, mean, deviation, truth, (low, high), label, f"effort of {label}"))
    return slices
