"""Points on the unit circle: `python -m experiments.circle --size laptop`."""

from experiments.equation_study import EquationProblem, make_study
from experiments.run import main

PROBLEM = EquationProblem("circle", "Points on the unit circle", ("x", "y"))
STUDY = make_study(PROBLEM)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
