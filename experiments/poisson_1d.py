"""Poisson's equation on a line: `python -m experiments.poisson_1d --size laptop`."""

from experiments.equation_study import EquationProblem, make_study
from experiments.run import main

PROBLEM = EquationProblem("poisson_1d", "Poisson's equation on a line", ("solution", "source"))
STUDY = make_study(PROBLEM)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
