"""Whether observed data agree with the structure they are fitted with: J skew, its sign, dissipation left out.

The same rows are fitted with structures beside the given one; a log evidence that is much larger says that the
structure misses something. Evidence compares structures, not what the data are worth: where all of them are wrong, it
finds the least wrong one.
"""

from collections.abc import Callable
from typing import NamedTuple

from phdme_jax.methods.energy.prior import Prior
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


def check_structure(prior: Prior, refit: Callable[[Structure], Prior]) -> StructureCheck:
    """Compare a fitted structure with its alternatives on the same data.

    Args:
      prior: fitted with the structure in question.
      refit: fits the same rows with another structure.
    Returns:
      the check.
    """
    structure = prior.structure
    alternatives = {"opposite_sign": with_opposite_sign(structure)}
    for index, field in enumerate(structure.fields):
        alternatives[f"{field}_dissipation"] = with_dissipation(structure, index)
    own = float(prior.posterior.objective)
    gains = {name: own - float(refit(one).posterior.objective) for name, one in alternatives.items()}
    skew = is_skew(structure)
    warnings = [] if skew else ["J is not skew: energy is not conserved without dissipation; check the signs of J"]
    opposite = gains["opposite_sign"]
    if opposite > THRESHOLD:
        warnings.append(f"the data ask for the opposite sign of J (log evidence higher by {opposite:.0f}); check it")
    # dissipation of one field looks much like that of another: the best is named
    gain, field = max((gains[f"{field}_dissipation"], field) for field in structure.fields)
    if gain > THRESHOLD:
        warnings.append(
            f"the data ask for dissipation of {field} that the structure leaves out (log evidence higher by "
            f"{gain:.0f}); add a parameter for it"
        )
    return StructureCheck(skew, gains, tuple(warnings))
