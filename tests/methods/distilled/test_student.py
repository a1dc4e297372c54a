"""Students: pairs follow the teacher's flow, residuals are weighed alike on all grids, refinement goes downhill."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion.flow import follow_flow
from phdme_jax.methods.base import Examples, Task, stage_key
from phdme_jax.methods.distilled.pairs import make_pairs
from phdme_jax.methods.distilled.student import (
    Distillation,
    make_student,
    refine,
    residual_scale,
    scaled_residual,
    student_stages,
)
from phdme_jax.methods.equations import network as shared
from phdme_jax.methods.equations.flow import make_velocity
from phdme_jax.methods.presets import INFORMED, MLP, equation_groups, equation_stages
from phdme_jax.methods.table import METHODS, lineage
from phdme_jax.systems import make_equations
from phdme_jax.training.stages import Trainer

KEY = jax.random.key(5)


@pytest.mark.parametrize(("method", "order"), [("euler", 1.0), ("heun", 2.0)])
def test_flows_are_followed_with_the_order_of_the_method(method, order):
    """x' = x + t from 1/2: x(1) = (x0 + 3/2) sqrt(e) - 2."""

    def missed(count):
        found = follow_flow(lambda x, t: x + t, jnp.ones(2), 0.5, count, method=method)
        return float(jnp.abs(found - (2.5 * np.exp(0.5) - 2.0)).max())

    assert np.log2(missed(16) / missed(32)) == pytest.approx(order, abs=0.1)
    with pytest.raises(ValueError, match="euler or heun"):
        follow_flow(lambda x, t: x, jnp.ones(2), 0.0, 2, method="midpoint")


def network_of(equations, kinds):
    sample = jax.jit(jax.vmap(equations.draw))(jax.random.split(KEY, 32))
    examples = Examples(np.asarray(sample.fields), np.asarray(sample.condition))
    shape = examples.fields.shape[1:]
    net = shared.EquationNetwork(equations, shared.make_network(shape, **MLP), kinds, shape, "float64")
    return net, shared.encode_examples(net, shared.fit_params(net, examples), examples)


@pytest.mark.parametrize("name", ["poisson_1d", "poisson_2d"])
def test_a_wholly_wrong_solution_weighs_the_same_on_every_grid(name):
    """No solution for the right source: r / s = sqrt(2), as mixed fields miss half a difference of sources."""
    found = []
    for count in (20, 32, 48):
        net, encoded = network_of(make_equations(name, num_points=count), ("linear",) * 2)
        scale = residual_scale(net, encoded, KEY)
        one = jax.tree.map(lambda leaf: leaf[0], encoded)
        wrong = encoded.fields.at[..., 0].set(-encoded.given.encoding.shift[0, 0] / encoded.given.encoding.scale[0, 0])
        misfit = jax.vmap(scaled_residual(net, one.given, scale, False))(wrong)
        found.append(2 * float(jnp.mean(misfit)))  # two equations, of which the second is obeyed
    np.testing.assert_allclose(found, 2.0, rtol=0.25)


def test_a_single_field_is_weighed_by_what_mixing_two_examples_breaks():
    net, encoded = network_of(make_equations("burgers", num_points=16, num_frames=16), ("linear",))
    (scale,) = residual_scale(net, encoded, KEY)
    mixed = 0.5 * (encoded.fields[1:] + encoded.fields[:-1])
    misfit = jax.vmap(scaled_residual(net, jax.tree.map(lambda leaf: leaf[0], encoded.given), scale[None], False))(
        mixed
    )
    assert float(jnp.mean(misfit)) == pytest.approx(1.0, rel=0.2)


def test_refined_noise_has_a_smaller_misfit_and_keeps_its_size_where_told():
    matrix = jnp.asarray(np.random.default_rng(0).standard_normal((3, 40)))
    noise = jax.random.normal(KEY, (40,))

    def misfit(point):
        return jnp.mean((matrix @ point - 1.0) ** 2)

    free, held = (refine(misfit, noise, shared.Sampling(refinements=count, refinement_rate=0.02)) for count in (50, 0))
    assert float(misfit(free)) < 0.05 * float(misfit(noise))
    np.testing.assert_array_equal(held, noise)


