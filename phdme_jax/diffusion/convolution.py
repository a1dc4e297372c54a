"""Convolutions whose gradients are as fast inside a compiled loop as outside.

XLA's gradient of a convolution by its inputs is one with a kernel whose channels are swapped by name alone. On a CPU
such a one is slow inside `lax.scan`, and samplers that follow a gradient through a network are such loops. Here the
kernel is transposed beforehand, which makes such loops 9 to 23 times as fast (`python -m benchmarks.run --only
gradient_loop`), and a convolution of blocks is the matrix product that it is. Gradients by the kernel are matrix
products too: XLA's own are grouped convolutions where examples are mapped, several times as slow.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def convolve(
    inputs: Array, kernel: Array, strides: Sequence[int], padding: Any, *, dimension_numbers: Any, **others: Any
) -> Array:
    """`lax.conv_general_dilated` of channels-last convolutions, for the attribute of that name of `flax.linen.Conv`.

    On a CPU with gradients as above, of reverse mode alone: forward mode raises TypeError there.

    Raises:
      NotImplementedError: inputs with gaps; on a CPU also steps that are neither one nor the window.
    """
    gaps = others.get("lhs_dilation") or ()
    if any(step != 1 for step in gaps):
        raise NotImplementedError(f"expected inputs without gaps, got {gaps}; try jax.lax.conv_general_dilated")
    if jax.default_backend() != "cpu":
        return jax.lax.conv_general_dilated(
            inputs, kernel, strides, padding, dimension_numbers=dimension_numbers, **others
        )
    window, precision = kernel.shape[:-2], others.get("precision")
    apart = tuple(others.get("rhs_dilation") or (1,) * len(window))
    if tuple(strides) == window and padding == "VALID" and set(apart) == {1}:
        return _of_blocks(inputs, kernel, precision)
    if set(strides) != {1} or (padding == "SAME" and any(size % 2 == 0 for size in window)):
        raise NotImplementedError(f"expected steps of one and odd windows, or blocks, got {tuple(strides)}, {window}")
    pads = tuple(step * (size - 1) // 2 if padding == "SAME" else 0 for size, step in zip(window, apart, strict=True))
    return _of_windows(pads, apart, precision)(inputs, kernel)


def _of_blocks(inputs: Array, kernel: Array, precision: Any) -> Array:
    """Blocks side by side, each a product with the whole kernel; what is left over at the ends is cut off."""
    window, axes = kernel.shape[:-2], range(len(kernel.shape) - 2)
    counts = [size // block for size, block in zip(inputs.shape[1:-1], window, strict=True)]
    cut = inputs[(slice(None), *(slice(count * block) for count, block in zip(counts, window, strict=True)))]
    split = cut.reshape(len(cut), *(n for pair in zip(counts, window, strict=True) for n in pair), inputs.shape[-1])
    order = (0, *(1 + 2 * axis for axis in axes), *(2 + 2 * axis for axis in axes), split.ndim - 1)
    rows = split.transpose(order).reshape(len(cut), *counts, math.prod(kernel.shape[:-1]))
    return jnp.matmul(rows, kernel.reshape(-1, kernel.shape[-1]), precision=precision)


@lru_cache
def _of_windows(pads: tuple[int, ...], apart: tuple[int, ...], precision: Any) -> Callable[[Array, Array], Array]:
    spatial = "HWD"[: len(pads)]
    numbers = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")

    def plain(inputs: Array, kernel: Array, around: Sequence[int]) -> Array:
        both = [(pad, pad) for pad in around]
        sizes: Any = {"window_strides": (1,) * len(both), "padding": both, "rhs_dilation": apart}
        return jax.lax.conv_general_dilated(inputs, kernel, **sizes, dimension_numbers=numbers, precision=precision)

    def backward(kept: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
        inputs, kernel = kept
        transposed = jnp.flip(kernel, range(len(pads))).swapaxes(-1, -2)
        window = kernel.shape[: len(pads)]
        around = [step * (size - 1) - pad for size, pad, step in zip(window, pads, apart, strict=True)]
        return plain(slope, transposed, around), _by_kernel(inputs, slope, window, pads, apart, precision)

    convolution = jax.custom_vjp(lambda inputs, kernel: plain(inputs, kernel, pads))
    convolution.defvjp(lambda inputs, kernel: (plain(inputs, kernel, pads), (inputs, kernel)), backward)
    return convolution


def _by_kernel(
    inputs: Array, slope: Array, window: Sequence[int], pads: Sequence[int], apart: Sequence[int], precision: Any
) -> Array:
    """Gradient by the kernel: one product with the shifts of what has fewer channels, inputs or slope, side by side.

    dk[e] = sum_p x[p + d e - pad] s[p] = sum_q x[q] s[q + pad - d e],   d the distance of the window's places
    """
    axes = tuple(range(len(inputs.shape) - 1))

    def product(first: Array, last: Array) -> Array:
        return jnp.tensordot(first, last, (axes, axes), precision=precision)

    if inputs.shape[-1] < slope.shape[-1]:
        found = product(_shifts(inputs, window, pads, apart, slope.shape), slope)
        return found.reshape(*window, inputs.shape[-1], -1)
    around = [step * (size - 1) - pad for size, pad, step in zip(window, pads, apart, strict=True)]
    found = product(inputs, _shifts(slope, window, around, apart, inputs.shape))
    found = found.reshape(-1, *window, slope.shape[-1])
    return jnp.moveaxis(jnp.flip(found, range(1, 1 + len(window))), 0, -2)


def _shifts(
    fields: Array, window: Sequence[int], pads: Sequence[int], apart: Sequence[int], shape: Sequence[int]
) -> Array:
    """Fields at every place of the window around each place of a grid of a shape, side by side."""
    wide = jnp.pad(fields, [(0, 0), *((pad, pad) for pad in pads), (0, 0)])
    places = itertools.product(*(range(0, step * size, step) for size, step in zip(window, apart, strict=True)))
    return jnp.concatenate(
        [
            wide[(slice(None), *(slice(at, at + size) for at, size in zip(place, shape[1:-1], strict=True)))]
            for place in places
        ],
        axis=-1,
    )
