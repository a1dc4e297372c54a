"""Whether observed data agree with the structure they are fitted with: J skew, its sign, dissipation left out.

The same rows are fitted with structures beside the given one; a log evidence that is much larger says that the
structure misses something. Evidence compares structures, not what the data are worth: where all of them are wrong, it
finds the least wrong one.
"""

from collections.abc import Callable
from typing import NamedTuple

from phdme_jax.methods.base import Fitted
from phdme_jax.systems.energy.alternatives import is_skew, with_dissipation, with_opposite_sign
from phdme_jax.systems.energy.base import Structure

# evidence ratios of e^10 are beyond what one more parameter gains by chance
THRESHOLD = 10.0


class StructureCheck(NamedTuple):
    """What the data say of a structure.

    Attributes:
      skew: whether its J is skew.
      gains: log evidence of each alternative minus that of the structure [nats].
      warnings: a sentence for each thing noticed; empty where nothing is wrong.
    """

    skew: bool
    gains: dict[str, float]
    warnings: tuple[str, ...]


def check_structure(structure: Structure, fitted: Fitted, refit: Callable[[Structure], Fitted]) -> StructureCheck:
    """Compare a fitted structure with its alternatives on the same data.

    Args:
      structure: the structure in question.
      fitted: a learned energy of it, whose parameters are an `EnergyPosterior`.
      refit: fits the same data with another structure.
    Returns:
      the check.
    """
    alternatives = {"opposite_sign": with_opposite_sign(structure)}
    for index, field in enumerate(structure.fields):
        alternatives[f"{field}_dissipation"] = with_dissipation(structure, index)
    own = float(fitted.params.objective)
    gains = {name: own - float(refit(other).params.objective) for name, other in alternatives.items()}
    skew, warnings = is_skew(structure), []
    if not skew:
        warnings.append(
            f"J of {structure.name} is not skew, so that energy is not conserved without dissipation; check its signs"
        )
    if (gain := gains["opposite_sign"]) > THRESHOLD:
        warnings.append(
            f"the data ask for the opposite sign of J (log evidence higher by {gain:.0f}); check the signs of the "
            "fields and the direction of the grid"
        )
    # dissipation of one field looks much like that of another: the best is named
    gain, field = max((gains[f"{field}_dissipation"], field) for field in structure.fields)
    if gain > THRESHOLD:
        warnings.append(
            f"the data ask for dissipation of {field} that the structure leaves out (log evidence higher by "
            f"{gain:.0f}); energies and forecasts will lose too little or too much, so allow it among the structure's "
            "options (damping), or take long forecasts with care"
        )
    return StructureCheck(skew, gains, tuple(warnings))
