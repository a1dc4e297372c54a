"""Results pages: tables and numbers between markers of a Markdown page, filled in from result rows and nothing else.

    <!-- table {"methods": ["phdme", "diffusion"], "columns": [{"metric": "nmse", "over": "diffusion"}]} -->
    (the table)
    <!-- end -->
    ... falls to <!-- n {"metric": "nmse", "method": "phdme", "over": "diffusion"} -->0.013 ± 0.007<!-- /n --> of it.

A cell is what its table, its line (an entry of "methods": a name or an object) and its column say, the later word
winning; a number is a cell by itself. ± is over seeds, none where a single one was run. Keys of a cell:

    study     folder of the results, by default the page's own
    system    where the rows are of several;   split     "test" by default
    metric    a name, or a list of names whose numbers are joined by " / "
    method, settings, seed    whose rows; without "settings" those run without any, without "seed" those of all seeds
    over      divides, within each seed: a method, or an object of the keys above that differ below the line
              (with a "seed" of its own, that one number divides all seeds)
    show      "spread" (mean ± standard deviation, the default), "mean", "median", "values" (in order of the seeds),
              "sorted", "range" (least to greatest) or "change" (with "over": per cent more or less, seed by seed)
    digits    significant digits of what is no spread, 2 by default;   scale     factor, 100 for per cent
    optional  true: without rows a table's cell is a dash, not an error
    title     of a line or a column, and of the table the head of its first column

A marker of a number may be broken over lines, but must not begin one: Markdown would take it for a block.
"""

import argparse
import dataclasses
import functools
import json
import math
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import experiments
from experiments.report.catalogue import fill_catalogue
from phdme_jax.app.rows import ResultRow, aggregate, read_rows
from phdme_jax.app.streams import tolerant_streams
from phdme_jax.app.tables import MISSING, format_value
from phdme_jax.files import InputError, atomic_write

RESULTS = Path(experiments.__file__).parent / "results"

Cell = dict[str, Any]
RowsOf = Callable[[str], Sequence[ResultRow]]

_TABLE = re.compile(r"(<!--\s*table\s*(\{.*?\})\s*-->).*?<!--\s*end\s*-->", re.DOTALL)
_NUMBER = re.compile(r"(<!--\s*n\s*(\{.*?\})\s*-->).*?<!--\s*/n\s*-->", re.DOTALL)
_OPENING = re.compile(r"<!--\s*(?:table|n)\b")
_LEADING = re.compile(r"^[ \t]*(?:[-*>][ \t]+)?<!--\s*n\b[^\n]*", re.MULTILINE)
_SELECTION = ("study", "system", "split", "metric", "method", "settings", "seed")
_KEYS = (*_SELECTION, "over", "show", "digits", "scale", "optional", "title")
_WAYS = ("spread", "mean", "median", "values", "sorted", "range", "change")


def select(rows: Sequence[ResultRow], method: str, settings: Mapping[str, Any] | None = None) -> list[ResultRow]:
    """The rows of a method under these settings and no others; without settings, of the method as it is."""
    wanted = dict(settings or {})
    return [row for row in rows if row.method == method and dict(getattr(row, "settings", None) or {}) == wanted]


def measure(rows_of: RowsOf, cell: Cell) -> list[ResultRow]:
    """The rows of one cell, one a seed in the order of the seeds, divided where the cell says so.

    Args:
      rows_of: rows of a study by its name.
      cell: what is wanted; its metric is one name.

    Returns:
      Rows whose values are those of the cell; none where the study has none.

    Raises:
      InputError: the cell lacks a word, is ambiguous, or a seed has nothing that it could be divided by.
    """
    lacking = [key for key in ("study", "metric", "method") if not cell.get(key)]
    if lacking:
        raise InputError(f"{json.dumps(cell)} names no {lacking[0]}; add one")
    found = [
        row
        for row in select(rows_of(cell["study"]), cell["method"], cell.get("settings"))
        if (row.split, row.metric) == (cell.get("split", "test"), cell["metric"])
        and cell.get("system", row.system) == row.system
        and cell.get("seed", row.seed) == row.seed
    ]
    systems = sorted({row.system for row in found})
    if len(systems) > 1:
        raise InputError(f"{json.dumps(cell)} finds rows of {', '.join(systems)}; add a system")
    found.sort(key=lambda row: row.seed)
    if "over" not in cell or not found:
        return found
    over = {"method": cell["over"]} if isinstance(cell["over"], str) else cell["over"]
    kept = {key: cell[key] for key in _SELECTION if key in cell and not (key == "settings" and "method" in over)}
    divisors = measure(rows_of, {**kept, **over})
    by_seed = {row.seed: row.value for row in divisors}
    if divisors and "seed" in over:
        by_seed = {row.seed: divisors[0].value for row in found}
    without = [str(row.seed) for row in found if row.seed not in by_seed]
    if without:
        raise InputError(f"no row of seed {', '.join(without)} to divide by for {json.dumps({**kept, **over})}")
    ratios = [_ratio(row.value, by_seed[row.seed]) for row in found]
    return [dataclasses.replace(row, value=x, stderr=None, unit="1") for row, x in zip(found, ratios, strict=True)]


