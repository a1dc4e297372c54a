"""The spring study: energy and damping from one recording of a real spring, calibrated forecasts of another one.

python -m experiments.spring --data_dir DIR --size laptop

`DIR/spring/<name>.txt` are the files `video/Data/<name>/aligned_center_points.txt` of the public repository
`Beckers-Lab/PnP-PIML`. smoke: a minute on 2 cores, few draws and starts. laptop: the whole study, three seeds in about
a quarter of an hour on one core.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.spring import figures
from experiments.spring.bench import check_spring, spring_bench
from experiments.spring.hidden import hidden_rows
from experiments.spring.hidden_figures import hidden_section
from experiments.spring.prior import spring_problem
from experiments.spring.recording import FITTED_MODES
from experiments.spring.scores import damping_rows, reference_rows, start_scores, stated_scores
from experiments.study.command import main
from experiments.study.study import Study
from phdme_jax.methods.presets import RANGES, generator_groups
from phdme_jax.methods.ranges import FROM_ZERO, INTERVAL, Range


def laptop() -> dict[str, Any]:
    """The whole study.

    `starts` and `calibration` are start frames after the release: first, last and step. `prior.lengthscale` is stated,
    in half widths of the box; it is twice the largest strain where `prior.margin` is two.
    """
    groups = generator_groups("laptop", radius=8)
    groups["training"]["propagator_stages"] = ((1, 6000, 64, 1e-2), (8, 400, 32, 1e-3))
    return {
        "data": {"train": "rightdown", "test": "leftdown", "modes": 2, "grid_points": 33, "clock": "camera"},
        "prior": {
            "main": 12,
            "margin": 2.0,
            "lengthscale": 1.0,
            "damping_ratio": 0.02,
            "first_frame": 20,
            "last_frame": 340,
            "half_width": 0.034,
            "spacing": 0.017,
        },
        "forecast": {"start_frame": 26, "frames": 180, "substeps": 8, "draws": 50},
        # rollouts that train the generators; ranges of the scale of modes and rest strain
        "generator": {
            "rollouts": 2048,
            "num_frames": 64,
            "substeps": 8,
            "start_scale": (0.4, 1.4),
            "rest_scale": (0.5, 1.5),
        },
        **groups,
        "sampling": {"num_steps": 8},
        "starts": (20, 56, 2),
        "calibration": (20, 210, 10),
        "level": 0.9,
        # two thirds of the tracked points hidden, and more; see `HiddenOptions`
        "hidden": {
            "stretches": 12,
            "counts": (1, 4),
            "window": 8,
            "deviation": 0.005,
            "modes": 3,
            "steps": 8,
            "sample_steps": 2,
            "degree": 3,
        },
    }


def smoke() -> dict[str, Any]:
    """Small networks, few rollouts, draws and windows."""
    whole = laptop()
    return {
        **whole,
        **generator_groups("smoke", radius=8),
        "forecast": {**whole["forecast"], "draws": 8},
        "generator": {**whole["generator"], "rollouts": 64, "num_frames": 32},
        "sampling": {"num_steps": 3},
        "starts": (20, 56, 6),
        "calibration": (20, 200, 20),
        "hidden": {**whole["hidden"], "counts": ()},
    }


def about(config: ConfigDict) -> str:
    """What is learned from what."""
    return (
        f"Energy and damping were learned from the recording {config.data.train}; unseen motion was forecast over "
        f"{config.forecast.frames} frames."
    )


STUDY = Study(
    name="spring",
    title="A real spring: learned from one recording, forecast on another",
    sizes={"smoke": smoke, "laptop": laptop},
    problem=lambda config, case: spring_problem(config.data.grid_points),
    bench=spring_bench,
    scores=(stated_scores, start_scores),
    sections=(
        figures.data_section,
        figures.forecast_section,
        figures.energy_section,
        figures.stress_section,
        figures.calibration_section,
        figures.starts_section,
        hidden_section,
    ),
    metrics=("nmse", "nmse_start_median", "nmse_start_max", "coverage_starts", "fit_seconds", "train_seconds"),
    baseline="quadratic_hamiltonian",
    methods=("phdme", "phdme_rollout", "gp_rollout", "quadratic_hamiltonian"),
    trial_methods=("phdme", "phdme_rollout", "gp_rollout", "quadratic_hamiltonian"),
    extras=(reference_rows, damping_rows, hidden_rows),
    about=about,
    check=check_spring,
    ranges=RANGES
    | {
        "modes": Range(1, FITTED_MODES),
        "grid_points": Range(3),
        "first_frame": FROM_ZERO,
        "start_frame": FROM_ZERO,
        "draws": Range(2),
        "generator.rollouts": Range(2),
        "num_frames": Range(2),
        "start_scale": INTERVAL,
        "rest_scale": Range(0, fixed=True, rising=True),
        "starts": Range(fixed=True),
        "hidden.counts": Range(empty=True),
        "calibration": Range(fixed=True),
    },
    files=lambda config: [f"spring/{name}.txt" for name in (config.data.train, config.data.test)],
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
