"""Scores of what should not change along a generated trajectory, of whatever equations."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from experiments.data.equations import FieldSet
from experiments.evaluation.equations import CHUNK, mean_measurement, median_measurement
from phdme_jax.app.rows import Measurement
from phdme_jax.numerics.batching import in_chunks
from phdme_jax.systems.equations.base import Equations


@lru_cache
def _deviations(equations: Equations) -> Callable[[Any, Any], Any]:
    """Root mean square of what each invariant deviates from its mean over frames, of many examples."""

    @jax.jit
    @jax.vmap
    def deviations(fields: Any, condition: Any) -> Any:
        found = (invariant(fields, condition) for _, invariant in equations.priors.invariants)
        return tuple(jnp.sqrt(jnp.mean((values - jnp.mean(values, axis=0)) ** 2)) for values in found)

    return deviations


def invariant_errors(equations: Equations, generated: FieldSet) -> dict[str, Measurement]:
    """NAME_error: root mean square over frames of what an invariant deviates from its mean over them.

    NAME_error_median is the same of the example in the middle: bodies that nearly meet make means heavy.

    Args:
      equations: with the invariants, maybe none.
      generated: fields and their conditions.
    Returns:
      measurements by name, means and medians over the examples.
    """
    names = [name for name, _ in equations.priors.invariants]
    if not names:
        return {}
    found = in_chunks(_deviations(equations), CHUNK, *generated)
    rows: dict[str, Measurement] = {}
    for name, values in zip(names, found, strict=True):
        rows |= {f"{name}_error": mean_measurement(values), f"{name}_error_median": median_measurement(values)}
    return rows
