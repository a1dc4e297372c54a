"""A conditional mean that is no forecast is told, or ends the training."""

import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.files import RunFailed
from phdme_jax.methods.energy import training
from phdme_jax.methods.energy.losses import Example
from phdme_jax.methods.energy.training import mean_notes

STATES = jnp.asarray(np.random.default_rng(0).standard_normal((4, 6, 5, 2)), jnp.float32)


def example(mean):
    return Example(STATES, jnp.ones_like(STATES[:, 1:]), mean)


def test_a_mean_that_misses_as_much_as_there_is_gets_a_sentence():
    assert mean_notes(example(0.7 * STATES)) == ()
    (note,) = mean_notes(example(4.0 * STATES))
    assert "misses the training trajectories by 3 times their own size" in note
    # beyond what single precision squares
    assert "1e+25 times" in mean_notes(example(1e25 * STATES))[0]


@pytest.mark.parametrize("factor", [np.inf, 1e25, np.nan])
def test_a_learned_step_without_bound_ends_the_training_in_a_sentence(factor):
    with pytest.raises(RunFailed, match="grows without bound over 6 frames"):
        training._residual_scale(example(factor * STATES))
    assert np.all(np.isfinite(training._residual_scale(example(1e15 * STATES))))
