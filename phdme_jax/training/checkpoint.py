"""Checkpoints of a pytree with a JSON record beside it, written by Orbax.

A checkpoint appears under its name (the step) by one rename, after all of it is on disk: a process killed at any
moment leaves the previous ones whole. A digest of its files is written last, and one whose files are others is no
checkpoint. The newest two are kept. Orbax is imported where it is used: it takes longer to import than a forecast
takes.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import SingleDeviceSharding
from jaxtyping import PyTree

from phdme_jax.files import InputError, RunFailed, atomic_write, file_digest, writing

KEPT = 2
_DIGEST = "digest"  # name of the file that holds it
_SMALL_FILES = 2**20  # bytes of what Orbax writes beside the arrays, well above what was seen


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

    Raises:
      RunFailed: it cannot be written; checkpoints before it are whole.
    """
    import orbax.checkpoint as ocp

    record = {"config_digest": config_digest, "step": step, "metadata": dict(metadata or {})}
    size = sum(getattr(leaf, "nbytes", 8) for leaf in jax.tree.leaves(tree))
    _require_space(directory, size + len(json.dumps(record)))
    try:
        with _manager(directory, writing=True) as manager:
            for leftover in [other for other in manager.all_steps() if other >= step]:
                manager.delete(leftover)
            arguments = ocp.args.Composite(tree=ocp.args.StandardSave(tree), record=ocp.args.JsonSave(record))
            manager.save(step, args=arguments, force=True)
    except Exception as error:  # of the system, of Orbax or of its storage
        raise RunFailed(
            f"{_folder(directory, step)}: cannot be written ({_reason(error)}); once that is mended, the same command "
            "goes on"
        ) from error
    digest = _files_digest(directory, step)
    with atomic_write(_folder(directory, step) / _DIGEST) as file:
        file.write(digest.encode())
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
      InputError: the newest whole checkpoint was written under another configuration, or for another tree.
    """
    if not Path(directory).is_dir():
        return None
    import orbax.checkpoint as ocp

    with _manager(directory) as manager:
        step = _newest(manager, directory)
        if step is None:
            return None
        record = manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore())).record
        _require_digest(record["config_digest"], config_digest, directory)
        target = ocp.args.StandardRestore(jax.tree.map(_describe, template))
        try:
            tree = manager.restore(step, args=ocp.args.Composite(tree=target)).tree
        except Exception as error:  # Orbax has no class for it
            raise InputError(
                f"{directory}: holds the training of another network ({_reason(error)}); remove this folder, and the "
                "same command trains anew"
            ) from error
        return Checkpoint(step, tree, record["metadata"], _folder(directory, step))


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
        step = _newest(manager, directory)
    return None if step is None else _folder(directory, step)


@contextlib.contextmanager
def _manager(directory: str | Path, writing: bool = False) -> Iterator[Any]:
    """A manager that saves before it returns and writes no log: what fails is raised.

    Only a writing one clears away the temporary folders of killed processes: that runs in a thread which nothing but
    a save waits for, and two such threads trip over each other.
    """
    import orbax.checkpoint as ocp

    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
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


def _require_space(directory: str | Path, size: int) -> None:
    """Refuses where a file of the size and a little more has no room: Orbax's threads survive no failed write quietly.

    Raises:
      RunFailed: there is no space, no quota, or a limit on the size of files.
    """
    with writing(directory):
        Path(directory).mkdir(parents=True, exist_ok=True)
    # elsewhere than on Linux, and on file systems that cannot reserve, nothing is known
    nothing = contextlib.suppress(AttributeError, InputError)
    with nothing, writing(directory), tempfile.TemporaryFile(dir=directory) as file:
        os.posix_fallocate(file.fileno(), 0, size + size // 20 + _SMALL_FILES)


def _newest(manager: Any, directory: str | Path) -> int | None:
    """Step of the newest whole checkpoint."""
    return next((step for step in sorted(manager.all_steps(), reverse=True) if _is_whole(directory, step)), None)


def _is_whole(directory: str | Path, step: int) -> bool:
    try:
        return (_folder(directory, step) / _DIGEST).read_text() == _files_digest(directory, step)
    except (OSError, ValueError):
        return False


def _files_digest(directory: str | Path, step: int) -> str:
    folder, digest = _folder(directory, step), hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _DIGEST:
            digest.update(f"{path.relative_to(folder).as_posix()} {file_digest(path)} ".encode())
    return digest.hexdigest()


def _reason(error: BaseException) -> str:
    """The system's word for what went wrong where there is one, else the first line of the message."""
    code = re.search(r"os_error_code='(\d+)'", str(error))
    words = os.strerror(int(code[1])) if code else getattr(error, "strerror", None) or str(error) or repr(error)
    return words.split("\n")[0][:300]


def _require_digest(found: str, expected: str, directory: str | Path) -> None:
    if found != expected:
        raise InputError(
            f"the checkpoint in {directory} was written under another configuration: expected digest {expected[:12]}, "
            f"got {found[:12]}; try a new workdir, or the configuration that began this run"
        )


def _describe(leaf: Any) -> Any:
    """What Orbax shall restore for one leaf of the template: NumPy stays NumPy, the rest keeps its sharding."""
    if not hasattr(leaf, "sharding"):
        return leaf
    sharding = leaf.sharding or SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
