"""Floor 0: files whole or not at all, digests, and the two ways to stop: a mistake of the user, a run that failed."""

import contextlib
import errno
import hashlib
import json
import math
import os
import platform
import stat
from collections.abc import Callable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


class InputError(ValueError):
    """A mistake in what the user gave, to be shown as one sentence without a traceback."""


class RunFailed(RuntimeError):
    """A run that cannot go on for no fault of its input; the message is one sentence for the user."""


# not the path's fault: no space, no quota, a limit on the size of files, a broken device, too many open files
MACHINE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE)


@contextlib.contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Says in one sentence why the block could not write to a path.

    Raises:
      InputError: the path is wrong.
      RunFailed: the machine has no space left, or the like.
    """
    try:
        yield
    except OSError as error:
        reason = f"{path}: cannot be written ({error.strerror or error})"
        if error.errno in MACHINE_ERRORS:
            raise RunFailed(f"{reason}; once that is mended, the same command goes on") from error
        raise InputError(f"{reason}; choose another path") from error


@contextlib.contextmanager
def atomic_write(path: Path | str) -> Iterator[BinaryIO]:
    """A binary file that appears under its name only when the block ends without an exception.

    Args:
      path: the file; its folder is made if missing. A symbolic link stays, and the file it names is written.

    Raises:
      InputError, RunFailed: it cannot be written, see `writing`.
    """
    target = output_file(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with writing(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def output_file(path: Path | str) -> Path:
    """Where a file of this name will be written, links followed.

    Raises:
      InputError: a folder, a pipe or a device is there, which no file may replace.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise InputError(
            f"{path}: cannot be written (it is a folder); expected a file name such as {path}/forecast.npz"
        )
    if target.exists() and not target.is_file():
        raise InputError(f"{path}: cannot be written (it is a pipe or a device); choose another path")
    return target


def input_file(path: Path | str, expected: str) -> Path:
    """A path at which a regular file stands: its content has an end.

    Args:
      path: the file.
      expected: what it should be, in a few words.

    Raises:
      InputError: nothing is there, or a folder, a pipe or a device.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        what = "there is no such file" if error.errno == errno.ENOENT else f"cannot be read ({error.strerror})"
        raise InputError(f"{path}: {what}; expected {expected}, check the path") from None
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise InputError(f"{path}: this is {what}; expected {expected}")
    return Path(path)


@contextlib.contextmanager
def claimed_folder(folder: Path, record: Any, name: str) -> Iterator[None]:
    """A run's folder for the time of the block: its record is written, or the same one is there, to go on with.

    Args:
      folder: made if missing.
      record: nested mapping of everything the run depends on.
      name: of the file that holds the record.

    Raises:
      InputError: the folder holds another run, another process works in it, or it cannot be written.
      RunFailed: there is no space, or the folder was removed while the block ran.
    """
    path, record = folder / name, plain(record)
    with _locked(folder):
        if path.exists():
            _require_same(path, record)
        else:
            with atomic_write(path) as file:
                file.write((to_json(record, indent=2) + "\n").encode("utf-8"))
        yield


def _require_same(path: Path, record: dict[str, Any]) -> None:
    other = read_json(path)
    if config_digest(other) == config_digest(record):
        return
    here, there = flatten(json.loads(to_json(record, indent=None))), flatten(other)
    changed = [key for key in {**there, **here} if here.get(key) != there.get(key)]
    words = [f"{key} is {there.get(key, 'absent')} there and {here.get(key, 'absent')} now" for key in changed[:3]]
    further = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    raise InputError(
        f"{path.parent}: holds a run of another configuration ({', '.join(words)}{further}); choose another folder or "
        "remove this one"
    )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time: `.lock` is locked and names process and host. A lock ends with its process in any case.

    What is left of a process that died on this host is taken over. Where there are no locks nothing is refused.
    """
    path, here = folder / ".lock", platform.node()
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+", buffering=0)
    with file:
        file.seek(0)
        process, _, host = file.read(1000).decode("utf-8", errors="replace").partition(" ")
        if not _lock(file) or not _is_still(path, file) or host not in ("", here):
            other = f"process {process} on {host}" if host else "another process"
            raise InputError(
                f"{folder}: {other} works in it; wait for its end, or choose another folder (if it died with its "
                f"machine, remove {path})"
            )
        try:
            with writing(path):
                file.truncate(0)
                file.write(f"{os.getpid()} {here}".encode())
            yield
            if not _is_still(path, file):
                raise RunFailed(
                    f"{folder}: was removed while this run worked in it; remove what is left of it and give the same "
                    "command again"
                )
        finally:
            if _is_still(path, file):
                path.unlink()


