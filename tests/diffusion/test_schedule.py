import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion import schedule as schedules
from phdme_jax.diffusion.schedule import SCHEDULES, CosineSchedule, EdmSchedule, LinearSchedule, SteppedCosineSchedule

ALL = [
    CosineSchedule(),
    LinearSchedule(),
    EdmSchedule(),
    CosineSchedule(-6.0, 9.0),
    EdmSchedule(0.1, 3.0, 2.0),
    SteppedCosineSchedule(),
]


@pytest.mark.parametrize("schedule", ALL)
def test_log_snr_decreases_and_its_inverse_is_its_inverse(schedule):
    t = jnp.linspace(0.0, 1.0, 1001)
    log_snr = schedule.log_snr(t)
    assert np.all(np.diff(log_snr) < 0)
    np.testing.assert_allclose(schedule.time_from_log_snr(log_snr), t, atol=1e-9)
    np.testing.assert_allclose(schedule.time_from_noise_ratio(schedule.noise_ratio(t)), t, atol=1e-9)
    np.testing.assert_allclose(schedule.time_from_log_snr(jnp.array([1e3, -1e3])), [0.0, 1.0], atol=1e-12)


@pytest.mark.parametrize("schedule", ALL)
def test_amplitudes_belong_to_the_log_snr_and_to_the_family(schedule):
    t = jnp.linspace(0.0, 1.0, 101)
    alpha, sigma = schedule.alpha_sigma(t)
    np.testing.assert_allclose(2 * jnp.log(alpha / sigma), schedule.log_snr(t), atol=1e-10)
    np.testing.assert_allclose(alpha**2 + (schedule.variance_preserving * sigma**2), 1.0, atol=1e-12)


def test_cosine_is_a_cosine_between_its_limits():
    t = jnp.linspace(0.05, 0.95, 50)
    alpha, sigma = CosineSchedule(-40.0, 40.0).alpha_sigma(t)
    np.testing.assert_allclose(alpha, jnp.cos(0.5 * jnp.pi * t), atol=1e-8)
    np.testing.assert_allclose(sigma, jnp.sin(0.5 * jnp.pi * t), atol=1e-8)
    np.testing.assert_allclose(CosineSchedule(-6.0, 9.0).log_snr(jnp.array([0.0, 1.0])), [9.0, -6.0], atol=1e-10)


def test_stepped_cosine_has_the_levels_of_the_published_chain():
    count, offset = 100, 0.008
    angle = np.cos((np.arange(count + 1) / count + offset) / (1 + offset) * np.pi / 2) ** 2
    betas = np.clip(1 - angle[1:] / angle[:-1], 0, 0.999)
    alpha, _ = SteppedCosineSchedule().alpha_sigma(jnp.linspace(0.0, 1.0, count))
    np.testing.assert_allclose(alpha**2, np.cumprod(1 - betas), rtol=1e-9)
    np.testing.assert_allclose([betas[0], betas[-1]], [6.3e-4, 0.999], rtol=5e-3)
    np.testing.assert_allclose([alpha[49] ** 2, alpha[99] ** 2], [0.486, 2.4e-7], rtol=3e-2)


def test_linear_solves_its_differential_equation():
    schedule = LinearSchedule(0.2, 15.0, 12.0)
    rate = jax.vmap(jax.grad(lambda t: -2.0 * jnp.log(schedule.alpha_sigma(t)[0])))(jnp.linspace(0.0, 1.0, 11))
    start = schedule._start()
    s = start + np.linspace(0.0, 1.0, 11) * (1.0 - start)
    np.testing.assert_allclose(rate, (1.0 - start) * (0.2 + s * (15.0 - 0.2)), rtol=1e-7)
    np.testing.assert_allclose(schedule.log_snr(jnp.array(0.0)), 12.0, rtol=1e-10)


def test_edm_spaces_its_levels_by_the_power():
    sigma = EdmSchedule(0.002, 80.0, 7.0).alpha_sigma(jnp.array([1.0, 0.5, 0.0]))[1]
    middle = (0.5 * (0.002 ** (1 / 7) + 80.0 ** (1 / 7))) ** 7
    np.testing.assert_allclose(sigma, [80.0, middle, 0.002], rtol=1e-10)


@pytest.mark.parametrize("schedule", ALL)
def test_single_precision_stays_single_and_accurate(schedule):
    t = jnp.linspace(0.0, 1.0, 33)
    narrow = schedule.log_snr(t.astype("float32"))
    assert narrow.dtype == jnp.float32
    np.testing.assert_allclose(narrow, schedule.log_snr(t), atol=2e-3)
    assert all(part.dtype == jnp.float32 for part in schedule.alpha_sigma(t.astype("float32")))
    assert schedules.sampling_times(schedule, 5, jnp.float32, "karras").dtype == jnp.float32


