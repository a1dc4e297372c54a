"""Floor 0: files whole or not at all, digests, and the two ways to stop: a mistake of the user, a run that failed."""

import contextlib
import hashlib
import json
import os
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
      path: the file; its folder is made if missing.

    Raises:
      InputError: the path cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if path.is_dir():
            raise IsADirectoryError(21, "it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        file = temporary.open("wb")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another path") from None
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
        with Path(path).open("rb") as file:
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
