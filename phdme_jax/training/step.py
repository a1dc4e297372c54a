"""One pure train step, and chunks of steps in a single compiled call."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from phdme_jax.training.state import TrainState, update_average

Metrics = dict[str, Array]
ExampleLoss = Callable[[PyTree, PyTree, Key[Array, ""]], tuple[Float[Array, ""], Metrics]]
TrainStep = Callable[[TrainState, PyTree, Key[Array, "batch"]], tuple[TrainState, Metrics]]
DrawBatch = Callable[[PyTree, Key[Array, ""], int | Int[Array, ""], int], PyTree]
TrainChunk = Callable[[TrainState, PyTree, Key[Array, ""]], tuple[TrainState, Metrics]]


class MixedData(NamedTuple):
    """Two datasets of one structure: plentiful generated examples and the few real ones."""

    synthetic: PyTree
    real: PyTree


def make_train_step(
    example_loss: ExampleLoss,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    axis_name: str | None = None,
    slices: int = 1,
) -> TrainStep:
    """Makes `train_step(state, batch, keys) -> (state, metrics)`, pure and free of devices.

    The gradient is that of the mean of `example_loss` over the batch. The metrics are the batch means of those of
    `example_loss`, and `loss`, `grad_norm` (global norm before clipping) and `finite`. Where `example_loss` returns
    several losses, their gradients are merged by `conflict_free`, and `loss` is their sum.

    A step whose loss or gradient norm is not finite changes nothing, *not even the step count*: the state keeps the
    last good values and its `step` names the update that failed. Draws depend on the step alone, so the steps after it
    in a chunk repeat the failure instead of training on; the host sees `finite` and stops.

    Args:
      example_loss: `(params, example, key) -> (loss, metrics)` for one example, the loss a number or, for
        `conflict_free`, a vector of two; every metric is a scalar.
      optimizer: optax transformation.
      ema_decay: limit of the decay of the average, see `update_average`.
      axis_name: name of a `pmap` or `vmap` axis over which gradients and metrics are averaged; None under `jit`, also
        with sharded arrays.
      slices: parts of the batch, one after the other, whose gradients are added up: the same but for rounding.

    Returns:
      the step; `batch` has a leading batch axis on every leaf, `keys` has shape (batch,).

    Raises:
      ValueError: at trace time, when `example_loss` returns a metric under a name that the step itself uses.
    """

    def slopes(params: PyTree, batch: PyTree, keys: Key[Array, "batch"]) -> tuple[Array, Metrics, list[PyTree]]:
        def batch_loss(params: PyTree) -> tuple[Array, Metrics]:
            losses, metrics = jax.vmap(example_loss, in_axes=(None, 0, 0))(params, batch, keys)
            return jnp.mean(losses, axis=0), {name: jnp.mean(value, axis=0) for name, value in metrics.items()}

        loss, pull_back, metrics = jax.vjp(batch_loss, params, has_aux=True)
        rows = jnp.eye(loss.size, dtype=loss.dtype).reshape(-1, *loss.shape)
        return loss, metrics, [pull_back(row)[0] for row in rows]

    def mean_slopes(params: PyTree, batch: PyTree, keys: Key[Array, "batch"]) -> tuple[Array, Metrics, list[PyTree]]:
        size = keys.shape[0] // slices
        parts = jax.tree.map(lambda leaf: leaf.reshape(slices, size, *leaf.shape[1:]), (batch, keys))
        shapes = jax.eval_shape(slopes, params, *jax.tree.map(lambda leaf: leaf[0], parts))
        zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

        def add(total: PyTree, part: PyTree) -> tuple[PyTree, None]:
            return jax.tree.map(jnp.add, total, slopes(params, *part)), None

        total, _ = jax.lax.scan(add, zero, parts)
        return jax.tree.map(lambda leaf: leaf / slices, total)

    def train_step(state: TrainState, batch: PyTree, keys: Key[Array, "batch"]) -> tuple[TrainState, Metrics]:
        loss, metrics, gradients = (slopes if slices == 1 else mean_slopes)(state.params, batch, keys)
        reserved = sorted({"loss", "grad_norm", "finite"} & set(metrics))
        if reserved:
            raise ValueError(f"example_loss returns metrics named {reserved}, which train_step itself reports; rename")
        if axis_name is not None:
            loss, metrics, gradients = jax.lax.pmean((loss, metrics, gradients), axis_name)
        gradients = gradients[0] if loss.ndim == 0 else conflict_free(*gradients)
        loss = jnp.sum(loss)
        norm = optax.global_norm(gradients)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        proposal = _apply(state, gradients, optimizer, ema_decay)
        state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), proposal, state)
        return state, {**metrics, "loss": loss, "grad_norm": norm, "finite": finite}

    return train_step


def conflict_free(first: PyTree, second: PyTree) -> PyTree:
    """One gradient that descends on two losses at the same rate in units of their gradients, however they conflict.

        g = (g_1 . d + g_2 . d) d,   d = U(U(g_1 - (g_1 . u_2) u_2) + U(g_2 - (g_2 . u_1) u_1)),   u_i = U(g_i)

    with U(x) = x / |x|, and zero for zero. Only the directions of the gradients decide that of g.

    Args:
      first: gradient of one loss.
      second: gradient of the other, of the same structure.
    Returns:
      the merged gradient.
    Source: Liu, Chu, Thuerey (2025), ConFIG, arXiv 2408.11104, eq. 5 to 7 for two losses.
    """
    tree = jax.tree.structure(first)

    def inner(left: PyTree, right: PyTree) -> Array:
        products = jax.tree.map(lambda a, b: jnp.sum(a * b), left, right)
        return jnp.sum(jnp.stack(jax.tree.leaves(products)))

    def unit(vector: PyTree) -> PyTree:
        norm = jnp.sqrt(inner(vector, vector))
        return jax.tree.map(lambda leaf: leaf / jnp.where(norm > 0.0, norm, 1.0), vector)

    def across(vector: PyTree, other: PyTree) -> PyTree:
        along = inner(vector, other)
        return jax.tree.map(lambda a, b: a - along * b, vector, other)

    units = unit(first), unit(second)
    parts = unit(across(units[0], units[1])), unit(across(units[1], units[0]))
    direction = unit(jax.tree.map(jnp.add, *parts))
    length = inner(first, direction) + inner(second, direction)
    return jax.tree.unflatten(tree, [length * leaf for leaf in jax.tree.leaves(direction)])


def _apply(
    state: TrainState, gradients: PyTree, optimizer: optax.GradientTransformation, ema_decay: float
) -> TrainState:
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average = update_average(state.ema_params, params, state.step, ema_decay)
    return TrainState(state.step + 1, params, opt_state, average)


def example_keys(key: Key[Array, ""], step: int | Int[Array, ""], batch_size: int) -> Key[Array, "batch"]:
    """One key per example of one step, the same whether or not the run was interrupted before it.

    Args:
      key: the run's key.
      step: number of updates before this one.
      batch_size: number of keys.

    Returns:
      keys, shape (batch,).
    """
    return jax.random.split(jax.random.fold_in(key, step), batch_size)


def draw_batch(dataset: PyTree, key: Key[Array, ""], step: int | Int[Array, ""], batch_size: int) -> PyTree:
    """Draws examples uniformly with replacement; a function of dataset, key and step alone.

    Args:
      dataset: pytree of arrays with one leading example axis.
      key: the run's key.
      step: number of updates before this one.
      batch_size: number of examples.

    Returns:
      the same structure with a leading axis of length `batch_size`.

    Raises:
      ValueError: the leaves disagree about the number of examples, or there is none.
    """
    return _gather(dataset, jax.random.fold_in(key, step), batch_size)


def make_mixed_draw(real_fraction: float) -> DrawBatch:
    """Makes a `draw_batch` whose dataset is a `MixedData`: a fixed share of every batch is real.

    The share is `round(real_fraction * batch_size)` examples, the last ones of the batch.

    Args:
      real_fraction: share of real examples, between 0 and 1.

    Returns:
      `draw(dataset, key, step, batch_size) -> batch`.

    Raises:
      ValueError: the share is not between 0 and 1; at trace time, when it rounds to none or all of the batch, or the
        two datasets differ in structure, shapes or dtypes.
    """
    if not 0 < real_fraction < 1:
        raise ValueError(
            f"expected 0 < real_fraction < 1, got {real_fraction}; for 0 or 1 use draw_batch on one dataset"
        )

    def draw(dataset: MixedData, key: Key[Array, ""], step: int | Int[Array, ""], batch_size: int) -> PyTree:
        num_real = round(real_fraction * batch_size)
        if not 0 < num_real < batch_size:
            raise ValueError(
                f"a share of {real_fraction} in a batch of {batch_size} is {num_real} real examples; "
                "try a larger batch or another share"
            )
        _require_same_examples(dataset.synthetic, dataset.real)
        synthetic_key, real_key = jax.random.split(jax.random.fold_in(key, step))
        synthetic = _gather(dataset.synthetic, synthetic_key, batch_size - num_real)
        real = _gather(dataset.real, real_key, num_real)
        return jax.tree.map(lambda first, second: jnp.concatenate([first, second]), synthetic, real)

    return draw


def step_inputs(
    draw: DrawBatch, dataset: PyTree, key: Key[Array, ""], step: int | Int[Array, ""], batch_size: int
) -> tuple[PyTree, Key[Array, "batch"]]:
    """The batch and the example keys of one step, from independent streams of the run's key.

    Args:
      draw: how examples are drawn, e.g. `draw_batch`.
      dataset: what `draw` draws from.
      key: the run's key.
      step: number of updates before this one.
      batch_size: number of examples.

    Returns:
      (batch, keys), the arguments of a train step after the state.
    """
    data_key, loss_key = jax.random.split(key)
    return draw(dataset, data_key, step, batch_size), example_keys(loss_key, step, batch_size)


def make_drawn_step(train_step: TrainStep, draw: DrawBatch, batch_size: int) -> TrainChunk:
    """Makes `drawn_step(state, dataset, key) -> (state, metrics)`: a step that draws its own batch.

    The result is that of `train_step(state, *step_inputs(draw, dataset, key, state.step, batch_size))`.

    Args:
      train_step: the step, see `make_train_step`.
      draw: how examples are drawn.
      batch_size: examples a step.

    Returns:
      the step; the dataset is an argument, which stays on the device from call to call.
    """

    def drawn_step(state: TrainState, dataset: PyTree, key: Key[Array, ""]) -> tuple[TrainState, Metrics]:
        batch, keys = step_inputs(draw, dataset, key, state.step, batch_size)
        # The barrier keeps the compiler from fusing the drawing into the step, which would round differently.
        return train_step(*jax.lax.optimization_barrier((state, batch, keys)))

    return drawn_step


def make_train_chunk(train_step: TrainStep, draw: DrawBatch, batch_size: int, num_steps: int) -> TrainChunk:
    """Makes `train_chunk(state, dataset, key) -> (state, metrics)`: several drawn steps in one compiled call.

    Equal to `num_steps` drawn steps bit for bit, except with convolutions on a CPU: inside a loop XLA compiles the
    weight gradient of a convolution without its fast kernel, which rounds differently and is some twenty times slower.
    There, call the drawn step repeatedly instead.

    Args:
      train_step: the step, see `make_train_step`.
      draw: how examples are drawn.
      batch_size: examples a step.
      num_steps: steps a chunk.

    Returns:
      the chunk; its metrics have a leading axis (num_steps,).
    """
    drawn_step = make_drawn_step(train_step, draw, batch_size)

    def train_chunk(state: TrainState, dataset: PyTree, key: Key[Array, ""]) -> tuple[TrainState, Metrics]:
        return jax.lax.scan(lambda carry, _: drawn_step(carry, dataset, key), state, length=num_steps)

    return train_chunk


def _gather(dataset: PyTree, key: Key[Array, ""], count: int) -> PyTree:
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(dataset)]
    sizes = {shape[0] if shape else 0 for shape in shapes}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            f"expected a dataset whose leaves share one leading example axis of at least 1, got shapes {shapes}; "
            "try broadcasting what all examples share, or passing it to the loss another way"
        )
    # The draw must not depend on whether 64-bit integers are switched on.
    indices = jax.random.randint(key, (count,), 0, sizes.pop(), dtype=jnp.int32)
    return jax.tree.map(lambda leaf: jnp.take(leaf, indices, axis=0, mode="clip"), dataset)


def _require_same_examples(synthetic: PyTree, real: PyTree) -> None:
    def describe(tree: PyTree) -> tuple[object, list[str]]:
        leaves, structure = jax.tree.flatten(tree)
        return structure, [f"{leaf.dtype}{list(leaf.shape[1:])}" for leaf in leaves]

    if describe(synthetic) != describe(real):
        raise ValueError(
            f"expected real examples like the synthetic ones, {describe(synthetic)}, got {describe(real)}; "
            "try the same grid, fields and dtype for both"
        )
