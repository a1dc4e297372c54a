"""Optimised bodies: volume, descent of the compliance, gradients, tasks, and pieces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from phdme_jax.systems.equations import elasticity, topology

SQUARES = 12


@pytest.fixture(scope="module")
def bridge():
    """Two held corners below, a load in the middle above."""
    fixed = jnp.zeros((SQUARES + 1, SQUARES + 1, 2)).at[0, 0].set(1.0).at[-1, 0].set(1.0)
    load = jnp.zeros_like(fixed).at[SQUARES // 2, -1, 1].set(-1.0)
    task = topology.Task(fixed, load, jnp.asarray(0.4))
    return task, *jax.jit(topology.optimise)(task)


def test_optimiser_keeps_the_volume_and_lowers_the_compliance(bridge):
    _, density, history = bridge
    assert abs(float(density.mean()) - 0.4) < 1e-8
    assert density.min() > 0.0 and density.max() <= 1.0
    assert history[-1] < 0.5 * history[0] and abs(history[-1] / history[-10] - 1) < 1e-2
    np.testing.assert_allclose(density, density[::-1], atol=1e-6)  # the task is symmetric


def test_black_and_white_body_is_stiffer_than_random_ones_of_its_volume(bridge):
    task, density, _ = bridge

    @jax.jit
    def compliance(body):
        stiffness = topology.linear_stiffness(body)
        return elasticity.compliance(elasticity.solve_equilibrium(stiffness, task.load, task.fixed), stiffness)

    solid = topology.black_and_white(density, task.volume_fraction)
    assert set(np.unique(solid)) == {0.0, 1.0} and solid.sum() == round(0.4 * SQUARES**2)
    strip = jnp.zeros_like(solid).at[:, : int(0.4 * SQUARES)].set(1.0).at[SQUARES // 2].set(1.0)
    scattered = jax.random.permutation(jax.random.key(0), solid.ravel()).reshape(solid.shape)
    assert compliance(solid) < compliance(strip) < compliance(scattered)


def test_sensitivity_is_the_derivative_of_the_compliance(bridge):
    task, density, _ = bridge

    @jax.jit
    def compliance(body):
        stiffness = topology.penalised_stiffness(body)
        return jnp.sum(elasticity.solve_equilibrium(stiffness, task.load, task.fixed) * task.load)

    body = 0.3 + 0.4 * density
    displacement = elasticity.solve_equilibrium(topology.penalised_stiffness(body), task.load, task.fixed)
    unit = 2.0 * elasticity.strain_energy(displacement)
    sensitivity = -topology.PENALTY * (1 - topology.STIFFNESS_VOID) * body**2 * unit
    direction = jax.random.normal(jax.random.key(1), body.shape)
    step = 1e-6
    difference = (compliance(body + step * direction) - compliance(body - step * direction)) / (2 * step)
    np.testing.assert_allclose(jnp.vdot(sensitivity, direction), difference, rtol=1e-5)


@pytest.mark.slow
def test_log_compliance_has_the_slope_of_bodies_solved_anew_and_none_in_displacements(bridge):
    task, density, _ = bridge
    equations = topology.make_topology(num_squares=SQUARES)
    condition = topology.conditions(task)
    body = jnp.pad(0.3 + 0.4 * density, ((0, 1), (0, 1)))
    fields = jnp.stack([jnp.ones_like(body), -jnp.ones_like(body), body], axis=-1)

    @jax.jit
    def anew(body):
        penalised = fields.at[..., 2].set(body**3)  # judged by its linear stiffness
        return jnp.log(equations.objective(equations.resolve(penalised, condition), condition))

    value, slope = jax.jit(jax.value_and_grad(equations.solved_objective))(fields, condition)
    np.testing.assert_allclose(value, anew(body), rtol=1e-9)
    direction = jax.random.normal(jax.random.key(1), body.shape)
    difference = (anew(body + 1e-6 * direction) - anew(body - 1e-6 * direction)) / 2e-6
    np.testing.assert_allclose(jnp.vdot(slope[..., 2], direction), difference, rtol=1e-5)
    assert np.all(slope[..., :2] == 0.0)
    free = condition.at[..., 3:5].set(0.0)  # a body without supports cannot be solved, and teaches nothing
    value, slope = jax.value_and_grad(equations.solved_objective)(fields, free)
    assert value == 0.0 and np.all(slope == 0.0)


def test_every_support_holds_a_body_and_the_unseen_ones_are_others():
    seen, unseen = topology.support_masks(SQUARES), topology.support_masks(SQUARES, unseen=True)
    assert len(seen) == 42 and len(unseen) == 5
    masks = np.concatenate([seen, unseen])
    assert len({mask.tobytes() for mask in masks}) == 47
    for mask in masks:
        assert elasticity.is_supported(jnp.asarray(np.stack([mask, mask], -1)))


def test_tasks_load_one_free_node_of_the_boundary_by_one():
    tasks = jax.vmap(lambda key: topology.draw_task(key, SQUARES))(jax.random.split(jax.random.key(0), 64))
    size = np.hypot(*np.moveaxis(np.asarray(tasks.load), -1, 0))
    np.testing.assert_allclose(size.sum(axis=(1, 2)), 1.0, atol=1e-12)
    loaded = size > 0.5
    assert (loaded.sum(axis=(1, 2)) == 1).all() and not loaded[:, 1:-1, 1:-1].any()
    assert not (loaded & (np.asarray(tasks.fixed)[..., 0] > 0)).any()
    assert set(np.round(np.asarray(tasks.volume_fraction), 2)) <= set(topology.VOLUME_FRACTIONS)
    again = topology.task_of(topology.conditions(jax.tree.map(lambda leaf: leaf[3], tasks)))
    for one, other in zip(again, tasks, strict=True):
        np.testing.assert_allclose(one, other[3])


def test_conditions_tell_the_task_and_the_equilibrium_of_the_full_body(bridge):
    task, _, _ = bridge
    channels = topology.conditions(task)
    assert channels.shape == (SQUARES + 1, SQUARES + 1, len(topology.CONDITIONS))
    for told, asked in zip(topology.task_of(channels), task, strict=True):
        np.testing.assert_array_equal(told, asked)
    full = jnp.ones((SQUARES, SQUARES))
    residual = elasticity.equilibrium_residual(channels[..., 7:], full, task.load, task.fixed)
    assert np.abs(residual).max() < 1e-10
    # half the work of the load is the strain energy of the full body
    energy = elasticity.strain_energy(channels[..., 7:])
    np.testing.assert_allclose(jnp.sum(energy), 0.5 * jnp.sum(task.load * channels[..., 7:]), rtol=1e-10)
    np.testing.assert_allclose(channels[..., 1], topology.to_nodes(energy), rtol=1e-10)


def test_connected_pieces_are_those_scipy_finds():
    solid = np.random.default_rng(0).random((14, 11)) < 0.4
    labels, count = ndimage.label(solid, structure=np.ones((3, 3)))
    assert count > 2
    where = tuple(np.argwhere(labels == 2)[0])
    start = np.zeros_like(solid)
    start[where] = True
    np.testing.assert_array_equal(topology.connected_to(jnp.asarray(solid), jnp.asarray(start)), labels == 2)


def test_odd_meshes_are_refused():
    with pytest.raises(ValueError, match="even number of squares"):
        topology.make_topology(num_squares=9)
