"""Forecasts of fields on a ring: operators and translations, projected steps, what an energy asks of a motion."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.files import InputError
from phdme_jax.methods.base import Examples, Task, refuse
from phdme_jax.methods.baselines.energy_operator import Scales, _Energy, energy_penalty, energy_rate, fit_scales
from phdme_jax.methods.baselines.fourier_operator import FourierOperator, flow, init_flow, init_operator, operate
from phdme_jax.methods.baselines.projected_operator import frame_invariants, project_frame
from phdme_jax.methods.draws import draw_forecasts
from phdme_jax.methods.equations.encoding import encode
from phdme_jax.methods.table import METHODS
from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.burgers import periodic_derivative
from phdme_jax.systems.given_frames import with_given_frames
from phdme_jax.training.stages import Trainer
from tests.rough import rough

KEY = jax.random.key(0)
SIZES = {"num_points": 16, "num_frames": 9}
GROUP = {
    "fno": {"modes": 8, "width": 8, "depth": 1},
    "eno": {"width": 8, "depth": 1, "weight": 0.1},
    "stages": {"fno": ((2, 150, 12, 1e-2),)},
    "start_noise": 0.0,
    "ema_decay": 0.9,
}


def drawn(name, given=1):
    equations = with_given_frames(make_equations(name, **SIZES), given)
    samples = jax.jit(jax.vmap(equations.draw))(jax.random.split(KEY, 24))
    train = Examples(np.asarray(samples.fields), np.asarray(samples.condition))
    return Task(equations, lambda: train, lambda key, count: train.condition[:count], KEY)


@pytest.fixture(scope="module", params=["advection", "viscous_burgers"])
def task(request):
    return drawn(request.param)


FITTED = {}


def fitted(task, name, **changes):
    """A method, once for all tests where nothing is changed."""
    label, method = (task.problem.name, name), METHODS[name]
    if changes or label not in FITTED:
        teacher = fitted(task, method.teacher) if method.teacher else None
        options = {"data": {"kinds": ("linear",)}, "baselines": {**GROUP, **changes}}
        found = method.fit(task, options, Trainer(), teacher, KEY)
        if changes:
            return found
        FITTED[label] = found
    return FITTED[label]


def forecast(task, found):
    answer = draw_forecasts(found, task.train().condition, 1, KEY)
    assert answer.samples is None and answer.ok.all()
    return answer.mean


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(10, 2), (9, 1), (6, 8, 1)])
def test_an_operator_on_a_ring_commutes_with_translations(shape):
    config = FourierOperator(((0,) * (len(shape) - 1),) * shape[-1], modes=3, width=4, depth=2)
    state = jax.random.normal(KEY, shape)
    params = rough(init_operator(config, state, KEY), 0.3, kept=0.0)
    moved = operate(config, params, jnp.roll(state, 3, axis=0), 4)
    path = operate(config, params, state, 4)
    np.testing.assert_allclose(moved, jnp.roll(path, 3, axis=1), atol=1e-11)
    assert jnp.abs(path[1] - path[0]).max() > 0.01


def test_a_fraction_of_a_step_begins_at_the_state():
    config, state = FourierOperator(((0,),), modes=3, width=4, depth=1), jax.random.normal(KEY, (8, 1))
    params = rough(init_flow(config, state, KEY), 0.3, kept=0.0)
    np.testing.assert_array_equal(flow(config, params, state, jnp.zeros(())), state)
    assert jnp.abs(flow(config, params, state, jnp.ones(())) - state).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fno", "projected_fno", "eno"])
def test_a_short_training_beats_the_frame_that_is_given(task, name):
    found, truth = fitted(task, name), task.train().fields
    answer = forecast(task, found)
    np.testing.assert_allclose(answer[:, :, 0], truth[:, :, 0], rtol=1e-6, atol=1e-7)
    held = np.broadcast_to(truth[:, :, :1], truth.shape)
    assert np.mean((answer - truth) ** 2) < 0.5 * np.mean((held - truth) ** 2)
    assert found.model.num_calls == 8


@pytest.mark.slow
def test_forecasts_move_with_the_frame_that_is_given(task):
    condition = task.train().condition
    for name in ("fno", "projected_fno", "eno"):
        found = fitted(task, name)
        one = jax.jit(lambda condition, found=found: found.model.prepare(found.params, condition))
        moved = one(jnp.roll(condition[0], 5, axis=0))
        np.testing.assert_allclose(moved, jnp.roll(one(condition[0]), 5, axis=0), atol=2e-5)


def test_several_given_frames_come_out_as_they_are_and_the_last_is_continued(task):
    three = drawn(task.problem.name, 3)
    one, other = fitted(task, "fno"), fitted(three, "fno", stages={"fno": ()})
    other = other._replace(params=one.params)
    found, truth = forecast(three, other), three.train().fields
    np.testing.assert_allclose(found[:, :, :3], truth[:, :, :3], rtol=1e-6, atol=1e-7)
    # the same operator begun two frames later
    later = truth[:, :, 2:3]
    condition = np.concatenate([np.broadcast_to(later, truth.shape), task.train().condition[..., 1:]], axis=-1)
    begun = draw_forecasts(one, condition, 1, KEY).mean
    np.testing.assert_allclose(found[:, :, 2:], begun[:, :, :7], atol=1e-5)
    assert other.model.num_calls == 6


def test_projected_forecasts_keep_what_the_given_frame_holds(task):
    equations, condition = task.problem, task.train().condition

    def changes(fields):
        found = [
            np.asarray(jax.vmap(of)(jnp.asarray(fields), jnp.asarray(condition)))
            for _, of in equations.priors.invariants
        ]
        return [np.abs(values - values[:, :1]).max() for values in found]

    plain, projected = (changes(forecast(task, fitted(task, name))) for name in ("fno", "projected_fno"))
    assert len(plain) == {"advection": 2, "viscous_burgers": 1}[equations.name]
    assert all(change < 2e-6 < 1e-4 < other for change, other in zip(projected, plain, strict=True))


def test_a_projected_frame_is_the_nearest_with_the_given_mass_and_energy(task):
    equations = task.problem
    frame, given = jax.random.normal(KEY, (16, 1)), 2.0 * jax.random.normal(jax.random.key(1), (16, 1)) + 1.0
    target = frame_invariants(equations, given)
    found = project_frame(equations, frame, target)
    np.testing.assert_allclose(frame_invariants(equations, found), target, rtol=1e-10)
    deviation = frame - frame.mean()
    scale = given.std() / frame.std() if len(target) == 2 else 1.0
    np.testing.assert_allclose(found, given.mean() + scale * deviation, atol=1e-8)
    constant = project_frame(equations, jnp.full((16, 1), 3.0), target)
    np.testing.assert_allclose(constant, jnp.broadcast_to(constant[0], (16, 1)), atol=1e-10)


SPEED, SHIFT = 0.7, 0.13


def translated(frame, distance):
    """The trigonometric polynomial through a frame of few waves, moved."""
    spectrum = jnp.fft.rfft(frame[:, 0])
    turned = spectrum * jnp.exp(-2j * jnp.pi * jnp.arange(len(spectrum)) * distance)
    return jnp.fft.irfft(turned, len(frame))[:, None]


def smooth(key=KEY):
    place = np.arange(32)[:, None] / 32
    sizes = jax.random.normal(key, (3, 2))
    waves = [a * jnp.sin(2 * np.pi * n * place) + b * jnp.cos(2 * np.pi * n * place) for n, (a, b) in enumerate(sizes)]
    return sum(waves) + 0.2


@pytest.mark.parametrize(("sign", "asked"), [(1.0, 0.0), (0.0, 1.0), (-1.0, 4.0)])
def test_advection_has_its_speed_times_half_the_square_as_energy(sign, asked):
    """The penalty vanishes for H = c u^2 / 2, is the motion's own size without an energy and four times that for -H."""
    scales, frame = Scales(jnp.asarray(0.3), jnp.asarray(0.05)), smooth()
    speed = SPEED / (scales.rate * scales.length)

    def densities(state, slope):
        del slope
        return 0.5 * sign * speed * state**2

    def path(fraction):
        return translated(frame, SPEED * fraction)

    motion = SPEED * periodic_derivative(path(SHIFT), 1)
    size = jnp.mean(motion**2)
    penalty = energy_penalty(path, jnp.asarray(SHIFT), densities, scales)
    np.testing.assert_allclose(penalty, asked * size, rtol=1e-9, atol=1e-12 * float(size))


