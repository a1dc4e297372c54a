"""Darcy flow, fluxes in balance: `python -m experiments.darcy_nodal --size laptop`."""

from experiments.equation_study import EquationProblem, make_study
from experiments.run import main

PROBLEM = EquationProblem("darcy_nodal", "Darcy flow, fluxes in balance", ("pressure", "permeability"))
STUDY = make_study(PROBLEM)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
