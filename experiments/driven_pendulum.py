"""The driven reference case: energy, damping and noise from one noisy trajectory, forecast of free motions.

`python -m experiments.driven_pendulum --size laptop --seeds 5` takes 9 to 12 minutes a seed on one core: 501 frames
with noise 0.15 of a pendulum driven by 0.1 sin t from (5, 0); asked for are undriven motions over 100 s from drawn
states, with `--validate` the published one from (-3, 0), which passes over the hump and settles in one of two wells.
The learned energy finds the right one on every seed, a quadratic energy and a NeuralODE on none. `smoke`: networks
hardly trained.
"""

import importlib.util
from functools import partial
from typing import Any

import numpy as np

from experiments.data.pendulum import check_pendulum, pendulum_bench, pendulum_of
from experiments.evaluation.forecasts import accuracy
from experiments.study.command import main
from experiments.study.study import Answer, Shown, Study
from phdme_jax.app import figures
from phdme_jax.app.drawing import Curve, Labels
from phdme_jax.app.efforts import effort_slices
from phdme_jax.app.page import Picture, Section
from phdme_jax.app.rows import Measurement
from phdme_jax.app.scores import mean_and_error
from phdme_jax.methods.presets import RANGES, generator_groups
from phdme_jax.methods.ranges import ANY, FROM_ZERO, INTERVAL, Range
from phdme_jax.methods.table import METHODS
from phdme_jax.systems.energy.oscillators import VISCOUS

FIELDS = ("position", "momentum")
PEERS = ("phlearn",) if importlib.util.find_spec("phlearn") else ()


def groups(size: str) -> dict[str, Any]:
    """Groups of the configuration at one size.

    `baselines.training.windows` are frames of the windows that networks are trained on; the one with the smallest
    error on the last fifth of the observations is kept. So are `baselines.phlearn.strides`, frames between the two
    states of a training step of the published package. `generator` says what rollouts its generator is trained on:
    from observed states, scaled, under sines of up to `input_size`.

    Args:
      size: smoke or laptop.
    Returns:
      the groups, keyword arguments of the factories.
    """
    laptop = size == "laptop"
    config: dict[str, Any] = {
        "system": {"damping": 0.1},
        "data": {
            "start": (5.0, 0.0), "duration": 50.0, "num_frames": 501, "noise": 0.15, "force": 0.1,
            "test_start": (-3.0, 0.0), "test_duration": 100.0, "test_frames": 1001, "num_test": 16,
        },
        "prior": {"main": 24, "margin": 1.3, "time_tests": 200, "substeps": 4},
        "baselines": {
            "network": {"width": 64, "depth": 2},
            "training": {
                "windows": (10, 30, 60) if laptop else (10,), "steps": 2000 if laptop else 40, "batch": 32,
                "rate": 3e-3,
            },
            "phlearn": {
                "strides": (1, 3, 10) if laptop else (3,), "steps": 6000 if laptop else 40, "batch": 64, "rate": 1e-3,
                "width": 100,
            },
        },
        "generator": {
            "rollouts": 4096 if laptop else 64, "duration": 100.0, "num_frames": 256, "substeps": 8,
            "start_scale": (0.4, 1.1), "input_size": 0.1, "frequency": (0.3, 2.0),
        },
        **generator_groups(size, radius=0),
        "sampling": {"num_steps": 12 if laptop else 3, "num_samples": 64 if laptop else 8},
    }  # fmt: skip
    config["physics"] |= {"boundary_weight": 0.0}
    # one point in space: what the denoiser sees is the time
    config["network"]["unet"] |= {"flat_time": False, "channels": 16 if laptop else 8}
    if laptop:
        config["training"] |= {"residual_stage": (1000, 32, 1e-3)}
    return config


