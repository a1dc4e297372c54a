"""Arrays at the edges of their range and type: quotients and roots at zero, mixed types, caches nobody may change."""

from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

Function = TypeVar("Function", bound=Callable[..., Any])
Instants = Sequence[float] | np.ndarray | Array


def ratio(numerator: Float[Array, "*shape"], denominator: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Quotient with 0/0 = 0: nothing to explain and nothing missed is no error."""
    return jnp.where(numerator == 0, 0, numerator / jnp.where(numerator == 0, 1, denominator))


def root(square: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Square root, clipped at zero, with slope zero there, so that a distance has a slope where two things coincide."""
    nothing = square <= 0
    return jnp.where(nothing, 0, jnp.sqrt(jnp.where(nothing, 1, square)))


def require_same_shape(**arrays: Array) -> None:
    """Refuse silent broadcasting between arrays that must have one shape.

    Raises:
      ValueError: the shapes differ.
    """
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"expected one shape for {', '.join(shapes)}, got {shapes}; vmap over trajectories.")


def require_steps(count: int, name: str = "num_steps") -> None:
    """Refuse to go somewhere in no step.

    Raises:
      ValueError: fewer than one.
    """
    if count < 1:
        raise ValueError(f"expected {name} >= 1, got {count}")


def one_type(*trees: PyTree) -> tuple[PyTree, ...]:
    """The same trees with all leaves of the floating type that holds them all; whole numbers become floating ones.

    >>> [leaf.dtype.name for leaf in one_type(jnp.ones(2, "int32"), jnp.ones(2, "float32"))]
    ['float32', 'float32']
    """
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*jax.tree.leaves(trees))
        dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(dtype, float)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), trees)


def static_times(times: Instants) -> tuple[float, ...]:
    """Times as a tuple of floats, which is hashable: what compiled programs and caches are kept by."""
    return tuple(np.asarray(times, float).tolist())


def cached_arrays(function: Function) -> Function:
    """Keep NumPy arrays that a function of hashable arguments returns, read-only: all readers share them."""

    @lru_cache
    @wraps(function)
    def kept(*arguments: Any, **options: Any) -> Any:
        found = function(*arguments, **options)
        for array in jax.tree.leaves(found):
            array.setflags(write=False)
        return found

    return cast(Function, kept)
