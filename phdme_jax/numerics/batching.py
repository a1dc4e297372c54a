"""Functions of one example applied to many: slices of one shape, one trace, threads on a CPU."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np


def in_chunks(function: Callable[..., Any], size: int, *trees: Any, workers: int = 1, fixed: bool = False) -> Any:
    """Apply a jitted function of many to slices of at most `size` along the first axis; one shape, one trace.

    Args:
      function: of trees of arrays with a leading axis.
      size: of a slice, see `slice_size` for fewer examples; the last one is filled up with copies of its last example.
      *trees: arguments, leaves with one leading axis.
      workers: more than one take as many slices at a time, each on its own thread.
      fixed: no smaller slices for few examples. The last bits of a value depend on the size of its slice, and training
        multiplies such differences: what is learned from keeps the size, so that the same run gives the same numbers.
    Returns:
      what the function gives for all, leaves of NumPy.
    """
    count = jax.tree.leaves(trees)[0].shape[0]
    size = size if fixed else slice_size(size, count)
    take = jax.tree.map(_entries, trees)

    def chunk(start: int) -> Any:
        index = np.minimum(np.arange(start, start + size), count - 1)
        part = trees if size == count else jax.tree.map(lambda entries: entries(index), take)
        values = function(*part)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: count - start], values)

    results, rest = [chunk(0)], range(size, count, size)  # the first one compiles
    if workers == 1:
        results += map(chunk, rest)
    else:
        pool = ThreadPoolExecutor(workers)
        try:
            results += pool.map(chunk, rest)
        finally:  # an interruption waits for the slices in hand alone
            pool.shutdown(cancel_futures=True)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *results)


def _entries(leaf: Any) -> Callable[[np.ndarray], Any]:
    """Takes some entries of a leaf; random keys on the host: their own indexing takes a millisecond a call."""
    if not (isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)):
        return lambda index: leaf[index]
    data, kind = np.asarray(jax.random.key_data(leaf)), jax.random.key_impl(leaf)
    return lambda index: jax.random.wrap_key_data(data[index], impl=kind)


def slice_size(size: int, count: int) -> int:
    """Examples of a slice: `size`, or the next power of two where there are fewer, so that shapes are few.

    >>> [slice_size(48, count) for count in (1, 2, 3, 33, 100)]
    [1, 2, 4, 48, 48]
    """
    return min(size, 1 << (count - 1).bit_length())


def chunk_size() -> int:
    """Examples at a time: few where networks are to stay in the caches of a CPU, many for an accelerator."""
    return 32 if jax.default_backend() == "cpu" else 256


def num_workers() -> int:
    """Threads that draw or solve examples: as many as this process has processors, one for an accelerator."""
    if jax.default_backend() != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_slice(count: int) -> int:
    """Examples a slice: on a CPU so few that every thread has several slices, many for an accelerator."""
    size = min(chunk_size(), count)
    return size if jax.default_backend() != "cpu" else max(1, min(size, count // (4 * num_workers())))


def for_many(one: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one example for many: one after the other on a CPU, whose caches hold one, else side by side."""
    if jax.default_backend() == "cpu":
        return jax.jit(lambda *examples: jax.lax.map(lambda example: one(*example), examples))
    return jax.jit(jax.vmap(one))


@lru_cache
def batched(function: Callable[..., Any], *static: Any) -> Callable[[Any, Any], Any]:
    """(parameters, batch) -> function(*static, parameters, example) of every example; jitted once for each function."""
    return jax.jit(jax.vmap(partial(function, *static), in_axes=(None, 0)))
