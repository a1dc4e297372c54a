"""Scores of a study of fields and what is known of them: equations, closeness, what is kept, cost."""

import numpy as np

from experiments.data.equations import FieldSet, resolver
from experiments.evaluation.equations import (
    CHUNK,
    costs,
    distance_scores,
    generated_set,
    physics_scores,
    reference_set,
    residual_excess,
)
from experiments.evaluation.invariants import invariant_errors
from experiments.study.study import Answer, Run
from phdme_jax.app.rows import Measurement
from phdme_jax.numerics.batching import in_chunks, num_workers
from phdme_jax.systems.equations.base import Equations

MANY = 4  # channels up to which each has distances of its own


def closeness_scores(equations: Equations, generated: FieldSet, reference: FieldSet) -> dict[str, Measurement]:
    """`distance_scores` of each channel, and mean moment errors; of one or many, such as frames, their mean alone."""
    rows = distance_scores(equations, generated, reference, bool(equations.conditions))
    found: dict[str, list[float | None]] = {}
    for name, row in rows.items():
        measure = next(name.removesuffix(f"_{field}") for field in equations.fields if name.endswith(f"_{field}"))
        found.setdefault(measure, []).append(row.value)
    means = {measure: Measurement(_mean(values)) for measure, values in found.items()}
    if 1 < len(equations.fields) <= MANY:
        return rows | {measure: means[measure] for measure in ("mmse", "smse") if measure in means}
    return means


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def field_scores(answer: Answer) -> dict[str, Measurement]:
    """All scores of generated fields, and residual_excess over the solution that each begins, or that its cause has."""
    equations, generated, reference = answer.bench.task.problem, generated_set(answer), reference_set(answer)
    rows = physics_scores(equations, generated) | closeness_scores(equations, generated, reference)
    again = in_chunks(resolver(equations), CHUNK, *generated, workers=num_workers())
    rows["residual_excess"] = residual_excess(equations, generated, again)
    return rows | invariant_errors(equations, generated) | costs(answer)


def field_reference_rows(run: Run) -> None:
    """Scores of the data, and of other examples of it: what the scheme leaves, and the floor that sampling leaves."""
    equations, sets = run.bench.task.problem, run.bench.world
    asked = sets[run.context.asked]
    other = FieldSet(*(part[: len(asked.fields)] for part in sets["train"]))
    rows = physics_scores(equations, asked) | closeness_scores(equations, other, asked)
    run.record("reference", run.context.asked, rows | invariant_errors(equations, asked), len(asked.fields))
