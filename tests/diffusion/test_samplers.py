from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion import samplers
from phdme_jax.diffusion.preconditioning import noise_from_x0
from phdme_jax.diffusion.schedule import CosineSchedule, EdmSchedule, LinearSchedule, sampling_times
from tests import oracles

SHAPE = (3, 1, 2)
WORLD = oracles.gaussian_world(SHAPE)
KEY = jax.random.key(0)


def jitted_sampler(schedule, sampler, num_steps, world=WORLD, **options):
    denoise = oracles.exact_denoiser(world, schedule)
    return jax.jit(
        lambda noise, key=KEY: samplers.sample(
            denoise, schedule, noise, key, sampler=sampler, num_steps=num_steps, **options
        )
    )


def squash(noisy, t):
    return jnp.tanh(noisy)


def observed_order(errors):
    return np.log2(errors[-2] / errors[-1])


@pytest.mark.parametrize(
    ("sampler", "schedule", "spacing", "order"),
    [
        ("ddim", CosineSchedule(-8.0, 8.0), "time", 1),
        ("heun", CosineSchedule(-8.0, 8.0), "karras", 2),
        ("heun", LinearSchedule(), "log_snr", 2),
        ("dpm", CosineSchedule(), "log_snr", 2),
        ("dpm", EdmSchedule(), "karras", 2),
    ],
)
def test_deterministic_samplers_converge_to_the_probability_flow(sampler, schedule, spacing, order):
    noise = jax.random.normal(jax.random.key(1), SHAPE)
    exact = oracles.probability_flow(WORLD, schedule, noise)
    errors = [
        float(jnp.abs(jitted_sampler(schedule, sampler, num_steps, spacing=spacing)(noise) - exact).max())
        for num_steps in (80, 160)
    ]
    assert abs(observed_order(errors) - order) < 0.2
    assert errors[-1] < (0.03 if order == 1 else 0.003)


@pytest.mark.parametrize(("sampler", "tolerance"), [("ddim", 0.04), ("heun", 2e-3), ("dpm", 2e-3)])
def test_deterministic_samplers_reproduce_mean_and_covariance(sampler, tolerance):
    # In a Gaussian world the sampler is affine in its noise: its mean and covariance can be read off.
    run = jitted_sampler(EdmSchedule(), sampler, 120)
    slope = jax.jit(jax.jacfwd(run))(jnp.zeros(SHAPE)).reshape(6, 6)
    np.testing.assert_allclose(run(jnp.zeros(SHAPE)), WORLD.mean, atol=0.02)  # the start is not all noise
    np.testing.assert_allclose(slope @ slope.T, WORLD.covariance, atol=2 * tolerance)


ANCESTRAL = CosineSchedule(-12.0, 12.0)


@jax.jit
def moments_of(table):
    """Exact mean and covariance of the sampler with this table, by recursion."""
    denoise = oracles.exact_denoiser(WORLD, ANCESTRAL)

    def step(moments, row):
        def move(state):
            return row.keep * state + row.pull * denoise(state.reshape(SHAPE), row.time).ravel()

        mean, covariance = moments
        slope = jax.jacfwd(move)(mean)
        return (move(mean), slope @ covariance @ slope.T + row.spread**2 * jnp.eye(6)), None

    sigma = ANCESTRAL.alpha_sigma(table.time[0])[1]
    return jax.lax.scan(step, (jnp.zeros(6), sigma**2 * jnp.eye(6)), table)[0]


def ancestral_moments(num_steps, eta):
    return moments_of(samplers.sampler_table("ddim", ANCESTRAL, num_steps, jnp.float64, eta, "karras"))


@pytest.mark.parametrize("eta", [1.0, 0.5])
def test_ancestral_distribution_converges_at_first_order(eta):
    # Even pure noise holds a trace of the mean at the start, which is what the mean's tolerance is for.
    errors = []
    for num_steps in (120, 240):
        mean, covariance = ancestral_moments(num_steps, eta)
        np.testing.assert_allclose(mean.reshape(SHAPE), WORLD.mean, atol=0.02)
        errors.append(float(jnp.abs(covariance - WORLD.covariance).max()))
    assert errors[-1] < 0.1
    assert abs(observed_order(errors) - 1) < 0.2


