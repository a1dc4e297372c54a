"""Named arrays of numbers from a user's `.npz` or mapping, in double precision. Nothing here unpickles.

Every defect is an `InputError` of one sentence: what came, what was expected, what to try.
"""

import difflib
import math
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from phdme_jax.files import InputError, free_memory, input_file

LARGEST_FILE = 8e9  # bytes that the arrays of a file may take
_NOT_NUMBERS = {"c": "complex numbers", "b": "booleans", "U": "text", "S": "text", "V": "records", "O": "objects"}


def read_arrays(
    source: Path | str | Mapping[str, Any], name: str, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> tuple[str, dict[str, np.ndarray]]:
    """Arrays of a file or of a mapping.

    Args:
      source: path of an `.npz`, or key -> array; a None in a mapping counts as absent.
      name: what a mapping is called in messages.
      required: keys that must be there.
      optional: keys that may be; one that looks like a slip of them is refused, others are ignored.

    Returns:
      What the source is called in messages, and its arrays, float64.

    Raises:
      InputError: any defect.
    """
    if isinstance(source, str | Path):
        return str(source), _load(Path(source), required, optional)
    if not isinstance(source, Mapping):
        raise InputError(f"{name}: expected a path of an .npz or a mapping of arrays, got {type(source).__name__}")
    arrays = {key: value for key, value in source.items() if value is not None}
    _check_keys(name, arrays, required, optional)
    wanted = [key for key in (*required, *optional) if key in arrays]
    try:
        return name, {key: _as_float64(name, key, np.asarray(arrays[key]), copy=True) for key in wanted}
    except ValueError as error:  # rows of different lengths
        raise error if isinstance(error, InputError) else InputError(f"{name}: {_short(error)}") from None


def _load(path: Path, required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, np.ndarray]:
    _check_archive(path, (required or optional)[:2])
    arrays = {}
    # a damaged, encrypted or hostile archive can raise nearly anything inside numpy, zipfile and the decompressors
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:
        raise InputError(f"{path}: the archive is damaged ({_short(error)}); write it again with numpy.savez") from None
    with archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        _check_keys(path, members, required, optional)
        members = {key: members[key] for key in (*required, *optional) if key in members}
        # what the directory tells comes first: a header, too, may fill the memory
        _check_size(path, {key: member.file_size for key, member in members.items()})
        _check_size(path, {key: _read(path, key, archive, member, _announced_size) for key, member in members.items()})
        for key, member in members.items():
            arrays[key] = _as_float64(path, key, _read(path, key, archive, member, _read_array), copy=False)
    return arrays


def _read(path: Path, key: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo, read: Callable[[Any], Any]) -> Any:
    """What `read` makes of an open member."""
    try:
        with archive.open(member) as file:
            return read(file)
    except Exception as error:
        raise InputError(
            f"{path}: {key} cannot be read ({_short(error)}); expected a plain array of numbers, never pickled"
        ) from None


def _read_array(file: Any) -> np.ndarray:
    return np.lib.format.read_array(file, allow_pickle=False)


def _announced_size(file: Any) -> int:
    """Bytes that an array takes as it is stored or in float64, whichever is more, as its header announces them."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return max(8, dtype.itemsize) * math.prod(shape)


def _check_size(path: Path, sizes: Mapping[str, int]) -> None:
    most = min(LARGEST_FILE, free_memory())
    if (size := sum(sizes.values())) > most:
        raise InputError(
            f"{path}: {', '.join(sizes)} take {size * 1e-9:.3g} GB, expected at most {most * 1e-9:.3g} GB; keep fewer "
            "trajectories, frames or points"
        )


def _check_keys(
    where: Path | str, present: Iterable[str], required: tuple[str, ...], optional: tuple[str, ...]
) -> None:
    present = list(present)
    for key in required:
        if key not in present:
            got = ", ".join(present) or "none"
            raise InputError(f"{where}: the key {key!r} is missing; expected {', '.join(required)}, got {got}")
    for key in present:
        near = difflib.get_close_matches(key, optional, n=1, cutoff=0.8)
        if key not in (*required, *optional) and near and near[0] not in present:
            raise InputError(f"{where}: the key {key!r} is unknown; did you mean {near[0]!r}?")


def _check_archive(path: Path, keys: tuple[str, ...]) -> None:
    """Names what the file is, if it is not an archive."""
    input_file(path, "an .npz file")
    try:
        with path.open("rb") as file:
            start = file.read(8)
        is_archive = zipfile.is_zipfile(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if is_archive:
        return
    if not start:
        what = "the file is empty"
    elif start.startswith(b"\x93NUMPY"):
        what = "this is a single .npy array"
    elif start.startswith(b"PK"):
        what = "the archive is cut off"
    else:
        what = "this is not an .npz archive"
    named = ", ".join(f"{key}=..." for key in keys)
    raise InputError(f"{path}: {what}; expected named arrays written with numpy.savez(path, {named})")


def _as_float64(where: Path | str, key: str, array: np.ndarray, copy: bool) -> np.ndarray:
    if array.dtype.kind not in "iuf":
        what = _NOT_NUMBERS.get(array.dtype.kind, "dates")
        raise InputError(f"{where}: {key} holds {what} ({array.dtype}); expected real numbers, try astype(float)")
    with np.errstate(over="ignore"):
        return array.astype(np.float64, copy=copy)


def _short(error: BaseException) -> str:
    """The first sentence of another library's message."""
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
