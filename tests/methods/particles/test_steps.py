"""Methods that continue particles from the last given frame: what each conserves, and how it moves with the group."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.files import InputError
from phdme_jax.gp.basis import density
from phdme_jax.gp.pair_energy import incidence, pair_basis
from phdme_jax.methods.base import Examples, Task, refuse, stage_key
from phdme_jax.methods.baselines.interaction_network import InteractionNetwork
from phdme_jax.methods.baselines.pair_network import PairEnergy, _factory, leaping
from phdme_jax.methods.draws import draw_forecasts
from phdme_jax.methods.particles.steps import ParticleExample, continued, known, window_loss
from phdme_jax.methods.table import METHODS
from phdme_jax.systems import make_equations
from phdme_jax.systems.given_frames import given_condition, with_given_frames
from phdme_jax.systems.particles.base import Motion, fields_of, motion_of, simulate
from phdme_jax.systems.particles.springs import _advance
from phdme_jax.training.stages import Trainer

GIVEN, FRAMES, STIFFNESS = 4, 12, 0.1
OPTIONS = {
    "prior": {"main": 16, "margin": 1.2, "points": 6, "resolved": 0.3, "groups": 3, "iterations": 200, "substeps": 10},
    "baselines": {
        "ema_decay": 0.9,
        "substeps": 2,
        "rollout_substeps": 6,
        "hnn": {"width": 16, "depth": 1},
        "nri": {"width": 16},
        "stages": {"hnn": ((4, 400, 16, 1e-2),), "nri": ((4, 3, 4, 1e-2),)},
    },
}
SCALE = jnp.array([0.5, 0.5, 0.5, 0.3, 0.3, 0.3])


@pytest.fixture(scope="module")
def springs():
    equations = with_given_frames(make_equations("five_springs", num_frames=FRAMES, dimension=3, stiffness=1.0), GIVEN)
    samples = jax.jit(jax.vmap(equations.draw))(jax.random.split(jax.random.key(0), 40))
    train = Examples(np.asarray(samples.fields), np.asarray(samples.condition))
    return Task(equations, lambda: train, lambda key, count: train.condition[:count], jax.random.key(1))


FITTED = {}


def fit(task, name):
    """A fitted method, once for all tests."""
    if name not in FITTED:
        method = METHODS[name]
        FITTED[name] = method.fit(task, OPTIONS, Trainer(), None, stage_key(task.key, "method", method.stream))
    return FITTED[name]


def fresh(task, count):
    samples = jax.vmap(task.problem.draw)(jax.random.split(jax.random.key(5), count))
    return np.asarray(samples.fields), np.asarray(samples.condition)


def displacement(found, truth):
    return np.linalg.norm((found - truth)[:, GIVEN:, :, :3], axis=-1).mean()


def start():
    position, velocity = jax.random.normal(jax.random.key(7), (2, 5, 3))
    upper = jnp.triu(jax.random.bernoulli(jax.random.key(8), 0.5, (5, 5)).astype(position.dtype), 1)
    return Motion(position, velocity), upper + upper.T


@pytest.fixture(scope="module")
def energy():
    return PairEnergy(SCALE, 8, 2, jax.random.key(0))


def test_a_condition_tells_frames_and_coupling(springs):
    train = springs.train()
    told = known(springs.problem, jnp.asarray(train.condition[0]))
    np.testing.assert_array_equal(told.given, train.fields[0, :GIVEN])
    np.testing.assert_array_equal(told.coupling, train.condition[0, 0, :, :5])
    bodies = with_given_frames(make_equations("gravity", num_particles=3, num_frames=3), 1)
    np.testing.assert_array_equal(known(bodies, bodies.draw(jax.random.key(0)).condition).coupling, np.ones((3, 3)))


def test_the_true_step_continues_to_the_truth_and_has_no_loss(springs):
    train = springs.train()
    advance = partial(_advance, 1.0, 0.1)
    told = known(springs.problem, jnp.asarray(train.condition[0]))
    np.testing.assert_allclose(continued(springs.problem, advance, told), train.fields[0], atol=1e-12)
    example = ParticleExample(jnp.asarray(train.fields[0]), told.coupling)
    for key in jax.random.split(jax.random.key(3), 4):
        assert window_loss(lambda params: advance, SCALE, 3)((), example, key)[0] < 1e-20
    still = window_loss(lambda params: lambda coupling: lambda motion: motion, SCALE, 1)((), example, key)[0]
    assert still > 1e-4


def test_rollouts_of_the_learned_energy_are_near_the_truth_and_keep_what_they_should(springs):
    fitted, (truth, condition) = fit(springs, "gp_rollout"), fresh(springs, 8)
    drawn = draw_forecasts(fitted, condition, 2, jax.random.key(0))
    straight = draw_forecasts(fit(springs, "constant_velocity"), condition, 1, jax.random.key(0)).mean
    assert displacement(drawn.mean, truth) < 2e-3 < 0.05 * displacement(straight, truth)
    assert displacement(drawn.samples[:, 0], truth) < 2e-3
    np.testing.assert_array_equal(drawn.mean[:, :GIVEN], truth[:, :GIVEN])
    position, velocity = map(np.asarray, motion_of(jnp.asarray(drawn.mean[:, GIVEN - 1 :])))
    momentum = velocity.sum(axis=2)
    np.testing.assert_allclose(momentum, momentum[:, :1] + 0 * momentum, atol=1e-12)
    posterior, coupling = fitted.params, condition[:, 0, :, :5][:, *np.triu_indices(5, 1)]
    assert not posterior.logarithmic
    apart = np.linalg.norm(np.einsum("ip,stia->stpa", incidence(5), position), axis=-1)
    stored = density(pair_basis(16, False), posterior.energy.mean, jnp.asarray(apart)[..., None])
    total = 0.5 * (velocity**2).sum(axis=(2, 3)) + (coupling[:, None] * np.asarray(stored)).sum(axis=-1)
    # the leapfrog's own error, of second order in steps of a tenth of the time between frames
    assert np.abs(total / total[:, :1] - 1).max() < 3e-4
    assert drawn.ok.all() and fitted.model.num_calls == 10 * (FRAMES - GIVEN)


@pytest.mark.slow
def test_leapfrogs_of_a_network_keep_momentum_go_back_and_are_of_second_order(energy):
    motion, coupling = start()
    ahead = leaping(energy, 0.2, 4)(coupling)(motion)
    np.testing.assert_allclose(ahead.velocity.sum(axis=0), motion.velocity.sum(axis=0), atol=1e-13)
    back = leaping(energy, 0.2, 4)(coupling)(ahead._replace(velocity=-ahead.velocity))
    np.testing.assert_allclose(back.position, motion.position, atol=1e-13)
    np.testing.assert_allclose(-back.velocity, motion.velocity, atol=1e-13)
    assert jnp.abs(ahead.velocity - motion.velocity).max() > 1e-4
    exact = fields_of(leaping(energy, 0.2, 1024)(coupling)(motion))
    errors = [jnp.abs(fields_of(leaping(energy, 0.2, n)(coupling)(motion)) - exact).max() for n in (8, 16, 32)]
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    np.testing.assert_allclose(orders, 2.0, atol=0.2)


def test_the_energy_of_a_network_is_that_of_its_pairs(energy):
    """No rotation, translation or order changes it; particles without a coupling do not pull."""
    motion, coupling = start()
    matrix, order = jnp.linalg.qr(jax.random.normal(jax.random.key(1), (3, 3)))[0], jnp.array([3, 1, 4, 0, 2])
    moved = energy((motion.position @ matrix.T + 2.0)[order], coupling[order][:, order])
    np.testing.assert_allclose(moved, energy(motion.position, coupling), rtol=1e-12)
    alone = coupling.at[0].set(0.0).at[:, 0].set(0.0)
    pulled = jax.grad(energy)(motion.position, alone)
    assert jnp.all(pulled[0] == 0.0) and jnp.abs(pulled).max() > 1e-4


@pytest.mark.parametrize("types", [1, 2])
def test_an_interaction_network_commutes_with_the_order_of_the_particles_and_their_edges(types):
    network = InteractionNetwork(SCALE, 8, types, jax.random.key(0))
    (motion, coupling), order = start(), jnp.array([3, 1, 4, 0, 2])
    moved = network(Motion(*(part[order] for part in motion)), coupling[order][:, order])
    for here, there in zip(moved, network(motion, coupling), strict=True):
        np.testing.assert_allclose(here, there[order], atol=1e-13)
    # the edge between the first two particles changes what these two do alone, where there are types of edges
    changed = network(motion, coupling.at[0, 1].set(1 - coupling[0, 1]).at[1, 0].set(1 - coupling[1, 0]))
    differs = np.abs(fields_of(changed) - fields_of(network(motion, coupling))).max(axis=-1) > 1e-9
    np.testing.assert_array_equal(differs, [types == 2, types == 2, False, False, False])
    # what a particle would tell itself is no message
    loops = network(motion, coupling + jnp.eye(5))
    np.testing.assert_array_equal(fields_of(loops), fields_of(network(motion, coupling)))


@pytest.mark.slow
def test_a_trained_hamiltonian_network_is_better_than_straight_lines(springs):
    truth, condition = fresh(springs, 8)
    found, straight = (
        draw_forecasts(fit(springs, name), condition, 1, jax.random.key(0)).mean
        for name in ("hnn", "constant_velocity")
    )
    assert displacement(found, truth) < 0.3 * displacement(straight, truth)
    momentum = found[:, GIVEN - 1 :, :, 3:].sum(axis=2)
    np.testing.assert_allclose(momentum, momentum[:, :1] + 0 * momentum, atol=1e-5)
    # forecasts take finer steps than the training, and count them
    fitted = fit(springs, "hnn")
    assert fitted.model.num_calls == 6 * (FRAMES - GIVEN)
    model, told = fitted.params.network, known(springs.problem, jnp.asarray(condition[0], jnp.float32))
    factory = _factory(6, **OPTIONS["baselines"]["hnn"])
    coarse, fine = (
        continued(springs.problem, leaping(factory.field(model), springs.problem.grid.spacing[0], n), told)
        for n in (2, 6)
    )
    np.testing.assert_allclose(found[0], fine, atol=1e-5)
    assert np.abs(fine - coarse).max() > 1e-4


@pytest.mark.slow
def test_an_interaction_network_is_trained_and_forecasts(springs):
    truth, condition = fresh(springs, 2)
    drawn = draw_forecasts(fit(springs, "nri"), condition, 1, jax.random.key(0))
    assert drawn.ok.all() and drawn.samples is None
    np.testing.assert_allclose(drawn.mean[:, :GIVEN], truth[:, :GIVEN], atol=1e-6)


def test_constant_velocities_are_exact_for_free_particles(springs):
    motion, _ = start()
    nothing = jnp.zeros((FRAMES, 5, 5))
    fields = simulate(
        lambda coupling: lambda m: Motion(m.position + 0.1 * m.velocity, m.velocity), motion, nothing[0], FRAMES
    )
    condition = np.asarray(given_condition(fields, nothing, GIVEN, 0))[None]
    found = draw_forecasts(fit(springs, "constant_velocity"), condition, 1, jax.random.key(0)).mean
    np.testing.assert_allclose(found[0], fields, atol=1e-13)


def test_other_problems_are_refused_in_a_sentence():
    plain = make_equations("five_springs", num_frames=4)
    with pytest.raises(InputError, match="nri needs given frames, which five_springs does not offer"):
        refuse(METHODS["nri"], plain)
    with pytest.raises(InputError, match="gp_rollout needs structure, which five_springs does not offer"):
        refuse(METHODS["gp_rollout"], plain)
    wave = with_given_frames(make_equations("advection", num_points=16, num_frames=16), 3)
    with pytest.raises(InputError, match="constant_velocity needs particles, which advection does not offer"):
        refuse(METHODS["constant_velocity"], wave)
    for name in ("hnn", "nri", "gp_rollout", "constant_velocity"):
        refuse(METHODS[name], with_given_frames(plain, 2))
