"""Measured oscillators: energy and damping from the first half of a recording, forecast of the second.

`python -m experiments.oscillators --data_dir DIR --size laptop --seeds 3` takes 20 minutes a seed on one core: one mass
on a spring (`oscillator`) and two masses between springs (`double_oscillator`), see `experiments.data.oscillators` for
what is learned from and what is scored. Learned energies are closer than networks on both. `smoke`: networks hardly
trained.
"""

from functools import partial
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.data.oscillators import DEGREES, FILES, load, oscillator_bench, system_of
from experiments.study.command import main
from experiments.study.study import Answer, Context, Run, Shown, Study
from phdme_jax.app import figures
from phdme_jax.app.drawing import Curve, Labels
from phdme_jax.app.page import Picture, Section
from phdme_jax.app.rows import Measurement
from phdme_jax.files import InputError
from phdme_jax.methods.presets import RANGES
from phdme_jax.methods.ranges import Range
from phdme_jax.systems.energy.base import System


def groups(size: str) -> dict[str, Any]:
    """Groups of the configuration at one size.

    `training.windows` are frames of the windows that networks are trained on; the one with the smallest error on the
    last fifth of what is learned from is kept. `substeps` are integration steps of the learned energy between frames.

    Args:
      size: smoke or laptop.
    Returns:
      the groups, keyword arguments of the factories.
    """
    laptop = size == "laptop"
    return {
        "prior": {"main": 12, "margin": 1.5, "time_tests": 120, "iterations": 600, "draws": 64 if laptop else 8},
        "network": {"width": 64, "depth": 2},
        "training": {
            "windows": (10, 30, 60, 120) if laptop else (10,),
            "steps": 2000 if laptop else 40,
            "batch": 32,
            "rate": 3e-3,
        },
        "substeps": 8,
    }


def problem(config: ConfigDict, case: str) -> System:
    """The system with masses alike; those of the recording are found when it is read."""
    del config
    return system_of((1.0,) * DEGREES[case])


def check(context: Context) -> None:
    """Refuse missing or garbled recordings before anything is written."""
    from phdme_jax.methods.baselines.windows import check_lengths

    if context.data_dir is None:
        raise InputError("this study needs measured data; say --data_dir DIR, a folder that holds schmidt_lipson/")
    for case in DEGREES:
        recording = load(context.data_dir, case, context.validates)
        check_lengths("training.windows", context.config.training.windows, len(recording.times[recording.learned]))


def errors(truth: np.ndarray, scored: np.ndarray) -> dict[str, Measurement]:
    """Normalised errors of scored frames, (time, field); nmse is the mean over all positions and velocities."""
    degrees = truth.shape[1] // 2
    share = np.mean((scored - truth) ** 2, axis=0) / truth.var(axis=0)
    return {
        "nmse": Measurement(float(share.mean())),
        "nmse_position": Measurement(float(share[:degrees].mean())),
        "nmse_velocity": Measurement(float(share[degrees:].mean())),
    }


def forecast_scores(answer: Answer) -> dict[str, Measurement]:
    """Errors of the second half, infinite where the forecast failed."""
    mean = np.where(answer.forecasts.ok[0], answer.forecasts.mean[0], np.inf)
    return errors(answer.truth[0], mean)


def found_masses(run: Run) -> None:
    """The ratio of two masses, for every method that learns with the structure and so finds the dampings in it."""
    masses, dampings = run.bench.world.masses, run.bench.task.problem.structure.parameters
    if len(masses) > 1:
        for name in run.learned:
            if set(dampings) <= set(run.fitted(name).found):
                run.record(name, "train", {"mass_ratio": Measurement(masses[1] / masses[0])}, 1)


def reference_rows(run: Run) -> None:
    """What the filter makes of the recorded positions themselves, the same for every seed."""
    if run.seed == run.context.seeds[0]:
        recording = run.bench.world.recording
        positions = recording.states[recording.start :, : recording.degrees]
        scored = recording.as_recorded(positions)
        run.record("reference", run.context.asked, errors(recording.truth[recording.scored], scored), 1)


def case_section(shown: Shown) -> list[Section]:
    """Forecasts of the positions of one recording."""
    (recording, masses), case, pictures = shown.run.bench.world, shown.run.case, []
    shown_fields = (..., slice(0, recording.degrees))
    panels = tuple(f"position {index + 1}" for index in range(recording.degrees))
    labels = Labels(x="time [position / velocity unit]", y="position [deviation]", panels=panels)
    times = recording.times[recording.scored]
    for name, answers in shown.answers.items():
        answer = answers[shown.context.asked]
        mean, samples = answer.forecasts.mean[0][shown_fields], answer.forecasts.samples
        curve = Curve(name, mean, samples=None if samples is None else samples[0][shown_fields])
        path = shown.context.figure_path(f"{case}_{name}")
        path = figures.forecast_lines(path, times, answer.truth[0][shown_fields], curve, labels)
        pictures.append(Picture(path, f"{name}: forecast of the frames that are scored, first seed"))
    text = (
        f"The first {recording.split} frames of {len(recording.times)} are learned from, the others forecast. Networks "
        "choose the length of their windows by the last fifth of what they learn from. Positions and velocities are in "
        "units of their deviation over the frames that are learned from."
    )
    if len(masses) > 1:
        text += f" The second mass is {masses[1]:.3g} times the first, by evidence; NeuralODE needs no masses."
    return [Section(case.replace("_", " "), text, tuple(pictures), ("nmse", "mass_ratio", "fit_seconds"))]


STUDY = Study(
    name="oscillators",
    title="Measured oscillators: learned from the first half, forecast over the second",
    sizes={size: partial(groups, size) for size in ("smoke", "laptop")},
    problem=problem,
    bench=oscillator_bench,
    scores=(forecast_scores,),
    sections=(case_section,),
    metrics=("nmse", "nmse_position", "nmse_velocity"),
    baseline="neural_ode",
    cases=tuple(DEGREES),
    methods=("gp_rollout", "quadratic_hamiltonian", "hnn", "neural_ode"),
    extras=(found_masses, reference_rows),
    check=check,
    ranges=RANGES | {"draws": Range(2)},
    files=lambda config: [f"schmidt_lipson/{name}" for name in FILES.values()],
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
