"""How a run ends: a few lines in words, from the rows alone."""

import statistics
from collections.abc import Iterable, Mapping

from experiments.study.study import Context
from phdme_jax.app.rows import ResultRow
from phdme_jax.app.tables import format_value
from phdme_jax.app.vocabulary import HIGHER_IS_BETTER
from phdme_jax.methods.table import METHODS

Values = Mapping[str, float]  # method -> mean over seeds
UNRANKED = {"reference", *(name for name, method in METHODS.items() if "true_energy" in method.needs)}


def main_rows(context: Context) -> list[ResultRow]:
    """Rows but those of training: of methods as they are, or with their settings where a study has no others."""
    study, rows = context.study, [row for row in context.results.rows() if row.split != "train"]
    if study.variants is not None and all(variant.changes for variant in study.variants(context.config)):
        return rows
    return [row for row in rows if not row.settings]


def headline(context: Context) -> list[str]:
    """What was learned from what, the best method and by how much, coverage against nominal.

    Args:
      context: of a finished run.
    Returns:
      three to five sentences.
    """
    study, rows = context.study, main_rows(context)
    # a study that asks questions alone is judged by the first one that has rows
    asked = context.asked if any(row.split == context.asked for row in rows) or not rows else rows[0].split
    rows = [row for row in rows if row.split == asked]
    seeds = len({row.seed for row in rows})
    lines = [f"{study.about(context.config)} {seeds} seed{'s' if seeds > 1 else ''}."] if study.about else []
    metric = study.metrics[0]
    for case in context.systems:
        values = _means(rows, case, metric)
        if values:
            lines.append((f"{case}: " if study.cases else "") + _ranking(values, metric, study.baseline))
    lines += [sentence for case in context.systems if (sentence := _coverage(rows, case, metric, context))]
    return lines


def _means(rows: Iterable[ResultRow], case: str, metric: str) -> dict[str, float]:
    """Mean over seeds of each method that gave a finite value for every seed; those that know the truth aside."""
    found: dict[str, list[float | None]] = {}
    for row in rows:
        if row.system == case and row.metric == metric and row.method not in UNRANKED:
            found.setdefault(row.label, []).append(row.value)
    return {name: statistics.fmean(values) for name, values in found.items() if None not in values}  # type: ignore[arg-type]


def _ranking(values: Values, metric: str, baseline: str) -> str:
    sign = -1.0 if metric.startswith(HIGHER_IS_BETTER) else 1.0
    order = sorted(values, key=lambda name: sign * abs(values[name]))
    best, words = order[0], metric.replace("_", " ")
    sentence = f"{best} has the best {words}, {format_value(values[best], None)}"
    others = [name for name in (baseline, *order[1:]) if name in values and name != best]
    if not others or values[best] == 0.0:
        return sentence + "."
    other = others[0]
    ratio = abs(values[other] / values[best])
    return sentence + f"; that of {other} is {format_value(values[other], None)}, {ratio:.3g} times as large."


def _coverage(rows: Iterable[ResultRow], case: str, metric: str, context: Context) -> str | None:
    covered, ranked = _means(rows, case, "coverage"), _means(rows, case, metric)
    if not covered or "level" not in context.config:
        return None
    best = min((name for name in covered if name in ranked), key=lambda name: abs(ranked[name]), default=None)
    if best is None:
        return None
    low, high = min(covered.values()), max(covered.values())
    span = f", {100 * low:.0f} to {100 * high:.0f} % over all methods" if high > low else ""
    level = f"{100 * context.config.level:g} %"
    return f"Bands of {level} hold {100 * covered[best]:.0f} % of unseen examples as a whole for {best}{span}."
