"""The command line every study shares: arguments and configuration in, a run folder with a report out.

    def run(context: RunContext) -> list[Section]: ...
    STUDY = Study("vibrating_string", "Vibrating string", get_config, run, methods=("phdme", "diffusion"))

    if __name__ == "__main__":
        raise SystemExit(main(STUDY))

A mistake of the user is one sentence on standard error and exit code 2, before anything is written.
"""

import argparse
import dataclasses
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from phdme_jax.app.command import CommandParser, run_main, split_overrides, user_input
from phdme_jax.app.folder import command_line, describe_environment, prepare_run_folder
from phdme_jax.app.overrides import apply_overrides, flatten_config
from phdme_jax.app.page import Section, build_report
from phdme_jax.app.process import prepare_process
from phdme_jax.app.rows import ResultsWriter
from phdme_jax.app.tables import print_table
from phdme_jax.files import InputError, RunFailed, config_digest

__all__ = [
    "CommandParser", "InputError", "RunContext", "RunFailed", "Section", "Study", "command_line", "config_digest",
    "describe_environment", "main", "prepare_process", "prepare_run_folder", "run_main", "split_overrides",
    "user_input",
]  # fmt: skip

SIZES = ("smoke", "laptop", "accelerator")
ONE_SEED = ("smoke", "demo")  # sizes to try a study with, where no spread is asked for
DATA_DIR_VARIABLE = "PHDME_DATA_DIR"


@dataclasses.dataclass(frozen=True)
class RunContext:
    """What a study's `run` gets.

    Attributes:
      experiment: name of the study.
      size: size of the run.
      workdir: the run folder; it exists.
      config: the locked configuration with the user's overrides.
      seeds: seeds to run.
      methods: methods to run.
      data_dir: folder of measured data, or None.
      results: where the numbers go.
    """

    experiment: str
    size: str
    workdir: Path
    config: Any
    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    data_dir: Path | None
    results: ResultsWriter

    def figure_path(self, name: str) -> Path:
        """Path of the picture `name`.png in the run folder."""
        return self.workdir / "figures" / f"{name}.png"


@dataclasses.dataclass(frozen=True)
class Study:
    """What the command line needs to know of a study.

    Attributes:
      name: name of the module and of the experiment in the results.
      title: heading of the report.
      get_config: size -> ConfigDict; its groups are keyword arguments of the factories.
      run: does the study; returns the sections of the report, or None for a report with every picture.
      methods: the methods it knows.
      trial_methods: those of a bare command at the sizes that only try the study; all where empty.
      sizes: the sizes it has.
      default_size: size of a bare command.
      num_seeds: seeds of a bare command, but one at the sizes that only try the study.
      check: called before the run folder is made, to refuse wrong input; raises InputError or ValueError.
    """

    name: str
    title: str
    get_config: Callable[[str], Any]
    run: Callable[[RunContext], Sequence[Section] | None]
    methods: tuple[str, ...]
    trial_methods: tuple[str, ...] = ()
    sizes: tuple[str, ...] = SIZES
    default_size: str = "laptop"
    num_seeds: int = 3
    check: Callable[[RunContext], None] | None = None


def main(study: Study, arguments: Sequence[str] | None = None) -> int:
    """Runs a study from its command line and ends with its table and the path of its report.

    Args:
      study: the study.
      arguments: command-line arguments; the process's own where None.

    Returns:
      Exit code, see `run_main`.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = command_line() if arguments is None else shlex.join(["python", "-m", f"experiments.{study.name}", *given])
    return run_main(lambda: _run_study(study, given, command), command)


def _run_study(study: Study, arguments: Sequence[str], command: str) -> None:
    context = _parse(study, arguments)
    prepare_process()
    if study.check is not None:
        with user_input():
            study.check(context)
    record = {"experiment": study.name, "size": context.size, "config": context.config.to_dict()}
    prepare_run_folder(context.workdir, record, command)
    sections = study.run(context)
    path = build_report(context.workdir, study.title, sections)
    print_table(context.results.rows())
    print(f"report: {path}")


def _parse(study: Study, arguments: Sequence[str]) -> RunContext:
    parser = _make_parser(study)
    options, rest = parser.parse_known_args(list(arguments))
    overrides = split_overrides(rest)
    if options.size not in study.sizes:
        raise InputError(f"unknown size {options.size!r}; {study.name} has {', '.join(study.sizes)}")
    config = study.get_config(options.size)
    config.lock()
    apply_overrides(config, overrides)
    workdir = Path(options.workdir or Path("runs") / f"{study.name}_{options.size}")
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"{workdir}: is a file; expected a folder, choose another --workdir")
    return RunContext(
        experiment=study.name,
        size=options.size,
        workdir=workdir,
        config=config,
        seeds=tuple(range(_seed_count(options.seeds or str(1 if options.size in ONE_SEED else study.num_seeds)))),
        methods=_methods(study, options.methods, options.size),
        data_dir=_data_dir(options.data_dir),
        results=ResultsWriter(workdir / "results.jsonl", study.name),
    )


def _make_parser(study: Study) -> CommandParser:
    parser = _StudyParser(
        study,
        prog=f"python -m experiments.{study.name}",
        description=study.title,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", default=study.default_size, help=f"{', '.join(study.sizes)} (%(default)s)")
    few = ", ".join(size for size in ONE_SEED if size in study.sizes)
    parser.add_argument("--seeds", default="", help=f"number of seeds ({study.num_seeds}; 1 at the sizes {few})")
    usual = f"all; {','.join(study.trial_methods)} at the sizes {few}" if study.trial_methods else "all"
    parser.add_argument("--methods", default="", help=f"some of {','.join(study.methods)} ({usual})")
    parser.add_argument("--workdir", default="", help=f"run folder (runs/{study.name}_SIZE)")
    parser.add_argument("--data_dir", default="", help=f"folder of measured data (${DATA_DIR_VARIABLE})")
    return parser


class _StudyParser(CommandParser):
    def __init__(self, study: Study, **settings: Any) -> None:
        super().__init__(**settings)
        self.study = study

    def format_help(self) -> str:
        """Adds the configuration's keys, which only the study's factory knows."""
        size = self.study.default_size
        keys = flatten_config(self.study.get_config(size))
        lines = "".join(f"\n  --config.{key}={value}" for key, value in keys.items())
        return f"{super().format_help()}\nconfiguration of size {size}:{lines}\n"


def _seed_count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InputError(f"--seeds expects how many seeds to run, a whole number of at least 1, got {text!r}")
    return int(text)


def _methods(study: Study, text: str, size: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in study.methods:
            raise InputError(f"unknown method {name!r}; {study.name} has {', '.join(study.methods)}")
    return names or (study.trial_methods if size in ONE_SEED else ()) or study.methods


def _data_dir(text: str) -> Path | None:
    text = text or os.environ.get(DATA_DIR_VARIABLE, "")
    if text and not Path(text).is_dir():
        raise InputError(f"{text}: there is no such folder; check --data_dir or ${DATA_DIR_VARIABLE}")
    return Path(text) if text else None
