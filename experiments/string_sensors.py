"""The string from a few sensors: `python -m experiments.string_sensors --size laptop --seeds 3`.

What begins a trajectory is not told: 2, 4 or 8 of 64 places are read with 5 % noise over a short window. The energy is
learned as in the string study, and its generator is told what the readings began at by one of its own.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from ml_collections import ConfigDict

from experiments import vibrating_string
from experiments.data.fields import learner_system
from experiments.data.sensors import check_sensors, sensor_bench
from experiments.evaluation.sensors import reference_rows, sensor_scores
from experiments.report.fields import FieldLabels
from experiments.report.sensors import sensor_sections
from experiments.study.command import main
from experiments.study.study import Study, Variant
from phdme_jax.methods.ranges import FROM_ZERO, Range

GENERATORS = ("phdme_sensors", "diffusion_sensors")
OTHERS = ("fourdvar", "enks", "interpolate_then_roll")
ONE_CALL = (("sensors.num_calls", 1),)
NO_CALL = (("sensors.num_calls", 0),)
MLP = {"width": 256, "num_blocks": 3, "embedding_size": 64}
SMALL_MLP = {"width": 32, "num_blocks": 1, "embedding_size": 16}


def make_variants(config: ConfigDict) -> Iterator[Variant]:
    """Every method; generators also in one call, and without their network."""
    del config
    for method in (*GENERATORS, *OTHERS):
        yield Variant(method)
    for method in GENERATORS:
        yield Variant(method, ONE_CALL)
    yield Variant(GENERATORS[0], NO_CALL)


def sensor_groups(size: str) -> dict[str, Any]:
    """The groups `sensors`, see `SensorOptions`, and `asked`: how many trajectories, and samples of each."""
    if size == "smoke":
        sensors = {
            "num_examples": 128,
            "mlp": SMALL_MLP,
            "stage": (20, 16, 2e-3),
            "student_stage": (20, 16, 1e-3),
            "members": 16,
            "iterations": 2,
            "pair_calls": 4,
        }
        asked = {"num_calibration": 9, "num_test": 4, "num_samples": 2, "counts": (4,)}
    else:
        sensors = {
            "num_examples": 16384,
            "mlp": MLP,
            "stage": (2000, 128, 1e-3),
            "student_stage": (2000, 128, 1e-3),
            "members": 128,
            "iterations": 8,
            "pair_calls": 16,
        }
        asked = {"num_calibration": 64, "num_test": 64, "num_samples": 16, "counts": (2, 4, 8)}
    shared = {
        "window": 8,
        "noise": 0.05,
        "counts": (2, 4, 8),
        "num_calls": 4,
        "steps": 3,
        "directions": 16,
        "assimilations": 4,
    }
    return {"sensors": {**shared, **sensors}, "asked": asked}


def groups(size: str) -> dict[str, Any]:
    """Groups at one size: those of the string study, its forecaster in one call, `sensor_groups`."""
    base = vibrating_string.groups(size)
    return {**base, "sampling": {**base["sampling"], "num_steps": 1}, **sensor_groups(size)}


STUDY = Study(
    name="string_sensors",
    title="Vibrating string: forecasts from a few sensors",
    cases=("vibrating_string",),
    sizes={size: partial(groups, size) for size in ("smoke", "laptop", "accelerator")},
    problem=learner_system,
    bench=sensor_bench,
    scores=(sensor_scores,),
    extras=(reference_rows,),
    sections=sensor_sections(FieldLabels(fields=("momentum [m/s]", "strain"), shown=1)),
    metrics=("crps", "nmse", "coverage", "seconds_per_forecast"),
    baseline="fourdvar",
    methods=(*GENERATORS, *OTHERS),
    trial_methods=("phdme_sensors", "enks", "interpolate_then_roll"),
    variants=make_variants,
    about=lambda config: (
        f"Forecasts from {', '.join(map(str, config.asked.counts))} of {config.data.num_points} places, read over "
        f"{config.sensors.window} of {config.data.num_frames} frames with {100 * config.sensors.noise:g} % noise."
    ),
    check=check_sensors,
    ranges=vibrating_string.RANGES
    | {
        "sensors.noise": FROM_ZERO,
        "sensors.num_calls": FROM_ZERO,
        "sensors.steps": FROM_ZERO,
        "num_examples": Range(2),
        "num_samples": Range(2),
    },
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
