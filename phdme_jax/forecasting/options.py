"""Options of a fit: sizes smoke, laptop and accelerator as nested mappings, and what they may be.

smoke: about a minute on 2 cores, to try the measurements. laptop: a real fit on 2 cores. accelerator: the large
networks.
"""

import difflib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from phdme_jax.files import InputError, flatten
from phdme_jax.methods import presets
from phdme_jax.methods.energy.initial_states import FrameMixture
from phdme_jax.methods.presets import generator_groups
from phdme_jax.methods.ranges import INTERVAL, SHARE, Range, fault

SIZES = ("smoke", "laptop", "accelerator")

RANGES = presets.RANGES | {
    "damping": Range(empty=True),
    "shrinkage": SHARE,
    "frame_share": SHARE,
    "amplitude": INTERVAL,
}

_CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {
        "prior": {"main": 16, "time_tests": 16, "space_tests": 8},
        "rollouts": {"count": 64},
        "sampling": {"num_steps": 3, "num_samples": 8},
    },
    "laptop": {},
    "accelerator": {"rollouts": {"count": 16384}, "sampling": {"num_steps": 20, "num_samples": 64}},
}


LARGEST_SEED = 2**32 - 1


def check_seed(seed: Any) -> int:
    """A seed as a plain number; raises InputError for what is none."""
    if not isinstance(seed, int | np.integer) or not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"expected a seed from 0 to {LARGEST_SEED}, a whole number, got {str(seed)[:40]}")
    return int(seed)


def make_options(size: str = "laptop") -> dict[str, Any]:
    """Options of one size, to be changed at will and handed to `fit`.

    Groups are keyword arguments of the factories. At most `prior_trajectories` enter the energy, the others still shape
    the initial states that are rolled out, see `phdme_jax.methods.energy.initial_states`. `check_structure`: whether
    the structure is compared with others, see `phdme_jax.forecasting.structure_check`. `prior.least_substeps` and
    `network.propagator.least_radius` are raised to what the fastest learned waves need.

    Args:
      size: smoke, laptop or accelerator.
    Returns:
      nested options, new ones at every call.
    Raises:
      InputError: unknown size.
    """
    if size not in SIZES:
        raise InputError(f"unknown size {size!r}; fit has {', '.join(SIZES)}")
    groups = generator_groups(size, radius=8 if size == "accelerator" else 6)
    propagator = groups["network"]["propagator"]
    propagator["least_radius"] = propagator.pop("radius")
    options: dict[str, Any] = {
        "structure": {
            "order": 8, "closure": "mirror", "damping": ("kelvin_voigt_damping", "viscous_damping"),
        },
        "prior": {
            "main": 32, "pair": 0, "margin": 1.5, "time_tests": 48, "space_tests": 12, "least_substeps": 4,
            "centre": (0.0, 0.0),
        },
        "rollouts": {"count": 4096},
        "initial": asdict(FrameMixture()),
        **groups,
        "sampling": {"num_steps": 8, "num_samples": 32},
        "prior_trajectories": 1000,
        "check_structure": size != "smoke",
    }  # fmt: skip
    for group, values in _CHANGES[size].items():
        options[group] |= values
    return options


def check_options(options: Mapping[str, Any]) -> None:
    """Refuses keys that no fit has, keys that are missing, and numbers with which a fit would fail late.

    Args:
      options: nested options.
    Raises:
      InputError: the first defect, in one sentence.
    """
    given, presets = flatten(options), [flatten(make_options(size)) for size in SIZES]
    known = {key: value for preset in presets for key, value in preset.items()}
    for key, value in given.items():
        if key not in known:
            raise InputError(f"unknown option {key!r}{_hint(key, known)}")
        if words := fault(key, value, known[key], RANGES):
            raise InputError(f"the option {key} {words}")
    missing = set.intersection(*map(set, presets)) - set(given)
    if missing:
        raise InputError(f"the options lack {', '.join(sorted(missing))}; begin with make_options() and change those")


def _hint(key: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
    return f", did you mean {near[0]}?" if near else f"; expected one of {', '.join(known)}"
