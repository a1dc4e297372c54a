"""A Fourier neural operator from frame to frame, of fields on a ring whose first frames are given.

    z_{k+1} = z_k + Q v_L(z_k),   z the normalised frame; the last given frame is continued frame by frame

The operator is that of `fourier_operator`, which commutes with translations of the ring. It is trained on windows of
the examples in stages of (window, steps, batch, learning rate): steps of one frame first, then several in a row.
Source: Li et al. (2021), arXiv 2010.08895.
"""

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from phdme_jax.files import InputError
from phdme_jax.methods.base import Examples, Fitted, Host, Model, Options, Task, mean_model
from phdme_jax.methods.baselines.field_networks import train_windows, window_losses
from phdme_jax.methods.baselines.fourier_operator import FourierOperator, init_operator, operate
from phdme_jax.methods.energy.losses import Example
from phdme_jax.methods.energy.options import cut_windows
from phdme_jax.methods.equations.encoding import Encoding, decode, encode, fit_encoding
from phdme_jax.numerics.bound import Bound
from phdme_jax.systems.equations.base import Equations

Kinds = tuple[str, ...]


class FrameParams(NamedTuple):
    """Arrays of a forecaster of frames: encoding of the fields, and what its networks have learned."""

    encoding: Encoding
    network: PyTree


Continue = Callable[[FrameParams, Array, int], Array]
"""(params, frame (*space, field), number of frames) -> frames (time, *space, field), that one first; physical units."""


def ring_operator(name: str, equations: Equations, options: Options) -> FourierOperator:
    """The operator of equations on a ring.

    Args:
      name: of the method, for what is refused.
      equations: whose first frames are given.
      options: groups `data` and `baselines`: `fno` holds the sizes.
    Returns:
      the operator.
    Raises:
      InputError: no sizes or stages, or conditions beside the given frames, which no step is told.
    """
    if "fno" not in options.get("baselines", {}):
        raise InputError(f"{name} steps from frame to frame: it needs the sizes baselines.fno and stages; add them")
    if len(equations.conditions) > len(equations.fields) + 1:
        raise InputError(f"{name} is told frames alone, and {equations.name} has conditions beside them; leave it out")
    axes = len(equations.grid.points) - 1
    return FourierOperator(((0,) * axes,) * len(equations.fields), **options["baselines"]["fno"])


def encoded_frames(
    equations: Equations, kinds: Kinds, examples: Examples
) -> tuple[Encoding, Float[Array, "sample time *space field"]]:
    """Encoding of a training set in single precision, and its normalised frames, time before space."""
    fields = jnp.asarray(examples.fields)
    encoding = jax.tree.map(lambda leaf: leaf.astype("float32"), fit_encoding(fields, kinds))
    assert equations.time_axis is not None
    frames = jnp.moveaxis(encode(encoding, kinds, fields), 1 + equations.time_axis, 1)
    return encoding, frames.astype(encoding.scale.dtype)


def window_example(frames: Float[Array, "sample time *space field"]) -> Example:
    """Trajectories as the loss of windows takes them; without physics no weight is read."""
    one = (1,) * (frames.ndim - 2)
    return Example(frames, jnp.ones((len(frames), frames.shape[1] - 1, *one), frames.dtype), frames)


def frames_model(equations: Equations, continued: Continue) -> Model:
    """A model without a distribution that continues the last given frame; given frames come out as they are told.

    Args:
      equations: whose first frames are given.
      continued: how.
    Returns:
      the model, its parameters `FrameParams`; one call a frame.
    """
    axis, count, width = equations.time_axis, equations.given_frames, len(equations.fields)
    assert axis is not None
    later = equations.grid.points[axis] - count

    def prepare(params: FrameParams, condition: Float[Array, "*grid channel"]) -> Float[Array, "*grid field"]:
        told = jnp.moveaxis(condition[..., -1 - width : -1], axis, 0)
        known = told[:count].astype(params.encoding.scale.dtype)
        forecast = continued(params, known[-1], later + 1)
        return jnp.moveaxis(jnp.concatenate([known, forecast[1:]]), 0, axis)

    return dataclasses.replace(mean_model(prepare, ()), num_calls=later)


def _continued(config: FourierOperator, kinds: Kinds, params: FrameParams, frame: Array, num_frames: int) -> Array:
    start = encode(params.encoding, kinds, frame)
    return decode(params.encoding, kinds, operate(config, params.network, start, num_frames))


@lru_cache
def _model(equations: Equations, config: FourierOperator, kinds: Kinds) -> Model:
    return frames_model(equations, Bound(_continued, config, kinds))


def fit_ring_operator(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """A Fourier neural operator from frame to frame.

    Args:
      task: its problem is `Equations` on a ring whose first frames are given.
      options: groups `data` and `baselines`: `fno` (sizes), `stages.fno`, `start_noise` (of the first frame of a
        window, normalised units) and `ema_decay`.
      host: where it trains.
      teacher: none.
      key: of the method and seed.
    Returns:
      the fitted method, without a distribution, its parameters `FrameParams`.
    Raises:
      InputError: see `ring_operator`.
    """
    del teacher
    equations, group, kinds = task.problem, options.get("baselines", {}), tuple(options["data"]["kinds"])
    config = ring_operator("fno", equations, options)
    encoding, frames = encoded_frames(equations, kinds, task.train())
    init_key, train_key = jax.random.split(key)
    params: Any = init_operator(config, frames[0, 0], init_key)
    loss_of = window_losses(Bound(operate, config), frames.shape[1], group["start_noise"])
    windows = cut_windows(group["stages"]["fno"], frames.shape[1])
    params, seconds = train_windows(
        loss_of, windows, params, window_example(frames), group["ema_decay"], host, train_key
    )
    return Fitted(_model(equations, config, kinds), FrameParams(encoding, params), seconds)