def test_burgers_equation_has_a_cube_and_a_dissipation():
    viscosity, frame = 0.02, smooth()
    densities = lambda state, slope: jnp.concatenate([state**3 / 6, 0.5 * viscosity * state**2], axis=-1)  # noqa: E731
    rate, _ = energy_rate(densities, frame, jnp.asarray(1.0))
    expected = -frame * periodic_derivative(frame, 1) + viscosity * periodic_derivative(frame, 2)
    np.testing.assert_allclose(rate, expected, atol=1e-10)


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_skew_part_keeps_its_energy_and_the_other_one_dissipates(outputs):
    """Whatever the energy: along the rate of H alone H stays, along that of S alone S falls; both keep the mean."""
    weights = jax.random.normal(jax.random.key(2), (2, outputs))

    def densities(state, slope, only):
        values = jnp.sin(jnp.concatenate([state, slope], axis=-1) @ weights) + slope**2
        return values * jnp.eye(2)[only][:outputs]

    length, frame = jnp.asarray(0.1), smooth()
    for only in range(outputs):
        rate, slopes = energy_rate(lambda u, du, only=only: densities(u, du, only), frame, length)
        power = float(jnp.mean(slopes[only] * rate))
        size = float(jnp.sqrt(jnp.mean(slopes[only] ** 2) * jnp.mean(rate**2)))
        assert abs(float(jnp.mean(rate))) < 1e-10
        assert abs(power) < 1e-10 * size if only == 0 else power < -0.1 * size


