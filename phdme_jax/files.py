"""Floor 0: files whole or not at all, digests, and the two ways to stop: a mistake of the user, a run that failed."""

import contextlib
import errno
import hashlib
import json
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


class InputError(ValueError):
    """A mistake in what the user gave, to be shown as one sentence without a traceback."""


class RunFailed(RuntimeError):
    """A run that cannot go on for no fault of its input; the message is one sentence for the user."""


@contextlib.contextmanager
def atomic_write(path: Path | str) -> Iterator[BinaryIO]:
    """A binary file that appears under its name only when the block ends without an exception.

    Args:
      path: the file; its folder is made if missing. A symbolic link stays, and the file it names is written.

    Raises:
      InputError: the path cannot be written.
    """
    target = output_file(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        file = temporary.open("wb")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another path") from None
    try:
        with file:
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


def claim_folder(folder: Path, record: Any, name: str) -> None:
    """Writes a run's record into its folder, or finds the same record there, to go on with.

    Args:
      folder: made if missing.
      record: nested mapping of everything the run depends on.
      name: of the file.

    Raises:
      InputError: the folder holds another run, or cannot be written.
    """
    path, record = folder / name, plain(record)
    if not path.exists():
        with atomic_write(path) as file:
            file.write((to_json(record, indent=2) + "\n").encode("utf-8"))
        return
    try:
        other = json.loads(path.read_text(encoding="utf-8"))
        same = config_digest(other) == config_digest(record)
    except (OSError, ValueError, AttributeError):
        raise InputError(f"{folder}: its {name} cannot be read; choose another folder or remove this one") from None
    if same:
        return
    here, there = flatten(json.loads(to_json(record, indent=None))), flatten(other)
    changed = [key for key in {**there, **here} if here.get(key) != there.get(key)]
    words = [f"{key} is {there.get(key, 'absent')} there and {here.get(key, 'absent')} now" for key in changed[:3]]
    further = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    raise InputError(
        f"{folder}: holds a run of another configuration ({', '.join(words)}{further}); choose another folder or "
        "remove this one"
    )


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


def load_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Arrays that `save_arrays` kept; None where there are none or the file is damaged, so that they are made again."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
        return None


def save_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write arrays to an `.npz` in one go: whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as stream:
        np.savez(stream, **arrays)
