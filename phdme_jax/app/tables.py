"""Tables of results: one row a system, split and method, one column a metric, as text, Markdown and HTML.

Every number is a mean ± standard deviation over seeds. The best mean of a block is marked, failures are written out,
and nothing is left out for losing.
"""

import dataclasses
import html
import math
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from phdme_jax.app.rows import ResultRow, Summary, aggregate
from phdme_jax.app.vocabulary import HIGHER_IS_BETTER, UNRANKED_METRICS, vocabulary_place

MISSING = "–"
_KEYS = ("system", "split", "method")


@dataclasses.dataclass(frozen=True)
class Table:
    """A table ready to be written.

    Attributes:
      caption: the experiment and what the numbers are.
      header: column names; the first three are system, split and method.
      details: unit and number of examples of every column, "" for the first three.
      rows: cells as text.
      best: (row, column) of the cells that hold the best mean of their block.
    """

    caption: str
    header: tuple[str, ...]
    details: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[tuple[int, int]]


def make_tables(rows: Iterable[ResultRow], metrics: Sequence[str] | None = None) -> list[Table]:
    """One table for every experiment among the rows.

    Args:
      rows: result rows.
      metrics: columns wanted, in this order; a name stands for its qualified names too. None takes all.

    Returns:
      Tables, without those that would be empty.
    """
    summaries = aggregate(rows)
    tables = []
    for experiment in dict.fromkeys(summary.experiment for summary in summaries):
        part = [summary for summary in summaries if summary.experiment == experiment]
        columns = _columns(part, metrics)
        if columns:
            tables.append(_make_table(experiment, part, columns))
    return tables


def format_value(mean: float, standard_deviation: float | None) -> str:
    """A mean and its spread with the digits the spread supports: two of the spread, at most four of the mean.

    >>> format_value(0.012345, 0.00213)
    '0.0123 ± 0.0021'
    >>> format_value(1.2345e-6, 2.1e-7)
    '(1.23 ± 0.21)e-06'
    """
    if standard_deviation is None or standard_deviation == 0:
        text = f"{mean:.0f}" if mean == round(mean) and abs(mean) < 1e7 else f"{mean:.3g}"
        return text if standard_deviation is None else f"{text} ± 0"
    largest = max(abs(mean), standard_deviation)
    exponent = math.floor(math.log10(largest))
    scientific = exponent < -3 or exponent >= 5
    scale = 10.0**exponent if scientific else 1.0
    top = 0 if scientific else exponent
    place = max(math.floor(math.log10(standard_deviation / scale)) - 1, top - 3)
    decimals = max(0, -place)
    spread = f"{standard_deviation / scale:.{decimals}f}"
    if float(spread) == 0:
        spread = f"{standard_deviation / scale:.1g}"
    text = f"{mean / scale:.{decimals}f} ± {spread}"
    return f"({text})e{exponent:+03d}" if scientific else text


def render_markdown(table: Table) -> str:
    """The table in Markdown; best means in bold."""
    header = [f"{name} {detail}".strip() for name, detail in zip(table.header, table.details, strict=True)]
    lines = [f"**{escape_markdown(table.caption)}**", "", _markdown_line(header)]
    lines.append("|" + "|".join([" --- "] * 3 + [" ---: "] * (len(header) - 3)) + "|")
    for row, cells in enumerate(table.rows):
        marked = [
            f"**{escape_markdown(cell)}**" if (row, column) in table.best else escape_markdown(cell)
            for column, cell in enumerate(cells)
        ]
        lines.append("| " + " | ".join(marked) + " |")
    return "\n".join(lines) + "\n"


def render_html(table: Table) -> str:
    """The table in HTML; best means in bold, a rule between blocks of one system and split."""
    head = "".join(
        f"<th>{html.escape(name)}" + (f"<small>{html.escape(detail)}</small>" if detail else "") + "</th>"
        for name, detail in zip(table.header, table.details, strict=True)
    )
    lines = [f'<div class="wide"><table><caption>{html.escape(table.caption)}</caption>']
    lines.append(f"<thead><tr>{head}</tr></thead><tbody>")
    for row, cells in enumerate(table.rows):
        block = ' class="block"' if row == 0 or cells[:2] != table.rows[row - 1][:2] else ""
        tags = ['<td class="best">' if (row, column) in table.best else "<td>" for column in range(len(cells))]
        marked = [f"{tag}{html.escape(cell)}</td>" for tag, cell in zip(tags, cells, strict=True)]
        lines.append(f"<tr{block}>{''.join(marked)}</tr>")
    return "\n".join([*lines, "</tbody></table></div>"]) + "\n"


