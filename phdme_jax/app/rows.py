"""Long-format result rows: one JSON object a line in `results.jsonl`, which only grows, the last row of a key wins.

A run that is killed and started again writes the same rows again: identical rows are skipped and changed rows replace
the earlier ones on reading. Size and digest of what was written stand beside it in `results.digest`: a file that has
lost rows since, or holds others, is refused.
"""

import dataclasses
import hashlib
import json
import math
import numbers
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from phdme_jax.app.vocabulary import check_name, vocabulary_place
from phdme_jax.files import InputError, RunFailed, atomic_write, read_json


@dataclasses.dataclass(frozen=True)
class ResultRow:
    """One number of one run.

    Attributes:
      experiment: name of the study.
      system: name of the physical system.
      method: name of the method; `reference` for the reference data's own value.
      seed: seed of the run, 0 or more.
      split: data split the number was measured on.
      metric: name of the metric.
      value: the number, finite, or None where the method gave none (it diverged).
      stderr: standard error of `value` over the n examples, or None.
      n: number of examples behind `value`.
      unit: physical unit, "1" where there is none.
      settings: what the method was run under beside the study's configuration, dotted key -> value; empty for nothing.
    """

    experiment: str
    system: str
    method: str
    seed: int
    split: str
    metric: str
    value: float | None
    stderr: float | None
    n: int
    unit: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses what JSON or a table could not carry; raises InputError."""
        for name in ("experiment", "system", "method", "split", "metric", "unit"):
            text = getattr(self, name)
            if not isinstance(text, str) or not text or not text.isprintable():
                raise InputError(f"a result row needs printable text in {name}, got {text!r}")
        for name in ("seed", "n"):
            number = getattr(self, name)
            if not isinstance(number, numbers.Integral) or isinstance(number, bool) or number < 0:
                raise InputError(f"a result row needs a whole number of 0 or more in {name}, got {number!r}")
        for name in ("value", "stderr"):
            number = getattr(self, name)
            if number is None:
                continue
            if not isinstance(number, numbers.Real) or isinstance(number, bool) or not math.isfinite(number):
                raise InputError(f"result rows need a finite number or null as {name} of {self.metric}, got {number!r}")
        if not isinstance(self.settings, Mapping) or not self.label.isprintable():
            raise InputError(f"a result row needs printable names and values in settings, got {self.settings!r}")

    @property
    def key(self) -> tuple[str, str, str, str, int, str, str]:
        """What makes two rows the same measurement."""
        settings = json.dumps(self.settings, sort_keys=True)
        return (self.experiment, self.system, self.method, settings, int(self.seed), self.split, self.metric)

    @property
    def label(self) -> str:
        """The method with its settings, as tables name it."""
        return label_of(self.method, self.settings)


ROW_FIELDS = tuple(field.name for field in dataclasses.fields(ResultRow))


def label_of(method: str, settings: Mapping[str, Any]) -> str:
    """A method with its settings, as tables name it: `phdme (sampling.num_steps=8)`."""
    words = ", ".join(f"{key}={value}" for key, value in settings.items())
    return f"{method} ({words})" if words else method


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A value with its unit and, where it is a mean over examples, its standard error.

    `n` is the number of examples behind it where they are not those of the other values.
    """

    value: float | None
    unit: str = "1"
    stderr: float | None = None
    n: int | None = None


@dataclasses.dataclass(frozen=True)
class Summary:
    """A metric over seeds.

    Attributes:
      experiment, system, split, metric, unit: as in the rows.
      method: with its settings, see `ResultRow.label`.
      mean: mean over the seeds that gave a finite value, or None.
      standard_deviation: over those seeds, with n - 1 in the denominator; None for fewer than two.
      num_seeds: seeds that gave a finite value.
      num_failed: seeds that gave none.
      n: smallest and largest number of examples behind a seed's value.
    """

    experiment: str
    system: str
    method: str
    split: str
    metric: str
    unit: str
    mean: float | None
    standard_deviation: float | None
    num_seeds: int
    num_failed: int
    n: tuple[int, int]


def finite_or_none(value: object) -> float | None:
    """The number as a Python float, or None where it is missing, NaN or infinite."""
    number = None if value is None else float(value)  # type: ignore[arg-type]
    return number if number is not None and math.isfinite(number) else None


def read_rows(path: Path | str) -> list[ResultRow]:
    """Reads the rows of a result file, the last one of every key, in order of first appearance.

    Args:
      path: the `results.jsonl`; a missing file holds no rows.

    Raises:
      InputError: a line is not a row, or rows that `append_rows` wrote are gone or changed.
    """
    return list({row.key: row for _, row in _read_lines(Path(path))}.values())


def append_rows(path: Path | str, rows: Iterable[ResultRow]) -> int:
    """Appends rows, all of them or none; rows the file already holds with the same values are skipped.

    Args:
      path: the `results.jsonl`; made if missing.
      rows: the rows.

    Returns:
      Number of rows written.

    Raises:
      InputError: a name outside the vocabulary, or a file that `read_rows` refuses; nothing is written then.
      RunFailed: there is no space; nothing is written then.
    """
    path = Path(path)
    rows = list(rows)
    for row in rows:
        for kind in ("system", "method", "metric", "split"):
            check_name(kind, getattr(row, kind))
    lines = _read_lines(path)
    present = {row.key: row for _, row in lines}
    fresh = []
    for row in rows:
        if present.get(row.key) != row:
            present[row.key] = row
            fresh.append(_format_row(row))
    if fresh:
        content = "".join(f"{line}\n" for line in [*(line for line, _ in lines), *fresh]).encode("utf-8")
        record = {"bytes": len(content), "digest": _digest(content)}
        # in this order: rows beyond those that the digest knows are no loss
        for name, written in ((path, content), (_digest_file(path), json.dumps(record).encode("utf-8"))):
            with atomic_write(name) as file:
                file.write(written)
    return len(fresh)


