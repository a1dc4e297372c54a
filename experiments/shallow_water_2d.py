"""Shallow water in a square basin: PHDME from a few observed trajectories to calibrated forecasts, and its baselines.

python -m experiments.shallow_water_2d --size laptop --seeds 3
"""

from experiments.configs.shallow_water_2d import get_config
from experiments.report.fields import FieldLabels
from experiments.study.command import main
from experiments.study.field_study import Problem, make_study

PROBLEM = Problem(
    system="shallow_water_2d",
    title="Shallow water in a square basin: from a few observed trajectories to calibrated forecasts",
    labels=FieldLabels(fields=("elevation [m]", "velocity x [m/s]", "velocity y [m/s]"), shown=0),
    inversion=None,
)
STUDY = make_study(PROBLEM, get_config, sizes=("smoke", "laptop", "accelerator"))


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
