"""The command line every study shares: arguments and configuration in, a run folder with a report out.

A mistake of the user is one sentence on standard error and exit code 2, before anything is written.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.study.headline import headline, main_rows
from experiments.study.runner import run_study
from experiments.study.study import ONE_SEED, Context, Study
from phdme_jax.app.command import (
    CommandParser,
    command_line,
    folder,
    run_folder,
    run_main,
    split_overrides,
    user_input,
    whole_number,
)
from phdme_jax.app.folder import claimed_run
from phdme_jax.app.headline import print_headline
from phdme_jax.app.overrides import apply_overrides
from phdme_jax.app.page import Section, build_report
from phdme_jax.app.process import prepare_process
from phdme_jax.app.rows import ResultsWriter
from phdme_jax.files import InputError, flatten
from phdme_jax.methods.base import refuse
from phdme_jax.methods.table import METHODS

DATA_DIR_VARIABLE = "PHDME_DATA_DIR"

Run = Callable[[Study, Context], Sequence[Section]]


def main(study: Study, arguments: Sequence[str] | None = None, run: Run = run_study) -> int:
    """Runs a study from its command line and ends with a headline, its table and the path of its report.

    Args:
      study: the study.
      arguments: command-line arguments; the process's own where None.
      run: the loop.

    Returns:
      Exit code, see `run_main`.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = command_line(f"python -m experiments.{study.name}", arguments)
    return run_main(lambda: _run_study(study, given, command, run), command)


def _run_study(study: Study, arguments: Sequence[str], command: str, run: Run) -> None:
    context = parse(study, arguments)
    prepare_process()
    with user_input():
        _check(context)
    with claimed_run(context.workdir, run_record(context), command):
        sections = run(study, context)
        path = build_report(context.workdir, study.title, sections)
        print_headline([*headline(context), f"Everything else: {path}"], main_rows(context), study.metrics)


def run_record(context: Context) -> dict[str, Any]:
    """What a run folder says it is, beside variables that change random draws."""
    record = {"experiment": context.study.name, "size": context.size, "config": context.config.to_dict()}
    if context.validates:
        record["validates"] = True  # what it keeps is not mixed with that of a run that does not
    if context.files:
        record["files"] = dict(context.files)
    return record


def _check(context: Context) -> None:
    """Refuses what cannot be run before anything is written; a method may be one of some cases alone."""
    study = context.study
    problems = {case: study.problem(context.config, case) for case in context.systems}
    runs = {case: {variant.method for variant in context.entries(case)} for case in context.systems}
    for name in context.methods:
        for case in [case for case in runs if name in runs[case]] or runs:
            refuse(METHODS[name], problems[case])
    if study.check is not None:
        study.check(context)


def offered_methods(study: Study, size: str) -> tuple[str, ...]:
    """Names of the methods that a study compares: those it names, or all that fit its problems."""
    config = study.get_config(size)
    if study.methods or study.variants is not None:
        variants = () if study.variants is None else study.variants(config)
        return study.methods or tuple(dict.fromkeys(variant.method for variant in variants))
    problems = [study.problem(config, case) for case in study.systems]
    names = (name for name, method in METHODS.items() if not any(method.refusal(problem) for problem in problems))
    return tuple(name for name in names if METHODS[name].scope != "named")


def parse(study: Study, arguments: Sequence[str]) -> Context:
    """The run that the arguments ask for; raises InputError for what a study does not know."""
    parser = _make_parser(study)
    options, rest = parser.parse_known_args(list(arguments))
    overrides = split_overrides(rest)
    if options.size not in study.sizes:
        raise InputError(f"unknown size {options.size!r}; {study.name} has {', '.join(study.sizes)}")
    config = study.get_config(options.size)
    config.lock()
    apply_overrides(config, overrides, study.ranges)
    usual = f"{study.name}_{options.size}{'_validation' if options.validate else ''}"
    workdir = options.workdir or Path("runs") / usual
    return Context(
        study=study,
        size=options.size,
        workdir=workdir,
        validates=options.validate,
        config=config,
        seeds=tuple(range(options.seeds or (1 if options.size in ONE_SEED else study.num_seeds))),
        methods=_methods(study, options.methods, options.size),
        cases=_cases(study, options.cases),
        data_dir=options.data_dir,
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
    parser.add_argument(
        "--seeds", type=whole_number(1, 10**4), help=f"number of seeds ({study.num_seeds}; 1 at the sizes {few})"
    )
    names = offered_methods(study, study.default_size)
    trial = _trial_methods(study, names)
    usual = f"all; {','.join(trial)} at the sizes {few}" if trial != names else "all"
    parser.add_argument("--methods", default="", help=f"some of {','.join(names)} ({usual})")
    if len(study.systems) > 1:
        parser.add_argument("--cases", default="", help=f"some of {','.join(study.systems)} (all)")
    else:
        parser.set_defaults(cases="")
    parser.add_argument(
        "--validate",
        action="store_true",
        help="score the split that choices are made on, and leave the test sets sealed",
    )
    parser.add_argument("--workdir", type=run_folder, help=f"run folder (runs/{study.name}_SIZE)")
    named = os.environ.get(DATA_DIR_VARIABLE) or None
    parser.add_argument(
        "--data_dir", type=_data_dir, default=named, help=f"folder of measured data (${DATA_DIR_VARIABLE})"
    )
    return parser


class _StudyParser(CommandParser):
    def __init__(self, study: Study, **settings: Any) -> None:
        super().__init__(**settings)
        self.study = study

    def format_help(self) -> str:
        """Adds the configuration's keys, which only the study's factory knows."""
        size = self.study.default_size
        keys = flatten(self.study.get_config(size))
        lines = "".join(f"\n  --config.{key}={value}" for key, value in keys.items())
        return f"{super().format_help()}\nconfiguration of size {size}:{lines}\n"


def _trial_methods(study: Study, names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of a bare command at the sizes that only try a study: a trial leaves out what only a comparison needs."""
    return study.trial_methods or tuple(name for name in names if METHODS[name].scope == "always")


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _cases(study: Study, text: str) -> tuple[str, ...]:
    for name in _listed(text):
        if name not in study.systems:
            raise InputError(f"unknown case {name!r}; {study.name} has {', '.join(study.systems)}")
    return tuple(name for name in study.systems if name in _listed(text))


def _methods(study: Study, text: str, size: str) -> tuple[str, ...]:
    given = _listed(text)
    for name in given:
        if name not in METHODS or (study.methods and name not in study.methods):
            known = ", ".join(offered_methods(study, size))
            raise InputError(f"unknown method {name!r}; {study.name} has {known}")
    names = offered_methods(study, size)
    return given or (_trial_methods(study, names) if size in ONE_SEED else names)


def _data_dir(text: str) -> Path:
    """A type of argparse: a folder that is there."""
    found = folder(text)
    if not found.is_dir():
        raise argparse.ArgumentTypeError(f"{found}: there is no such folder; check --data_dir or ${DATA_DIR_VARIABLE}")
    return found
