"""Noise and the example that a teacher's flow makes of it: what a student learns from."""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from phdme_jax.diffusion.flow import carry_noise
from phdme_jax.methods.base import Fitted, Task
from phdme_jax.methods.equations import network as shared
from phdme_jax.methods.equations.encoding import decode, encode
from phdme_jax.methods.equations.flow import make_velocity
from phdme_jax.methods.equations.network import EquationNetwork, Given, Params
from phdme_jax.numerics.batching import for_many

CHUNK = 64


class Pair(NamedTuple):
    """One example of a student, normalised units; leaves may have a leading axis."""

    noise: Float[Array, "*grid field"]
    fields: Float[Array, "*grid field"]
    given: Given


def carried(net: EquationNetwork, num_calls: int, params: Params, condition: Array, noise: Array) -> Array:
    """Normalised fields that the teacher's flow carries noise to."""
    prepared = shared.make_prepare(net)(params.network, shared.give(params, condition))
    return carry_noise(make_velocity(net)(params.network, prepared), noise, num_calls)


def make_pairs(
    net: EquationNetwork, teacher: Fitted, task: Task, count: int, num_calls: int, key: Key[Array, ""]
) -> Mapping[str, Any]:
    """Pairs of a flow-matching teacher, conditions drawn as the task draws them.

    Args:
      net: the teacher's network.
      teacher: what was fitted; its parameters are a `Params`.
      task: gives the conditions.
      count: of pairs.
      num_calls: of the teacher, a pair.
      key: random key.
    Returns:
      arrays noise and fields (count, *grid, field), condition (count, *grid, channel), and seconds, compilation apart.
    """
    condition_key, noise_key = jax.random.split(key)
    condition = jnp.asarray(task.starts(condition_key, count))
    carry = jax.jit(jax.vmap(partial(carried, net, num_calls), in_axes=(None, 0, 0)))
    keys = jax.random.split(noise_key, count)
    noise = jax.vmap(lambda one: jax.random.normal(one, net.shape, net.dtype))(keys)
    size, parts, began = min(CHUNK, count), [], 0.0
    for start in range(0, count, size):
        index = np.minimum(np.arange(start, start + size), count - 1)  # one shape, one trace
        part = teacher.params, condition[index], noise[index]
        if start == 0:  # compiles
            jax.block_until_ready(carry(*part))
            began = time.perf_counter()
        parts.append(carry(*part))
    fields = jax.block_until_ready(jnp.concatenate(parts)[:count])
    seconds = time.perf_counter() - began
    return {"noise": noise, "fields": fields, "condition": condition, "seconds": np.asarray(seconds)}


def solved(net: EquationNetwork, params: Params, made: Mapping[str, Any]) -> Mapping[str, Any]:
    """Pairs whose solutions are computed anew from what else the teacher made, in double precision.

    Args:
      net: the teacher's network.
      params: encodings of the fields.
      made: what `make_pairs` returned.
    Returns:
      the pairs; seconds of the solutions, compilation apart, are added.
    Raises:
      ValueError: equations without a solution to compute.
    """
    equations = net.equations
    if equations.resolve is None:
        raise ValueError(f"expected equations whose solution can be computed anew, got {equations.name}")
    solve = equations.resolve

    def one(fields: Array, condition: Array) -> Array:
        physical = decode(params.fields, net.kinds, fields.astype(float))
        return encode(params.fields, net.kinds, solve(physical, condition.astype(float))).astype(net.dtype)

    anew, began = for_many(one), 0.0
    fields, condition, parts = jnp.asarray(made["fields"]), jnp.asarray(made["condition"]), []
    for start in range(0, len(fields), CHUNK):
        index = np.minimum(np.arange(start, start + CHUNK), len(fields) - 1)  # one shape, one trace
        if start == 0:  # compiles
            jax.block_until_ready(anew(fields[index], condition[index]))
            began = time.perf_counter()
        parts.append(anew(fields[index], condition[index]))
    found = jax.block_until_ready(jnp.concatenate(parts)[: len(fields)])
    seconds = made["seconds"] + (time.perf_counter() - began)
    return {**made, "fields": found, "seconds": seconds}


def encoded(params: Params, pairs: Mapping[str, Any]) -> Pair:
    """Pairs as a student's loss takes them, leaves with a leading axis."""
    condition = jnp.asarray(pairs["condition"])
    given = shared.give(params, condition)
    many = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(condition), *leaf.shape)), given.encoding)
    return Pair(jnp.asarray(pairs["noise"]), jnp.asarray(pairs["fields"]), given._replace(encoding=many))
