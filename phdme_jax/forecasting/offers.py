"""Which methods measurements offer: those that learn from a learned energy and need no more than there is."""

import numpy as np

from phdme_jax.files import InputError
from phdme_jax.forecasting.inputs import FitInputs
from phdme_jax.methods.base import Method
from phdme_jax.methods.table import METHODS
from phdme_jax.systems.energy.base import System

TEACHER = "gp_rollout"
EVEN_TIMES = "even_times"
_ALL_OFFERS = frozenset({"structure", EVEN_TIMES})


def measured_system(inputs: FitInputs) -> System:
    """The problem: a structure whose energy nobody knows, and the frames that there are."""
    return System(inputs.structure, even_times=inputs.observed.even_times)


def offered_methods(offers: frozenset[str] = _ALL_OFFERS) -> tuple[str, ...]:
    """Names of the methods that fit what is offered."""
    return tuple(name for name, method in METHODS.items() if method.teacher == TEACHER and method.needs <= offers)


def learns_step(method: Method) -> bool:
    """Whether a method learns a time step, which it repeats from frame to frame."""
    return EVEN_TIMES in method.needs


def chosen_method(name: str, inputs: FitInputs) -> Method:
    """The method of a name.

    Raises:
      InputError: it is not known, or needs what the measurements do not offer.
    """
    if name not in offered_methods():
        raise InputError(f"unknown method {name!r}; fit has {', '.join(offered_methods())}")
    method, offers = METHODS[name], measured_system(inputs).offers
    if not method.needs <= offers:
        steps, others = np.diff(inputs.observed.time), " or ".join(offered_methods(offers))
        raise InputError(
            f"time is not evenly spaced (steps from {steps.min():g} to {steps.max():g}), which the time step that "
            f"{name} learns needs; try --method {others}, which works with uneven times, or interpolate"
        )
    return method
