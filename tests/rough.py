"""Networks as after training: no parameter is zero, so that what begins as nothing answers too."""

import jax
import jax.numpy as jnp
import numpy as np


def rough(params, size=0.1, seed=0, kept=1.0):
    """Parameters, a share of them kept, and normal numbers of this size; drawn by numpy, which compiles nothing."""
    generator = np.random.default_rng(seed)

    def drawn(leaf):
        return jnp.asarray(kept * np.asarray(leaf) + size * generator.standard_normal(leaf.shape), leaf.dtype)

    return jax.tree.map(drawn, params)
