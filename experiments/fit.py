"""`python -m experiments.fit`: another name of `phdme fit`."""

import sys

from phdme_jax.app.fit_command import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], "python -m experiments.fit"))
