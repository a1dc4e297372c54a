"""A generator's first frames, continued by the energy of pairs that the trajectories teach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.files import InputError
from phdme_jax.methods.base import Examples, Fitted, Model, Task
from phdme_jax.methods.particles.pair_rollout import fit_generated
from phdme_jax.methods.presets import PAIR_PRIOR
from phdme_jax.systems import make_equations
from phdme_jax.systems.given_frames import with_given_frames
from phdme_jax.training.stages import Trainer


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tolerance"), [("five_springs", 2e-3), ("three_body", 3e-2)])
def test_what_a_generator_spoils_after_the_first_frame_is_made_good(name, tolerance):
    equations = make_equations(name, num_frames=8, **({"duration": 1.0} if name == "three_body" else {}))
    samples = jax.jit(jax.vmap(equations.draw))(jax.random.split(jax.random.key(0), 40))
    train = Examples(samples.fields, samples.condition)
    task = Task(equations, lambda: train, lambda key, count: train.condition[:count], jax.random.key(1))

    def spoiled(params, prepared, latent, key):
        return params.at[1:].add(latent)

    model = Model(
        prepare=lambda params, condition: condition,
        draw=spoiled,
        latent=lambda key: jax.random.normal(key, (1,)),
        num_calls=24,
    )
    teacher = Fitted(model, samples.fields[0], {})
    options = {"prior": {**PAIR_PRIOR, "main": 24}}
    fitted = fit_generated(task, options, Trainer(), teacher, jax.random.key(2))
    condition, key = samples.condition[0], jax.random.key(3)
    prepared = fitted.model.prepare(fitted.params, condition)
    found = jax.jit(fitted.model.draw)(fitted.params, prepared, fitted.model.latent(key), key)
    np.testing.assert_array_equal(found[0], samples.fields[0, 0])
    np.testing.assert_allclose(found, samples.fields[0], atol=tolerance)
    assert jnp.abs(spoiled(teacher.params, condition, model.latent(key), key) - samples.fields[0]).max() > 0.1
    assert fitted.model.num_calls == 24


def test_given_frames_are_refused():
    equations = with_given_frames(make_equations("five_springs", num_frames=5), 2)
    task = Task(equations, lambda: None, lambda key, count: None, jax.random.key(1))
    with pytest.raises(InputError, match="those of five_springs are given; ask gp_rollout"):
        fit_generated(task, {}, Trainer(), Fitted(None, None, {}), task.key)