def show(rows: Sequence[ResultRow], cell: Cell) -> str:
    """The rows of a cell, one a seed, as text; an unknown way to show them is an InputError."""
    way, digits, scale = cell.get("show", "spread"), cell.get("digits", 2), cell.get("scale", 1)
    if way not in _WAYS or (way == "change" and "over" not in cell):
        raise InputError(f'cannot show {way!r}; expected one of {", ".join(_WAYS)}, and "over" where a change is shown')
    scaled = [dataclasses.replace(row, value=None if row.value is None else row.value * scale) for row in rows]
    values = [row.value for row in scaled if row.value is not None]
    failed = f"{len(scaled) - len(values)} of {len(scaled)} failed"
    if not values:
        return failed
    if way in ("values", "change"):
        write = _format_change if way == "change" else functools.partial(format_number, digits=digits)
        return " / ".join("failed" if row.value is None else write(row.value) for row in scaled)
    if way == "spread":
        (summary,) = aggregate(scaled)
        text = _format_spread(statistics.fmean(values), summary.standard_deviation)
    elif way in ("sorted", "range"):
        texts = [format_number(value, digits) for value in sorted(values)]
        text = " / ".join(texts) if way == "sorted" else " to ".join(dict.fromkeys((texts[0], texts[-1])))
    else:
        text = format_number(statistics.fmean(values) if way == "mean" else statistics.median(values), digits)
    return text if len(values) == len(scaled) else f"{text} ({failed})"


def format_number(value: float, digits: int) -> str:
    """A number with so many significant digits, as a table would write it.

    >>> format_number(130.4, 2), format_number(0.0000277, 2), format_number(0.9, 2), format_number(20.0, 3)
    ('130', '2.8e-05', '0.90', '20')
    """
    if value == round(value) and abs(value) < 10**digits:
        return f"{value:.0f}"
    text = f"{value:.{digits - 1}e}"
    exponent = math.floor(math.log10(abs(float(text))))
    if exponent < -3 or exponent >= 5:
        return text
    return f"{float(text):.{max(0, digits - 1 - exponent)}f}"


def fill_cell(rows_of: RowsOf, cell: Cell) -> tuple[str, int]:
    """The text of a cell and the number of its seeds; raises InputError where rows are missing and not optional."""
    metrics = cell["metric"] if isinstance(cell.get("metric"), list) else [cell.get("metric")]
    parts = [{**cell, "metric": metric} for metric in metrics]
    found = [measure(rows_of, part) for part in parts]
    for part, rows in zip(parts, found, strict=True):
        if not rows and not cell.get("optional"):
            raise InputError(f"no row for {json.dumps(part)}")
    texts = [show(rows, part) if rows else MISSING for part, rows in zip(parts, found, strict=True)]
    return " / ".join(texts), max(len(rows) for rows in found)


def make_table(rows_of: RowsOf, declaration: Cell) -> str:
    """The Markdown of one table; a line of fewer seeds than others says so.

    Args:
      rows_of: rows of a study by its name.
      declaration: "methods", "columns" and what all cells share.

    Raises:
      InputError: a cell that is not optional finds no rows, or the declaration is no table.
    """
    shared = {key: value for key, value in declaration.items() if key not in ("methods", "columns")}
    lines = [{"method": line} if isinstance(line, str) else line for line in declaration.get("methods", [])]
    columns = declaration.get("columns", [])
    if not lines or not columns:
        raise InputError('a table needs "methods" and "columns"')
    cells = [[fill_cell(rows_of, {**shared, **line, **column}) for column in columns] for line in lines]
    seeds = [max(number for _, number in line) for line in cells]
    body = [[declaration.get("title", "method"), *map(_name_column, columns)], ["---", *["---:"] * len(columns)]]
    for line, number, filled in zip(lines, seeds, cells, strict=True):
        few = "" if number == max(seeds) else " (one seed)" if number == 1 else f" ({number} seeds)"
        body.append([_name_line(line) + few, *(text for text, _ in filled)])
    return "\n".join("| " + " | ".join(line) + " |" for line in body)


