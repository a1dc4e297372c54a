"""Static record for fields that obey known equations, without an energy and, mostly, without time.

Where a `Structure` gives rates, `Equations` give residuals: arrays that vanish for the truth. Whatever trains on
residuals (loss, guidance, correction) sees this record alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from phdme_jax.numerics.grid import Grid
from phdme_jax.systems.priors import NO_PRIORS, Priors

Residuals = dict[str, Array]


class Sample(NamedTuple):
    """One example of the data: the fields to be generated, what is given (maybe no channels), and whether it counts."""

    fields: Float[Array, "*grid field"]
    condition: Float[Array, "*grid channel"]
    ok: Bool[Array, ""]


@dataclass(frozen=True)
class Equations:
    """Known equations of fields on a grid.

    A grid without axes is one point, whose fields are numbers.

    Attributes:
      name: name used in results.
      grid: static grid.
      fields: names of the channels that are generated, in order.
      units: unit of each.
      conditions: names of the channels that are given.
      cell_fields: names of fields that live in the cells between the nodes: the last entry along each axis is padding.
      residual: (fields, condition) -> what must vanish, by name, each of the shape (*grid) or ().
      draw: key -> one example that obeys them.
      resolve: (fields, condition) -> fields whose solution is computed anew from the others; None where there is none.
      num_solution: how many fields, the first ones, `resolve` computes.
      inequality: (fields, condition) -> what must not be positive; None without.
      objective: (fields, condition) -> what should be small, a number; None without.
      solved_objective: (fields, condition) -> what should be small once the solution is computed anew, a number that
        does not read the solution given and whose slope in the other fields is the true one; None without.
      unseen: the residual by other stencils, for scores alone: no method is shown it; None without.
      published: the residual as published code computes it where that is another and wrong, for comparisons; None
        without.
      conserved: (fields, condition) -> what must vanish because something is conserved, in the units of the first
        field: means over the places of a frame, less that of the first frame and what came in since, by the sums of the
        scheme that made the data; None without.
      affine_conserved: whether `conserved` is affine in the fields.
      priors: what else is known of the examples: symmetries, feasibilities, invariants.
      time_axis: of the grid, where it is known to have one.
      given_frames: how many of the first frames the condition holds, see `systems.given_frames`.
      periodic_axes: of the grid, along which the point after the last one is the first; empty where it is not known.
      particles: whether the fields are positions and velocities of particles, see `systems.particles.base`.
    """

    name: str
    grid: Grid
    fields: tuple[str, ...]
    units: tuple[str, ...]
    residual: Callable[[Array, Array], Residuals]
    draw: Callable[[Array], Sample]
    conditions: tuple[str, ...] = ()
    cell_fields: tuple[str, ...] = ()
    resolve: Callable[[Array, Array], Array] | None = None
    num_solution: int = 1
    inequality: Callable[[Array, Array], Array] | None = None
    objective: Callable[[Array, Array], Array] | None = None
    solved_objective: Callable[[Array, Array], Array] | None = None
    unseen: Callable[[Array, Array], Residuals] | None = None
    published: Callable[[Array, Array], Residuals] | None = None
    conserved: Callable[[Array, Array], Array] | None = None
    affine_conserved: bool = False
    priors: Priors = NO_PRIORS
    time_axis: int | None = None
    given_frames: int = 0
    periodic_axes: tuple[int, ...] = ()
    particles: bool = False

    @property
    def offers(self) -> frozenset[str]:
        """Parts that are there: "residual", "map" (fields beside the solution, from which it can be predicted),
        "given_frames" and "particles" where there are any, "periodic" where all axes but that of time are, "resolve",
        "inequality", "objective", "solved_objective" and "conserved" where the functions of these names are, and what
        its priors offer."""
        optional = ("resolve", "inequality", "objective", "solved_objective", "conserved")
        found = {name for name in optional if getattr(self, name) is not None} | self.priors.offers
        found |= {"map"} if len(self.fields) > self.num_solution else set()
        found |= {name for name in ("given_frames", "particles") if getattr(self, name)}
        space = {axis for axis in range(len(self.grid.points)) if axis != self.time_axis}
        found |= {"periodic"} if space and space <= set(self.periodic_axes) else set()
        return frozenset(found | {"residual"})


def unconditional(fields: Float[Array, "*grid field"]) -> Sample:
    """An example of equations without conditions, which counts where it is finite."""
    return Sample(fields, jnp.zeros((*fields.shape[:-1], 0), fields.dtype), jnp.all(jnp.isfinite(fields)))


def uniform_unless(fixed: float | None, bounds: tuple[float, float], key: Array) -> Float[Array, ""]:
    """A parameter of an example: what it is fixed to, or drawn evenly between bounds."""
    drawn = jax.random.uniform(key, (), minval=bounds[0], maxval=bounds[1])
    return drawn if fixed is None else jnp.full_like(drawn, fixed)


def without_padding(equations: Equations, fields: Any, name: str) -> Any:
    """One field of many examples (sample, *grid, field), of JAX or NumPy, at the places where it lives."""
    values = fields[..., equations.fields.index(name)]
    inner = slice(None, -1) if name in equations.cell_fields else slice(None)
    return values[(slice(None), *[inner] * len(equations.grid.points))]


def stacked_residual(
    equations: Equations, fields: Float[Array, "*grid field"], condition: Float[Array, "*grid channel"]
) -> Float[Array, "*grid equation"]:
    """All residuals side by side, each in the units of its equation.

    Args:
      equations: the equations.
      fields: fields in physical units.
      condition: what is given.
    Returns:
      residuals, last axis in the order of their names' appearance.
    """
    return stacked(equations.residual(fields, condition))


def stacked(residuals: Residuals) -> Float[Array, "*grid equation"]:
    """Residuals side by side, in the order of their names' appearance."""
    return jnp.stack(list(residuals.values()), axis=-1)
