"""What is known of examples beside their equations: symmetries of their law, what each obeys, what it conserves.

A *symmetry* is a group that acts on examples and leaves their law as it is. A *feasibility* is something that every
example obeys, with the form that says how a loss may ask a denoiser for it: a denoiser answers with a mean, and a mean
of examples that obey something need not obey it (Jensen's gap).
Source: Zhou, Wang, Yu (2025), arXiv 2409.00730.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Array

FORMS = ("linear", "multilinear", "convex", "reducible", "general")


@dataclass(frozen=True)
class Symmetry:
    """A group that leaves the law of the examples as it is, by linear isometries of normalised fields.

    Attributes:
      name: of the group.
      draw: key -> an element, drawn evenly, as a pytree of arrays.
      act: (element, fields, condition) -> fields and condition of the moved example.
      centre: fields -> fields without the part that translations change, for which no even law exists; None where the
        group has none. A linear projection that commutes with `act`.
      mixed: numbers of fields that `act` mixes, such as the components of a vector: their encodings have no shift and
        share one scale.
      mixed_conditions: the same of the channels that are given.
    """

    name: str
    draw: Callable[[Array], Any]
    act: Callable[[Any, Array, Array], tuple[Array, Array]]
    centre: Callable[[Array], Array] | None = None
    mixed: tuple[tuple[int, ...], ...] = ()
    mixed_conditions: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Feasibility:
    """Something that every example obeys, as a loss may ask a denoiser for it.

    Of the mean that a denoiser answers with, terms that are linear vanish; terms that are linear in what is predicted
    with the rest taken from the clean example vanish where both are independent; of terms that are convex the gap has
    one sign; reducible terms are those of a sum that is conserved, compared one by one with the clean example's.
    What is general has features in place of terms: the mean of the features is learned beside the mean of the fields.

    Attributes:
      name: of what is obeyed.
      form: a word of `FORMS`.
      terms: (predicted, clean, condition) -> what the loss squares; of a feasibility that is general, (fields, fields,
        condition) -> features of the clean example, which the loss has the network predict.
      subspace: fields -> fields that obey it, a linear projection that commutes with the symmetry and leaves constant
        fields, where they are obeyed, as they are; of what is linear alone, None where there is none.
      continues: (fields, straight line through the last two given frames) -> fields that have of what is linear what
        the line has, where it is that of the true continuation; None where it is not.
    Raises:
      ValueError: another form, or a subspace of what is not linear.
    """

    name: str
    form: str
    terms: Callable[[Array, Array, Array], Array]
    subspace: Callable[[Array], Array] | None = None
    continues: Callable[[Array, Array], Array] | None = None

    def __post_init__(self) -> None:
        """Refuses words that no loss knows."""
        if self.form not in FORMS:
            raise ValueError(f"expected a form among {FORMS}, got {self.form!r}")
        if self.subspace is not None and self.form != "linear":
            raise ValueError(f"expected a subspace of a linear feasibility alone, got one that is {self.form}")


@dataclass(frozen=True)
class Priors:
    """What is known of examples beside their equations; nothing is by default.

    Attributes:
      symmetry: a group that leaves their law as it is.
      feasibilities: what each obeys, as a loss may ask a denoiser for it.
      invariants: names and (fields, condition) -> values (time, *component) that do not change along a true trajectory,
        or not by more than the error of the scheme that made it.
      project: (fields, condition) -> fields whose invariants are the same in all frames, where that can be had.
    """

    symmetry: Symmetry | None = None
    feasibilities: tuple[Feasibility, ...] = ()
    invariants: tuple[tuple[str, Callable[[Array, Array], Array]], ...] = ()
    project: Callable[[Array, Array], Array] | None = None

    @property
    def offers(self) -> frozenset[str]:
        """Parts that are there: "symmetry", "invariants", "project", the forms of the feasibilities, and "subspace"."""
        found = {name for name in ("symmetry", "invariants", "project") if getattr(self, name)}
        found |= {"subspace"} if any(one.subspace for one in self.feasibilities) else set()
        return frozenset(found | {feasibility.form for feasibility in self.feasibilities})


NO_PRIORS = Priors()
