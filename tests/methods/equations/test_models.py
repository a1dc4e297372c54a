"""Models of known equations: every method learns, draws and keeps what it promises."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion import make_mlp
from phdme_jax.diffusion.schedule import SteppedCosineSchedule
from phdme_jax.methods.equations.encoding import fit_encoding
from phdme_jax.methods.equations.informed import Informed
from phdme_jax.methods.equations.models import (
    EquationExample,
    EquationModel,
    calls,
    draw,
    init_model,
    make_denoise,
    make_loss,
    physics_of,
    residual_gradient,
)
from phdme_jax.methods.legacy import EQUATION_METHODS
from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.base import stacked_residual

POISSON = make_equations("poisson_1d", num_points=20, num_waves=3)
KINDS = ("linear", "linear")
DATA = jax.jit(jax.vmap(lambda key: POISSON.draw(key).fields))(jax.random.split(jax.random.key(0), 64))
ENCODING = fit_encoding(DATA, KINDS)
EXAMPLE = EquationExample((DATA[0] - ENCODING.shift) / ENCODING.scale, jnp.zeros((20, 0)), jnp.zeros((20, 0)))


def model_of(name, **changes):
    method = EQUATION_METHODS[name]
    network = make_mlp(shape=(20, 2), width=16, num_blocks=1, embedding_size=16)
    informed = Informed(estimation="sample" if method.physics == "sample" else "mean")
    return dataclasses.replace(
        EquationModel(POISSON, network, SteppedCosineSchedule(), KINDS, method, informed), **changes
    )


def random_params(model):
    params = init_model(model, EXAMPLE.fields, EXAMPLE.given, jax.random.key(1))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    noisy = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy)


# but for the map, whose residual is detached from the other fields
WHOLE = [name for name, method in EQUATION_METHODS.items() if method.after == "nothing" and method.physics != "map"]


@pytest.mark.parametrize("name", WHOLE)
def test_every_loss_has_the_gradient_that_differences_see(name):
    model = model_of(name, unroll=3)
    params, key = random_params(model), jax.random.key(3)
    loss = jax.jit(lambda p: jnp.sum(make_loss(model, ENCODING)(p, EXAMPLE, key)[0]))
    direction = jax.tree.map(lambda leaf: jnp.sign(leaf), params)
    slope = sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (jax.grad(loss)(params), direction)), strict=True))
    step = 1e-6
    ends = [loss(jax.tree.map(lambda p, d: p + sign * step * d, params, direction)) for sign in (1.0, -1.0)]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=2e-4)


def test_losses_with_physics_see_it_and_others_do_not():
    for name in ("diffusion", "pidm_me", "pidm_se", "pidm_map", "pg_diffusion", "flow_matching", "pbfm"):
        model = model_of(name)
        value, metrics = make_loss(model, ENCODING)(random_params(model), EXAMPLE, jax.random.key(3))
        assert value.shape == ((2,) if name == "pbfm" else ())
        assert ("residual" in metrics) is (name in ("pidm_me", "pidm_se", "pidm_map", "pbfm"))


def test_a_detached_residual_has_the_same_value_and_moves_the_solution_alone():
    slopes = []
    noisy = jax.random.normal(jax.random.key(0), EXAMPLE.fields.shape)
    for detached in (False, True):
        residual = physics_of(model_of("pidm_me", detached=detached), ENCODING, EXAMPLE.condition).residual
        slopes.append(jax.value_and_grad(lambda point, function=residual: jnp.sum(function(point) ** 2))(noisy))
    (value, slope), (same, part) = slopes
    np.testing.assert_allclose(same, value)
    np.testing.assert_allclose(part[:, 0], slope[:, 0], rtol=1e-12)
    assert np.all(part[:, 1] == 0.0) and np.abs(slope[:, 1]).max() > 0.1


def test_a_map_tells_the_solution_from_the_other_fields_alone():
    model = model_of("pidm_map")
    physics = physics_of(model, ENCODING, EXAMPLE.condition)
    denoise = make_denoise(model, random_params(model), EXAMPLE.given, physics)
    noisy = jax.random.normal(jax.random.key(0), EXAMPLE.fields.shape)
    slope = jax.jacobian(lambda point: denoise(point, jnp.asarray(0.5)))(noisy)
    assert np.all(slope[..., 0] == 0.0)
    for answered in (0, 1):
        assert np.abs(slope[:, answered, :, 1]).max() > 1e-3
    with pytest.raises(ValueError, match="circle"):
        model_of("pidm_map", equations=make_equations("circle"))
    with pytest.raises(ValueError, match="predicts='x0'"):
        model_of("pidm_map", predicts="v")
    bent = jax.grad(lambda point: jnp.sum(physics.residual(point) ** 2))(noisy)
    assert np.all(bent[:, 1] == 0.0) and np.abs(bent[:, 0]).max() > 0.1


def test_the_objective_is_that_of_the_solution_computed_anew_where_asked_for():
    equations = dataclasses.replace(
        POISSON, objective=lambda fields, _: jnp.sum(fields), solved_objective=lambda fields, _: -jnp.sum(fields)
    )
    for solves, sign in ((False, 1.0), (True, -1.0)):
        model = model_of("pidm_me", equations=equations, solves_objective=solves)
        asked = physics_of(model, ENCODING, EXAMPLE.condition).objective
        np.testing.assert_allclose(asked(EXAMPLE.fields), sign * jnp.sum(DATA[0]), rtol=1e-12)
    with pytest.raises(ValueError, match="solved objective"):
        model_of("pidm_me", solves_objective=True)


def test_gradient_input_is_that_of_the_decoded_residual():
    physics = physics_of(model_of("pg_diffusion"), ENCODING, EXAMPLE.condition)
    noisy = jax.random.normal(jax.random.key(0), EXAMPLE.fields.shape)

    def size(point):
        return jnp.mean(jnp.abs(stacked_residual(POISSON, point * ENCODING.scale + ENCODING.shift, EXAMPLE.condition)))

    expected = jax.grad(size)(noisy)
    found = residual_gradient(physics, noisy)
    np.testing.assert_allclose(found, expected / jnp.sqrt(jnp.mean(expected**2)), rtol=1e-4, atol=1e-6)


def test_hidden_gradient_changes_nothing_but_what_the_network_is_told():
    model = model_of("pg_diffusion")
    physics = physics_of(model, ENCODING, EXAMPLE.condition)
    noisy, params = jax.random.normal(jax.random.key(0), EXAMPLE.fields.shape), random_params(model)
    blind, seeing = (
        make_denoise(model, params, EXAMPLE.given, physics, sees)(noisy, jnp.asarray(0.5)) for sees in (0.0, 1.0)
    )
    assert np.abs(blind - seeing).max() > 1e-6
    assert calls(model.method, 10) == 20 and calls(model.method, 10, "heun") == 38
    assert calls(EQUATION_METHODS["flow_matching"], 10, "heun") == 10


def residual_size(fields):
    return float(jnp.mean(jnp.abs(stacked_residual(POISSON, fields, EXAMPLE.condition))))


def test_drawn_fields_are_corrected_or_resolved_as_the_method_says():
    params = random_params(model_of("diffusion"))

    def fields(name, **changes):
        model = model_of(name, **changes)
        return jax.jit(lambda k: draw(model, params, ENCODING, EXAMPLE, k, 8))(jax.random.key(5))

    plain, resolved = fields("diffusion"), fields("generate_then_solve")
    np.testing.assert_array_equal(plain[:, 1], resolved[:, 1])
    np.testing.assert_allclose(resolved, POISSON.resolve(resolved, EXAMPLE.condition), atol=1e-12)
    corrected = fields("cocogen", corrections=(0, 200))
    np.testing.assert_array_equal(plain[:, 1], corrected[:, 1])
    assert residual_size(corrected) < 0.5 * residual_size(plain)
    while_sampling = fields("cocogen", corrections=(4, 200))
    assert np.abs(while_sampling - corrected).max() > 1e-6


def test_flows_are_followed_in_the_steps_asked_for():
    model = model_of("flow_matching")
    params = random_params(model)
    few, many = (draw(model, params, ENCODING, EXAMPLE, jax.random.key(0), steps) for steps in (1, 16))
    assert few.shape == many.shape == (20, 2) and np.abs(few - many).max() > 1e-3


def test_flows_with_physics_start_anew_from_fresh_noise_as_published():
    model = model_of("pbfm")
    params = random_params(model)
    straight = dataclasses.replace(model.method, restart_until=0.0)

    def example(method, steps):
        return draw(dataclasses.replace(model, method=method), params, ENCODING, EXAMPLE, jax.random.key(0), steps)

    assert EQUATION_METHODS["pbfm"].restart_until == 0.2
    assert np.abs(example(model.method, 10) - example(straight, 10)).max() > 1e-3
    # the only step of one begins at noise and goes to the end, where nothing of the fresh noise is left
    np.testing.assert_allclose(example(model.method, 1), example(straight, 1), atol=1e-12)
