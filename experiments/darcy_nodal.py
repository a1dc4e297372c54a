"""Darcy flow, fluxes in balance: `python -m experiments.darcy_nodal --size laptop --seeds 3`; else as `darcy_kle`."""

from dataclasses import replace

from experiments import darcy_kle
from experiments.study.command import main

STUDY = replace(darcy_kle.STUDY, name="darcy_nodal", title="Darcy flow, fluxes in balance")


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