def render_text(table: Table, width: int = 118) -> str:
    """The table in plain text, broken into several where it is wider than `width`; a star marks best means."""
    cells = [
        [cell + "*" if (row, column) in table.best else cell for column, cell in enumerate(line)]
        for row, line in enumerate(table.rows)
    ]
    grid = [list(table.header), list(table.details), *cells]
    widths = [max(len(line[column]) for line in grid) for column in range(len(table.header))]
    parts: list[list[int]] = [[]]
    for column in range(3, len(widths)):
        taken = sum(widths[other] + 2 for other in (0, 1, 2, *parts[-1]))
        if parts[-1] and taken + widths[column] > width:
            parts.append([])
        parts[-1].append(column)
    lines = [table.caption + ("; * the best" if table.best else "")]
    for part in parts:
        columns = [0, 1, 2, *part]
        lines.append("")
        for place, line in enumerate(grid):
            padded = [
                line[column].ljust(widths[column]) if column < 3 else line[column].rjust(widths[column])
                for column in columns
            ]
            lines.append("  ".join(padded).rstrip())
            if place == 1:
                lines.append("-" * (sum(widths[column] for column in columns) + 2 * (len(columns) - 1)))
    return "\n".join(lines) + "\n"


def print_table(rows: Iterable[ResultRow], metrics: Sequence[str] | None = None, file: TextIO | None = None) -> None:
    """Prints the tables of the rows.

    Args:
      rows: result rows.
      metrics: columns wanted; None takes all.
      file: where to; standard output where None.
    """
    stream = sys.stdout if file is None else file
    text = "\n".join(render_text(table) for table in make_tables(rows, metrics))
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = text.replace("±", "+-").replace(MISSING, "-").encode("ascii", "replace").decode()
    print(text, file=stream)


def _make_table(experiment: str, summaries: list[Summary], columns: list[tuple[str, str]]) -> Table:
    by_place = {(s.system, s.split, s.method, s.metric, s.unit): s for s in summaries}
    seeds = max(summary.num_seeds + summary.num_failed for summary in summaries)
    lines = [
        key
        for key in dict.fromkeys((s.system, s.split, s.method) for s in summaries)
        if any((*key, *column) in by_place for column in columns)
    ]
    rows = [(*key, *(_cell(by_place.get((*key, *column)), seeds) for column in columns)) for key in lines]
    best = {
        (row, place + 3)
        for place, column in enumerate(columns)
        for row in _best_rows(lines, [by_place.get((*key, *column)) for key in lines])
    }
    return Table(
        caption=f"{experiment}: " + (f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"),
        header=(*_KEYS, *(metric for metric, _ in columns)),
        details=("", "", "", *(_detail(summaries, column) for column in columns)),
        rows=tuple(rows),
        best=frozenset(best),
    )


def _columns(summaries: list[Summary], metrics: Sequence[str] | None) -> list[tuple[str, str]]:
    """(metric, unit) of the columns; a metric measured in two units gets two."""
    present = list(dict.fromkeys((s.metric, s.unit) for s in sorted(summaries, key=_metric_place)))
    if metrics is None:
        return present
    wanted: dict[tuple[str, str], None] = {}
    for name in metrics:
        exact = [column for column in present if column[0] == name]
        qualified = [column for column in present if column[0].startswith(name + "_")]
        wanted |= dict.fromkeys(exact or qualified)
    return list(wanted)


def _metric_place(summary: Summary) -> tuple:
    return (*vocabulary_place("metric", summary.metric), summary.unit)


def _detail(summaries: list[Summary], column: tuple[str, str]) -> str:
    counts = [count for s in summaries if (s.metric, s.unit) == column for count in s.n]
    number = str(min(counts)) if min(counts) == max(counts) else f"{min(counts)}–{max(counts)}"
    return f"[{column[1]}] n={number}"


def _cell(summary: Summary | None, seeds: int) -> str:
    if summary is None:
        return MISSING
    total = summary.num_seeds + summary.num_failed
    if summary.mean is None:
        return f"failed ({summary.num_failed} of {total})"
    text = format_value(summary.mean, summary.standard_deviation)
    if summary.num_failed:
        return f"{text} ({summary.num_failed} of {total} failed)"
    return text if total == seeds else f"{text} ({total} seed{'s' if total > 1 else ''})"


def _best_rows(lines: list[tuple[str, str, str]], column: list[Summary | None]) -> list[int]:
    """Rows with the best mean of their block, where there is a choice; the reference and failures do not compete."""
    blocks: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for row, ((system, split, method), summary) in enumerate(zip(lines, column, strict=True)):
        if summary is None or summary.mean is None or summary.num_failed or method == "reference":
            continue
        if summary.metric.startswith(UNRANKED_METRICS):
            continue
        worth = -summary.mean if summary.metric.startswith(HIGHER_IS_BETTER) else abs(summary.mean)
        blocks.setdefault((system, split), []).append((worth, row))
    return [row for block in blocks.values() if len(block) > 1 for worth, row in block if worth == min(block)[0]]


def _markdown_line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(escape_markdown(cell) for cell in cells) + " |"


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is: no HTML, links, emphasis or columns."""
    for sign in ("\\", "|", "*", "<", "]("):
        text = text.replace(sign, "\\" + sign)
    return text