def fill(text: str, rows_of: RowsOf, study: str | None = None) -> str:
    """A page with its tables and numbers made anew.

    Args:
      text: the page.
      rows_of: rows of a study by its name.
      study: study of the declarations that name none.

    Raises:
      InputError: a declaration that is broken or finds no rows; the sentence says which.
    """
    leading = _LEADING.search(text)
    if leading:
        raise InputError(f"a marker of a number must not begin a line: {leading.group().strip()}")
    if len(_OPENING.findall(text)) != len(_TABLE.findall(text)) + len(_NUMBER.findall(text)):
        raise InputError("a marker is broken: a table ends with <!-- end -->, a number with <!-- /n -->")

    def table(match: re.Match[str]) -> str:
        made = make_table(rows_of, {"study": study, **_parse(match.group(2))})
        return f"{match.group(1)}\n\n{made}\n\n<!-- end -->"

    def number(match: re.Match[str]) -> str:
        made, _ = fill_cell(rows_of, {"study": study, **_parse(match.group(2)), "optional": False})
        return f"{match.group(1)}{made}<!-- /n -->"

    return _NUMBER.sub(number, _TABLE.sub(table, text))


def find_pages(results: Path) -> list[Path]:
    """The pages that may hold markers: the repository's, the index of the results and one a study."""
    rooms = [results.parent.parent / "phdme_jax" / room / "README.md" for room in ("systems", "methods")]
    named = [
        results.parent.parent / "README.md",
        *(page for page in rooms if page.exists()),
        results / "README.md",
        *sorted(results.glob("*/README.md")),
    ]
    return [page for page in named if page.exists()]


def remake(page: Path, rows_of: RowsOf) -> str:
    """A page as its rows make it; an InputError begins with the name of the page."""
    study = page.parent.name if (page.parent / "results.jsonl").exists() else None
    try:
        return fill(fill_catalogue(page.read_text(encoding="utf-8")), rows_of, study)
    except InputError as error:
        raise InputError(f"{page}: {error}") from None


def make_reader(results: Path) -> RowsOf:
    """Rows of a study by its name, read once; a study without rows is an InputError."""

    @functools.cache
    def rows_of(study: str) -> Sequence[ResultRow]:
        rows = read_rows(results / study / "results.jsonl")
        if not rows:
            raise InputError(f"no study {study!r} with rows under {results}")
        return rows

    return rows_of


@tolerant_streams()
def main(argv: Sequence[str] | None = None) -> int:
    """Makes the tables and numbers of all results pages anew, in place."""
    parser = argparse.ArgumentParser(prog="python -m experiments.report --pages", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit with 1 if a page would change")
    check, rows_of = parser.parse_args(argv).check, make_reader(RESULTS)
    try:
        made = {page: remake(page, rows_of) for page in find_pages(RESULTS)}
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    changed = [page for page, text in made.items() if text != page.read_text(encoding="utf-8")]
    for page in changed:
        if check:
            print(f"{page} is not what its rows make it; run python -m experiments.report --pages", file=sys.stderr)
        else:
            with atomic_write(page) as file:
                file.write(made[page].encode("utf-8"))
    return 1 if check and changed else 0


def _parse(text: str) -> Cell:
    try:
        declaration = json.loads(text)
    except ValueError as error:
        raise InputError(f"a declaration is not JSON ({error}): {' '.join(text.split())}") from None
    cells = [declaration, *declaration.get("columns", []), *declaration.get("methods", [])]
    parts = [part for cell in cells if isinstance(cell, dict) for part in (cell, cell.get("over"))]
    for part in parts:
        unknown = set(part) - {*_KEYS, "methods", "columns"} if isinstance(part, dict) else set()
        if unknown:
            raise InputError(f"unknown key {min(unknown)!r} in a declaration; expected {', '.join(_KEYS)}")
    return declaration


def _format_spread(mean: float, deviation: float | None) -> str:
    """Mean ± deviation; a deviation of rounding is none, and what is 0 or 1 (a ratio to itself) has none."""
    if deviation is not None and deviation <= 1e-6 * abs(mean):
        return f"{mean:.0f}" if mean in (0.0, 1.0) else format_value(mean, 0.0)
    return format_value(mean, deviation)


def _format_change(ratio: float) -> str:
    change = round(100 * (ratio - 1))
    return f"{change:+d}" if change else "0"


def _ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or not below else above / below


def _name_line(line: Cell) -> str:
    settings = ", ".join(f"`{key}={value}`" for key, value in (line.get("settings") or {}).items())
    return line.get("title") or f"`{line.get('method', '')}`" + (f" ({settings})" if settings else "")


def _name_column(column: Cell) -> str:
    metric = column.get("metric", "")
    return column.get("title") or (" / ".join(metric) if isinstance(metric, list) else metric)


if __name__ == "__main__":
    raise SystemExit(main())
