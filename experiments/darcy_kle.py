"""Darcy flow, the equation multiplied out: `python -m experiments.darcy_kle --size laptop`."""

from experiments.study.command import main
from experiments.study.equation_study import FEW_METHODS, EquationProblem, make_study

PROBLEM = EquationProblem(
    "darcy_kle", "Darcy flow, the equation multiplied out", ("pressure", "permeability"), trial_methods=FEW_METHODS
)
STUDY = make_study(PROBLEM)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
