"""Shallow water from a few sensors: `python -m experiments.shallow_water_sensors --size laptop --seeds 3`."""

from dataclasses import replace
from functools import partial
from typing import Any

from experiments import shallow_water_1d, string_sensors
from experiments.report.fields import FieldLabels
from experiments.report.sensors import sensor_sections
from experiments.study.command import main


def groups(size: str) -> dict[str, Any]:
    """Groups of the configuration at one size, as of the string with sensors."""
    base = shallow_water_1d.groups(size)
    return {**base, "sampling": {**base["sampling"], "num_steps": 1}, **string_sensors.sensor_groups(size)}


STUDY = replace(
    string_sensors.STUDY,
    name="shallow_water_sensors",
    title="Shallow water in a closed basin: forecasts from a few sensors",
    cases=("shallow_water_1d",),
    sizes={size: partial(groups, size) for size in ("smoke", "laptop", "accelerator")},
    ranges={**string_sensors.STUDY.ranges, **shallow_water_1d.STUDY.ranges},
    sections=sensor_sections(FieldLabels(fields=("elevation [m]", "velocity [m/s]"), shown=0)),
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
