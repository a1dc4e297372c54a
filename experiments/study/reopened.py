"""A finished run opened again, to be asked something else."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.__main__ import catalogue
from experiments.study.command import parse
from experiments.study.study import Context, Study
from phdme_jax.files import InputError, read_json
from phdme_jax.systems.equations.base import Equations


def restored(config: ConfigDict, kept: Any) -> ConfigDict:
    """A configuration with the values that a run kept as JSON, tuples for its lists."""
    found = config.copy_and_resolve_references()

    def tuples(value: Any) -> Any:
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    def fill(group: ConfigDict, values: dict[str, Any]) -> None:
        for name, value in values.items():
            inner = group.get(name)
            if isinstance(value, dict) and isinstance(inner, ConfigDict):
                fill(inner, value)
            else:
                group[name] = ConfigDict(value) if isinstance(value, dict) else tuples(value)

    with found.unlocked(), found.ignore_type():
        fill(found, kept)
    return found


def reopened(workdir: Path, method: str) -> Context:
    """The run of a folder as it was, with one method.

    Args:
      workdir: the folder.
      method: to run, of any study.
    Returns:
      the run.
    Raises:
      InputError: no run is there, or one of other code or of no study.
    """
    kept = read_json(workdir / "config.json")
    name, size, config = kept.get("experiment"), str(kept.get("size")), kept.get("config")
    if not isinstance(name, str) or name not in dict(catalogue()) or not isinstance(config, dict):
        raise InputError(f"{workdir}: holds no run of a study; expected the folder of a finished one, with config.json")
    study = getattr(importlib.import_module(f"experiments.{name}"), "STUDY", None)
    if not isinstance(study, Study) or size not in study.sizes:
        raise InputError(f"{workdir}: holds no run of known equations; expected one of a study such as poisson_2d")
    return dataclasses.replace(
        parse(study, ["--size", size, "--workdir", str(workdir)]),
        config=restored(study.get_config(size), config),
        methods=(method,),
        validates=bool(kept.get("validates")),
    )


def equations_of_run(context: Context, case: str | None) -> tuple[str, Equations]:
    """The equations that are asked about, and their name in the study.

    Raises:
      InputError: an unknown case, none of several, a system of another kind, or a configuration of other code.
    """
    study, known = context.study, context.study.systems
    if case is None and len(known) > 1:
        raise InputError(f"{study.name} has several cases; choose --case among {', '.join(known)}")
    name = known[0] if case is None else case
    if name not in known:
        raise InputError(f"unknown case {name!r}; {study.name} has {', '.join(known)}")
    try:
        problem = study.problem(context.config, name)
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{context.workdir}: holds a run of other code ({error}); run the study again") from None
    if not isinstance(problem, Equations):
        raise InputError(f"{study.name} is no study of known equations; expected a run of one, such as poisson_2d")
    return name, problem
