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
from phdme_jax.methods.base import Fitted, Normaliser, Start, Task, stage_key
from phdme_jax.methods.distilled.forecaster import OneStepOptions, _pairs, draw, fit_one_step
from phdme_jax.methods.energy.conditional import Design, Fields, GeneratorParams, make_model
from phdme_jax.methods.energy.generator import Recipe
from phdme_jax.methods.energy.options import SCHEDULE
from phdme_jax.systems import make_system
from tests.rough import rough

pytestmark = pytest.mark.slow

SYSTEM = make_system("vibrating_string", num_points=8, order=2)
STRUCTURE = SYSTEM.structure
TIMES = tuple(np.linspace(0.0, 1.0, 6).tolist())
STEP = Propagator(STRUCTURE.parity, radius=1, width=4, depth=1)
SIZES = {"channels": 8, "multipliers": (1,), "embedding_size": 8, "heads": 0, "flat_time": True}
UNET = make_unet(**SIZES)
DESIGN = Design(Fields(STRUCTURE), TIMES, TIMES, STEP, precondition(UNET, SCHEDULE, "x0"), num_steps=3)


def drawn_starts(key, count):
    states = jax.vmap(STRUCTURE.constrain)(jax.random.normal(key, (count, 8, 2)))
    return Start(np.asarray(states), np.zeros((count, len(TIMES), 0)))


PAIR_KEY = jax.random.fold_in(stage_key(jax.random.key(2), "pairs"), 0)
TASK = Task(SYSTEM, lambda: None, drawn_starts, jax.random.key(2), TIMES)


@pytest.fixture(scope="module")
def params():
    state, mean = jnp.ones((8, 2), "float32"), jnp.ones((6, 8, 2), "float32")
    units = Normaliser(jnp.array([2.0, 0.5], "float32"), jnp.zeros(2, "float32"))
    scale = jnp.abs(jax.random.normal(jax.random.key(1), (6, 1, 2), "float32"))
    denoiser = DESIGN.denoiser.init(jax.random.key(3), mean, Condition(state, mean))
    step = init_propagator(STEP, state, jax.random.key(5))
    return GeneratorParams(units, scale, 0.5 * scale, step, None, rough(denoiser, 0.2))


def test_pairs_are_what_the_teacher_draws_from_the_same_noise(params):
    made, model = _pairs(DESIGN, OneStepOptions(num_pairs=3, num_calls=3), TASK, params), make_model(DESIGN)
    starts = drawn_starts(PAIR_KEY, 3)
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


class Keeper:
    """A host that hands every stage to a function of loss, parameters and data."""

    def __init__(self, train):
        self._train = train

    def train(self, stage, loss, params, data, key, **numbers):
        return self._train(loss, params, data), 1.0

    def keep(self, name, make):
        return make()


def student_of(params, train, **chosen):
    """The one-call student of a forecaster around `params`."""
    options = {
        "network": {"propagator": {"radius": 1, "width": 4, "depth": 1}, "unet": SIZES, "prediction": "x0"},
        "training": {"ema_decay": 0.9, "residual_stage": (1, 1, 1e-3)},
        "physics": {"residual_weight": 0.0, "boundary_weight": 0.0},
        "sampling": {"num_steps": 3, "num_samples": 2},
        "one_step": {"num_pairs": 3, "num_calls": 3, **chosen},
    }
    recipe, teacher = Recipe(data="observed", physics=False), Fitted(make_model(DESIGN), params, {})
    return fit_one_step(recipe, TASK, options, Keeper(train), teacher, jax.random.key(8))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_a_student_begins_where_its_teacher_is_or_is_of_another_size(params):
    seen = []

    def train(loss, network, pairs):
        pair = jax.tree.map(lambda leaf: leaf[0], pairs)
        seen.append((network, pairs, loss(network, pair, jax.random.key(0))[0]))
        return network

    plain, small = (student_of(params, train, **chosen) for chosen in ({}, {"unet": {"channels": 4, "groups": 2}}))
    (first, pairs, error), (new, same, other) = seen
    assert first is params.denoiser and count(new) < 0.6 * count(first)
    # both learn the same pairs, and the loss is the distance to what the teacher drew
    jax.tree.map(np.testing.assert_array_equal, pairs, same)
    for student, network, found in ((plain, first, error), (small, new, other)):
        around = student.model.prepare(params, jax.tree.map(lambda leaf: leaf[0], drawn_starts(PAIR_KEY, 3)))
        drawn = student.model.draw(student.params, around, pairs.noise[0], jax.random.key(1))
        xi = (student.params.normaliser.normalised(drawn) - around.mean) / (params.scale * params.amplitude)
        assert student.params.denoiser is network and student.model.num_calls == 1
        np.testing.assert_allclose(np.mean((xi - pairs.xi[0]) ** 2), found, rtol=1e-4)
