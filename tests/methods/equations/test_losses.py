"""Losses and denoisers of known equations: what they see, what they ask, and their gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion.networks import Network
from phdme_jax.diffusion.preconditioning import precondition
from phdme_jax.methods.equations import diffusion, flow, gradient_input
from phdme_jax.methods.equations.constraints import make_constraints, residual_gradient, residual_of
from phdme_jax.methods.equations.informed import Informed
from phdme_jax.methods.equations.network import make_prepare
from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.base import stacked_residual
from tests.methods.equations.world import POISSON, SAMPLES, world

CHAIN = diffusion.make_schedule(Informed())
NOISES = {name: {"training": {"noise": name}, "informed": {}} for name in diffusion.NOISES}
EDM = diffusion.teacher_schedule(NOISES["edm"])
SEEN_BY_DIFFERENCES = ("diffusion", "edm", "mean", "sample", "input", "flow", "merged")  # all but the detached one
NOISY = jax.random.normal(jax.random.key(0), (20, 2))


def plain_loss(net, schedule, noise):
    denoise_of = diffusion.make_denoise(net, schedule, "edm" if noise == "edm" else "x0")
    return diffusion.make_plain_loss(net, denoise_of, diffusion.make_denoising(NOISES[noise]))


def informed_loss_of(net, hides_solution=False, **changes):
    informed = Informed(**changes)
    denoise_of = diffusion.make_denoise(net, diffusion.make_schedule(informed), "x0", hides_solution)
    return diffusion.make_loss(net, denoise_of, informed, diffusion.make_asked(net, informed))


def losses():
    """Loss by name and whether its network sees a gradient; the residual of a hidden solution is detached."""
    net, seeing_net = world().net, world(True).net
    plain = Informed()
    seeing = gradient_input.make_seeing(seeing_net, plain, "x0")
    return {
        "diffusion": (plain_loss(net, CHAIN, "chain"), False),
        "edm": (plain_loss(net, EDM, "edm"), False),
        "mean": (informed_loss_of(net), False),
        "sample": (informed_loss_of(net, estimation="sample"), False),
        "hidden": (informed_loss_of(net, hides_solution=True, detached=True), False),
        "input": (gradient_input.make_loss(seeing_net, seeing, plain), True),
        "flow": (flow.make_matching_loss(net), False),
        "merged": (flow.make_merged_loss(net, 3), False),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEN_BY_DIFFERENCES)
def test_every_loss_has_the_gradient_that_differences_see(name):
    example_loss, sees_gradient = losses()[name]
    _, params, example = world(sees_gradient)
    key = jax.random.key(3)
    loss = jax.jit(jax.value_and_grad(lambda p: jnp.sum(example_loss(p, example, key)[0])))
    direction = jax.tree.map(jnp.sign, params.network)
    gradient = loss(params.network)[1]
    slope = sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True))
    step = 1e-6
    moved = [jax.tree.map(lambda p, d: p + sign * step * d, params.network, direction) for sign in (1.0, -1.0)]
    ends = [loss(point)[0] for point in moved]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=2e-4)


def test_losses_with_physics_see_it_and_others_do_not():
    assert {*losses()} == {*SEEN_BY_DIFFERENCES, "hidden"}
    for name, (loss, sees_gradient) in losses().items():
        _, params, example = world(sees_gradient)
        value, metrics = jax.eval_shape(loss, params.network, example, jax.random.key(3))
        assert value.shape == ((2,) if name == "merged" else ())
        assert ("residual" in metrics) is (name in ("mean", "sample", "hidden", "merged"))


def test_edm_asks_as_much_of_an_untrained_network_at_every_level():
    # data of unit variance, a network that says nothing: x0_hat = y / (1 + r^2), whose error r^2 / (1 + r^2) weighs
    # 1 / r^2 + 1
    def nothing(*told):
        return None

    silent = Network(init=nothing, encode=nothing, apply=lambda params, noisy, *told: jnp.zeros_like(noisy))
    denoiser, denoising = precondition(silent, EDM, "edm"), diffusion.make_denoising(NOISES["edm"])

    def drawn(key):
        one, other = jax.random.split(key)
        fields = jax.random.normal(one, (20, 2))
        return denoising(lambda noisy, t: denoiser.apply(None, noisy, t, None), fields, other)[0]

    values = np.asarray(jax.jit(jax.vmap(drawn))(jax.random.split(jax.random.key(4), 4000)))
    # of 40 numbers each: mean one, relative deviation sqrt(2 / 40) whatever the level
    np.testing.assert_allclose([values.mean(), values.std()], [1.0, np.sqrt(2 / 40)], rtol=0.05)


def test_edm_draws_the_published_levels_for_data_of_unit_deviation():
    """log r is normal with mean -1.2 + log 2 and deviation 1.2; of a silent network the loss is 1 / r^2 + 1."""
    denoising, ones = diffusion.make_denoising(NOISES["edm"]), jnp.ones(3)
    drawn = jax.jit(jax.vmap(lambda key: denoising(lambda noisy, t: jnp.zeros_like(noisy), ones, key)[0]))
    levels = -0.5 * np.log(np.asarray(drawn(jax.random.split(jax.random.key(6), 4000))) - 1.0)
    np.testing.assert_allclose([levels.mean(), levels.std()], [-1.2 + np.log(2), 1.2], atol=0.06)


def test_schedules_of_teachers_are_known_by_name():
    assert diffusion.teacher_schedule({"training": {}, "informed": {}}) == CHAIN
    with pytest.raises(ValueError, match="noise among"):
        diffusion.teacher_schedule({"training": {"noise": "pink"}, "informed": {}})


def test_a_stage_without_physics_has_the_loss_of_plain_diffusion_and_a_half_one_half_the_penalty():
    net, params, example = world()
    key = jax.random.key(3)
    denoise_of = diffusion.make_denoise(net, CHAIN, "x0")

    def staged(factor):
        scaled = Informed(objective_weight=2.0).scaled(factor)
        loss = diffusion.make_loss(net, denoise_of, scaled, diffusion.make_asked(net, scaled))
        return loss(params.network, example, key)

    plain, _ = losses()["diffusion"][0](params.network, example, key)
    none, metrics = staged(0.0)
    assert none == plain and "residual" not in metrics
    whole, half = (staged(factor)[1]["penalty"] for factor in (1.0, 0.5))
    assert whole > 0
    np.testing.assert_allclose(half, 0.5 * whole, rtol=1e-12)


def test_a_detached_residual_has_the_same_value_and_moves_the_solution_alone():
    (net, _, example), slopes = world(), []
    for detached in (False, True):
        residual = residual_of(POISSON, net.kinds, example.given.encoding, example.given.condition, detached)
        slopes.append(jax.value_and_grad(lambda point, function=residual: jnp.sum(function(point) ** 2))(NOISY))
    (value, slope), (same, part) = slopes
    np.testing.assert_allclose(same, value)
    np.testing.assert_allclose(part[:, 0], slope[:, 0], rtol=1e-12)
    assert np.all(part[:, 1] == 0.0) and np.abs(slope[:, 1]).max() > 0.1


def test_a_hidden_solution_is_told_from_the_other_fields_alone():
    net, params, example = world()
    denoise_of = diffusion.make_denoise(net, CHAIN, "x0", hides_solution=True)
    denoise = denoise_of(params.network, make_prepare(net)(params.network, example.given))
    slope = jax.jacobian(lambda point: denoise(point, jnp.asarray(0.5)))(NOISY)
    assert np.all(slope[..., 0] == 0.0)
    for answered in (0, 1):
        assert np.abs(slope[:, answered, :, 1]).max() > 1e-3
    with pytest.raises(ValueError, match="circle"):
        circle = dataclasses.replace(net, equations=make_equations("circle"))
        diffusion.make_denoise(circle, CHAIN, "x0", hides_solution=True)
    with pytest.raises(ValueError, match="predicts='x0'"):
        diffusion.make_denoise(net, CHAIN, "v", hides_solution=True)


def test_the_objective_is_that_of_the_solution_computed_anew_where_asked_for():
    net, _, example = world()
    both = dataclasses.replace(
        POISSON, objective=lambda fields, _: jnp.sum(fields), solved_objective=lambda fields, _: -jnp.sum(fields)
    )
    given = example.given
    for solves, sign in ((False, 1.0), (True, -1.0)):
        asked = make_constraints(both, net.kinds, given.encoding, given.condition, solves_objective=solves).objective
        np.testing.assert_allclose(asked(example.fields), sign * jnp.sum(SAMPLES.fields[0]), rtol=1e-12)
    assert both.offers - POISSON.offers == {"objective", "solved_objective"}
    with pytest.raises(ValueError, match="solved objective"):
        make_constraints(POISSON, net.kinds, given.encoding, given.condition, solves_objective=True)


def test_gradient_input_is_that_of_the_decoded_residual():
    net, _, example = world()
    encoding, condition = example.given.encoding, example.given.condition

    def size(point):
        return jnp.mean(jnp.abs(stacked_residual(POISSON, point * encoding.scale + encoding.shift, condition)))

    expected = jax.grad(size)(NOISY)
    found = residual_gradient(residual_of(POISSON, net.kinds, encoding, condition), NOISY)
    np.testing.assert_allclose(found, expected / jnp.sqrt(jnp.mean(expected**2)), rtol=1e-4, atol=1e-6)


def test_a_hidden_gradient_changes_what_the_network_answers():
    net, params, example = world(True)
    seeing = gradient_input.make_seeing(net, Informed(), "x0")
    blind, sees = (seeing(params.network, example.given, share)(NOISY, jnp.asarray(0.5)) for share in (0.0, 1.0))
    assert np.abs(blind - sees).max() > 1e-6
