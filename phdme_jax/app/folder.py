"""A run folder and what it says about itself: `config.json`, `environment.json`, one configuration a folder."""

import contextlib
import datetime
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phdme_jax.files import InputError, atomic_write, claimed_folder, plain, read_json, to_json
from phdme_jax.methods.base import unusual_draws

_PACKAGES = ("phdme_jax", "jax", "jaxlib", "flax", "optax", "diffrax", "equinox", "numpy", "scipy", "matplotlib")


@contextlib.contextmanager
def claimed_run(workdir: Path | str, config: Any, command: str) -> Iterator[Path]:
    """A run folder with `config.json` and `environment.json`, made or found to go on with; this process's alone.

    Enter it after everything the user gave has been checked, so that wrong input leaves nothing behind.

    Args:
      workdir: the folder.
      config: everything the numbers depend on, seeds and choice of methods aside: those may grow in a later run.
        Variables that change random draws are added, see `unusual_draws`.
      command: the command to record.

    Yields:
      The folder.

    Raises:
      InputError: the folder holds a run of another configuration, another process works in it, or it cannot be written.
      RunFailed: there is no space, or the folder was removed while the block ran.
    """
    folder = Path(workdir)
    if (folder / "results.jsonl").exists() and not (folder / "config.json").exists():
        raise InputError(f"{folder}: holds results but no config.json that says whose; choose another folder")
    path = folder / "environment.json"
    previous = read_json(path)
    with claimed_folder(folder, {**plain(config), **unusual_draws()}, "config.json"):
        _write_environment(path, previous, describe_environment(command))
        yield folder


def describe_environment(command: str) -> dict[str, Any]:
    """Versions, device, commit and command of this process.

    Args:
      command: the command that started it.

    Returns:
      JSON-ready record; `commit` is None outside a git checkout, `changed_files` tells whether it was clean.
    """
    import jax

    devices = jax.devices()
    commit = _git("rev-parse", "HEAD")
    return {
        "command": command,
        "device": f"{len(devices)} x {devices[0].device_kind}",
        "platform": devices[0].platform,
        "cpu_count": os.cpu_count(),
        "commit": commit,
        "changed_files": None if commit is None else bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {name: _version(name) for name in _PACKAGES},
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _write_environment(path: Path, previous: dict[str, Any], environment: dict[str, Any]) -> None:
    """Keeps what earlier parts of a resumed run were made with under `earlier`, if it differs."""
    earlier = previous.pop("earlier", [])
    if previous and {**previous, "started": None} == {**environment, "started": None}:
        return
    if previous:
        environment["earlier"] = [*(earlier if isinstance(earlier, list) else [earlier]), previous]
    with atomic_write(path) as file:
        file.write((to_json(environment, indent=2) + "\n").encode("utf-8"))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Output of a git command in the checkout this file belongs to; None where it belongs to none."""
    here = Path(__file__).resolve()
    try:
        for words in (("ls-files", "--error-unmatch", here.name), arguments):
            done = subprocess.run(
                ["git", *words], cwd=here.parent, capture_output=True, text=True, timeout=10, check=True
            )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