@pytest.fixture(scope="module")
def circle():
    """Points of the unit circle: a flow, and students of it with and without the residual."""
    equations = make_equations("circle")
    fields = np.asarray(jax.vmap(lambda key: equations.draw(key).fields)(jax.random.split(KEY, 2000)))
    train = Examples(fields, np.zeros((len(fields), 0)))
    task = Task(equations, lambda: train, lambda key, count: train.condition[:count], KEY)
    options = {
        "data": {"kinds": ("linear", "linear")},
        "network": {**MLP, "width": 64},
        "stages": {
            **equation_stages(1500, 64, 2e-3),
            "distilled": ((0.0, 300, 64, 1e-3), (1.0, 1000, 64, 1e-3)),
        },
        "informed": {"mean_weight": 1.0, "sample_weight": 1.0, **INFORMED},
        **equation_groups(),
        "distilled": {"num_pairs": 2000, "num_calls": 24, "residual_weight": 1.0},
    }
    options["sampling"] |= {"refinement_rate": 0.03}
    host, fits = Trainer(), {}
    for name in ("flow_matching", "distilled", "piddm", "piddm_ref"):
        method = METHODS[name]
        fits[name] = method.fit(task, options, host, fits.get(method.teacher), stage_key(KEY, "method", method.stream))
    return task, fits


def drawn(fit, count=1000):
    prepared = fit.model.prepare(fit.params, jnp.zeros((0,)))

    def one(key):
        return fit.model.draw(fit.params, prepared, fit.model.latent(key), key)

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(8), count)))


def test_physics_in_the_loss_and_refinement_lower_the_residual_of_a_student(circle):
    _, fits = circle
    points = {name: drawn(fit) for name, fit in fits.items()}
    size = {name: np.abs((values**2).sum(axis=1) - 1).mean() for name, values in points.items()}
    assert size["piddm_ref"] < 0.7 * size["piddm"] < 0.5 * size["distilled"]
    # in one call, and still all around the circle
    for name in ("distilled", "piddm"):
        assert fits[name].model.num_calls == 1
        angle = np.arctan2(points[name][:, 1], points[name][:, 0])
        assert np.histogram(angle, bins=8, range=(-np.pi, np.pi))[0].min() > 60
    assert (fits["piddm_ref"].model.num_calls, fits["piddm_ref"].model.num_backward) == (21, 20)
    assert {"flow_0", "pairs_0", "pairs_1", "distilled_0", "distilled_1"} <= set(fits["piddm"].seconds)


def test_pairs_are_what_the_flow_makes_of_the_noise_and_a_student_answers_like_its_teacher(circle):
    task, fits = circle
    teacher, student = fits["flow_matching"], fits["distilled"]
    net = shared.EquationNetwork(task.problem, shared.make_network((2,), **{**MLP, "width": 64}), ("linear",) * 2, (2,))
    pairs = make_pairs(net, teacher, task, 200, 24, KEY)
    again = make_pairs(net, teacher, task, 200, 64, KEY)
    np.testing.assert_array_equal(pairs["noise"], again["noise"])
    assert np.abs(pairs["fields"] - again["fields"]).mean() < 0.02 < np.abs(pairs["fields"] - pairs["noise"]).mean()
    prepared = student.model.prepare(student.params, jnp.zeros((0,)))
    decoded = partial(student.model.draw, student.params, prepared, key=KEY)
    found = jax.jit(jax.vmap(decoded))(jnp.asarray(pairs["noise"]))
    encoding = student.params.fields
    expected = encoding.shift + encoding.scale * pairs["fields"]
    assert np.median(np.linalg.norm(found - expected, axis=1)) < 0.1


def test_an_untrained_student_is_one_step_of_its_teacher():
    net, encoded = network_of(make_equations("circle"), ("linear",) * 2)
    example = jax.tree.map(lambda leaf: leaf[0], encoded)
    network = shared.init_network(net, example, False, KEY)
    # a network that answers with zeros at first would hide a sign
    network = jax.tree.map(lambda leaf: leaf + 0.1, network)
    prepared, noise = shared.make_prepare(net)(network, example.given), jax.random.normal(KEY, (2,))
    step = follow_flow(make_velocity(net)(network, prepared), noise, 0.0, 1)
    np.testing.assert_allclose(make_student(net)(network, prepared)(noise), step, rtol=1e-6)
    assert float(jnp.abs(step - noise).max()) > 1e-3


def test_a_study_that_says_nothing_of_students_has_usual_ones():
    assert Distillation().num_pairs > 0
    assert student_stages({"stages": {"flow": ((1, 600, 8, 1e-3),)}}) == ((0.0, 100, 8, 5e-4), (1.0, 200, 8, 5e-4))
    own = ((2.0, 3, 4, 1e-3),)
    assert student_stages({"stages": {"distilled": own}}) == own


def test_a_lineage_begins_with_the_first_teacher():
    assert [method.name for method in lineage("piddm_ref")] == ["flow_matching", "piddm", "piddm_ref"]
    assert [method.name for method in lineage("gp_rollout")] == ["gp_rollout"]
