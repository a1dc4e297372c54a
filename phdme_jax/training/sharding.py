"""The only file that knows devices: data parallelism by sharded arrays, one device being the special case.

The state and the dataset are replicated, the batch and its keys are split along the one mesh axis `data`. The step
itself is unchanged; the compiler inserts the sums over devices.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Key, PyTree

from phdme_jax.training.state import TrainState
from phdme_jax.training.step import Metrics, TrainChunk, TrainStep

DATA_AXIS = "data"


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the single axis `data`.

    Args:
      devices: the devices to use; None for all.

    Returns:
      the mesh.
    """
    chosen = jax.devices() if devices is None else list(devices)
    return Mesh(np.asarray(chosen), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def data_mesh_for(batch_size: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of as many devices as divide the batch evenly.

    Args:
      batch_size: examples a step.
      devices: the devices to choose from, in order; None for all.

    Returns:
      the mesh; of one device where no larger number divides the batch.
    """
    chosen = jax.devices() if devices is None else list(devices)
    count = max(n for n in range(1, len(chosen) + 1) if batch_size % n == 0)
    return data_mesh(chosen[:count])


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Places a copy of every leaf on every device of the mesh.

    Args:
      tree: arrays (or typed keys).
      mesh: the mesh.

    Returns:
      the same tree, replicated.
    """
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split(tree: PyTree, mesh: Mesh) -> PyTree:
    """Splits the leading axis of every leaf over the mesh.

    Args:
      tree: arrays (or typed keys) whose leading axis is a multiple of the number of devices.
      mesh: the mesh.

    Returns:
      the same tree, split.
    """
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(DATA_AXIS)))


def shard_step(train_step: TrainStep, mesh: Mesh) -> jax.stages.Wrapped:
    """Compiles a step for a mesh: batch and keys split, state and metrics replicated.

    The state is donated: its buffers are reused, and the argument must not be read afterwards.

    Args:
      train_step: a step made without `axis_name`.
      mesh: one of `data_mesh`; its size divides the batch.

    Returns:
      the jitted step, of the same signature.
    """
    whole, parts = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(DATA_AXIS))
    return jax.jit(train_step, in_shardings=(whole, parts, parts), out_shardings=(whole, whole), donate_argnums=0)


def split_batch(train_step: TrainStep, mesh: Mesh) -> TrainStep:
    """A step that splits its batch and keys over the mesh, for use inside a drawn step or a chunk.

    Args:
      train_step: a step made without `axis_name`.
      mesh: one of `data_mesh`; its size divides the batch.

    Returns:
      the step, of the same signature and not yet compiled.
    """
    parts = NamedSharding(mesh, PartitionSpec(DATA_AXIS))

    def split_step(state: TrainState, batch: PyTree, keys: Key[Array, "batch"]) -> tuple[TrainState, Metrics]:
        return train_step(state, *jax.lax.with_sharding_constraint((batch, keys), parts))

    return split_step


def shard_chunk(train_chunk: TrainChunk, mesh: Mesh) -> jax.stages.Wrapped:
    """Compiles a chunk, or a drawn step, for a mesh: all at its border is replicated, the state is donated.

    Args:
      train_chunk: a chunk or drawn step whose train step went through `split_batch` with the same mesh.
      mesh: one of `data_mesh`.

    Returns:
      the jitted chunk, of the same signature.
    """
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.jit(train_chunk, in_shardings=(whole, whole, whole), out_shardings=(whole, whole), donate_argnums=0)


def pmap_step(train_step: TrainStep, axis_name: str, devices: Sequence[jax.Device] | None = None) -> TrainStep:
    """The same with `pmap`, for programs that still use it; new ones take `shard_step`.

    Args:
      train_step: a step made with this `axis_name`.
      axis_name: name of the mapped axis.
      devices: the devices to use, whose number divides the batch; None for all.

    Returns:
      a step of the same signature: it splits the batch, and returns one copy of state and metrics.
    """
    mesh = data_mesh(devices)
    chosen = list(mesh.devices.flat)
    mapped: Callable = jax.pmap(train_step, axis_name, in_axes=(None, 0, 0), out_axes=(None, None), devices=chosen)

    def step(state: TrainState, batch: PyTree, keys: Key[Array, "batch"]) -> tuple[TrainState, Metrics]:
        parts = jax.tree.map(lambda leaf: leaf.reshape(len(chosen), -1, *leaf.shape[1:]), (batch, keys))
        # Placed at once where the mapped step leaves its results, so that the second call needs no second trace.
        return mapped(replicate(state, mesh), *parts)

    return step
