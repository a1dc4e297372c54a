"""Plane elasticity: patch test, rigid motions, the dense matrix, and a beam that theory knows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.systems.equations import elasticity


def dense_matrix(stiffness):
    shape = (stiffness.shape[0] + 1, stiffness.shape[1] + 1, 2)
    basis = jnp.eye(int(np.prod(shape))).reshape(-1, *shape)
    columns = jax.vmap(lambda u: elasticity.internal_force(u, stiffness).ravel())(basis)
    return np.asarray(columns).T


def assembled_matrix(stiffness):
    """The usual assembly, square by square."""
    nx, ny = stiffness.shape
    matrix = np.zeros((2 * (nx + 1) * (ny + 1),) * 2)
    for x in range(nx):
        for y in range(ny):
            nodes = [(x + a) * (ny + 1) + y + b for a, b in elasticity.CORNERS]
            rows = np.ravel([[2 * node, 2 * node + 1] for node in nodes])
            matrix[np.ix_(rows, rows)] += stiffness[x, y] * elasticity.element_stiffness()
    return matrix


def test_force_without_a_matrix_equals_the_assembled_one():
    stiffness = np.random.default_rng(0).uniform(0.1, 1.0, (4, 3))
    np.testing.assert_allclose(dense_matrix(jnp.asarray(stiffness)), assembled_matrix(stiffness), atol=1e-14)


def test_stiffness_of_a_square_is_the_textbook_one():
    nu = 0.3
    first_row = [
        1 / 2 - nu / 6,
        1 / 8 + nu / 8,
        -1 / 4 - nu / 12,
        -1 / 8 + 3 * nu / 8,
        -1 / 4 + nu / 12,
        -1 / 8 - nu / 8,
        nu / 6,
        1 / 8 - 3 * nu / 8,
    ]
    np.testing.assert_allclose(elasticity.element_stiffness()[0], np.array(first_row) / (1 - nu**2), atol=1e-15)
    # three motions of a rigid body cost no energy
    assert np.sum(np.abs(np.linalg.eigvalsh(elasticity.element_stiffness())) < 1e-12) == 3


def test_uniform_stretch_is_in_equilibrium_inside_and_has_the_stress_of_theory():
    x, y = np.meshgrid(np.arange(6.0), np.arange(5.0), indexing="ij")
    displacement = jnp.asarray(np.stack([0.1 * x, -0.03 * y], axis=-1))  # no stress across for nu = 0.3
    stiffness = 2.0 * jnp.ones((5, 4))
    force = np.asarray(elasticity.internal_force(displacement, stiffness))
    np.testing.assert_allclose(force[1:-1], 0.0, atol=1e-14)
    np.testing.assert_allclose(force[-1, 1:-1, 0], 2.0 * 0.1, atol=1e-14)
    np.testing.assert_allclose(elasticity.von_mises(displacement, stiffness), 0.2, atol=1e-14)
    np.testing.assert_allclose(elasticity.strain_energy(displacement, stiffness), 0.5 * 2.0 * 0.1**2, atol=1e-14)


def test_equilibrium_balances_and_its_compliance_is_the_work_of_the_load():
    stiffness = jnp.asarray(np.random.default_rng(1).uniform(1e-3, 1.0, (6, 4)))
    fixed = jnp.zeros((7, 5, 2)).at[0].set(1.0).at[3, 0, 1].set(1.0)
    load = jnp.asarray(np.random.default_rng(2).standard_normal((7, 5, 2)))
    solved = jax.jit(elasticity.solve_equilibrium)(stiffness, load, fixed)
    residual = elasticity.equilibrium_residual(solved, stiffness, load, fixed)
    assert np.abs(residual).max() < 1e-10 * np.abs(solved).max()
    assert not np.asarray(solved)[np.asarray(fixed) > 0].any()
    free = np.ravel(fixed) == 0
    expected = np.linalg.solve(assembled_matrix(np.asarray(stiffness))[np.ix_(free, free)], np.ravel(load)[free])
    np.testing.assert_allclose(np.ravel(solved)[free], expected, rtol=1e-9, atol=1e-10 * np.abs(expected).max())
    np.testing.assert_allclose(elasticity.compliance(solved, stiffness), np.sum(solved * load), rtol=1e-10)


def test_residual_of_held_displacements_is_the_displacement():
    fixed = jnp.zeros((3, 3, 2)).at[0].set(1.0)
    displacement = jax.random.normal(jax.random.key(0), (3, 3, 2))
    residual = elasticity.equilibrium_residual(displacement, jnp.ones((2, 2)), jnp.ones((3, 3, 2)), fixed)
    np.testing.assert_array_equal(residual[0], displacement[0])
    assert np.abs(residual[1:] - displacement[1:]).min() > 1e-6


def test_slender_cantilever_bends_as_beam_theory_says():
    length, height = 64, 8
    fixed = jnp.zeros((length + 1, height + 1, 2)).at[0].set(1.0)
    load = jnp.zeros_like(fixed).at[-1, :, 1].set(1.0 / (height + 1))
    solved = elasticity.solve_equilibrium(jnp.ones((length, height)), load, fixed)
    inertia, shear_modulus = height**3 / 12, 1 / (2 * (1 + elasticity.POISSON_RATIO))
    expected = length**3 / (3 * inertia) + 1.2 * length / (shear_modulus * height)
    assert abs(float(solved[-1, height // 2, 1]) / expected - 1) < 0.02


@pytest.mark.parametrize(("nodes", "held"), [([(0, 0)], False), ([(0, 0), (0, 4)], True), ([], False)])
def test_bodies_that_can_move_are_noticed(nodes, held):
    fixed = np.zeros((5, 5, 2), bool)
    for node in nodes:
        fixed[node] = True
    assert bool(elasticity.is_supported(jnp.asarray(fixed))) is held