def test_scales_are_those_of_a_wave_that_moves():
    place, step = np.arange(32) / 32, 0.01
    frames = np.sin(2 * np.pi * 3 * (place - step * np.arange(4)[:, None]))[None, ..., None]
    scales = fit_scales(jnp.asarray(frames))
    np.testing.assert_allclose(scales.length, 1 / (6 * np.pi), rtol=1e-10)
    np.testing.assert_allclose(scales.rate, np.sqrt(2) * np.sin(np.pi * 3 * step), rtol=1e-10)


def test_the_energy_is_learned_with_the_operator(task):
    """What the energy leaves of the operator's own motion is less than without one; of Burgers' it has two parts."""
    found, frames = fitted(task, "eno"), jnp.asarray(task.train().fields)
    encoding, params = found.params
    config, parts = FourierOperator(((0,),), **GROUP["fno"]), 3 - len(task.problem.priors.invariants)
    frames = jnp.moveaxis(encode(encoding, ("linear",), frames), 2, 1).astype(encoding.scale.dtype)
    energy, scales, half = _Energy(8, 1, parts, frames.dtype), fit_scales(frames), jnp.asarray(0.5, frames.dtype)

    def penalty(frame, size):
        def densities(state, slope):
            return size * energy.apply({"params": params.energy}, state, slope)

        return energy_penalty(lambda s: flow(config, params.operator, frame, s), half, densities, scales)

    with_energy, without = (
        jnp.mean(jax.vmap(penalty, (0, None))(frames[:, 3], jnp.asarray(size, frames.dtype))) for size in (1.0, 0.0)
    )
    assert with_energy < 0.8 * without, (float(with_energy), float(without))


def test_what_does_not_fit_is_refused_with_a_sentence():
    task = drawn("advection")
    plain = make_equations("advection", **SIZES)
    springs = with_given_frames(make_equations("five_springs", num_frames=5), 2)
    for problem in (plain, springs):
        with pytest.raises(InputError, match=f"projected_fno needs .*, which {problem.name} does not offer"):
            refuse(METHODS["projected_fno"], problem)
        with pytest.raises(InputError, match="fno needs"):
            refuse(METHODS["fno"], problem)
    refuse(METHODS["fno"], task.problem)
    options = {"data": {"kinds": ("linear",)}, "baselines": GROUP}
    with pytest.raises(InputError, match=r"it needs the sizes baselines\.fno"):
        METHODS["fno"].fit(task, {"data": options["data"]}, Trainer(), None, KEY)
    told = replace(task, problem=replace(task.problem, conditions=("speed", *task.problem.conditions)))
    with pytest.raises(InputError, match="advection has conditions beside them"):
        METHODS["fno"].fit(told, options, Trainer(), None, KEY)
    two = replace(task, problem=replace(task.problem, fields=("a", "b")))
    with pytest.raises(InputError, match="one field on a line, and advection is more"):
        METHODS["eno"].fit(two, options, Trainer(), None, KEY)