@pytest.mark.parametrize("schedule", [CosineSchedule(-10.0, 10.0), EdmSchedule(0.01, 30.0)])
def test_ddpm_rows_are_the_gaussian_posterior_of_the_forward_process(schedule):
    table = samplers.sampler_table("ddpm", schedule, 12, jnp.float64, spacing="log_snr")
    alpha, sigma = schedule.alpha_sigma(sampling_times(schedule, 12, jnp.float64, "log_snr"))
    for row in range(11):
        growth = alpha[row] / alpha[row + 1]
        added = sigma[row] ** 2 - growth**2 * sigma[row + 1] ** 2
        precision = 1.0 / sigma[row + 1] ** 2 + growth**2 / added
        np.testing.assert_allclose(table.spread[row] ** 2, 1.0 / precision, rtol=1e-8)
        np.testing.assert_allclose(table.keep[row], growth / added / precision, rtol=1e-8)
        np.testing.assert_allclose(table.pull[row], alpha[row + 1] / sigma[row + 1] ** 2 / precision, rtol=1e-8)


def test_ddpm_samples_match_in_distribution():
    count = 3000
    run = jitted_sampler(ANCESTRAL, "ddpm", 120, spacing="karras")
    noise_key, step_key = jax.random.split(jax.random.key(2))
    noise = jax.random.normal(noise_key, (count, *SHAPE))
    drawn = np.asarray(jax.jit(jax.vmap(run))(noise, jax.random.split(step_key, count))).reshape(count, 6)
    mean, covariance = ancestral_moments(120, 1.0)
    variances = np.diag(covariance)
    assert np.all(np.abs(drawn.mean(0) - mean) < 4 * np.sqrt(variances / count))
    spread = np.sqrt((covariance**2 + np.outer(variances, variances)) / count)
    assert np.all(np.abs(np.cov(drawn.T) - covariance) < 4.5 * spread)


def test_ddim_step_keeps_the_noise_it_saw():
    # eta = 0: what is left after the step is alpha' x0_hat + sigma' times the very noise that was there.
    schedule = LinearSchedule()
    table = samplers.sampler_table("ddim", schedule, 7, jnp.float64)
    alpha, sigma = schedule.alpha_sigma(table.time)
    state, denoised = jnp.array([0.3, -1.0]), jnp.array([0.8, 0.1])
    for row in range(6):
        noise = noise_from_x0(state, denoised, alpha[row], sigma[row])
        expected = alpha[row + 1] * denoised + sigma[row + 1] * noise
        np.testing.assert_allclose(table.keep[row] * state + table.pull[row] * denoised, expected, rtol=1e-9, atol=1e-9)


def test_heun_is_the_trapezoidal_rule_in_the_noise_ratio():
    schedule = CosineSchedule(-6.0, 6.0)
    denoise = oracles.exact_denoiser(WORLD, schedule)
    times = sampling_times(schedule, 6, jnp.float64)
    (alpha, sigma), ratio = schedule.alpha_sigma(times), schedule.noise_ratio(times)
    noise = jax.random.normal(KEY, SHAPE)
    point = sigma[0] / alpha[0] * noise

    def slope(point, i):
        return (point - denoise(alpha[i] * point, times[i])) / ratio[i]

    for i in range(5):
        gap, first = ratio[i + 1] - ratio[i], slope(point, i)
        point = point + 0.5 * gap * (first + slope(point + gap * first, i + 1))
    expected = denoise(alpha[-1] * point, times[-1])
    np.testing.assert_allclose(jitted_sampler(schedule, "heun", 6)(noise), expected, rtol=1e-8, atol=1e-9)


