"""What known equations ask of a clean example, as functions of normalised fields."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from phdme_jax.methods.equations.encoding import Encoding, decode
from phdme_jax.systems.equations.base import Equations, stacked_residual

OfExample = Callable[[Array], Array]


class Constraints(NamedTuple):
    """What is asked of a clean example in normalised units; functions that are None are left out.

    Attributes:
      residual: example -> what must vanish, physical units.
      inequality: example -> what must not be positive.
      objective: example -> a number that should be small.
    """

    residual: OfExample | None = None
    inequality: OfExample | None = None
    objective: OfExample | None = None


def residual_of(
    equations: Equations,
    kinds: tuple[str, ...],
    encoding: Encoding,
    condition: Float[Array, "*grid channel"],
    detached: bool = False,
) -> OfExample:
    """Residual of one example as a function of its normalised fields.

    Args:
      equations: the equations.
      kinds: encoding of each field.
      encoding: of the fields.
      condition: what is given, physical units.
      detached: whether no gradient goes to the fields beside the solution.
    Returns:
      fields (*grid, field) -> residuals (*grid, equation).
    """
    count = equations.num_solution

    def residual(point: Array) -> Array:
        fields = decode(encoding, kinds, point)
        if detached:
            fields = jnp.concatenate([fields[..., :count], jax.lax.stop_gradient(fields[..., count:])], axis=-1)
        return stacked_residual(equations, fields, condition)

    return residual


def make_constraints(
    equations: Equations,
    kinds: tuple[str, ...],
    encoding: Encoding,
    condition: Float[Array, "*grid channel"],
    detached: bool = False,
    solves_objective: bool = False,
) -> Constraints:
    """All that the equations ask of one example.

    Args:
      equations: the equations.
      kinds: encoding of each field.
      encoding: of the fields.
      condition: what is given, physical units.
      detached: whether the residual asks for another solution alone: no gradient goes to the other fields, whose
        distribution it would bend.
      solves_objective: whether the objective is that of the solution computed anew. That of the generated one, as
        published, does not see what a change of the other fields does to the solution.
    Returns:
      the constraints.
    Raises:
      ValueError: no solved objective where one is asked for.
    """
    if solves_objective and equations.solved_objective is None:
        raise ValueError(f"expected equations with a solved objective, got {equations.name}")
    objective = equations.solved_objective if solves_objective else equations.objective

    def decoded(function: Callable[[Array, Array], Array] | None) -> OfExample | None:
        return None if function is None else lambda point: function(decode(encoding, kinds, point), condition)

    residual = residual_of(equations, kinds, encoding, condition, detached)
    return Constraints(residual, decoded(equations.inequality), decoded(objective))


def conserved_of(
    equations: Equations, kinds: tuple[str, ...], encoding: Encoding, condition: Float[Array, "*grid channel"]
) -> OfExample | None:
    """What must vanish because something is conserved, as a function of one example's normalised fields.

        c(x) sqrt(places of a frame) / std of the first field

    so that slopes are about as long as those of values themselves, which stand beside it in a projection.

    Args:
      equations: the equations; where the last axis of their grid is not time the factor is a smaller one.
      kinds: encoding of each field.
      encoding: of the fields.
      condition: what is given, physical units.
    Returns:
      fields (*grid, field) -> what must vanish; None where nothing is conserved.
    """
    conserved = equations.conserved
    if conserved is None:
        return None
    factor = math.sqrt(math.prod(equations.grid.points[:-1])) / encoding.scale[0]
    return lambda point: factor * conserved(decode(encoding, kinds, point), condition)


def residual_gradient(residual: OfExample, noisy: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Gradient of the mean absolute residual at the noisy fields, scaled to a root mean square of one.

    Source: Shu, Li, Barati Farimani (2023), J. Comput. Phys. 478, section 3.3, there of a batch and not scaled.
    """
    gradient = jax.grad(lambda point: jnp.mean(jnp.abs(residual(point))))(noisy)
    return gradient / jnp.sqrt(jnp.mean(gradient**2) + 1e-12)
