import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion import preconditioning as pre
from phdme_jax.diffusion.networks import Condition, Network
from phdme_jax.diffusion.schedule import CosineSchedule, EdmSchedule, LinearSchedule
from tests import oracles

SCHEDULES = [CosineSchedule(), LinearSchedule(), EdmSchedule()]
TIMES = [0.0, 0.13, 0.5, 0.8, 1.0]


def constant_network(answer):
    """A network that answers with an array, whatever it sees."""
    return Network(lambda *_: {}, lambda *_: None, lambda params, noisy, level, features: answer)


def pair(schedule, t, scale=1.0, shape=(4, 3, 2)):
    keys = jax.random.split(jax.random.key(3))
    x0, noise = scale * jax.random.normal(keys[0], shape), jax.random.normal(keys[1], shape)
    alpha, sigma = schedule.alpha_sigma(jnp.asarray(t))
    return x0, noise, alpha * x0 + sigma * noise, alpha, sigma


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("t", TIMES)
def test_conversions_are_those_of_the_true_noise_and_round_trip(schedule, t):
    x0, noise, noisy, alpha, sigma = pair(schedule, t)
    tolerance = 1e-10 / min(alpha, sigma)
    np.testing.assert_allclose(pre.noise_from_x0(noisy, x0, alpha, sigma), noise, atol=tolerance)
    np.testing.assert_allclose(pre.x0_from_noise(noisy, noise, alpha, sigma), x0, atol=tolerance)
    velocity = pre.velocity_from_x0(noisy, x0, alpha, sigma)
    np.testing.assert_allclose(velocity, alpha * noise - sigma * x0, atol=tolerance)
    np.testing.assert_allclose(pre.x0_from_velocity(noisy, velocity, alpha, sigma), x0, atol=tolerance)
    score = pre.score_from_x0(noisy, x0, alpha, sigma)
    np.testing.assert_allclose(score, -noise / sigma, atol=tolerance / sigma)
    np.testing.assert_allclose(pre.x0_from_score(noisy, score, alpha, sigma), x0, atol=tolerance)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_score_of_the_exact_denoiser_is_the_gradient_of_the_density(schedule):
    world = oracles.gaussian_world((2, 3))
    for t in jnp.array([0.2, 0.6, 0.9]):
        _, _, noisy, alpha, sigma = pair(schedule, t, shape=(2, 3))
        score = jax.grad(lambda x, t=t: oracles.log_density(world, schedule, x, t))(noisy)
        x0_hat = oracles.exact_denoiser(world, schedule)(noisy, t)
        np.testing.assert_allclose(pre.score_from_x0(noisy, x0_hat, alpha, sigma), score, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("data_std", [1.0, 0.5])
def test_network_sees_and_must_answer_unit_variance(schedule, data_std):
    for t in jnp.asarray(TIMES):
        ratio = schedule.noise_ratio(t)
        for mode in ("v", "edm"):
            c_skip, c_out, c_in, c_noise = pre.coefficients(schedule, t, mode, data_std)
            np.testing.assert_allclose(c_in**2 * (ratio**2 + data_std**2), 1.0, rtol=1e-10)
            # target = (x0 - c_skip (x0 + ratio noise)) / c_out; the first factor without its cancellation
            kept = ratio**2 / (ratio**2 + data_std**2)
            target_variance = ((kept * data_std) ** 2 + (c_skip * ratio) ** 2) / c_out**2
            np.testing.assert_allclose(target_variance, 1.0, rtol=1e-10)
            np.testing.assert_allclose(kept, 1.0 - c_skip, atol=1e-12)
            np.testing.assert_allclose(c_noise, jnp.log(ratio) / 4, rtol=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("mode", ["edm", "v"])
def test_silent_network_is_the_exact_denoiser_of_white_data(schedule, mode):
    world = oracles.GaussianWorld(jnp.zeros((4, 3, 2)), 0.49 * jnp.eye(24))
    denoiser = pre.precondition(constant_network(jnp.zeros((4, 3, 2))), schedule, mode, data_std=0.7)
    for t in jnp.asarray(TIMES):
        noisy = pair(schedule, t)[2]
        exact = oracles.exact_denoiser(world, schedule)(noisy, t)
        np.testing.assert_allclose(denoiser.apply({}, noisy, t, None), exact, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("mode", pre.MODES)
def test_network_that_answers_the_target_recovers_the_clean_example(mode, t):
    schedule = CosineSchedule()
    x0, noise, noisy, alpha, sigma = pair(schedule, t)
    velocity = alpha * noise - sigma * x0
    target = {"x0": x0, "eps": noise, "v": velocity, "edm": -velocity}[mode]
    denoiser = pre.precondition(constant_network(target), schedule, mode)
    np.testing.assert_allclose(denoiser.apply({}, noisy, jnp.asarray(t), None), x0, atol=1e-10)


def test_network_of_a_variance_preserving_schedule_sees_the_noisy_example_itself():
    seen = []
    network = Network(
        lambda *_: {}, lambda *_: None, lambda params, noisy, level, features: seen.append(noisy) or noisy
    )
    noisy = pair(CosineSchedule(), 0.7)[2]
    pre.precondition(network, CosineSchedule()).apply({}, noisy, jnp.asarray(0.7), None)
    np.testing.assert_allclose(seen[0], noisy, rtol=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_single_precision_stays_single_and_accurate_at_both_ends(schedule):
    denoiser = pre.precondition(constant_network(jnp.ones((4, 3, 2), "float32")), schedule)
    for t in jnp.asarray(TIMES):
        noisy = pair(schedule, t)[2]
        narrow = denoiser.apply({}, noisy.astype("float32"), t, None)
        assert narrow.dtype == jnp.float32
        np.testing.assert_allclose(narrow, denoiser.apply({}, noisy, t, None), rtol=2e-3, atol=1e-3)


def test_condition_is_encoded_once():
    calls = []
    network = Network(
        lambda *_: {},
        lambda params, condition: calls.append(condition) or condition.initial,
        lambda params, noisy, level, features: noisy + features,
    )
    condition = Condition(initial=jnp.ones((3,)))
    denoise = pre.bind(pre.precondition(network, CosineSchedule()), {}, condition)
    first, second = denoise(jnp.zeros((5, 3)), jnp.asarray(0.4)), denoise(jnp.ones((5, 3)), jnp.asarray(0.4))
    assert len(calls) == 1 and not np.allclose(first, second)


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match="expected a mode"):
        pre.coefficients(CosineSchedule(), jnp.asarray(0.5), "score")
    with pytest.raises(ValueError, match="positive"):
        pre.coefficients(CosineSchedule(), jnp.asarray(0.5), "edm", 0.0)
