"""Flow maps: their targets hold for the true map, they begin as the teacher, and one call ends where the flow does."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.methods.base import Examples, Task
from phdme_jax.methods.distilled.flow_map import (
    FlowMap,
    draw_stretch,
    endpoint_target,
    flow_map_loss,
    follow_map,
    make_mean_velocity,
    shortcut_target,
    with_duration,
)
from phdme_jax.methods.equations import network as shared
from phdme_jax.methods.equations.flow import make_velocity, noise_level
from phdme_jax.methods.presets import MLP, UNET
from phdme_jax.systems import make_equations
from tests.methods.distilled.points import drawn, fitted, reaches_all_around
from tests.methods.equations.world import world
from tests.rough import rough

KEY = jax.random.key(6)


def true_mean_velocity(point, time, duration):
    """Of x' = x + t: x(s + d) = (x + s + 1) e^d - s - d - 1."""
    end = (point + time + 1) * jnp.exp(duration) - time - duration - 1
    safe = jnp.where(duration > 0, duration, 1.0)
    return jnp.where(duration > 0, (end - point) / safe, point + time)


def test_targets_of_the_true_map_are_the_map():
    point, time, duration = jnp.array([0.3, -1.0]), jnp.asarray(0.1), jnp.asarray(0.5)
    expected = true_mean_velocity(point, time, duration)
    found, weight = shortcut_target(true_mean_velocity, point, time, duration)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert float(weight) == 1.0
    errors = []
    for step in (0.02, 0.01):
        found, weight = endpoint_target(true_mean_velocity, point, time, duration, step)
        errors.append(float(jnp.abs(found - expected).max()))
        assert float(weight) == pytest.approx(0.25 / step)
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.05)  # the step is Euler's
    # a stretch as short as the step is the flow itself
    found, weight = endpoint_target(true_mean_velocity, point, time, jnp.asarray(0.01), 0.02)
    np.testing.assert_allclose(found, point + time)
    assert float(weight) == 0.5
    end = (point + 1) * np.e - 2
    for count in (1, 3):
        np.testing.assert_allclose(follow_map(true_mean_velocity, point, count), end, rtol=1e-12)


@pytest.mark.parametrize("objective", ["endpoint", "shortcut"])
def test_stretches_stay_inside_and_reach_the_whole(objective):
    time, duration = jax.vmap(lambda key: draw_stretch(objective, key, jnp.float32))(jax.random.split(KEY, 4000))
    assert float(time.min()) >= 0 and float((time + duration).max()) <= 1 + 1e-6 and float(duration.min()) > 0
    assert float(duration.max()) > 0.95
    if objective == "shortcut":
        parts = 1 / np.asarray(duration)
        np.testing.assert_array_equal(np.unique(parts), 2.0 ** np.arange(8))
        np.testing.assert_array_equal(time * parts, np.round(time * parts))


def test_a_loss_of_another_objective_is_refused():
    with pytest.raises(ValueError, match="endpoint"):
        flow_map_loss(world().net, FlowMap(), "meanflow")


@pytest.mark.slow
@pytest.mark.parametrize("predicts", ["velocity", "edm"])
@pytest.mark.parametrize("sizes", [MLP, {**UNET, "channels": 8, "multipliers": (1, 2), "heads": 0}])
def test_an_untrained_map_is_its_teachers_velocity_for_every_duration(sizes, predicts):
    equations = make_equations("poisson_2d", num_points=12)
    sample = jax.jit(jax.vmap(equations.draw))(jax.random.split(KEY, 8))
    examples = Examples(np.asarray(sample.fields), np.asarray(sample.condition))
    options = {"network": sizes, "data": {"kinds": ("linear",) * 2}, "training": {"flow_predicts": predicts}}
    task = Task(equations, lambda: examples, lambda key, count: examples.condition[:count], KEY)
    net = replace(shared.network_of(task, options), dtype="float64")
    encoded = shared.encode_examples(net, shared.fit_params(net, examples), examples)
    example = jax.tree.map(lambda leaf: leaf[0], encoded)
    teacher = rough(shared.init_network(net, example, False, KEY))
    fresh = net.network.init(KEY, example.fields, shared.condition_of(example.given.channels), 2)
    network = with_duration(fresh, teacher)
    prepared = shared.make_prepare(net)(teacher, example.given)
    expected = jax.jit(make_velocity(net)(teacher, prepared))(example.fields, jnp.asarray(0.3))

    @jax.jit
    def told(params, duration):
        return make_mean_velocity(net)(params, prepared)(example.fields, jnp.asarray(0.3), duration)

    for duration in (0.0, 0.7):
        found = told(network, duration)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    if predicts == "edm":  # from the noise one call is what the network says
        once = make_mean_velocity(net)(network, prepared)(example.fields, jnp.asarray(0.0), jnp.asarray(1.0))
        levels = jnp.stack([noise_level(jnp.asarray(0.0)), jnp.asarray(1.0)])
        said = net.network.apply(network, example.fields, levels, prepared.features)
        np.testing.assert_allclose(example.fields + once, said, atol=1e-9)
    # and the second level is heard once it is trained
    moved = rough(network)
    one, other = (told(moved, duration) for duration in (0.1, 0.7))
    assert float(jnp.abs(one - other).max()) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flow_map", "shortcut"])
def test_one_call_ends_nearer_to_the_circle_than_one_step_of_the_flow(name):
    assert fitted(name).model.num_calls == 1 and {"flow_0", "flow_map_0"} <= set(fitted(name).seconds)
    points = drawn(name)
    # one step of the flow ends at the mean of the data, a distance of one from all of them
    assert np.abs(np.hypot(*points.T) - 1).mean() < 0.15 and reaches_all_around(points)
