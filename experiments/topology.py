"""Topology optimisation: `python -m experiments.topology --size laptop`."""

from experiments.study.command import main
from experiments.study.equation_study import FEW_METHODS, EquationProblem, make_study

PROBLEM = EquationProblem(
    "topology",
    "Topology optimisation",
    ("displacement in x", "displacement in y", "density"),
    shifted=(("unseen_supports", True),),
    trial_methods=FEW_METHODS,
)
STUDY = make_study(PROBLEM)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
