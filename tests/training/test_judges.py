"""Judges that learn: chance where there is nothing to learn, right where there is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.training.judges import classification_score, prediction_score


@pytest.fixture(scope="module")
def waves():
    """Waves of a random phase: the second half follows from the first."""

    def draw(key, count, speed=1.0):
        phase = 2 * jnp.pi * jax.random.uniform(key, (count, 1, 1))
        angle = phase + speed * 0.4 * jnp.arange(8.0)[:, None]
        return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)

    return draw


@pytest.mark.slow
def test_sets_of_one_law_are_not_told_apart_and_others_are(waves):
    first, second, other = (waves(jax.random.key(seed), 400) for seed in range(3))
    score = classification_score(first, second, jax.random.key(9), steps=400)
    assert abs(float(score) - np.log(2)) < 0.06
    # waves that turn the other way have the same marginals in every frame
    reversed_ = other[:, ::-1]
    assert float(classification_score(reversed_, second, jax.random.key(9), steps=400)) < 0.1


@pytest.mark.slow
def test_what_was_learned_from_the_same_law_predicts(waves):
    real, same = waves(jax.random.key(0), 200), waves(jax.random.key(1), 400)
    good = float(prediction_score(same, real, jax.random.key(2), steps=600))
    bad = float(prediction_score(same[:, ::-1], real, jax.random.key(2), steps=600))
    assert good < 0.02 < 0.5 < bad
    # constant trajectories teach nothing
    still = jnp.zeros_like(same)
    assert float(prediction_score(still, real, jax.random.key(2), steps=600)) > 0.9


@pytest.mark.slow
def test_units_do_not_matter(waves):
    real, made = waves(jax.random.key(0), 100), waves(jax.random.key(1), 100)
    scale = jnp.array([1e-3, 1e4])
    plain = prediction_score(made, real, jax.random.key(3), steps=20)
    np.testing.assert_allclose(
        prediction_score(made * scale, real * scale, jax.random.key(3), steps=20), plain, rtol=1e-3
    )


def test_wrong_sets_are_refused(waves):
    real = waves(jax.random.key(0), 10)
    with pytest.raises(ValueError, match="expected two sets of one shape"):
        classification_score(real[:5], real, jax.random.key(0))
    with pytest.raises(ValueError, match="expected trajectories of one shape"):
        prediction_score(real[:, :4], real, jax.random.key(0))
