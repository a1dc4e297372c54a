"""How a run ends: what came out in words, then one compact table."""

from collections.abc import Iterable, Sequence
from typing import TextIO

from phdme_jax.app.rows import ResultRow
from phdme_jax.app.tables import print_table


def print_headline(
    lines: Sequence[str], rows: Iterable[ResultRow], metrics: Sequence[str], file: TextIO | None = None
) -> None:
    """Prints sentences and the table of the main numbers; everything else is for the report.

    Args:
      lines: three to six sentences, ASCII, the last of which says what to open.
      rows: result rows.
      metrics: columns of the table, in order.
      file: where to; standard output where None.
    """
    print("", *lines, "", sep="\n", file=file)
    print_table(rows, metrics, file)