@dataclasses.dataclass(frozen=True)
class ResultsWriter:
    """Where a study puts its numbers: a result file and the name of the experiment."""

    path: Path
    experiment: str
    _written: set[tuple] = dataclasses.field(default_factory=set, compare=False, repr=False)

    def record(
        self,
        system: str,
        method: str,
        seed: int,
        split: str,
        measurements: Mapping[str, Measurement],
        n: int,
        settings: Mapping[str, Any] | None = None,
    ) -> int:
        """Appends one row for every measurement; non-finite values become null.

        Args:
          system: name of the system.
          method: name of the method.
          seed: seed of the run.
          split: data split.
          measurements: metric name -> measurement.
          n: number of examples behind every value that does not say its own.
          settings: what the method was run under beside the configuration.

        Returns:
          Number of rows written.

        Raises:
          RunFailed: rows that this writer wrote before are gone.
        """
        self.rows()
        names = (self.experiment, system, method, int(seed), split)
        rows = [
            ResultRow(
                *names,
                metric,
                finite_or_none(measurement.value),
                finite_or_none(measurement.stderr),
                int(n if measurement.n is None else measurement.n),
                measurement.unit,
                dict(settings or {}),
            )
            for metric, measurement in measurements.items()
        ]
        count = append_rows(self.path, rows)
        self._written.update(row.key for row in rows)
        return count

    def rows(self) -> list[ResultRow]:
        """The rows of this experiment so far; raises RunFailed if some that this writer wrote are gone."""
        found = read_rows(self.path)
        if not self._written <= {row.key for row in found}:
            raise RunFailed(
                f"{self.path}: rows written a moment ago are gone, someone removed the file or its folder; remove what "
                "is left of the folder and give the same command again"
            )
        return [row for row in found if row.experiment == self.experiment]

    def has(self, system: str, method: str, seed: int, split: str, settings: Mapping[str, Any] | None = None) -> bool:
        """Whether the file holds rows of this run, so that it may be skipped."""
        wanted = (system, label_of(method, settings or {}), seed, split)
        return any((row.system, row.label, row.seed, row.split) == wanted for row in self.rows())


def aggregate(rows: Iterable[ResultRow]) -> list[Summary]:
    """Mean and standard deviation over seeds, for every experiment, system, method, split, metric and unit.

        mean = Σ v_s / S,   sd² = Σ (v_s − mean)² / (S − 1)

    Args:
      rows: result rows; the last of a key wins.

    Returns:
      Summaries in the order of the vocabulary: system, split, method, metric.
    """
    latest = {row.key: row for row in rows}
    groups: dict[tuple[str, ...], list[ResultRow]] = {}
    for row in latest.values():
        group = (row.experiment, row.system, row.split, row.label, row.metric, row.unit)
        groups.setdefault(group, []).append(row)
    return [_summarise(groups[group]) for group in sorted(groups, key=_sort_key)]


def _summarise(rows: list[ResultRow]) -> Summary:
    first = rows[0]
    # Summing in the order of the seeds makes the digits independent of the order of the lines.
    values = [row.value for row in sorted(rows, key=lambda row: row.seed) if row.value is not None]
    return Summary(
        experiment=first.experiment,
        system=first.system,
        method=first.label,
        split=first.split,
        metric=first.metric,
        unit=first.unit,
        mean=statistics.fmean(values) if values else None,
        standard_deviation=statistics.stdev(values) if len(values) > 1 else None,
        num_seeds=len(values),
        num_failed=len(rows) - len(values),
        n=(min(row.n for row in rows), max(row.n for row in rows)),
    )


def _sort_key(group: tuple[str, ...]) -> tuple:
    experiment, system, split, method, metric, unit = group
    words = (("system", system), ("split", split), ("method", method), ("metric", metric))
    places = [vocabulary_place(kind, name) for kind, name in words]
    return (experiment, *places, unit)


def _digest_file(path: Path) -> Path:
    return path.with_suffix(".digest")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read_lines(path: Path) -> list[tuple[str, ResultRow]]:
    """Lines of a result file with their rows; a last line without its end that is no row is left out."""
    record = read_json(_digest_file(path))  # first: meanwhile the file may grow
    if not path.exists():
        return []
    content = path.read_bytes()
    size = record.get("bytes")
    if record and not (isinstance(size, int) and _digest(content[:size]) == record.get("digest")):
        raise InputError(
            f"{path}: has lost rows that were written to it, or holds others; put it back, or remove it and give the "
            "command of the run again, which makes its rows anew"
        )
    lines, found = content.decode("utf-8", errors="surrogateescape").split("\n"), []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found.append((line, _parse_row(line)))
        except (ValueError, OverflowError, RecursionError) as error:
            if number < len(lines):
                raise InputError(f"{path}: line {number} is not a result row ({error}); remove the line") from None
    return found


def _parse_row(line: str) -> ResultRow:
    fields = json.loads(line)
    if not isinstance(fields, dict) or set(fields) | {"settings"} != set(ROW_FIELDS):
        raise InputError(f"expected the fields {', '.join(ROW_FIELDS)}")
    return ResultRow(**fields)


def _format_row(row: ResultRow) -> str:
    fields = dataclasses.asdict(row)
    for name in ("value", "stderr"):
        fields[name] = None if fields[name] is None else float(fields[name])
    fields["seed"], fields["n"] = int(fields["seed"]), int(fields["n"])
    if not fields["settings"]:
        del fields["settings"]
    return json.dumps(fields, allow_nan=False)
