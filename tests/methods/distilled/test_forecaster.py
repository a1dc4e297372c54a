"""A forecaster in one call: what it learns from is what its teacher draws."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion.networks import Condition
from phdme_jax.diffusion.preconditioning import precondition
from phdme_jax.diffusion.propagator import Propagator, init_propagator
from phdme_jax.diffusion.unet import make_unet
from phdme_jax.methods.base import Normaliser, Start, Task, stage_key
from phdme_jax.methods.distilled.forecaster import OneStepOptions, _pairs, draw
from phdme_jax.methods.energy.conditional import Design, Fields, GeneratorParams, make_model
from phdme_jax.methods.energy.options import SCHEDULE
from phdme_jax.systems import make_system

SYSTEM = make_system("vibrating_string", num_points=8, order=2)
STRUCTURE = SYSTEM.structure
TIMES = tuple(np.linspace(0.0, 1.0, 6).tolist())
STEP = Propagator(STRUCTURE.parity, radius=1, width=4, depth=1)
UNET = make_unet(channels=8, multipliers=(1,), embedding_size=8, heads=0, flat_time=True)
DESIGN = Design(Fields(STRUCTURE), TIMES, TIMES, STEP, precondition(UNET, SCHEDULE, "x0"), num_steps=3)


def drawn_starts(key, count):
    states = jax.vmap(STRUCTURE.constrain)(jax.random.normal(key, (count, 8, 2)))
    return Start(np.asarray(states), np.zeros((count, len(TIMES), 0)))


TASK = Task(SYSTEM, lambda: None, drawn_starts, jax.random.key(2), TIMES)


@pytest.fixture(scope="module")
def params():
    state, mean = jnp.ones((8, 2), "float32"), jnp.ones((6, 8, 2), "float32")
    units = Normaliser(jnp.array([2.0, 0.5], "float32"), jnp.zeros(2, "float32"))
    scale = jnp.abs(jax.random.normal(jax.random.key(1), (6, 1, 2), "float32"))
    denoiser = DESIGN.denoiser.init(jax.random.key(3), mean, Condition(state, mean))
    leaves, tree = jax.tree.flatten(denoiser)
    keys = jax.random.split(jax.random.key(4), len(leaves))
    moved = [v + 0.2 * jax.random.normal(k, v.shape, v.dtype) for v, k in zip(leaves, keys, strict=True)]
    step = init_propagator(STEP, state, jax.random.key(5))
    return GeneratorParams(units, scale, 0.5 * scale, step, None, jax.tree.unflatten(tree, moved))


def test_pairs_are_what_the_teacher_draws_from_the_same_noise(params):
    made, model = _pairs(DESIGN, OneStepOptions(num_pairs=3, num_calls=3), TASK, params), make_model(DESIGN)
    starts = drawn_starts(jax.random.fold_in(stage_key(TASK.key, "pairs"), 0), 3)
    for index in range(3):
        start = jax.tree.map(lambda leaf: leaf[index], starts)
        around = model.prepare(params, start)
        teacher = model.draw(params, around, jnp.asarray(made["noise"][index]), jax.random.key(9))
        ours = made["mean"][index] + params.scale * params.amplitude * made["xi"][index]
        np.testing.assert_allclose(params.normaliser.physical(ours), teacher, atol=1e-5)
        # what is known has no deviation: the start, and the momentum of the ends
        assert not made["xi"][index][0].any() and not made["xi"][index][:, [0, -1], 0].any()


def test_one_call_is_the_denoiser_at_the_largest_noise(params):
    mean, noise = jax.random.normal(jax.random.key(6), (2, 6, 8, 2), "float32")
    one = draw(replace(DESIGN, exact_start=False), 1, params.denoiser, (mean, noise))
    features = DESIGN.denoiser.encode(params.denoiser, Condition(mean[0], mean))
    _, sigma = SCHEDULE.alpha_sigma(jnp.asarray(1.0, "float32"))
    expected = DESIGN.denoiser.apply(params.denoiser, sigma * noise, jnp.asarray(1.0, "float32"), features)
    np.testing.assert_allclose(one[:, 1:-1], expected[:, 1:-1], rtol=1e-4, atol=1e-4)  # single precision
