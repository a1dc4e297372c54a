"""A run folder and what it says about itself: `config.json`, `environment.json`, one configuration a folder."""

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from phdme_jax.files import InputError, atomic_write, claim_folder, plain, to_json
from phdme_jax.methods.base import unusual_draws

_PACKAGES = ("phdme_jax", "jax", "jaxlib", "flax", "optax", "diffrax", "equinox", "numpy", "scipy", "matplotlib")


def prepare_run_folder(workdir: Path | str, config: Any, command: str) -> Path:
    """Makes a run folder with `config.json` and `environment.json`, or finds the one to go on with.

    Call it after everything the user gave has been checked, so that wrong input leaves nothing behind.

    Args:
      workdir: the folder.
      config: everything the numbers depend on, seeds and choice of methods aside: those may grow in a later run.
        Variables that change random draws are added, see `unusual_draws`.
      command: the command to record.

    Returns:
      The folder.

    Raises:
      InputError: the folder holds a run of another configuration, or cannot be written.
    """
    folder = Path(workdir)
    if (folder / "results.jsonl").exists() and not (folder / "config.json").exists():
        raise InputError(f"{folder}: holds results but no config.json that says whose; choose another folder")
    claim_folder(folder, {**plain(config), **unusual_draws()}, "config.json")
    _write_environment(folder / "environment.json", describe_environment(command))
    return folder


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


def _write_environment(path: Path, environment: dict[str, Any]) -> None:
    """Keeps what earlier parts of a resumed run were made with under `earlier`, if it differs."""
    try:
        previous = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        previous = {}
    earlier = previous.pop("earlier", [])
    if previous and {**previous, "started": None} == {**environment, "started": None}:
        return
    if previous:
        environment["earlier"] = [*earlier, previous]
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
