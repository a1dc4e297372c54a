"""A flow from a random walk: the law of the walk, the units of the examples, what is given, symmetry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion.networks import Network
from phdme_jax.methods.base import Examples, Task
from phdme_jax.methods.equations.network import EquationNetwork, network_of
from phdme_jax.methods.equations.random_walk import (
    deviation_sizes,
    encode_deviations,
    fit_random_walk,
    make_loss,
    make_model,
    walk,
)
from phdme_jax.methods.presets import FEW_CALLS, equation_groups, equation_stages
from phdme_jax.systems import make_equations
from phdme_jax.systems.given_frames import told_frames, with_given_frames
from phdme_jax.training.stages import Trainer

NET = {"name": "space_time", "width": 8, "vector_channels": 4, "layers": 1, "heads": 2, "embedding_size": 8}


@pytest.fixture(scope="module")
def springs():
    equations = with_given_frames(make_equations("five_springs", num_frames=6), 3)
    samples = jax.jit(jax.vmap(equations.draw))(jax.random.split(jax.random.key(0), 16))
    train = Examples(np.asarray(samples.fields), np.asarray(samples.condition))
    options = {
        "data": {"kinds": ("linear",) * 4},
        "network": {**NET, "given_vectors": 2},
        "stages": equation_stages(3, 2, 1e-2),
        **equation_groups("edm", FEW_CALLS, flow_predicts="edm", noise="edm"),
    }
    return Task(equations, lambda: train, lambda key, count: train.condition[:count], jax.random.key(1)), options


@pytest.mark.parametrize("axis", [0, 1])
def test_a_walk_has_variance_one_and_remembers(axis):
    known = jnp.moveaxis(jnp.broadcast_to(jnp.array([1.0, 1.0, 0.0, 0.0, 0.0])[:, None, None], (5, 3, 1)), 0, axis)
    noise = jax.random.normal(jax.random.key(0), (20000, *known.shape[:-1], 2))
    walks = jnp.moveaxis(jax.vmap(lambda one: walk(one, known, axis))(noise), axis + 1, 1)
    assert not jnp.any(walks[:, :2])
    later = walks[:, 2:, 0, 0]
    # of steps i < j the correlation is sqrt(i / j)
    expected = np.array([[np.sqrt(min(i, j) / max(i, j)) for j in (1, 2, 3)] for i in (1, 2, 3)])
    np.testing.assert_allclose(later.T @ later / len(later), expected, atol=0.03)
    assert abs(float(jnp.mean(walks[:, 2:, 0, 0] * walks[:, 2:, 1, 0]))) < 0.03


def test_sizes_are_those_of_each_frame_and_shared_by_components():
    deviations = np.zeros((4, 3, 2, 4))
    deviations[:, 1, :, 0], deviations[:, 1, :, 1] = 3.0, 1.0
    deviations[:, 2, :, 2] = 2.0
    sizes = deviation_sizes(jnp.asarray(deviations), 0, ((0, 1),))
    assert sizes.shape == (3, 1, 4)
    np.testing.assert_allclose(sizes[1, 0], [np.sqrt(5.0), np.sqrt(5.0), 1.0, 1.0])
    np.testing.assert_allclose(sizes[2, 0], [1.0, 1.0, 2.0, 1.0])


def test_examples_are_deviations_in_their_size(springs):
    task, options = springs
    net = network_of(task, options)
    params, data = encode_deviations(net, task.train())
    assert not np.any(data.fields[:, :3])
    pooled = np.asarray(data.fields[:, 3:]).reshape(16, 3, 5, 2, 2)
    np.testing.assert_allclose(np.mean(pooled**2, axis=(0, 2, 4)), 1.0, rtol=1e-5)
    line, known = told_frames(jnp.asarray(task.train().condition), 4)
    again = line + (1 - known) * data.fields * params.fields.scale
    np.testing.assert_allclose(again, task.train().fields, atol=1e-6)


class Zero:
    """A network that answers nothing."""

    apply = staticmethod(lambda params, noisy, level, features: jnp.zeros_like(noisy))


def test_without_a_network_the_loss_is_that_of_the_best_linear_guess(springs):
    """Of y and y_0 of variance one the velocity (2t - 1) y_t / q misses a mean square of 1 / q; its mean over t."""
    task, _ = springs
    silent = Network(lambda *a: {}, lambda params, condition: condition, Zero.apply)
    net = EquationNetwork(task.problem, silent, ("linear",) * 4, (6, 5, 4), flow_predicts="edm")
    _, data = encode_deviations(net, task.train())
    loss = make_loss(net)
    many = jax.tree.map(lambda leaf: jnp.repeat(leaf, 400, axis=0), data)
    found, _ = jax.vmap(loss, (None, 0, 0))({}, many, jax.random.split(jax.random.key(2), len(many.fields)))
    # half of the frames are given and miss nothing
    assert float(jnp.mean(found)) == pytest.approx(0.5 * np.pi / 2, rel=0.05)


def test_what_is_given_comes_out_and_a_flow_along_the_truth_arrives(springs):
    """Along u(y_t, t) = (y - y_t) / (1 - t), the velocity to one example, every walk ends at it."""
    task, _ = springs
    train = task.train()
    target = {}

    def apply(params, noisy, level, features):
        time = jax.nn.sigmoid(-4.0 * level)
        point = noisy * jnp.sqrt(time**2 + (1 - time) ** 2)
        velocity = (target["y"] - point) / (1 - time)
        square = time**2 + (1 - time) ** 2
        return (velocity - (2 * time - 1) / square * point) * jnp.sqrt(square)

    net = EquationNetwork(
        task.problem,
        Network(lambda *a: {}, lambda params, condition: condition, apply),
        ("linear",) * 4,
        (6, 5, 4),
        flow_predicts="edm",
    )
    params, data = encode_deviations(net, train)
    target["y"] = data.fields[0]
    model = make_model(net, 5)
    prepared = model.prepare(params, jnp.asarray(train.condition[0]))
    key = jax.random.key(5)
    drawn = model.draw(params, prepared, model.latent(key), key)
    np.testing.assert_allclose(drawn, train.fields[0], atol=5e-3)
    np.testing.assert_allclose(drawn[:3], train.fields[0, :3], atol=1e-6)


@pytest.mark.slow
def test_a_fitted_one_commutes_with_the_group(springs):
    task, options = springs
    fitted = fit_random_walk(task, options, Trainer(), None, jax.random.key(3))
    model, params = fitted.model, fitted.params
    assert model.num_calls == 5
    symmetry = task.problem.priors.symmetry
    element = symmetry.draw(jax.random.key(4))
    condition = jnp.asarray(task.train().condition[0])
    latent = model.latent(jax.random.key(6))
    line, _ = told_frames(condition, 4)
    moved_latent, _ = symmetry.act(element, latent, condition)
    _, moved = symmetry.act(element, line, condition)
    key = jax.random.key(7)
    draw = jax.jit(lambda condition, latent: model.draw(params, model.prepare(params, condition), latent, key))
    found, direct = draw(moved, moved_latent), draw(condition, latent)
    expected, _ = symmetry.act(element, direct, condition)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert jnp.abs(found - direct).max() > 0.1


def test_a_field_seen_by_its_logarithm_is_refused(springs):
    task, options = springs
    with pytest.raises(ValueError, match="kind linear"):
        fit_random_walk(task, {**options, "data": {"kinds": ("log",) * 4}}, Trainer(), None, task.key)
