"""Darcy flow, fluxes in balance: `python -m experiments.darcy_nodal --size laptop`."""

from experiments.study.command import main
from experiments.study.equation_study import FEW_METHODS, EquationProblem, make_study

PROBLEM = EquationProblem(
    "darcy_nodal", "Darcy flow, fluxes in balance", ("pressure", "permeability"), trial_methods=FEW_METHODS
)
STUDY = make_study(PROBLEM)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
