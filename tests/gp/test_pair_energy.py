"""Energies of pairs of particles: the path between frames, the force that is learned, the pull that follows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.gp.basis import density
from phdme_jax.gp.pair_energy import (
    PairOptions,
    incidence,
    learn_pair_energy,
    pair_basis,
    pair_pull,
    pair_slope,
    path_between,
    path_rule,
)

INTERVAL, STIFFNESS = 0.1, 0.7


def springs(count=24, frames=12, particles=4):
    """Exact motions x'' = -K x of particles on springs, K = k (diag(A 1) - A)."""
    random = np.random.default_rng(0)
    coupling = np.triu(random.integers(0, 2, (count, particles, particles)), 1).astype(float)
    coupling = coupling + np.swapaxes(coupling, 1, 2)
    position, velocity = [], []
    for one in coupling:
        squares, modes = np.linalg.eigh(STIFFNESS * (np.diag(one.sum(axis=0)) - one))
        rates = np.sqrt(np.maximum(squares, 1e-12))[:, None]
        place, speed = (modes.T @ random.normal(size=(particles, 3)) for _ in range(2))
        times = INTERVAL * np.arange(frames)[:, None, None]
        position.append(modes @ (place * np.cos(rates * times) + speed * np.sin(rates * times) / rates))
        velocity.append(modes @ (speed * np.cos(rates * times) - place * rates * np.sin(rates * times)))
    return tuple(map(jnp.asarray, (position, velocity, coupling)))


def charges(count=48, frames=12):
    """Pairs of particles with phi = 1 / r that pass each other, of either sign, followed in small steps."""
    random = np.random.default_rng(1)
    sign = random.choice([-1.0, 1.0], count)
    apart = random.uniform(0.4, 1.5, (count, 1)) * np.array([[1.0, 0.0, 0.0]])
    change = random.normal(scale=0.7, size=(count, 3))
    found, steps = [], 2000
    for _ in range(frames):
        found.append((apart, change))
        for _ in range(steps):
            change = (
                change
                + 0.5 * INTERVAL / steps * 2 * sign[:, None] * apart / np.linalg.norm(apart, axis=1)[:, None] ** 3
            )
            apart = apart + INTERVAL / steps * change
            change = (
                change
                + 0.5 * INTERVAL / steps * 2 * sign[:, None] * apart / np.linalg.norm(apart, axis=1)[:, None] ** 3
            )
    parts = (np.stack(part, axis=1) for part in zip(*found, strict=True))
    position, velocity = (jnp.asarray(np.stack([part / 2, -part / 2], axis=2)) for part in parts)
    return position, velocity, jnp.asarray(sign[:, None, None] * (1 - np.eye(2)))


@pytest.fixture(scope="module")
def learned():
    options = PairOptions(main=24)
    return options, learn_pair_energy(options, INTERVAL, *springs())


@pytest.mark.parametrize("nodes", [2, 4])
def test_paths_through_frames_are_exact_for_polynomials(nodes):
    """Of positions and velocities of n frames a polynomial of degree 2 n - 1 is known; one degree more is not."""
    rule, times = path_rule(6, INTERVAL, nodes, 5), INTERVAL * np.arange(6)
    assert rule.weights.sum() == pytest.approx(INTERVAL, rel=1e-14)
    between = np.concatenate(
        [0.5 * INTERVAL * (1 + np.polynomial.legendre.leggauss(5)[0]) + start for start in times[:-1]]
    )
    for degree, exact in ((2 * nodes - 1, True), (2 * nodes, False)):
        place, rate = times**degree, degree * times ** (degree - 1)
        found = path_between(rule, *(jnp.asarray(part)[:, None, None] for part in (place, rate)))
        miss = np.abs(np.ravel(found) - between**degree).max() / place.max()
        assert (miss < 1e-13) == exact


@pytest.mark.slow
def test_the_force_of_springs_is_recovered(learned):
    """phi = k r^2 / 2 has the slope k r; h is then one of the distance itself."""
    options, posterior = learned
    assert not posterior.logarithmic and posterior.energy.ok
    distance = jnp.linspace(0.05, 0.9 * posterior.farthest, 40)
    slope = pair_slope(pair_basis(options.main, False), posterior.energy.mean, posterior, distance)
    np.testing.assert_allclose(slope, STIFFNESS * distance, rtol=2e-4, atol=1e-5)


@pytest.mark.slow
def test_a_singular_force_is_learned_in_the_logarithm():
    options = PairOptions(main=32)
    posterior = learn_pair_energy(options, INTERVAL, *charges())
    assert posterior.logarithmic and posterior.energy.ok
    distance = jnp.linspace(max(0.4, float(posterior.nearest)), 1.5, 20)
    slope = pair_slope(pair_basis(options.main, True), posterior.energy.mean, posterior, distance)
    np.testing.assert_allclose(slope, -1 / distance**2, rtol=5e-3)
    # nearer than all that was seen the force stays as it is
    ends = pair_slope(
        pair_basis(options.main, True), posterior.energy.mean, posterior, posterior.nearest * jnp.array([0.1, 1.0])
    )
    assert ends[0] == ends[1]


@pytest.mark.slow
def test_noisier_rows_have_the_larger_noise():
    """Groups are in the order of how badly the frames tell the path: what is worst told misses most."""
    posterior = learn_pair_energy(PairOptions(main=32, resolved=0.1, groups=3), INTERVAL, *charges())
    noise = posterior.energy.hyperparameters.rate_noise
    assert noise.shape == (3,) and noise[0] > noise[-1]


@pytest.mark.slow
def test_the_pull_is_the_slope_of_the_energy_and_moves_no_mean(learned):
    options, posterior = learned
    basis, energy = pair_basis(options.main, False), posterior.energy.mean
    position = jax.random.normal(jax.random.key(3), (4, 3))
    coupling = jax.random.normal(jax.random.key(4), (4, 4))
    coupling = coupling + coupling.T

    def stored(position):
        apart = jnp.linalg.norm(incidence(4).T @ position, axis=-1)
        return jnp.sum(coupling[np.triu_indices(4, 1)] * density(basis, energy, apart[:, None]))

    pull = pair_pull(basis, energy, posterior, coupling, position)
    np.testing.assert_allclose(pull, -jax.grad(stored)(position), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(pull.sum(axis=0), 0.0, atol=1e-13)
    # particles at one place do not pull each other, nor break anything
    assert jnp.all(pair_pull(basis, energy, posterior, coupling, jnp.zeros((4, 3))) == 0.0)


def test_incidence_has_one_first_and_one_second_particle_a_pair():
    signs = incidence(5)
    np.testing.assert_array_equal(signs.sum(axis=0), 0.0)
    np.testing.assert_array_equal(np.abs(signs).sum(axis=0), 2.0)
    np.testing.assert_array_equal(np.argmax(signs, axis=0), np.triu_indices(5, 1)[0])
