"""Bytes of compiled functions whose buffers are known."""

import jax
import jax.numpy as jnp

from phdme_jax.training.memory import peak_bytes


def test_bytes_are_those_of_arguments_results_and_what_is_in_between():
    numbers = jnp.arange(1000.0)
    size = numbers.nbytes
    plain = jax.jit(lambda x: x + 1.0).lower(numbers).compile()
    assert peak_bytes(plain) == 2 * size
    in_place = jax.jit(lambda x: x + 1.0, donate_argnums=0).lower(numbers).compile()
    assert peak_bytes(in_place) == size
    sorted_rows = jax.jit(lambda x: jnp.sort(jnp.sin(x[:, None] * x), axis=0)[0]).lower(numbers).compile()
    assert peak_bytes(sorted_rows) >= (2 + 1000) * size
