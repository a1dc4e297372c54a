"""Rows of several finished studies, read for one page on all of them."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from phdme_jax.app.command import CommandParser, folder, run_main
from phdme_jax.app.page import Section
from phdme_jax.app.rows import ResultRow, append_rows, read_rows
from phdme_jax.app.tables import format_value, print_table
from phdme_jax.files import InputError, read_json

Settings = Mapping[str, Any]
Curve = dict[Any, list[float]]


RESULTS = Path(__file__).parents[1] / "results"
ROUNDING = 1e-6  # what is below this share of a number is of rounding


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds in words."""
    mean, deviation = fmean(values), stdev(values) if len(values) > 1 else None
    rounding = deviation is not None and deviation <= ROUNDING * abs(mean)
    return format_value(mean, 0.0 if rounding else deviation)


class Rows:
    """Result rows of one part of the page."""

    def __init__(self, experiment: str, rows: Iterable[ResultRow]) -> None:
        self.experiment = experiment
        self.rows = [row for row in rows if row.experiment == experiment]

    def systems(self) -> list[str]:
        """Systems in order of appearance."""
        return list(dict.fromkeys(row.system for row in self.rows))

    def values(
        self, system: str, metric: str, method: str, settings: Settings | None = None, split: str = "test"
    ) -> dict[int, float]:
        """Finite values of a split by seed, of a method under some settings and no others."""
        wanted = (system, metric, method, settings or {}, split)
        found = [row for row in self.rows if (row.system, row.metric, row.method, row.settings, row.split) == wanted]
        return {row.seed: row.value for row in found if row.value is not None}

    def curve(self, system: str, metric: str, method: str, key: str, default: Any = None) -> Curve:
        """Values of the test over seeds by the value of one setting, in order; without it at its default, if any."""
        alone = [row.settings[key] for row in self.rows if row.method == method and set(row.settings) == {key}]
        found = {value: self.values(system, metric, method, {key: value}) for value in sorted(set(alone))}
        if default is not None:
            found[default] = self.values(system, metric, method)
        return {value: list(found[value].values()) for value in sorted(found) if found[value]}

    def by_method(self, system: str, metric: str) -> dict[str, list[float | None]]:
        """Values of the test over seeds, failed ones as None, but for the reference and the comparison of costs."""
        apart = {"reference", *(row.label for row in self.rows if row.metric == "seconds_per_forecast")}
        found: dict[str, list[float | None]] = {}
        for row in self.rows:
            if (row.system, row.metric, row.split) == (system, metric, "test") and row.label not in apart:
                found.setdefault(row.label.replace(" (", "\n("), []).append(row.value)
        return found


def validates(folder: Path) -> bool:
    """Whether a run folder is one that choices were made with."""
    record = folder / "config.json"
    return record.exists() and bool(read_json(record).get("validates"))


def read_parts(folders: Iterable[Path], names: Sequence[str]) -> dict[str, Rows]:
    """Rows of the parts that run folders hold, in the order of the names; runs that validate are left out."""
    files = [folder / "results.jsonl" for folder in folders if not validates(folder)]
    rows = list({row.key: row for file in files for row in read_rows(file)}.values())
    found = {name: Rows(name, rows) for name in names}
    return {name: part for name, part in found.items() if part.rows}


def require_parts(folders: Sequence[Path], names: Sequence[str]) -> dict[str, Rows]:
    """`read_parts`; raises InputError where none of the parts has rows."""
    parts = read_parts(folders, names)
    if not parts:
        raise InputError(
            f"{', '.join(map(str, folders))}: no results of {', '.join(names)}; expected run folders of these studies"
        )
    return parts


def page_command(
    name: str,
    description: str,
    make_page: Callable[[Sequence[Path], Path], Path],
    finding: Callable[[dict[str, Rows]], Section],
    parts: tuple[Sequence[str], Sequence[str]],
    arguments: Sequence[str] | None,
) -> int:
    """The command line of a page made of rows: run folders in, or the committed results; the page and its table out.

    Args:
      name: of the module.
      description: one line for the help.
      make_page: (folders, folder to write) -> path of the report.
      finding: rows of the page by part -> the section of the main finding.
      parts: names of the parts, and the columns of the table.
      arguments: of the command line; the process's own where None.
    Returns:
      exit code, see `run_main`.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)

    def make() -> None:
        parser = CommandParser(prog=f"python -m experiments.{name}", description=description)
        parser.add_argument("folders", type=folder, nargs="*", metavar="RUN_FOLDER", help="of the studies' runs")
        parser.add_argument("--workdir", type=folder, default=Path("runs") / name, metavar="DIR", help="to write")
        options = parser.parse_args(given)
        folders = options.folders or sorted(path.parent for path in RESULTS.glob("*/results.jsonl"))
        path = make_page(folders, options.workdir)
        found = read_parts([options.workdir], parts[0])
        print_table([row for part in found.values() for row in part.rows], parts[1])
        print(f"{finding(found).text}\n\nreport: {path}")

    return run_main(make)


def begin_page(workdir: Path, rows: Iterable[ResultRow]) -> None:
    """Write the rows of a page into its folder, in the place of those of an earlier one.

    Raises:
      InputError: the folder is that of a run.
    """
    if (workdir / "config.json").exists():
        raise InputError(f"{workdir}: holds a run whose results would be lost; choose another --workdir")
    (workdir / "results.jsonl").unlink(missing_ok=True)
    append_rows(workdir / "results.jsonl", rows)
