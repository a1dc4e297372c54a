"""The residual of the dynamics, its order, its predicted variance and the weight that comes of it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.gp import basis as gp_basis
from phdme_jax.gp import fit as gp_fit
from phdme_jax.gp import sampling as gp_sampling
from phdme_jax.methods.base import Start
from phdme_jax.methods.energy.gp_rollout import fitted_rollout
from phdme_jax.methods.energy.physics import dynamics_residual, learned_rate, residual_variance
from phdme_jax.numerics.stepping import rk4_step, rollout
from phdme_jax.systems import make_system
from phdme_jax.systems.energy.base import parameter_values, vector_field

SYSTEM = make_system("vibrating_string", num_points=24, order=4)
DRAW = SYSTEM.initial_state("random_smooth")


def true_trajectory(num_frames: int, duration: float = 6.0) -> tuple[jax.Array, tuple[float, ...]]:
    times = np.linspace(0.0, duration, num_frames)
    values = parameter_values(SYSTEM, jnp.float64)
    field = partial(vector_field, SYSTEM.structure, SYSTEM.density, parameters=values)
    substeps = 960 // (num_frames - 1)
    states = rollout(lambda x, dt: (rk4_step(field, x, dt), dt), DRAW(jax.random.key(0)), jnp.asarray(times), substeps)
    return states, tuple(times.tolist())


def true_rate(state: jax.Array, sign: float = 1.0) -> jax.Array:
    rate = vector_field(SYSTEM.structure, SYSTEM.density, state, parameter_values(SYSTEM, state.dtype))
    return rate * jnp.array([sign, 1.0])


def test_residual_of_the_exact_flow_vanishes_at_high_order() -> None:
    sizes = (16, 32)
    errors = [float(jnp.abs(dynamics_residual(true_rate, *true_trajectory(n + 1))).max()) for n in sizes]
    order = np.log(errors[0] / errors[1]) / np.log(2)
    assert errors[1] < 1e-4
    assert order > 6.0


def test_a_wrong_sign_in_the_structure_leaves_a_residual_of_the_size_of_the_rate() -> None:
    states, times = true_trajectory(33)
    wrong = dynamics_residual(partial(true_rate, sign=-1.0), states, times)
    assert float(jnp.sqrt(jnp.mean(wrong**2))) > 0.3 * float(jnp.std(jax.vmap(true_rate)(states)))


def test_uneven_frames_are_integrated_as_well_as_even_ones() -> None:
    states, times = true_trajectory(49)
    keep = np.sort(np.random.default_rng(0).permutation(np.arange(1, 48))[:35])
    keep = np.concatenate([[0], keep, [48]])
    residual = dynamics_residual(true_rate, states[keep], tuple(np.asarray(times)[keep].tolist()))
    assert float(jnp.abs(residual).max()) < 1e-4


@pytest.fixture(scope="module", params=["known", "uncertain"])
def posterior(request: pytest.FixtureRequest) -> tuple[gp_basis.Basis, gp_fit.EnergyPosterior]:
    basis = gp_basis.Basis(2, 8, 3)
    box = gp_basis.Box(jnp.zeros(2), jnp.full(2, 2.0))
    generator = np.random.default_rng(1)
    mean = gp_basis.Energy(box, jnp.array([1.0, 0.5]), jnp.asarray(0.02 * generator.normal(size=basis.size)))
    factor = jnp.asarray(0.01 * np.tril(generator.normal(size=(basis.size, basis.size))))
    hyper = gp_fit.initial_hyperparameters(basis, box, 1)
    values = parameter_values(SYSTEM, jnp.float64)
    known = gp_fit.EnergyPosterior(mean, factor, values, hyper, jnp.zeros(()), jnp.array(True))
    if request.param == "known":
        return basis, known
    # so much that the damping makes up a good part of the variance
    tilt = jnp.asarray(0.005 * generator.normal(size=(basis.size, 1)))
    spread = dict.fromkeys(values, jnp.array([0.1]))
    return basis, known._replace(factor=jnp.concatenate([factor, tilt], axis=1), spread=spread)


@pytest.mark.slow
def test_residual_variance_is_the_square_of_its_slopes_in_the_noise(posterior: tuple) -> None:
    """Of energy and dissipation drawn together: sum_j (d r / d xi_j)^2 where nothing is drawn."""
    basis, energies = posterior
    states, times = true_trajectory(9)
    flow = SYSTEM.structure.flow

    def residual(noise: jax.Array) -> jax.Array:
        energy, parameters = gp_sampling.drawn_system(energies, noise)
        return dynamics_residual(learned_rate(basis, flow, energy, parameters), states, times)

    slopes = jax.jit(jax.jacfwd(residual))(jnp.zeros(energies.factor.shape[1]))
    predicted = residual_variance(basis, flow, energies, states, times)
    np.testing.assert_allclose(predicted, jnp.sum(slopes**2, axis=-1), rtol=1e-8, atol=1e-16)


@pytest.mark.slow
def test_rollouts_of_samples_lose_energy_at_the_rate_that_is_drawn(posterior: tuple) -> None:
    """By both ways to draw: that of teachers, and that of forecasts, whose latent is the noise itself."""
    basis, energies = posterior
    structure, (states, times) = SYSTEM.structure, true_trajectory(9)
    sure = energies._replace(factor=jnp.zeros_like(energies.factor), spread=dict.fromkeys(energies.spread, jnp.ones(1)))
    start, key = Start(states[0], jnp.zeros((len(times), 0))), jax.random.key(4)
    fitted = fitted_rollout(structure, basis, sure, times, 4, 0.0)
    dynamics, latent = fitted.model.dynamics, fitted.model.latent(key)
    assert dynamics is not None
    _, drawn = gp_sampling.drawn_system(sure, latent)
    expected = dynamics.rollout(sure._replace(parameters=drawn, spread={}), start, times, 4).trajectory
    forecast = fitted.model.draw(sure, start, latent, key)
    np.testing.assert_allclose(forecast, expected, atol=1e-12)
    np.testing.assert_allclose(dynamics.sample(sure, start, key, times, 4).trajectory, expected, atol=1e-12)
    best = dynamics.rollout(sure, start, times, 4).trajectory
    assert (float(jnp.abs(best - expected).max()) > 1e-3) == bool(energies.spread)


def test_residual_variance_is_that_of_sampled_energies(posterior: tuple) -> None:
    basis, energies = posterior
    states, times = true_trajectory(9)
    flow = SYSTEM.structure.flow
    predicted = residual_variance(basis, flow, energies, states, times)

    @jax.jit
    @jax.vmap
    def residual_of_sample(key: jax.Array) -> jax.Array:
        energy, parameters = gp_sampling.sample_system(energies, key)
        return dynamics_residual(learned_rate(basis, flow, energy, parameters), states, times)

    samples = residual_of_sample(jax.random.split(jax.random.key(2), 4000))
    measured = jnp.var(samples, axis=0)
    inside = predicted > 1e-12
    ratio = np.asarray(measured[inside] / predicted[inside])
    assert inside.mean() > 0.9
    assert abs(ratio.mean() - 1) < 0.02
    assert np.abs(ratio - 1).max() < 0.2
    mean = dynamics_residual(learned_rate(basis, flow, energies.mean, energies.parameters), states, times)
    assert float(jnp.abs(samples.mean(axis=0) - mean).max()) < 0.1 * float(jnp.sqrt(predicted.max()))