def motion_scores(answer: Answer) -> dict[str, Measurement]:
    """Errors of the free motions, share of them forecast into the other well, and what else there is.

    Scores of samples where there are some; error of the damping where it is learned.
    """
    found, sampled = accuracy(answer.truth, answer.forecasts, FIELDS), answer.forecasts.samples is not None
    metrics = ("mse", "nmse", "crps", "energy_score", "spread_skill") if sampled else ("mse", "nmse")
    rows = {metric: found[metric] for metric in metrics}
    ends = (np.sign(paths[:, -1, 0]) for paths in (answer.truth, answer.forecasts.mean))
    rows["well_error"] = mean_and_error(np.not_equal(*ends))
    teacher = METHODS[answer.method].teacher
    learned = {**(answer.run.fitted(teacher).found if teacher else {}), **answer.fitted.found}
    if VISCOUS in learned:
        rows["parameter_error"] = Measurement(abs(learned[VISCOUS] / answer.run.config.system.damping - 1))
    if sampled:
        rows["rejection_rate"] = Measurement(learned.get("rejection_rate", float(1 - answer.forecasts.ok.mean())))
    return rows


def motion_section(shown: Shown) -> list[Section]:
    """The learned energy against the true one, and the forecasts of each method."""
    run, context = shown.run, shown.context
    motions, pictures = run.bench.world, []
    if "gp_rollout" in run.learned:
        slices = effort_slices(run.fitted("gp_rollout"), run.bench.task.problem.density, motions.states, FIELDS)
        path = figures.effort_learned_vs_true(context.figure_path("efforts"), slices, Labels())
        pictures.append(Picture(path, "Learned energy gradient against the true one"))
    labels = Labels(x="time [s]", y="state", panels=FIELDS)
    for name, answers in shown.answers.items():
        forecasts = answers[context.asked].forecasts
        samples = None if forecasts.samples is None else forecasts.samples[0]
        curve, path = Curve(name, forecasts.mean[0], samples=samples), context.figure_path(f"lines_{name}")
        path = figures.forecast_lines(path, motions.asked_times, motions.asked[0], curve, labels)
        pictures.append(Picture(path, f"{name}: forecast of a motion that was asked for, first seed"))
    data = context.config.data
    published = f"the undriven motion from {tuple(data.test_start)}"
    asked = published if context.validates else f"{data.num_test} undriven motions from drawn states"
    text = (
        f"One trajectory of {data.num_frames} frames with noise {data.noise:g}, driven by {data.force:g} sin t; "
        f"asked for: {asked}, over {data.test_duration:g} s. Networks choose the length of their training windows by "
        "the error on the last fifth of the observations. well_error: share of motions whose forecast mean ends in the "
        "other well."
    )
    metrics = ("mse", "nmse", "well_error", "crps", "spread_skill", "parameter_error", "fit_seconds", "rejection_rate")
    return [Section("Forecast of the free motion", text, tuple(pictures), metrics)]


STUDY = Study(
    name="driven_pendulum",
    title="The driven pendulum: learned from one noisy trajectory",
    sizes={size: partial(groups, size) for size in ("smoke", "laptop")},
    problem=pendulum_of,
    bench=pendulum_bench,
    scores=(motion_scores,),
    sections=(motion_section,),
    metrics=("mse", "nmse", "well_error", "parameter_error"),
    baseline="neural_ode",
    methods=("phdme_rollout", "gp_rollout", "quadratic_hamiltonian", "hnn", "neural_ode", *PEERS),
    about=lambda config: (
        f"Learned from one trajectory of {config.data.num_frames} frames with noise {config.data.noise:g}, asked for "
        f"{config.data.test_duration:g} s of free motion."
    ),
    num_seeds=5,
    check=check_pendulum,
    ranges=RANGES
    | {
        "start": ANY,
        "test_start": ANY,
        "noise": FROM_ZERO,
        "force": FROM_ZERO,
        "num_frames": Range(2),
        "num_test": Range(1),
        "test_frames": Range(2),
        "generator.rollouts": Range(2),
        "start_scale": INTERVAL,
        "input_size": FROM_ZERO,
        "frequency": INTERVAL,
    },
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
