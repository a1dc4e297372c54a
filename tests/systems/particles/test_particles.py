"""Worlds of particles against what is known of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.systems import make_equations
from phdme_jax.systems.particles.base import (
    Motion,
    act,
    draw_element,
    energy_of,
    fields_of,
    motion_of,
    projected,
    simulate,
    steadily_moving,
)
from phdme_jax.systems.particles.bodies import _FRACTIONS, attraction, composed_leapfrog
from phdme_jax.systems.particles.charged import repulsion
from phdme_jax.systems.particles.springs import STEPS, frame_matrix

PAIR = jnp.ones((2, 2))


def test_a_frame_of_springs_is_the_published_step_repeated():
    coupling = jnp.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    position, velocity = np.array(jax.random.normal(jax.random.key(0), (2, 3, 2)))
    matrix = np.array(frame_matrix(coupling, 0.1, 0.1))
    whole = matrix @ np.concatenate([position, velocity])
    dt = 0.1 / STEPS
    for _ in range(STEPS):
        force = np.zeros_like(position)
        for i in range(3):
            for j in range(3):
                force[i] -= 0.1 * float(coupling[i, j]) * (position[i] - position[j])
        velocity = velocity + dt * force
        position = position + dt * velocity
    np.testing.assert_allclose(whole, np.concatenate([position, velocity]), atol=1e-13)


def test_two_particles_on_a_spring_swing_as_they_must():
    # apart by r: r'' = -2 k r; the scheme is of first order, so its error is a tenth with steps of a tenth
    matrix, times = np.array(frame_matrix(PAIR - jnp.eye(2), 0.1, 0.1)), 0.1 * np.arange(50)
    state, found = np.array([0.5, -0.5, 0.0, 0.0]), []
    for _ in times:
        found.append(state[0] - state[1])
        state = matrix @ state
    np.testing.assert_allclose(found, np.cos(np.sqrt(0.2) * times), atol=3e-4)


def circle(speed):
    """Two bodies half a unit from their middle on a circle, and how long a turn takes."""
    start = Motion(jnp.array([[0.5, 0.0], [-0.5, 0.0]]), jnp.array([[0.0, speed], [0.0, -speed]]))
    return start, 2 * np.pi * 0.5 / speed


@pytest.mark.parametrize(("fractions", "order", "steps"), [((1.0,), 2, (100, 200)), (_FRACTIONS, 6, (10, 20))])
def test_leapfrogs_have_their_order_on_a_circular_orbit(fractions, order, steps):
    # at a distance of one the pull on each is one, and v^2 / (1/2) = 1
    start, period = circle(np.sqrt(0.5))
    errors = []
    for count in steps:
        ended = composed_leapfrog(lambda x: attraction(0.0, x), period / count, count, start, fractions)
        errors.append(float(jnp.abs(ended.position - start.position).max()))
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.2


def test_three_bodies_at_rest_with_their_circle_stay_on_it():
    angle = 2 * np.pi * np.arange(3) / 3
    outward = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    speed = np.sqrt(np.sin(np.pi / 3) / (2 * np.cos(np.pi / 6) ** 2))
    start = Motion(jnp.asarray(outward), jnp.asarray(speed * outward[:, ::-1] * [-1, 1]))
    equations = make_equations("three_body")
    fields = fields_of(jax.tree.map(lambda part: jnp.broadcast_to(part, (20, 3, 2)), start))
    motion = motion_of(equations.resolve(fields, jnp.zeros((20, 3, 0))))
    np.testing.assert_allclose(jnp.linalg.norm(motion.position, axis=-1), 1.0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["five_springs", "three_body", "charged_particles", "gravity"])
def test_forces_are_the_slope_of_the_energy(name):
    equations = make_equations(name, **({"num_frames": 2} if name != "three_body" else {}))
    sample = equations.draw(jax.random.key(1))
    energy = dict(equations.priors.invariants)["energy"]
    frame, condition = sample.fields[:1], sample.condition[:1]
    slope = motion_of(jax.grad(lambda x: jnp.sum(energy(x, condition)))(frame))
    motion = motion_of(frame[0])
    coupling = condition[0] if condition.shape[-1] else None
    forces = {
        "five_springs": lambda: 0.1 * (coupling @ motion.position - motion.position * coupling.sum(1)[:, None]),
        "three_body": lambda: attraction(0.0, motion.position),
        "charged_particles": lambda: repulsion(coupling, motion.position),
        "gravity": lambda: attraction(0.1, motion.position),
    }
    np.testing.assert_allclose(slope.position[0], -forces[name](), atol=1e-12)
    np.testing.assert_allclose(slope.velocity[0], motion.velocity, atol=1e-12)


@pytest.mark.parametrize("name", ["five_springs", "three_body", "charged_particles", "gravity"])
def test_the_motion_commutes_with_the_group(name):
    equations = make_equations(name)
    sample = equations.draw(jax.random.key(2))
    element = equations.priors.symmetry.draw(jax.random.key(3))
    moved, condition = act(element, sample.fields, sample.condition)
    direct = equations.resolve(moved, condition)
    np.testing.assert_allclose(direct, act(element, sample.fields, sample.condition)[0], atol=1e-8)
    assert jnp.abs(moved - sample.fields).max() > 0.1


def test_elements_are_orthogonal_of_both_signs_and_every_order():
    elements = jax.vmap(lambda key: draw_element(2, 3, key))(jax.random.split(jax.random.key(0), 600))
    square = jnp.einsum("sij,skj->sik", elements.rotation, elements.rotation)
    np.testing.assert_allclose(square, jnp.broadcast_to(jnp.eye(2), square.shape), atol=1e-12)
    assert abs(float(jnp.mean(jnp.linalg.det(elements.rotation)))) < 0.15
    assert len({tuple(order) for order in np.array(elements.order)}) == 6
    # even on the circle: the mean of the first column is nought, of its square a half
    first = elements.rotation[:, :, 0]
    np.testing.assert_allclose(first.mean(axis=0), 0.0, atol=0.12)
    np.testing.assert_allclose((first**2).mean(axis=0), 0.5, atol=0.07)


def test_the_law_of_three_bodies_knows_no_direction_and_no_number():
    equations = make_equations("three_body", num_frames=2, duration=0.1)
    fields = jax.jit(jax.vmap(equations.draw))(jax.random.split(jax.random.key(4), 800)).fields
    motion = motion_of(fields[:, 0])
    x, v = motion.position, motion.velocity
    spin = jnp.sign(jnp.sum(x[..., 0] * v[..., 1] - x[..., 1] * v[..., 0], axis=-1))
    assert abs(float(spin.mean())) < 0.12
    for part in (x, v):
        np.testing.assert_allclose(part.mean(axis=0), 0.0, atol=0.12)
        spread = jnp.einsum("sia,sib->iab", part, part) / len(part)
        np.testing.assert_allclose(spread, np.trace(spread[0]) / 2 * np.eye(2) * np.ones((3, 1, 1)), atol=0.06)
    np.testing.assert_allclose(v.sum(axis=1), 0.0, atol=1e-12)


def test_projection_changes_velocities_alone_and_as_little_as_it_says():
    equations = make_equations("five_springs")
    sample = equations.draw(jax.random.key(5))
    rough = sample.fields + 0.02 * jax.random.normal(jax.random.key(6), sample.fields.shape)
    energy = dict(equations.priors.invariants)["energy"]
    potential = energy.args[0]
    found = projected(potential, rough, sample.condition)
    np.testing.assert_array_equal(motion_of(found).position, motion_of(rough).position)
    values = energy_of(potential, found, sample.condition)
    mean = energy_of(potential, rough, sample.condition).mean()
    np.testing.assert_allclose(values, mean * np.ones_like(values), atol=1e-12)
    # nearer to the truth than before, as published
    error = [jnp.mean((motion_of(one).velocity - motion_of(sample.fields).velocity) ** 2) for one in (found, rough)]
    assert error[0] < error[1]


def test_a_projection_that_cannot_keep_the_energy_stays_finite():
    potential = dict(make_equations("five_springs").priors.invariants)["energy"].args[0]
    far = jnp.concatenate([10.0 * jnp.eye(5)[None, :, :2], jnp.zeros((1, 5, 2))])
    fields = jnp.concatenate([far, 0.1 * jnp.ones((2, 5, 2))], axis=-1)
    coupling = jnp.ones((2, 5, 5)) - jnp.eye(5)
    found = projected(potential, fields, coupling)
    assert bool(jnp.isfinite(found).all())
    np.testing.assert_allclose(motion_of(found).velocity.sum(axis=1), 0.5, atol=1e-12)


def test_the_centre_moves_at_the_speed_that_positions_and_velocities_say():
    """Least squares over V alone, as a normal equation solved by NumPy."""
    interval, fields = 0.3, np.array(jax.random.normal(jax.random.key(0), (6, 4, 4)))
    found = motion_of(steadily_moving(interval, False, jnp.asarray(fields)))
    centre, drift = fields[..., :2].mean(axis=1), fields[..., 2:].mean(axis=1)
    time = interval * np.arange(6)
    # unknowns: start and speed; rows: positions and velocities
    matrix = np.block([[np.ones((6, 1)), time[:, None]], [np.zeros((6, 1)), np.ones((6, 1))]])
    (_, speed), *_ = np.linalg.lstsq(matrix, np.concatenate([centre, drift]), rcond=None)
    np.testing.assert_allclose(found.velocity.mean(axis=1), np.broadcast_to(speed, (6, 2)), atol=1e-12)
    np.testing.assert_allclose(np.diff(found.position.mean(axis=1), axis=0) / interval, np.tile(speed, (5, 1)))
    rest = motion_of(steadily_moving(interval, True, jnp.asarray(fields)))
    np.testing.assert_allclose(rest.velocity.mean(axis=1), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.ptp(rest.position.mean(axis=1), axis=0), 0.0, atol=1e-12)
    # what moves around the centre is left as it is
    around = lambda x: np.array(x - x.mean(axis=1, keepdims=True))  # noqa: E731
    np.testing.assert_allclose(around(found.velocity), around(fields[..., 2:]), atol=1e-12)


def test_simulations_begin_where_they_are_told():
    start = Motion(jnp.ones((2, 2)), jnp.zeros((2, 2)))
    frames = simulate(lambda coupling: lambda motion: Motion(2 * motion.position, motion.velocity), start, PAIR, 3)
    np.testing.assert_array_equal(frames[:, 0, 0], [1.0, 2.0, 4.0])


@pytest.mark.parametrize("wrong", [{"dimension": 4}, {"num_particles": 1}, {"num_frames": 1}, {"interval": 0.0}])
def test_worlds_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="expected dimension 2 or 3"):
        make_equations("five_springs", **wrong)
    with pytest.raises(ValueError, match="expected at least one step"):
        make_equations("three_body", steps=0)
