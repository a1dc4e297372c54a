"""Poisson's equation on a line: `python -m experiments.poisson_1d --size laptop`."""

from experiments.study.command import main
from experiments.study.equation_study import EquationProblem, make_study

PROBLEM = EquationProblem("poisson_1d", "Poisson's equation on a line", ("solution", "source"))
STUDY = make_study(PROBLEM)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
