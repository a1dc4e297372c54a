"""Session-wide settings of the tests."""

import jax
import matplotlib

matplotlib.use("Agg")
jax.config.update("jax_enable_x64", True)
# most of the time of a test goes into compiling, of which this saves up to a third
jax.config.update("jax_disable_most_optimizations", True)
