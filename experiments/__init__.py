"""Studies and commands: `python -m experiments.NAME`."""

import phdme_jax as phdme_jax  # before NumPy loads: it sets the number of LAPACK's threads