def _is_still(path: Path, file: FileIO) -> bool:
    """Whether an open file is the one that has the path now."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except OSError:
        return False


def _lock(file: FileIO) -> bool:
    """Whether no other process holds the lock of a file."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # Windows, or a file system without locks
        return True
    return True


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a run; empty where the file is missing.

    Raises:
      InputError: it cannot be read, or is no object.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise InputError(
            f"{path}: is not the JSON object that a run keeps there; remove this file, or choose another folder"
        )
    return record


def file_digest(path: Path | str) -> str:
    """SHA-256 of a file's content, so that a configuration can name the data it was fitted on."""
    try:
        with input_file(path, "a file").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None


def config_digest(config: Any) -> str:
    """SHA-256 of a configuration as JSON with sorted keys; the same in every process.

    Args:
      config: mapping or ConfigDict of numbers, text, lists and groups.

    Returns:
      64 hexadecimal digits.

    Raises:
      InputError: a value JSON cannot carry, NaN included.
    """
    return hashlib.sha256(to_json(plain(config), indent=None).encode("utf-8")).hexdigest()


def plain(config: Any) -> dict[str, Any]:
    """A mapping or ConfigDict as a dict."""
    return config.to_dict() if hasattr(config, "to_dict") else dict(config)


def flatten(tree: Any, separator: str = ".") -> dict[str, Any]:
    """Leaves of nested mappings or ConfigDicts under their joined keys.

    >>> flatten({"a": {"b": 1}, "c": (2, 3)})
    {'a.b': 1, 'c': (2, 3)}
    """
    flat: dict[str, Any] = {}
    for key in tree:
        value = tree[key]
        if hasattr(value, "keys"):
            flat |= {f"{key}{separator}{name}": leaf for name, leaf in flatten(value, separator).items()}
        else:
            flat[key] = value
    return flat


def unflatten(flat: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """The reverse of `flatten`, but for empty groups."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, last = name.split(separator)
        group = tree
        for key in groups:
            group = group.setdefault(key, {})
        group[last] = value
    return tree


def to_json(record: Any, indent: int | None) -> str:
    """JSON with sorted keys; raises InputError for what JSON cannot carry."""
    try:
        return json.dumps(record, sort_keys=True, allow_nan=False, indent=indent)
    except (TypeError, ValueError) as error:
        raise InputError(f"a configuration holds finite numbers, text, lists and groups only ({error})") from None


def arrays_digest(arrays: Mapping[str, Any], source: str) -> str:
    """SHA-256 of named arrays, their types and shapes, and of what they were made from.

    Args:
      arrays: by name.
      source: what they were made from, as text.

    Returns:
      64 hexadecimal digits.
    """
    digest = hashlib.sha256(source.encode("utf-8"))
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {np.shape(arrays[name])} ".encode())
        digest.update(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]  # a buffer
    return digest.hexdigest()


def free_memory() -> float:
    """Bytes of memory that are free on this machine; infinite where it does not tell."""
    try:
        return 1024.0 * int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0])
    except (OSError, LookupError, ValueError):
        return math.inf


def require_memory(what: str, size: float, advice: str) -> None:
    """Refuses what would not fit into the memory that is free: four times over, as what makes an array copies it.

    Args:
      what: is to be made, as the sentence's subject.
      size: bytes that it holds.
      advice: what to try.
    Raises:
      InputError: it is too large.
    """
    needed, free = 4 * size, free_memory()
    if needed > free:
        raise InputError(f"{what} would take {needed * 1e-9:.3g} GB, {free * 1e-9:.3g} GB are free; {advice}")


def kept_arrays(path: Path, source: Any, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Arrays of a file, made and written where it is missing, damaged or made from something else.

    Args:
      path: an `.npz`.
      source: mapping of all that the arrays are made from, as JSON can carry it.
      make: makes them.

    Returns:
      arrays by name.

    Raises:
      InputError: the file is whole and holds other arrays than `kept_arrays` writes: it is somebody else's.
    """
    source = to_json(source, indent=None)
    arrays = _read_kept(path)
    if arrays is None or arrays.pop(_DIGEST) != arrays_digest(arrays, source):
        arrays = dict(make())
        save_arrays(path, {_DIGEST: np.array(arrays_digest(arrays, source)), **arrays})
    return arrays


_DIGEST = "digest"  # name of the array that holds it, beside those that are kept


def _read_kept(path: Path) -> dict[str, np.ndarray] | None:
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception:  # a damaged archive can raise nearly anything inside numpy, zipfile and the decompressors
        return None
    if _DIGEST not in arrays:
        raise InputError(f"{path}: was not written by this run, which keeps its own there; move this file elsewhere")
    return arrays


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays to an `.npz` in one go: whole or not at all."""
    with atomic_write(path) as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