def test_dpm_rows_extrapolate_over_uneven_steps():
    schedule = CosineSchedule(-9.0, 9.0)
    table = samplers.sampler_table("dpm", schedule, 6, jnp.float64)
    (alpha, sigma), level = schedule.alpha_sigma(table.time), 0.5 * schedule.log_snr(table.time)
    state, denoised, previous = 0.7, -0.4, 1.3
    for row in range(1, 5):
        step, before = level[row + 1] - level[row], level[row] - level[row - 1]
        slanted = denoised + 0.5 * step / before * (denoised - previous)
        expected = sigma[row + 1] / sigma[row] * state + alpha[row + 1] * (1.0 - jnp.exp(-step)) * slanted
        moved = table.keep[row] * state + table.pull[row] * denoised + table.recall[row] * previous
        np.testing.assert_allclose(moved, expected, rtol=1e-9)
    assert abs(step / before - 1) > 0.5 and table.recall[0] == 0 and table.recall[-1] == 0


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_number_of_function_evaluations_is_counted_right(sampler):
    calls = []

    def denoise(noisy, t):
        jax.debug.callback(calls.append, t)
        return 0.5 * noisy

    for num_steps, corrections in ((1, 0), (2, 0), (5, 0), (1, 2), (4, 3)):
        if corrections and sampler == "heun":
            continue
        calls.clear()
        sizes = {"sampler": sampler, "num_steps": num_steps, "corrections": corrections}
        jax.jit(partial(samplers.sample, denoise, CosineSchedule(), **sizes))(jnp.ones(3), KEY)
        jax.effects_barrier()
        assert len(calls) == samplers.num_function_evaluations(**sizes)


@pytest.mark.parametrize("sampler", ["ddim", "dpm"])
def test_steps_that_correct_nothing_leave_the_sampler_as_it_is(sampler):
    plain = jitted_sampler(EdmSchedule(), sampler, 9, spacing="log_snr")
    still = jitted_sampler(EdmSchedule(), sampler, 9, spacing="log_snr", corrections=2, correction_step=1e-30)
    noise = jax.random.normal(jax.random.key(1), SHAPE)
    np.testing.assert_allclose(still(noise), plain(noise), rtol=1e-10)


@pytest.mark.parametrize("size", [1.0, 50.0])
def test_a_correction_is_a_step_of_langevin_dynamics_at_the_level_that_was_reached(size):
    schedule, step = CosineSchedule(-4.0, 4.0), 0.3
    found = jitted_sampler(schedule, "ddim", 2, corrections=1, correction_step=step)(size * jnp.ones(SHAPE))
    denoise = oracles.exact_denoiser(WORLD, schedule)
    (_, first_sigma), (alpha, sigma) = (schedule.alpha_sigma(jnp.asarray(time)) for time in (1.0, 0.0))
    start = first_sigma * size * jnp.ones(SHAPE)
    reached = samplers.sampler_table("ddim", schedule, 2, jnp.float64)
    reached = reached.keep[0] * start + reached.pull[0] * denoise(start, jnp.asarray(1.0))
    # the score of the level's law, and a length in units of what the noise is taken for
    score = (alpha * denoise(reached, jnp.asarray(0.0)) - reached) / sigma**2
    square = jnp.mean((sigma * score) ** 2)
    assert (square > 1.0) == (size > 1.0), "both sides of the bound are seen"
    length = step / jnp.maximum(square, 1.0)
    fresh = jax.random.normal(jax.random.fold_in(KEY, jnp.uint32(1)), SHAPE)
    moved = reached + length * sigma**2 * score - jnp.sqrt(2 * length) * sigma * fresh
    np.testing.assert_allclose(found, denoise(moved, jnp.asarray(0.0)), rtol=1e-9)


def test_corrected_samples_have_the_slopes_of_differences():
    run = jitted_sampler(CosineSchedule(), "ddim", 4, corrections=2)
    noise, step = jnp.ones(SHAPE), 1e-6
    slope = jax.grad(lambda size: jnp.sum(run(size * noise)))(1.0)
    ends = [jnp.sum(run((1.0 + sign * step) * noise)) for sign in (1.0, -1.0)]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-5)


