"""Darcy flow, the equation multiplied out: `python -m experiments.darcy_kle --size laptop`."""

from experiments.equation_study import EquationProblem, make_study
from experiments.run import main

PROBLEM = EquationProblem("darcy_kle", "Darcy flow, the equation multiplied out", ("pressure", "permeability"))
STUDY = make_study(PROBLEM)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
