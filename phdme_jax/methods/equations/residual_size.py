"""The size of each residual: in units of it one weight serves all problems and grids."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from phdme_jax.methods.base import Task
from phdme_jax.methods.equations.constraints import residual_of
from phdme_jax.methods.equations.network import EncodedExample, EquationNetwork, Given, Params, encode_examples

PROBES = 32  # examples that it is measured on


def with_residual_scale(net: EquationNetwork, params: Params, task: Task, key: Key[Array, ""]) -> Params:
    """Parameters with the sizes of the residuals at examples of a task, where they have none yet."""
    if params.residual_scale is not None:
        return params
    examples = task.train()
    few = examples._replace(fields=examples.fields[:PROBES], condition=examples.condition[:PROBES])
    return params._replace(residual_scale=residual_scale(net, encode_examples(net, params, few), key))


def residual_scale(net: EquationNetwork, examples: EncodedExample, key: Key[Array, ""]) -> Float[Array, "equation"]:
    """Root mean square of each residual at fields that are as smooth as the data and obey nothing.

    Of these fields each channel is the middle of those of two examples, and other ones than the next channel's: a
    wholly wrong answer has a scaled residual of about one on every grid. Where such fields obey an equation all the
    same, such as values on an edge, it is what white noise of the size of the data adds.

    Args:
      net: holds the equations.
      examples: true ones, leaves with a leading axis.
      key: of the noise.
    Returns:
      the size of each residual, physical units; one for those that never change.
    """
    fields = examples.fields
    channels = [0.5 * (jnp.roll(fields, c, 0) + jnp.roll(fields, c + 1, 0))[..., c] for c in range(fields.shape[-1])]
    mixed = jnp.stack(channels, axis=-1)
    noisy = fields + jax.random.normal(key, fields.shape, fields.dtype)

    def squares(of: Array) -> Array:
        def one(point: Array, given: Given) -> Array:
            found = residual_of(net.equations, net.kinds, given.encoding, given.condition)(point)
            return jnp.mean(found**2, axis=tuple(range(found.ndim - 1)))

        return jnp.mean(jax.vmap(one)(of, examples.given), axis=0)

    smooth, rough = squares(mixed), squares(noisy)
    chosen = jnp.where(smooth > 1e-12 * rough, smooth, rough)
    return jnp.sqrt(jnp.where(chosen > 0, chosen, 1.0))


def scaled_residual(net: EquationNetwork, given: Given, scale: Array, detached: bool) -> Callable[[Array], Array]:
    """Normalised fields -> mean over equations and places of (r / s)^2."""
    residual = residual_of(net.equations, net.kinds, given.encoding, given.condition, detached)
    return lambda fields: jnp.mean((residual(fields) / scale) ** 2)
