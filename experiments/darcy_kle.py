"""Darcy flow, the equation multiplied out: `python -m experiments.darcy_kle --size laptop`."""

from experiments.equation_study import FEW_METHODS, EquationProblem, make_study
from experiments.run import main

PROBLEM = EquationProblem(
    "darcy_kle", "Darcy flow, the equation multiplied out", ("pressure", "permeability"), trial_methods=FEW_METHODS
)
STUDY = make_study(PROBLEM)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
