"""The generator around a conditional mean: exact pieces, known entries, and the losses' optimum."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion.networks import Network
from phdme_jax.diffusion.propagator import Propagator, init_propagator, propagate
from phdme_jax.diffusion.schedule import CosineSchedule
from phdme_jax.methods.energy.losses import (
    Around,
    Example,
    PhysicsTerms,
    generate,
    mean_loss,
    physics_penalty,
    residual_loss,
)

SCHEDULE = CosineSchedule(-8.0, 8.0)
TIMES = tuple(np.linspace(0.0, 3.0, 7).tolist())
CONFIG = Propagator(parity=((-1,), (1,)), radius=2, width=8, depth=1)
NO_PHYSICS = PhysicsTerms(None, lambda x: x[jnp.array([0, -1]), 0], 0.0, 0.0)


def gaussian_denoiser(factor: jax.Array | float = 1.0) -> Network:
    """The exact denoiser of standard normal data, x0_hat = alpha noisy, times a factor that spoils it."""
    return Network(
        init=lambda key, noisy, condition: {},
        encode=lambda params, condition: {},
        apply=lambda params, noisy, t, features: factor * SCHEDULE.alpha_sigma(t)[0] * noisy,
    )


def a_mean() -> jax.Array:
    return jax.random.normal(jax.random.key(0), (7, 9, 2))


def test_samples_have_the_mean_and_the_scale_they_are_built_around() -> None:
    mean, scale = a_mean(), jnp.full((7, 1, 2), 0.3)
    known = jnp.zeros_like(mean)

    def draw(key: jax.Array) -> jax.Array:
        noise = jax.random.normal(key, mean.shape)
        return generate(gaussian_denoiser(), {}, Around(mean, scale), known, noise, key, (SCHEDULE, 24))

    samples = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(1), 4000))
    assert float(jnp.abs(samples.mean(axis=0) - mean).max()) < 5 * 0.3 / np.sqrt(4000)
    assert abs(float(samples.std(axis=0).mean()) / 0.3 - 1) < 0.01


def test_known_entries_come_back_exactly() -> None:
    mean = a_mean()
    known = jnp.zeros_like(mean).at[0].set(1.0).at[:, 0, 0].set(1.0)
    noise, around = jax.random.normal(jax.random.key(3), mean.shape), Around(mean, jnp.ones((1, 1, 1)))
    sample = generate(gaussian_denoiser(), {}, around, known, noise, jax.random.key(2), (SCHEDULE, 12))
    assert bool(jnp.all(jnp.where(known == 1, sample == mean, sample != mean)))


def test_diffusion_loss_is_least_for_the_exact_denoiser_at_the_true_scale() -> None:
    mean, scale = a_mean(), jnp.full((1, 1, 1), 0.2)
    noise = jax.random.normal(jax.random.key(3), (256, *mean.shape))
    examples = Example(mean + scale * noise, jnp.ones((256, 6, 9, 2)), jnp.broadcast_to(mean, noise.shape))

    @jax.jit
    def average(factor: jax.Array, shift: jax.Array) -> jax.Array:
        loss = residual_loss(gaussian_denoiser(factor), SCHEDULE, NO_PHYSICS, TIMES)
        shifted = examples._replace(mean=examples.mean + shift)
        keys = jax.random.split(jax.random.key(4), 256)
        return jnp.mean(jax.vmap(lambda e, k: loss({}, (e, scale), k)[0])(shifted, keys))

    exact = float(average(jnp.array(1.0), jnp.array(0.0)))
    assert exact < float(average(jnp.array(0.8), jnp.array(0.0)))
    assert exact < float(average(jnp.array(1.2), jnp.array(0.0)))
    assert exact < float(average(jnp.array(1.0), jnp.array(0.1)))


def test_propagator_learns_a_linear_wave_and_keeps_parities() -> None:
    params = init_propagator(CONFIG, jnp.zeros((9, 2)), jax.random.key(5))
    initial = jax.random.normal(jax.random.key(6), (9, 2)).at[jnp.array([0, -1]), 0].set(0.0)
    same = propagate(CONFIG, params, initial, 7)
    np.testing.assert_allclose(same, jnp.broadcast_to(initial, same.shape), atol=1e-12)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    moved = propagate(CONFIG, params, initial, 7)
    assert float(jnp.abs(moved[:, jnp.array([0, -1]), 0]).max()) == 0.0
    assert float(jnp.abs(moved[1:, jnp.array([0, -1]), 1] - initial[jnp.array([0, -1]), 1]).max()) > 0


def test_propagator_loss_vanishes_on_its_own_trajectories_and_windows_start_anywhere() -> None:
    params = init_propagator(CONFIG, jnp.zeros((9, 2)), jax.random.key(7))
    params = jax.tree.map(lambda leaf: leaf + 0.05, params)
    initial = 0.3 * jax.random.normal(jax.random.key(8), (9, 2)).at[jnp.array([0, -1]), 0].set(0.0)
    trajectory = propagate(CONFIG, params, initial, 7)
    example = Example(trajectory, jnp.ones((6, 9, 2)), jnp.zeros_like(trajectory))
    loss = mean_loss(partial(propagate, CONFIG), NO_PHYSICS, TIMES, 3)
    for seed in range(5):
        assert float(loss(params, example, jax.random.key(seed))[0]) < 1e-20
    other = jax.tree.map(lambda leaf: leaf + 0.05, params)
    assert float(loss(other, example, jax.random.key(0))[0]) > 1e-6


def test_noise_on_the_start_costs_an_identity_its_variance_and_is_fresh_for_every_key() -> None:
    """On a state that does not change, the untrained step (the identity) errs by the noise and by nothing else."""
    still = jnp.broadcast_to(jnp.ones((9, 2)).at[jnp.array([0, -1]), 0].set(0.0), (7, 9, 2))
    example = Example(still, jnp.ones((6, 9, 2)), still)
    params = init_propagator(CONFIG, still[0], jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 4000)

    def losses(noise: float) -> jax.Array:
        loss = mean_loss(partial(propagate, CONFIG), NO_PHYSICS, TIMES, 1, noise)
        return jax.jit(jax.vmap(lambda key: loss(params, example, key)[0]))(keys)

    np.testing.assert_array_equal(losses(0.0), 0.0)
    noisy = losses(0.1)
    # one of two frames carries the noise, at 16 of its 18 entries: the fixed ends are set back in the next frame only
    expected = 0.01 * (18 + 16) / 36
    assert abs(float(noisy.mean()) / expected - 1) < 0.02 and float(noisy.std()) > 0


def test_physics_penalty_adds_weighted_residual_and_boundary() -> None:
    trajectory = a_mean()
    terms = PhysicsTerms(jnp.zeros_like, NO_PHYSICS.boundary, 2.0, 3.0)
    weight = jnp.full((6, 9, 2), 0.5)
    residual = jnp.diff(trajectory, axis=0) / 0.5
    expected = 2.0 * jnp.mean(0.5 * residual**2) + 3.0 * jnp.mean(trajectory[:, jnp.array([0, -1]), 0] ** 2)
    found = physics_penalty(terms, trajectory, 2 * trajectory, weight, TIMES, 2.0)
    np.testing.assert_allclose(found, expected / 4.0, rtol=1e-12)


def test_a_trajectory_of_another_energy_costs_nothing_where_its_own_residual_is_the_target() -> None:
    """Under a linear rate the penalty is that of the difference; the mean of trajectories is then least for it."""
    others = jax.random.normal(jax.random.key(9), (50, 7, 9, 2))
    weight = jax.random.uniform(jax.random.key(10), (6, 9, 2))
    zero = PhysicsTerms(lambda x: -0.7 * x, NO_PHYSICS.boundary, 2.0, 0.0)
    terms = zero._replace(target="trajectory")

    def cost(terms: PhysicsTerms, predicted: jax.Array, one: jax.Array) -> jax.Array:
        return physics_penalty(terms, predicted, one, weight, TIMES, 1.0)

    np.testing.assert_allclose(cost(terms, others[0], others[0]), 0.0, atol=1e-12)
    assert float(cost(zero, others[0], others[0])) > 0.1
    difference = cost(zero, others[1] - others[0], others[0])
    np.testing.assert_allclose(cost(terms, others[1], others[0]), difference, rtol=1e-10)

    def slope_at_the_mean(terms: PhysicsTerms) -> float:
        average = jax.grad(lambda x: jnp.mean(jax.vmap(lambda one: cost(terms, x, one))(others)))
        return float(jnp.abs(average(others.mean(axis=0))).max())

    assert slope_at_the_mean(terms) < 1e-12 < 1e-4 < slope_at_the_mean(zero)


@pytest.mark.parametrize(("window", "counts"), [(6, False), (7, True)])
def test_residual_of_a_window_counts_from_eight_frames_on(window: int, counts: bool) -> None:
    """Constant trajectories under the rate 3 have the residual -3 everywhere, which a shorter window does not see."""
    times = tuple(np.linspace(0.0, 4.0, 9).tolist())
    terms = PhysicsTerms(lambda x: jnp.full_like(x, 3.0), lambda x: jnp.zeros(1), 0.5, 0.0)
    state = jnp.broadcast_to(jax.random.normal(jax.random.key(5), (9, 2)).at[jnp.array([0, -1]), 0].set(0.0), (9, 9, 2))
    params = init_propagator(CONFIG, state[0], jax.random.key(6))  # starts as the identity
    loss, metrics = mean_loss(partial(propagate, CONFIG), terms, times, window)(
        params, Example(state, jnp.full((8, 9, 2), 2.0), state), jax.random.key(7)
    )
    np.testing.assert_allclose(metrics["error"], 0.0, atol=1e-12)
    np.testing.assert_allclose(loss, 0.5 * 2.0 * 9.0 if counts else 0.0, atol=1e-9)
