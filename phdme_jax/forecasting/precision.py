"""Double precision for the verbs of the product, whatever the process has set."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def in_double_precision(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Runs a function with 64-bit numbers and with products of all digits, and leaves JAX's settings as they were.

    The energy is fitted in double precision; networks ask for single precision themselves.
    """

    @functools.wraps(function)
    def wrapped(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with jax.enable_x64(True), jax.default_matmul_precision("float32"):
            return function(*args, **kwargs)

    return wrapped
