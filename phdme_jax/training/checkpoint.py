"""Checkpoints of a pytree with a JSON record beside it, written by Orbax.

A checkpoint appears under its name (the step) by one rename, after all of it is on disk: a process killed at any
moment leaves the previous ones whole. The newest two are kept. Orbax is imported where it is used: it takes longer to
import than a forecast takes.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import SingleDeviceSharding
from jaxtyping import PyTree

KEPT = 2


class Checkpoint(NamedTuple):
    """A restored checkpoint: its step, the pytree, the caller's metadata and the folder it was read from."""

    step: int
    tree: PyTree
    metadata: dict[str, Any]
    path: Path


def save_checkpoint(
    directory: str | Path, step: int, tree: PyTree, config_digest: str, metadata: Mapping[str, Any] | None = None
) -> Path:
    """Writes a checkpoint and returns when it is safely on disk.

    Checkpoints at this step or a later one are leftovers of an abandoned attempt and are deleted first.

    Args:
      directory: folder of the checkpoints, made if absent.
      step: name of the checkpoint.
      tree: pytree of arrays.
      config_digest: digest of the configuration that the tree belongs to.
      metadata: JSON values to keep beside the tree.

    Returns:
      folder of the checkpoint.
    """
    import orbax.checkpoint as ocp

    record = {"config_digest": config_digest, "step": step, "metadata": dict(metadata or {})}
    with _manager(directory, writing=True) as manager:
        for leftover in [other for other in manager.all_steps() if other >= step]:
            manager.delete(leftover)
        arguments = ocp.args.Composite(tree=ocp.args.StandardSave(tree), record=ocp.args.JsonSave(record))
        manager.save(step, args=arguments, force=True)
    return _folder(directory, step)


def restore_latest(directory: str | Path, template: PyTree, config_digest: str) -> Checkpoint | None:
    """Restores the newest whole checkpoint onto the devices of the template.

    Args:
      directory: folder of the checkpoints; need not exist.
      template: pytree of the same structure, shapes and dtypes; its leaves are arrays or `jax.ShapeDtypeStruct`, whose
        shardings say where the restored leaves go, whatever number of devices wrote them.
      config_digest: digest of the configuration that now asks for the tree.

    Returns:
      the checkpoint, or None where there is none. A damaged one is passed over for the one before it.

    Raises:
      ValueError: the newest readable checkpoint was written under another configuration.
    """
    failure: Exception | None = None
    if not Path(directory).is_dir():
        return None
    import orbax.checkpoint as ocp

    with _manager(directory) as manager:
        for step in sorted(manager.all_steps(), reverse=True):
            record = _read_record(manager, step)
            if record is None:
                continue
            _require_digest(record["config_digest"], config_digest, directory)
            try:
                target = ocp.args.StandardRestore(jax.tree.map(_describe, template))
                tree = manager.restore(step, args=ocp.args.Composite(tree=target)).tree
            except Exception as error:  # Orbax has no class for a damaged file; an older one may still be whole
                failure = failure or error
                continue
            return Checkpoint(step, tree, record["metadata"], _folder(directory, step))
    if failure is not None:
        raise failure
    return None


def latest_checkpoint(directory: str | Path) -> Path | None:
    """Folder of the newest checkpoint.

    Args:
      directory: folder of the checkpoints; need not exist.

    Returns:
      its path, or None where there is none.
    """
    if not Path(directory).is_dir():
        return None
    with _manager(directory) as manager:
        whole = [step for step in manager.all_steps() if _read_record(manager, step) is not None]
    return _folder(directory, max(whole)) if whole else None


@contextlib.contextmanager
def _manager(directory: str | Path, writing: bool = False) -> Iterator[Any]:
    """A manager that saves before it returns, whose log is silent below errors.

    Only a writing one clears away the temporary folders of killed processes: that runs in a thread which nothing but
    a save waits for, and two such threads trip over each other.
    """
    import orbax.checkpoint as ocp

    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEPT if writing else None,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=writing,
            create=writing,
            read_only=not writing,
        )
        with ocp.CheckpointManager(Path(directory).absolute(), options=options) as manager:
            yield manager
    finally:
        logger.setLevel(level)


def _folder(directory: str | Path, step: int) -> Path:
    return Path(directory).absolute() / str(step)


def _read_record(manager: Any, step: int) -> dict[str, Any] | None:
    import orbax.checkpoint as ocp

    try:
        record = manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore())).record
    except Exception:  # half-deleted or damaged: not a checkpoint
        return None
    return record if isinstance(record, dict) and "config_digest" in record else None


def _require_digest(found: str, expected: str, directory: str | Path) -> None:
    if found != expected:
        raise ValueError(
            f"the checkpoint in {directory} was written under another configuration: expected digest {expected[:12]}, "
            f"got {found[:12]}; try a new workdir, or the configuration that began this run"
        )


def _describe(leaf: Any) -> Any:
    """What Orbax shall restore for one leaf of the template: NumPy stays NumPy, the rest keeps its sharding."""
    if not hasattr(leaf, "sharding"):
        return leaf
    sharding = leaf.sharding or SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
