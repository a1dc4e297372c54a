"""Orders of the one-step methods against an adaptive reference, and energy balances to rounding."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.numerics import stepping
from phdme_jax.numerics.reference import solve_reference

# a pendulum, x = (momentum, angle), energy p^2/2 + 1 - cos(angle); flow (J - R) with friction
START = jnp.array([0.3, 1.4])
TIMES = jnp.array([0.0, 1.3, 2.0, 4.0])


def density(x):
    return 0.5 * x[..., 0] ** 2 + 1 - jnp.cos(x[..., 1])


def effort(x):
    return jnp.stack([x[..., 0], jnp.sin(x[..., 1])], axis=-1)


def flow(e, friction=0.0):
    return jnp.stack([-e[..., 1] - friction * e[..., 0], e[..., 0]], axis=-1)


def inner(left, right):
    return jnp.sum(left * right)


def pieces(friction=0.0):
    return stepping.Pieces(effort, partial(flow, friction=friction), density, inner)


def make_step(method, friction=0.0):
    return {
        "rk4": lambda x, dt: (stepping.rk4_step(lambda y: flow(effort(y), friction), x, dt), dt),
        "relaxed": lambda x, dt: stepping.relaxed_step(pieces(friction), x, density(x), dt)[:2],
        "relaxed in its last third": lambda x, dt: stepping.relaxed_step(pieces(friction), x, density(x), dt, 3)[:2],
    }[method]


@lru_cache
def exact(friction):
    solve = jax.jit(partial(solve_reference, lambda x, c: flow(effort(x), c), rtol=1e-12, atol=1e-13))
    trajectory, ok = solve(START, TIMES, jnp.asarray(friction))
    assert ok
    return trajectory


@pytest.mark.parametrize(
    ("method", "order", "steps", "friction"),
    [("rk4", 4, 16, 0.2)]
    + [(m, 5, n, c) for m, n in (("relaxed", 12), ("relaxed in its last third", 4)) for c in (0, 0.2)],
)
def test_measured_order(method, order, steps, friction):
    run = jax.jit(partial(stepping.rollout, make_step(method, friction)), static_argnums=2)
    errors = [float(jnp.max(jnp.abs(run(START, TIMES, n) - exact(friction)))) for n in (steps, 2 * steps)]
    # the leading error of the fifth order is so small that the next one shows
    assert order - 0.2 < np.log2(errors[0] / errors[1]) < order + (0.2 if order == 4 else 0.8)
    assert order == 4 or errors[1] < 2e-10


def test_energy_is_kept_to_rounding_over_long_runs():
    times = jnp.linspace(0.0, 1000.0, 101)
    trajectory = stepping.rollout(make_step("relaxed"), START, times, 50)
    levels = density(trajectory)
    assert float(jnp.max(jnp.abs(levels / levels[0] - 1))) < 1e-11
    # and it still is a pendulum that swings
    assert float(jnp.ptp(trajectory[:, 1])) > 2.0


@pytest.mark.parametrize("parts", [1, 3])
def test_relaxed_step_closes_the_energy_balance_with_friction_and_force(parts):
    def force(time):
        return jnp.stack([0.5 * jnp.cos(time), jnp.zeros_like(time)])

    friction, dt, level = 0.3, jnp.asarray(0.7 * parts), density(START)
    new = stepping.relaxed_step(pieces(friction)._replace(supply=force), START, level, dt, parts)
    assert abs(float(density(new.state) - new.energy)) < 1e-14

    # beside the state: time, what friction takes, what the force puts in
    def field(x, _):
        e = effort(x[:2])
        put_in = force(x[2])
        return jnp.concatenate([flow(e, friction) + put_in, jnp.stack([1.0, friction * e[0] ** 2, inner(e, put_in)])])

    begin, span = jnp.concatenate([START, jnp.zeros(3)]), jnp.stack([0.0, new.time])
    (_, end), ok = solve_reference(field, begin, span, None, rtol=1e-12, atol=1e-13)
    assert ok
    np.testing.assert_allclose(new.state, end[:2], atol=1e-4)
    np.testing.assert_allclose([new.work, level + new.work - new.energy], [end[4], end[3]], rtol=1e-3)
    # the relaxation did something
    assert 1e-7 < abs(float(new.time / dt) - 1) < 0.05


def test_an_energy_that_was_off_is_made_up_for():
    """The carried energy is the balance's; what one step leaves of its defect the next one takes away."""
    off = stepping.relaxed_step(pieces(), START, density(START) - 1e-9, jnp.asarray(0.1))
    assert abs(float(density(off.state) - density(START) + 1e-9)) < 1e-14


def test_friction_lets_the_energy_fall_in_every_step():
    trajectory = stepping.rollout(make_step("relaxed", 0.1), START, jnp.linspace(0.0, 20.0, 101), 1)
    levels = np.asarray(density(trajectory))
    # at the turning points friction does no work to leading order
    assert np.all(np.diff(levels) < 0)
    assert levels[-1] < 0.3 * levels[0]