@pytest.mark.parametrize("schedule", ALL)
def test_sampling_times_are_equidistant_in_what_they_claim(schedule):
    for spacing, measure in (
        ("time", lambda t: t),
        ("log_snr", schedule.log_snr),
        ("karras", lambda t: schedule.noise_ratio(t) ** (1 / 7)),
    ):
        times = schedules.sampling_times(schedule, 9, jnp.float64, spacing)
        np.testing.assert_allclose(times[jnp.array([0, -1])], [1.0, 0.0], atol=1e-9)
        gaps = np.diff(measure(times))
        np.testing.assert_allclose(gaps, gaps.mean(), rtol=1e-5)
    assert schedules.sampling_times(schedule, 1, jnp.float64).tolist() == [1.0]


def test_karras_spacing_is_the_edm_schedule_itself():
    schedule = EdmSchedule()
    even = schedules.sampling_times(schedule, 12, jnp.float64, "time")
    np.testing.assert_allclose(schedules.sampling_times(schedule, 12, jnp.float64, "karras"), even, atol=1e-10)


def test_log_normal_times_have_the_quantiles_of_the_distribution():
    schedule = CosineSchedule(-30.0, 30.0)
    uniform = jnp.array([0.15865525393145707, 0.5, 0.8413447460685429])
    ratio = schedule.noise_ratio(schedules.time_from_uniform(schedule, uniform, "log_normal", -1.2, 0.7))
    np.testing.assert_allclose(jnp.log(ratio), [-1.9, -1.2, -0.5], atol=1e-8)
    np.testing.assert_array_equal(schedules.time_from_uniform(schedule, uniform), uniform)


def test_stratified_numbers_fall_one_in_each_stratum_and_differ_between_keys():
    draws = jax.vmap(lambda key: schedules.stratified_uniform(8, jnp.float32, key))(
        jax.random.split(jax.random.key(0), 500)
    )
    assert draws.dtype == jnp.float32
    np.testing.assert_array_equal(jnp.floor(draws * 8), jnp.broadcast_to(jnp.arange(8.0), draws.shape))
    inside = np.asarray(draws * 8 - jnp.arange(8.0))
    np.testing.assert_allclose(inside.mean(0), 0.5, atol=0.06)
    np.testing.assert_allclose(inside.var(0), 1 / 12, atol=0.015)
    assert abs(np.corrcoef(inside[:, 0], inside[:, 1])[0, 1]) < 0.2


@pytest.mark.parametrize(
    "build",
    [
        lambda: CosineSchedule(3.0, -3.0),
        lambda: LinearSchedule(2.0, 1.0),
        lambda: LinearSchedule(log_snr_max=-20.0),
        lambda: EdmSchedule(sigma_min=0.0),
        lambda: schedules.sampling_times(CosineSchedule(), 0, jnp.float32),
        lambda: schedules.sampling_times(CosineSchedule(), 3, jnp.float32, "even"),
        lambda: schedules.time_from_uniform(CosineSchedule(), jnp.zeros(()), "normal"),
    ],
)
def test_mistakes_are_refused(build):
    with pytest.raises(ValueError, match="expected"):
        build()


def test_schedules_are_static_records():
    assert CosineSchedule() == SCHEDULES["cosine"]() and hash(CosineSchedule()) == hash(CosineSchedule())
    traces = []

    def amplitude(schedule, t):
        traces.append(schedule)
        return schedule.alpha_sigma(t)[0]

    jitted = jax.jit(amplitude, static_argnums=0)
    jitted(CosineSchedule(), jnp.array(0.3)), jitted(CosineSchedule(), jnp.array(0.4))
    assert len(traces) == 1


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("schedule", ALL)
def test_the_ends_are_reached_from_infinitely_much_and_from_no_noise(schedule, dtype):
    ends = schedule.time_from_log_snr(jnp.array([jnp.inf, -jnp.inf], dtype))
    np.testing.assert_allclose(ends, [0.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(schedule.time_from_noise_ratio(jnp.array([0.0, jnp.inf], dtype)), [0.0, 1.0], atol=1e-6)
    drawn = schedules.time_from_uniform(schedule, jnp.array([0.0, 1.0], dtype), "log_normal")
    np.testing.assert_allclose(drawn, [0.0, 1.0], atol=1e-6)


def test_linear_with_a_steep_rate_has_a_log_snr_at_its_end_in_single_precision():
    schedule = LinearSchedule(0.1, 400.0)
    np.testing.assert_allclose(schedule.log_snr(jnp.ones((), jnp.float32)), -200.05, rtol=1e-6)
