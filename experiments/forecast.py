"""`python -m experiments.forecast`: another name of `phdme forecast`."""

import sys

from phdme_jax.app.forecast_command import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], "python -m experiments.forecast"))