def test_relaxed_step_at_rest_stays_at_rest_in_both_precisions():
    for dtype in (jnp.float32, jnp.float64):
        new, advanced = make_step("relaxed", 0.1)(jnp.zeros(2, dtype), jnp.asarray(0.1, dtype))
        assert new.dtype == advanced.dtype == dtype
        np.testing.assert_allclose(new, 0.0)
        np.testing.assert_allclose(advanced, 0.1, rtol=1e-6)


def test_rollout_meets_uneven_output_times():
    times = jnp.array([0.5, 0.7, 1.9, 2.0])
    np.testing.assert_allclose(stepping.rollout(clock, times[0], times, 3), times, rtol=1e-15)


def test_rollout_makes_up_for_steps_of_another_length():
    def short(x, dt):
        return x + 0.9 * dt, 0.9 * dt

    times = jnp.linspace(0.0, 10.0, 101)
    late = times - stepping.rollout(short, jnp.asarray(0.0), times, 5)
    # each output is late by no more than a tenth of a substep of 0.02, and lateness does not accumulate
    assert float(jnp.max(jnp.abs(late))) < 0.1 * 0.1
    assert abs(float(late[-1] - late[50])) < 1e-6


def test_rollout_is_differentiable_and_batches():
    def final(x):
        return stepping.rollout(make_step("relaxed", 0.1), x, jnp.linspace(0.0, 1.0, 4), 3)[-1]

    batch = jnp.stack([START, 0.5 * START])
    np.testing.assert_allclose(jax.vmap(final)(batch), jnp.stack([final(x) for x in batch]), rtol=1e-13)
    direction = jnp.array([0.3, -0.5])
    _, tangent = jax.jvp(final, (START,), (direction,))
    slope = (final(START + 1e-5 * direction) - final(START - 1e-5 * direction)) / 2e-5
    np.testing.assert_allclose(tangent, slope, rtol=1e-6)


def clock(x, dt):
    return x + dt, dt


def test_rollout_refuses_no_step_and_times_that_do_not_increase():
    with pytest.raises(ValueError, match="substeps >= 1, got 0"):
        stepping.rollout(clock, jnp.zeros(1), TIMES, 0)
    for times in ([0.0, 2.0, 1.0], [0.0, 1.0, 1.0]):
        with pytest.raises(ValueError, match="increasing times"):
            stepping.rollout(clock, jnp.zeros(1), jnp.array(times), 2)
    # traced times cannot be refused: nothing after the fall is a number
    late = jax.jit(lambda times: stepping.rollout(clock, jnp.asarray(0.0), times, 2))(jnp.array([0.0, 2.0, 1.0, 3.0]))
    np.testing.assert_array_equal(jnp.isnan(late), [False, False, True, True])


@pytest.mark.parametrize("state_dtype", [jnp.float32, jnp.int32, jnp.float64])
@pytest.mark.parametrize("time_dtype", [jnp.float32, jnp.float64])
def test_rollout_joins_the_types_of_state_and_times(state_dtype, time_dtype):
    times = jnp.array([0.0, 0.5, 2.0], time_dtype)
    path = stepping.rollout(clock, jnp.asarray(3, state_dtype), times, 3)
    with jax.numpy_dtype_promotion("standard"):
        expected = jnp.result_type(state_dtype, time_dtype)
    assert path.dtype == expected
    np.testing.assert_allclose(path, 3 + times, rtol=1e-6)


def test_times_of_a_rollout_may_be_a_list():
    def step(x, dt):
        return x * (1 + dt), dt

    expected = stepping.rollout(step, jnp.ones(2), jnp.array([0.0, 0.5, 2.0]), 1)
    np.testing.assert_array_equal(stepping.rollout(step, jnp.ones(2), [0.0, 0.5, 2.0], 1), expected)


def test_an_integrating_factor_follows_decay_exactly_and_the_rest_to_fourth_order():
    """x' = -5 x + x^2 from 2, whose reciprocal is (1 / 2 - 1 / 5) exp(5 t) + 1 / 5."""
    start, duration = jnp.array([2.0, -1.0 + 0.5j]), 0.5
    exact = 1 / ((1 / start - 0.2) * np.exp(5 * duration) + 0.2)

    def error(count):
        dt, state = duration / count, start
        for _ in range(count):
            state = stepping.integrating_factor_step(jnp.square, jnp.full(2, np.exp(-2.5 * dt)), state, dt)
        return np.abs(state - exact).max()

    assert abs(np.log2(error(16) / error(32)) - 4) < 0.2
    alone = stepping.integrating_factor_step(jnp.zeros_like, jnp.full(2, np.exp(-2.5)), start, 1.0)
    np.testing.assert_allclose(alone, start * np.exp(-5.0), rtol=1e-12)