def test_corrections_repair_what_too_few_steps_leave():
    def error(**corrected):
        run = jitted_sampler(EdmSchedule(0.05, 30.0), "ddim", 4, spacing="log_snr", **corrected)
        keys = jax.random.split(jax.random.key(3), 4000)
        drawn = jax.jit(jax.vmap(lambda key: run(jax.random.normal(key, SHAPE), jax.random.fold_in(key, 1))))(keys)
        return np.abs(np.cov(drawn.reshape(len(keys), -1).T) - WORLD.covariance).max()

    assert error(corrections=60, correction_step=0.2) < 0.3 * error()


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_four_axes_clamp_and_single_precision(sampler):
    known = jnp.asarray([2.0, -1.0], "float32")
    run = jax.jit(
        lambda noise: samplers.sample(
            squash,
            CosineSchedule(),
            noise,
            KEY,
            sampler=sampler,
            num_steps=5,
            clamp=lambda x0_hat: x0_hat.at[0].set(known),
        )
    )
    drawn = run(jax.random.normal(KEY, (3, 4, 5, 2), "float32"))
    assert drawn.dtype == jnp.float32 and drawn.shape == (3, 4, 5, 2)
    np.testing.assert_array_equal(drawn[0], jnp.broadcast_to(known, (4, 5, 2)))
    assert np.all(np.isfinite(drawn))


def test_fresh_noise_follows_the_key_and_deterministic_samplers_do_not():
    noise, other = jnp.ones(3), jax.random.key(7)
    for sampler, eta, fresh in (("ddpm", 0.0, True), ("ddim", 0.5, True), ("ddim", 0.0, False)):

        @jax.jit
        def run(key, sampler=sampler, eta=eta):
            return samplers.sample(squash, CosineSchedule(), noise, key, sampler=sampler, num_steps=4, eta=eta)

        assert np.allclose(run(KEY), run(other)) != fresh
        np.testing.assert_array_equal(run(KEY), run(KEY))


def test_network_is_traced_once():
    traces = []

    def denoise(noisy, t):
        traces.append(t)
        return 0.5 * noisy

    samplers.sample(denoise, CosineSchedule(), jnp.ones(3), KEY, sampler="heun", num_steps=6)
    assert len(traces) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": "euler"},
        {"eta": 1.5},
        {"num_steps": 0},
        {"spacing": "even"},
        {"corrections": -1},
        {"corrections": 1, "sampler": "heun"},
        {"corrections": 1, "correction_step": 0.0},
    ],
    ids=str,
)
def test_mistakes_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        samplers.sample(lambda noisy, t: noisy, CosineSchedule(), jnp.ones(3), KEY, **options)
    with pytest.raises(ValueError, match="expected"):
        samplers.num_function_evaluations("euler", 3)
    with pytest.raises(ValueError, match="num_steps >= 1"):
        samplers.num_function_evaluations("heun", 0)


def test_a_push_answers_in_the_place_of_the_denoiser_and_moves_the_next_state():
    schedule = CosineSchedule()

    def never(noisy, t):
        raise AssertionError("expected one call of the network a step")

    run = partial(samplers.sample, noise=jnp.ones(3), key=KEY, num_steps=6)
    plain = run(lambda noisy, t: 0.5 * noisy, schedule)
    still = run(never, schedule, push=lambda noisy, t: (0.5 * noisy, jnp.zeros(3)))
    moved = run(never, schedule, push=lambda noisy, t: (0.5 * noisy, jnp.full(3, 0.1)))
    np.testing.assert_array_equal(still, plain)
    assert (moved < plain).all()


def test_without_a_potential_a_pushed_sampler_is_heuns_method_and_with_one_it_goes_downhill():
    schedule, world = CosineSchedule(-8.0, 8.0), oracles.gaussian_world((3, 2), seed=4)
    denoise = oracles.exact_denoiser(world, schedule)
    noise = jax.random.normal(KEY, (3, 2))
    expected = samplers.sample(denoise, schedule, noise, KEY, sampler="heun", num_steps=12, spacing="karras")
    run = partial(samplers.sample_pushed, denoise, schedule, noise, num_steps=12)
    np.testing.assert_allclose(run(lambda x0, late: 0.0 * x0[0, 0]), expected, rtol=1e-6, atol=1e-9)
    # late steps alone, and down the slope
    first = lambda x0, late: jnp.where(late, 0.0, 0.05 * (x0[0, 0] - 3.0) ** 2)  # noqa: E731
    last = lambda x0, late: jnp.where(late, 0.05 * (x0[0, 0] - 3.0) ** 2, 0.0)  # noqa: E731
    for potential in (first, last):
        assert float(jnp.abs(run(potential)[0, 0] - 3.0)) < float(jnp.abs(expected[0, 0] - 3.0)) - 1e-3
