"""Helmholtz' equation on a square, in one call: `python -m experiments.helmholtz_2d --size laptop --seeds 3`."""

from dataclasses import replace

from experiments import poisson_2d
from experiments.study.command import main

STUDY = replace(poisson_2d.STUDY, name="helmholtz_2d", title="Helmholtz' equation on a square, in one call")


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
