"""Students: pairs follow the teacher's flow, residuals are weighed alike on all grids, refinement goes downhill."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion.flow import follow_flow
from phdme_jax.methods.base import Examples
from phdme_jax.methods.distilled.pairs import make_pairs, solved
from phdme_jax.methods.distilled.student import (
    Distillation,
    fit_student,
    make_model,
    make_student,
    refine,
    student_stages,
)
from phdme_jax.methods.equations import network as shared
from phdme_jax.methods.equations.encoding import decode
from phdme_jax.methods.equations.flow import make_velocity
from phdme_jax.methods.equations.residual_size import residual_scale, scaled_residual
from phdme_jax.methods.presets import MLP
from phdme_jax.methods.table import lineage
from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.base import stacked_residual
from tests.methods.distilled.points import KEY, OPTIONS, drawn, fitted, reaches_all_around, task
from tests.rough import rough


class Idle:
    """A host that trains nothing and writes down what it was asked to keep."""

    def __init__(self):
        self.names = []

    def train(self, stage, loss, params, data, key, **numbers):
        return params, 0.0

    def keep(self, name, make):
        self.names.append(name)
        return make()


def encoded_network(equations, kinds):
    sample = jax.jit(jax.vmap(equations.draw))(jax.random.split(KEY, 32))
    examples = Examples(np.asarray(sample.fields), np.asarray(sample.condition))
    shape = examples.fields.shape[1:]
    net = shared.EquationNetwork(equations, shared.make_network(shape, **MLP), kinds, shape, "float64")
    return net, shared.encode_examples(net, shared.fit_params(net, examples), examples)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["poisson_1d", "poisson_2d"])
def test_a_wholly_wrong_solution_weighs_the_same_on_every_grid(name):
    """No solution for the right source: r / s = sqrt(2), as mixed fields miss half a difference of sources."""
    found = []
    for count in (20, 32, 48):
        net, encoded = encoded_network(make_equations(name, num_points=count), ("linear",) * 2)
        scale = residual_scale(net, encoded, KEY)
        one = jax.tree.map(lambda leaf: leaf[0], encoded)
        wrong = encoded.fields.at[..., 0].set(-encoded.given.encoding.shift[0, 0] / encoded.given.encoding.scale[0, 0])
        misfit = jax.vmap(scaled_residual(net, one.given, scale, False))(wrong)
        found.append(2 * float(jnp.mean(misfit)))  # two equations, of which the second is obeyed
    np.testing.assert_allclose(found, 2.0, rtol=0.25)


def test_a_single_field_is_weighed_by_what_mixing_two_examples_breaks():
    net, encoded = encoded_network(make_equations("burgers", num_points=16, num_frames=16), ("linear",))
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


@pytest.mark.slow
def test_noise_that_makes_all_fields_is_refined_on_the_whole_residual():
    """Whatever the student was trained with: down the slope in the solution alone, the residual may grow."""
    net, encoded = encoded_network(make_equations("poisson_1d", num_points=20), ("linear",) * 2)
    given, chosen = jax.tree.map(lambda leaf: leaf[0], encoded.given), shared.Sampling(refinements=3, flow_steps=1)
    network = rough(shared.init_network(net, jax.tree.map(lambda leaf: leaf[0], encoded), False, KEY))
    scale, prepared = residual_scale(net, encoded, KEY), shared.make_prepare(net)(network, given)
    params = shared.Params(network, given.encoding, given.encoding, scale)
    student, noise = make_student(net)(network, prepared), jax.random.normal(KEY, net.shape)
    whole = scaled_residual(net, given, scale, detached=False)
    better = refine(lambda point: whole(student(point)), noise, chosen)
    found = make_model(net, chosen).draw(params, prepared, noise, KEY)
    np.testing.assert_allclose(found, make_model(net).draw(params, prepared, better, KEY), atol=1e-9)
    other = refine(lambda point: scaled_residual(net, given, scale, detached=True)(student(point)), noise, chosen)
    assert float(jnp.abs(other - better).max()) > 1e-6


@pytest.mark.slow
def test_physics_in_the_loss_and_refinement_lower_the_residual_of_a_student():
    points = {name: drawn(name) for name in ("distilled", "piddm", "piddm_ref")}
    size = {name: np.abs((values**2).sum(axis=1) - 1).mean() for name, values in points.items()}
    assert size["piddm_ref"] < 0.7 * size["piddm"] < 0.5 * size["distilled"]
    # in one call, and still all around the circle
    for name in ("distilled", "piddm"):
        assert fitted(name).model.num_calls == 1 and reaches_all_around(points[name])
    assert (fitted("piddm_ref").model.num_calls, fitted("piddm_ref").model.num_backward) == (21, 20)
    assert {"flow_0", "pairs_0", "pairs_1", "distilled_0", "distilled_1"} <= set(fitted("piddm").seconds)


def test_pairs_are_what_the_flow_makes_of_the_noise_and_a_student_answers_like_its_teacher():
    teacher, student = fitted("flow_matching"), fitted("distilled")
    net = shared.network_of(task(), OPTIONS)
    pairs = make_pairs(net, teacher, task(), 200, 24, KEY)
    again = make_pairs(net, teacher, task(), 200, 64, KEY)
    np.testing.assert_array_equal(pairs["noise"], again["noise"])
    assert np.abs(pairs["fields"] - again["fields"]).mean() < 0.02 < np.abs(pairs["fields"] - pairs["noise"]).mean()
    prepared = student.model.prepare(student.params, jnp.zeros((0,)))
    decoded = partial(student.model.draw, student.params, prepared, key=KEY)
    found = jax.jit(jax.vmap(decoded))(jnp.asarray(pairs["noise"]))
    encoding = student.params.fields
    expected = encoding.shift + encoding.scale * pairs["fields"]
    assert np.median(np.linalg.norm(found - expected, axis=1)) < 0.1


def test_an_untrained_student_is_one_step_of_its_teacher():
    net, encoded = encoded_network(make_equations("circle"), ("linear",) * 2)
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


def test_pairs_solved_anew_keep_what_else_the_teacher_made_and_obey_the_equation():
    equations = make_equations("poisson_2d", num_points=12)
    net, _ = encoded_network(equations, ("linear",) * 2)
    sample = jax.jit(jax.vmap(equations.draw))(jax.random.split(KEY, 70))
    params = shared.fit_params(net, Examples(np.asarray(sample.fields), np.asarray(sample.condition)))
    rough = jax.random.normal(KEY, sample.fields.shape)
    made = {"noise": rough, "fields": rough, "condition": sample.condition, "seconds": 3.0}
    found = solved(net, params, made)
    assert found["noise"] is rough and found["seconds"] > 3.0
    np.testing.assert_allclose(found["fields"][..., 1], rough[..., 1], atol=1e-12)
    physical = jax.vmap(partial(decode, params.fields, net.kinds))(found["fields"])
    assert float(jnp.abs(jax.vmap(partial(stacked_residual, equations))(physical, sample.condition)).max()) < 1e-9
    points = dataclasses.replace(net, equations=dataclasses.replace(equations, resolve=None))
    with pytest.raises(ValueError, match="computed anew"):
        solved(points, params, made)


@pytest.mark.slow
def test_a_student_with_physics_learns_from_solved_pairs_where_told():
    few = {"num_pairs": 64, "num_calls": 4, "solves_pairs": True}
    host, options = Idle(), {**OPTIONS, "distilled": few}
    for physics, expected in ((True, {"pairs_0_64_4_solved", "pairs_1_16_4_solved"}), (False, set())):
        host.names.clear()
        fit_student(task(), options, host, fitted("flow_matching"), KEY, physics=physics)
        assert {name for name in host.names if name.endswith("solved")} == expected
