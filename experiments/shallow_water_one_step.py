"""Shallow water, forecasts in one call: `python -m experiments.shallow_water_one_step --size laptop --seeds 3`."""

from dataclasses import replace
from functools import partial
from typing import Any

from experiments import shallow_water_1d, string_one_step
from experiments.study.command import main


def groups(size: str) -> dict[str, Any]:
    """Groups of the configuration at one size, as of the string."""
    return {**shallow_water_1d.groups(size), **string_one_step.one_step_groups(size)}


STUDY = replace(
    string_one_step.STUDY,
    name="shallow_water_one_step",
    title="Shallow water in a closed basin: forecasts in one call",
    cases=("shallow_water_1d",),
    sizes={size: partial(groups, size) for size in ("smoke", "laptop", "accelerator")},
    ranges=shallow_water_1d.STUDY.ranges,
    sections=shallow_water_1d.STUDY.sections,
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
