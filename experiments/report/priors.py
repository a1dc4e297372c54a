"""Sections of a study of fields and what is known of them."""

from collections.abc import Sequence

from experiments.report.equations import equation_sections, last_sample_section
from experiments.study.study import MakeSection, Shown
from phdme_jax.app.page import Section


def invariant_section(shown: Shown) -> Sequence[Section]:
    """What should not change between the frames."""
    invariants = shown.run.bench.task.problem.priors.invariants
    if not invariants:
        return []
    names = tuple(name for name, _ in invariants)
    text = (
        f"Root mean squares of what {' and '.join(names)} deviate from their mean over the frames, means over "
        "examples; the reference row is the data's. A projection makes them right by hand: what else it changes must "
        "be read beside them."
    )
    return [Section(f"What is kept, {shown.run.case}", text, (), tuple(f"{name}_error" for name in names))]


def field_prior_sections() -> tuple[MakeSection, ...]:
    """Sections of a study of priors of fields."""
    return equation_sections(last_sample_section, invariant_section)
