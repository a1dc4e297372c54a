import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion.loss import denoising_loss, loss_weight, residual_weights, snr_weight
from phdme_jax.diffusion.schedule import CosineSchedule, EdmSchedule, stratified_uniform
from tests import oracles

SHAPE = (3, 2)
WORLD = oracles.gaussian_world(SHAPE, seed=2)
COUNT = 4000


def losses(schedule, times, gains=(1.0,), shifts=(0.0,), **options):
    """Losses of the exact denoiser, and of that with a gain or a shift, shape (change, time)."""
    exact = oracles.exact_denoiser(WORLD, schedule)
    example_key, key = jax.random.split(jax.random.key(0))
    examples = oracles.draw(WORLD, len(times), example_key)

    def one(gain, shift, example, time, key):
        return denoising_loss(
            lambda x, t: gain * exact(x, t) + shift, schedule, example, key, time=time, **options
        ).loss

    over_examples = jax.vmap(one, (None, None, 0, 0, 0))
    every = jax.jit(jax.vmap(over_examples, (0, 0, None, None, None)))
    return np.asarray(every(jnp.array(gains), jnp.array(shifts), examples, times, jax.random.split(key, len(times))))


def analytic_minimum(schedule, t, **options):
    return loss_weight(schedule, t, **options) * jnp.trace(oracles.posterior_covariance(WORLD, schedule, t)) / 6


@pytest.mark.parametrize(
    ("weighting", "schedule", "t"),
    [("min_snr", CosineSchedule(), 0.4), ("edm", EdmSchedule(), 0.6), ("uniform", CosineSchedule(), 0.7)],
)
def test_exact_denoiser_attains_the_analytic_minimum(weighting, schedule, t):
    values = losses(schedule, jnp.full(COUNT, t), weighting=weighting)[0]
    expected = analytic_minimum(schedule, jnp.asarray(t), weighting=weighting)
    assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(COUNT)


def test_loss_over_stratified_times_is_the_integral_and_a_minimum():
    schedule = CosineSchedule()
    times = stratified_uniform(COUNT, jnp.float64, jax.random.key(1))
    values = losses(schedule, times, gains=(1.0, 1.1, 0.9, 1.0, 1.0), shifts=(0.0, 0.0, 0.0, 0.2, -0.2))
    grid = (jnp.arange(400.0) + 0.5) / 400
    expected = jax.jit(jax.vmap(lambda t: analytic_minimum(schedule, t)))(grid).mean()
    assert abs(values[0].mean() - expected) < 4 * values[0].std() / np.sqrt(COUNT)
    assert np.all(values[1:].mean(1) > values[0].mean())


def test_terms_are_those_of_one_draw():
    schedule, example = CosineSchedule(), jnp.ones(SHAPE)
    terms = denoising_loss(lambda x, t: x, schedule, example, jax.random.key(5))
    alpha, sigma = schedule.alpha_sigma(terms.time)
    np.testing.assert_allclose(terms.loss, terms.weight * jnp.mean((terms.x0_hat - example) ** 2), rtol=1e-12)
    np.testing.assert_array_equal(terms.x0_hat, terms.noisy)
    np.testing.assert_allclose(terms.weight, jnp.minimum((alpha / sigma) ** 2, 5.0), rtol=1e-10)
    drawn = jax.jit(jax.vmap(lambda key: denoising_loss(lambda x, t: x, schedule, example, key)))(
        jax.random.split(jax.random.key(6), 2000)
    )
    np.testing.assert_allclose(np.quantile(drawn.time, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.05)
    alpha, sigma = (part[:, None, None] for part in schedule.alpha_sigma(drawn.time))
    noise = np.asarray((drawn.noisy - alpha * example) / sigma)
    np.testing.assert_allclose([noise.mean(), noise.std()], [0.0, 1.0], atol=0.04)
    assert abs(np.corrcoef(drawn.time, noise[:, 0, 0])[0, 1]) < 0.1


def test_single_precision_stays_single():
    terms = denoising_loss(lambda x, t: 0.5 * x, EdmSchedule(), jnp.ones(SHAPE, "float32"), jax.random.key(5))
    assert {leaf.dtype for leaf in terms} == {jnp.dtype("float32")}


def test_edm_weight_makes_the_network_target_matter_alike_everywhere():
    # weight c_out^2 = 1: the loss in the units of the network's own target
    schedule, t, data_std = EdmSchedule(), jnp.linspace(0.0, 1.0, 9), 0.5
    ratio = schedule.noise_ratio(t)
    c_out = ratio * data_std / jnp.sqrt(ratio**2 + data_std**2)
    np.testing.assert_allclose(loss_weight(schedule, t, "edm", data_std=data_std) * c_out**2, 1.0, rtol=1e-10)


def test_snr_weight_trusts_the_clean_end():
    schedule = CosineSchedule()
    weight = snr_weight(schedule, jnp.linspace(0.0, 1.0, 201))
    assert weight[0] == 1.0 and weight[-1] < 1e-6 and np.all(np.diff(weight) <= 0)
    half = schedule.time_from_log_snr(jnp.log(2.5))
    np.testing.assert_allclose(snr_weight(schedule, half), 0.5, rtol=1e-9)


def test_residual_weights_are_inverse_variances_of_mean_one():
    variance = jnp.array([[0.1, 0.4], [0.9, 0.2]])
    weights = residual_weights(variance, 0.1)
    np.testing.assert_allclose(weights.mean(), 1.0, rtol=1e-12)
    np.testing.assert_allclose(weights * (variance + 0.1), weights[0, 0] * 0.2, rtol=1e-12)
    np.testing.assert_allclose(residual_weights(7.0 * variance, 0.7), weights, rtol=1e-12)  # free of units
    extreme = residual_weights(jnp.array([1e-9] + 99 * [1e3]), 1e-6)
    np.testing.assert_array_equal(extreme, np.array([20.0] + 99 * [0.05]))
    np.testing.assert_array_equal(residual_weights(jnp.zeros(3, "float32"), 1.0), np.ones(3, "float32"))


def test_no_gradient_flows_through_residual_weights():
    gradient = jax.grad(lambda variance: jnp.sum(residual_weights(variance, 0.1) * jnp.arange(3.0)))(
        jnp.array([0.1, 1.0, 2.0])
    )
    np.testing.assert_array_equal(gradient, 0.0)


def test_unknown_weighting_is_refused():
    with pytest.raises(ValueError, match="expected a weighting"):
        loss_weight(CosineSchedule(), jnp.asarray(0.5), "snr")
