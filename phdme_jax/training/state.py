"""The train state and the optimiser that goes with it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree


class TrainState(NamedTuple):
    """All that a training run carries from one step to the next (a pytree of arrays).

    `step` counts the updates applied so far (int32); `params` and `ema_params` are parameters and their exponential
    moving average, leaf by leaf of the same shape, the average of single precision at least: in half precision a decay
    of 0.999 rounds to one; `opt_state` is optax's.
    """

    step: Int[Array, ""]
    params: PyTree
    opt_state: PyTree
    ema_params: PyTree


def init_train_state(params: PyTree, optimizer: optax.GradientTransformation) -> TrainState:
    """Starts a run at step 0 with the average equal to the parameters.

    Every leaf is copied: a compiled step may donate (overwrite) the buffers of the state, and the caller's `params`
    must survive that.

    Args:
      params: parameters of the network, a pytree of arrays.
      optimizer: optax transformation; its state is initialised here.

    Returns:
      the state before the first update.
    """
    owned = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params)
    average = jax.tree.map(lambda leaf: jnp.array(leaf, _wide(leaf), copy=True), params)
    return TrainState(jnp.zeros((), jnp.int32), owned, optimizer.init(owned), average)


def learning_rate_schedule(
    learning_rate: float, warmup_steps: int, total_steps: int, final_fraction: float = 0.0
) -> optax.Schedule:
    """Linear warm-up, then half a cosine.

        eta(k) = eta_max k / W,                                             k < W
        eta(k) = eta_max (f + (1 - f) (1 + cos(pi (k - W) / (N - W))) / 2), W <= k <= N

    Args:
      learning_rate: eta_max, the largest rate.
      warmup_steps: W; 0 starts at the largest rate.
      total_steps: N, the length of the run; the rate stays at its last value beyond.
      final_fraction: f, the last rate over the largest.

    Returns:
      the rate as a function of the step.

    Raises:
      ValueError: the warm-up is not shorter than the run.

    Source: Loshchilov and Hutter (2017), SGDR, eq. 5, without restarts.
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"expected 0 <= warmup_steps < total_steps, got warmup_steps={warmup_steps} and total_steps={total_steps}; "
            "try a warm-up of a twentieth of the run"
        )
    cosine = optax.cosine_decay_schedule(learning_rate, total_steps - warmup_steps, alpha=final_fraction)
    if warmup_steps == 0:
        return cosine
    return optax.join_schedules([optax.linear_schedule(0.0, learning_rate, warmup_steps), cosine], [warmup_steps])


def make_optimizer(
    learning_rate: float,
    warmup_steps: int,
    total_steps: int,
    clip_norm: float = 1.0,
    weight_decay: float = 0.0,
    final_fraction: float = 0.0,
    matrix_steps: bool = False,
) -> optax.GradientTransformation:
    """AdamW on gradients clipped by their global norm, with warm-up and cosine decay of the rate.

    With `matrix_steps`, matrices take orthogonalised steps instead (Muon), and AdamW with Nesterov momentum moves the
    rest; the small dense network of the propagator gets several times closer in as many steps, at rates near 0.02.

    Args:
      learning_rate: the largest rate, reached at the end of the warm-up.
      warmup_steps: steps of linear warm-up from zero.
      total_steps: length of the run in steps.
      clip_norm: gradients of a larger global norm are scaled down to it.
      weight_decay: decoupled decay, multiplied by the rate; acts on every parameter.
      final_fraction: the last rate over the largest.
      matrix_steps: whether parameters of two axes take orthogonalised steps.

    Returns:
      an optax transformation.

    Raises:
      ValueError: the warm-up is not shorter than the run, or `clip_norm` is not positive.

    Source: Loshchilov and Hutter (2019), Decoupled weight decay regularization, algorithm 2; Pascanu et al. (2013),
      algorithm 1, for the clipping; Jordan et al. (2024), Muon, for the orthogonalised steps.
    """
    if not clip_norm > 0:
        raise ValueError(f"expected clip_norm > 0, got {clip_norm}; try 1.0, or a huge value for no clipping")
    schedule = learning_rate_schedule(learning_rate, warmup_steps, total_steps, final_fraction)
    if matrix_steps:
        steps = optax.contrib.muon(schedule, weight_decay=weight_decay, adam_weight_decay=weight_decay)
    else:
        steps = optax.adamw(schedule, weight_decay=weight_decay)
    return optax.chain(optax.clip_by_global_norm(clip_norm), steps)


def update_average(average: PyTree, params: PyTree, step: Int[Array, ""], decay: float) -> PyTree:
    """One update of the exponential moving average, with a warm-up of the decay.

        a <- d a + (1 - d) p,   d = min(decay, (1 + k) / (10 + k))

    Args:
      average: the average so far.
      params: the newest parameters, of the same structure.
      step: k, the number of updates before this one.
      decay: limit of the decay for a long run; 0 makes the average the newest parameters.

    Returns:
      the new average, of single precision at least.

    Source: the warm-up is that of TensorFlow's ExponentialMovingAverage (num_updates).
    """

    def mix(old: Float[Array, "..."], new: Float[Array, "..."]) -> Float[Array, "..."]:
        old, new = (jnp.asarray(leaf, _wide(old)) for leaf in (old, new))
        count = step.astype(old.dtype)
        kept = jnp.minimum(decay, (1 + count) / (10 + count)).astype(old.dtype)
        return old * kept + new * (1 - kept)

    return jax.tree.map(mix, average, params)


def _wide(leaf: Array) -> Any:
    """The type of a leaf, or single precision where that is less."""
    return leaf.dtype if leaf.dtype.itemsize >= 4 else jnp.float32
