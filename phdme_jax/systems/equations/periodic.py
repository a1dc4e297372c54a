"""What equations of one field on (x, time), periodic in x, have in common: initial states, translations, the mean.

    u(x, 0) = +-s sum of two A sin(2 pi (n x + p)),   n among 1, 2, ..., A and p uniform on [0, 1], the sign at random

Of one state in ten the absolute value is taken, and one in ten is cut to a window between places uniform on [0.1, 0.45]
and [0.55, 0.9], s = (tanh((x - left) / 0.01) - tanh((x - right) / 0.01)) / 2, else s = 1.

PDEBench's windows stand where these bounds say; here they are moved by a random part of the circle, without which
translations would not leave the law as it is. Its waves have the length of the domain less one cell, waves that were
not drawn add constants, a wave drawn twice is one of twice the number, and the same random numbers serve several
purposes: here they do not. Its function draws n among the first eight unless it is told otherwise, as it is by the
published programs for advection and Burgers' equation, which ask for four.
Source: Takamoto et al. (2022), arXiv 2210.07182; github.com/pdebench/PDEBench, pdebench/data_gen/data_gen_NLE/utils.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from phdme_jax.numerics.bound import Bound
from phdme_jax.systems.priors import Symmetry

RECTIFIED, WINDOWED = 0.1, 0.1  # shares of the states
LEFTS, RIGHTS, WIDTH = (0.1, 0.45), (0.55, 0.9), 0.01


def random_waves(num_points: int, highest_wave: int, key: Array) -> Float[Array, "x"]:
    """A random initial state at evenly spaced places on [0, 1).

    Args:
      num_points: places.
      highest_wave: largest number n of a wave.
      key: random key.
    Returns:
      u(x, 0), within two of zero.
    """
    of_number, of_wave, of_sign, of_kind, of_window = jax.random.split(key, 5)
    place = np.arange(num_points) / num_points
    number = jax.random.randint(of_number, (2,), 1, highest_wave + 1)
    amplitude, phase = jax.random.uniform(of_wave, (2, 2))
    waves = amplitude @ jnp.sin(2 * np.pi * (number[:, None] * place + phase[:, None]))
    rectified, windowed = jax.random.uniform(of_kind, (2,))
    left, right, shift = jax.random.uniform(of_window, (3,))
    left, right = (low + one * (high - low) for one, (low, high) in ((left, LEFTS), (right, RIGHTS)))
    within = jnp.mod(place - shift, 1.0)
    window = 0.5 * (jnp.tanh((within - left) / WIDTH) - jnp.tanh((within - right) / WIDTH))
    values = jnp.where(rectified < RECTIFIED, jnp.abs(waves), waves) * jax.random.rademacher(of_sign, ())
    return values * jnp.where(windowed < WINDOWED, window, 1.0)


def frame_means(fields: Float[Array, "x time 1"], condition: Array) -> Float[Array, "time"]:
    """Mean of each frame."""
    del condition
    return jnp.mean(fields[..., 0], axis=0)


def mean_changes(fields: Float[Array, "x time 1"], condition: Array) -> Float[Array, "later"]:
    """Mean of each later frame less that of the first."""
    mean = frame_means(fields, condition)
    return mean[1:] - mean[0]


def with_one_mean(fields: Float[Array, "x time 1"], condition: Array) -> Float[Array, "x time 1"]:
    """The nearest fields whose frames have one mean, that of all of them."""
    mean = frame_means(fields, condition)
    return fields + (jnp.mean(mean) - mean)[:, None]


def translations(num_points: int) -> Symmetry:
    """Translations of all frames alike by whole places."""
    return Symmetry("cyclic translations", Bound(_draw_shift, num_points), _translate)


def _draw_shift(num_points: int, key: Array) -> Int[Array, ""]:
    return jax.random.randint(key, (), 0, num_points)


def _translate(shift: Int[Array, ""], fields: Array, condition: Array) -> tuple[Array, Array]:
    return jnp.roll(fields, shift, axis=0), jnp.roll(condition, shift, axis=0)
