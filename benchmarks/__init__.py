"""Measured speed: `python -m benchmarks.run`."""

import os

# LAPACK's own threads compete with the compiler's; on few or shared cores that costs up to two orders of magnitude
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
