"""Studies and commands: `python -m experiments.NAME`."""

import os

# LAPACK's own threads compete with the compiler's; on few or busy cores a fit then takes many times as long
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
