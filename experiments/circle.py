"""Points on the unit circle: `python -m experiments.circle --size laptop`."""

from experiments.study.command import main
from experiments.study.equation_study import EquationProblem, make_study

PROBLEM = EquationProblem("circle", "Points on the unit circle", ("x", "y"))
STUDY = make_study(PROBLEM)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
