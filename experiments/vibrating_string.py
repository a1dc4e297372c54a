"""The string study: PHDME from a few observed trajectories to calibrated forecasts, against its baselines.

python -m experiments.vibrating_string --size laptop --seeds 3
"""

from experiments.configs.vibrating_string import get_config
from experiments.report.fields import FieldLabels
from experiments.study.command import main
from experiments.study.field_study import Problem, make_study
from phdme_jax.gp.independent import STRING

PROBLEM = Problem(
    system="vibrating_string",
    title="Vibrating string: from a few observed trajectories to calibrated forecasts",
    labels=FieldLabels(fields=("momentum [m/s]", "strain"), shown=1),
    inversion=STRING,
)
STUDY = make_study(PROBLEM, get_config, sizes=("smoke", "demo", "laptop", "accelerator"))


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
