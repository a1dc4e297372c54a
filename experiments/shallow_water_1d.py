"""Shallow water in a closed basin: PHDME from a few observed trajectories to calibrated forecasts, and its baselines.

python -m experiments.shallow_water_1d --size laptop --seeds 3
"""

from experiments.configs.shallow_water_1d import get_config
from experiments.report.fields import FieldLabels
from experiments.study.command import main
from experiments.study.field_study import Problem, make_study
from phdme_jax.gp.independent import Inversion

PROBLEM = Problem(
    system="shallow_water_1d",
    title="Shallow water in a closed basin: from a few observed trajectories to calibrated forecasts",
    labels=FieldLabels(fields=("elevation [m]", "velocity [m/s]"), shown=0),
    inversion=Inversion(odd=1, sign=-1.0),
)
STUDY = make_study(PROBLEM, get_config, sizes=("smoke", "laptop", "accelerator"))


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
