"""Many samples of many conditions from a fitted model: the pure functions of one example, batched and jitted once."""

import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from phdme_jax.methods.base import Fitted, Model
from phdme_jax.numerics.batching import chunk_size, for_many, in_chunks, num_workers


class Draws(NamedTuple):
    """What a model drew for some conditions, physical units.

    Attributes:
      mean: that samples are drawn around, float64; None where there is none.
      samples: (n, sample, ...), float64; None for a method without a distribution.
      ok: per condition, whether all is finite.
      seconds: wall time a sample, compilation included.
    """

    mean: Float[np.ndarray, "n ..."] | None
    samples: Float[np.ndarray, "n sample ..."] | None
    ok: np.ndarray
    seconds: float

    def finished(self, model: Model, condition: PyTree) -> "Draws":
        """With what follows a draw done, see `Model.finish`; on a CPU one example after the other on every thread."""
        if model.finish is None or self.samples is None:
            return self
        began, (count, num_samples) = time.perf_counter(), self.samples.shape[:2]
        flat = self.samples.reshape(count * num_samples, *self.samples.shape[2:])
        asked = jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf, np.float64), num_samples, axis=0), condition)
        finished = in_chunks(_finisher(model.finish), chunk_size(), flat, asked, workers=num_workers())
        seconds = (time.perf_counter() - began) / len(flat)
        samples = np.asarray(finished, np.float64).reshape(self.samples.shape)
        return _checked(self.mean, samples, self.seconds + seconds)


@lru_cache
def _finisher(finish: Callable[[Array, Array], Array]) -> Callable[..., Any]:
    return for_many(finish)


class _Programs(NamedTuple):
    prepare: Callable[..., Any]
    mean: Callable[..., Any] | None
    draw: Callable[..., Any] | None


@lru_cache
def _programs(model: Model) -> _Programs:
    """Jitted for many conditions; the same model is traced once."""

    def one(params: PyTree, prepared: PyTree, key: Array) -> Array:
        assert model.latent is not None
        return model.draw(params, prepared, model.latent(key), key)

    many = jax.vmap(jax.vmap(one, in_axes=(None, None, 0)), in_axes=(None, 0, 0))
    return _Programs(
        jax.jit(jax.vmap(model.prepare, in_axes=(None, 0))),
        None if model.mean is None else jax.jit(jax.vmap(model.mean, in_axes=(None, 0))),
        None if model.latent is None else jax.jit(many),
    )


def prepare(fitted: Fitted, condition: PyTree) -> PyTree:
    """What all samples of each condition share, leaves with a leading axis."""
    programs = _programs(fitted.model)
    return in_chunks(partial(programs.prepare, fitted.params), 2 * chunk_size(), condition)


def means(fitted: Fitted, prepared: PyTree) -> np.ndarray | None:
    """What samples of each condition are drawn around, float64; None where there is none."""
    programs = _programs(fitted.model)
    if programs.mean is None:
        return None
    return np.asarray(in_chunks(partial(programs.mean, fitted.params), 2 * chunk_size(), prepared), np.float64)


def samples(fitted: Fitted, prepared: PyTree, num_samples: int, key: Key[Array, ""]) -> np.ndarray | None:
    """Samples of each condition, (n, sample, ...), float64; None for a method without a distribution."""
    programs = _programs(fitted.model)
    if programs.draw is None:
        return None
    count = jax.tree.leaves(prepared)[0].shape[0]
    keys = jax.random.split(key, (count, num_samples))
    size = max(1, chunk_size() // num_samples)

    def drawn(prepared: PyTree, keys: Array) -> np.ndarray:
        assert programs.draw is not None
        return np.asarray(programs.draw(fitted.params, prepared, keys), np.float64)  # a slice fits into the caches

    return np.asarray(in_chunks(drawn, size, prepared, keys))


def draw_forecasts(fitted: Fitted, condition: PyTree, num_samples: int, key: Key[Array, ""]) -> Draws:
    """Mean and samples of each condition.

    Args:
      fitted: the method.
      condition: leaves with a leading axis.
      num_samples: of each condition.
      key: random key.
    Returns:
      what was drawn; not finite values are zeros, and told by `ok`.
    """
    began = time.perf_counter()
    prepared = prepare(fitted, condition)
    mean = means(fitted, prepared)
    drawn = samples(fitted, prepared, num_samples, key)
    count = jax.tree.leaves(prepared)[0].shape[0] * (1 if drawn is None else num_samples)
    return _checked(mean, drawn, (time.perf_counter() - began) / count)


def compile_draws(fitted: Fitted, condition: PyTree, num_samples: int, key: Key[Array, ""]) -> None:
    """Draw one slice, so that the seconds of later draws of as many conditions have no compilation in them."""
    prepared = prepare(fitted, condition)
    one = max(1, chunk_size() // num_samples)
    means(fitted, prepared)
    samples(fitted, jax.tree.map(lambda leaf: leaf[:one], prepared), num_samples, key)


def _checked(mean: np.ndarray | None, drawn: np.ndarray | None, seconds: float) -> Draws:
    found = [values for values in (mean, drawn) if values is not None]
    ok = np.all([np.isfinite(values).all(axis=tuple(range(1, values.ndim))) for values in found], axis=0)
    if not ok.all():
        mean, drawn = (None if values is None else np.nan_to_num(values) for values in (mean, drawn))
    return Draws(mean, drawn, ok, seconds)
