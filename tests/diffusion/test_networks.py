import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from phdme_jax.diffusion import NETWORKS
from phdme_jax.diffusion.dilated import make_dilated
from phdme_jax.diffusion.loss import denoising_loss
from phdme_jax.diffusion.mlp import make_mlp
from phdme_jax.diffusion.networks import Condition, Network, draw_params, frames_as_channels
from phdme_jax.diffusion.preconditioning import bind, precondition
from phdme_jax.diffusion.samplers import sample
from phdme_jax.diffusion.schedule import CosineSchedule
from phdme_jax.diffusion.unet import GroupNorm, input_channels, make_unet

SHAPE = (6, 5, 2)  # an axis that can be halved and one that cannot
SCHEDULE = CosineSchedule()
BUILD = {
    "unet": functools.partial(make_unet, channels=8, groups=4, multipliers=(1, 2), embedding_size=16, heads=2),
    "dilated": functools.partial(
        make_dilated, channels=16, groups=4, dilations=(1, 2, 1), embedding_size=16, padding="edge"
    ),
    "mlp": functools.partial(make_mlp, shape=SHAPE, width=64, num_blocks=2, embedding_size=16),
}
# one has nothing to learn, and the fields of the other are vectors: see tests/methods/penalties/test_priors.py
LEARNED = [name for name in NETWORKS if name not in ("exact", "empirical", "space_time")]


def quick_jit(function):
    """Jitted with a compiler that does not try hard: here compiling is what takes the time."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def normal(seed, *shape, dtype="float32"):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def trajectories(count=3, dtype="float32"):
    return normal(0, count, *SHAPE, dtype=dtype)


def stir(params):
    """Parameters none of which is zero."""
    generator = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: np.asarray(leaf) + 0.1 * generator.normal(size=leaf.shape).astype(leaf.dtype), params
    )


@functools.cache
def setting(name):
    """Network, its initial parameters, and other ones in which nothing is zero."""
    network = BUILD[name]()
    params = network.init(jax.random.key(1), trajectories()[0], Condition(initial=trajectories()[0, 0]))
    stirred = stir(params)
    return network, params, stirred


@functools.cache
def forward(name):
    network = setting(name)[0]
    return quick_jit(
        lambda params, noisy, level, initial: network.apply(
            params, noisy, level, network.encode(params, Condition(initial=initial))
        )
    )


@pytest.mark.parametrize("name", LEARNED)
def test_mapped_over_a_batch_it_is_a_loop(name):
    network, _, stirred = setting(name)
    noisy, levels = trajectories(), jnp.array([-1.0, 0.1, 1.5], "float32")

    def run(noisy, level, initial):
        return network.apply(stirred, noisy, level, network.encode(stirred, Condition(initial=initial)))

    batched = quick_jit(jax.vmap(run))(noisy, levels, noisy[:, 0])
    looped = [forward(name)(stirred, noisy[i], levels[i], noisy[i, 0]) for i in range(3)]
    np.testing.assert_allclose(batched, jnp.stack(looped), rtol=2e-4, atol=2e-5)
    assert float(jnp.std(batched)) > 0.1


@pytest.mark.parametrize("name", LEARNED)
def test_starts_at_zero_and_in_the_precision_of_its_input(name):
    network, params, _ = setting(name)
    answer = forward(name)(params, trajectories()[0], jnp.asarray(0.3), trajectories()[0, 0])  # a float64 level
    assert answer.dtype == jnp.float32 and answer.shape == SHAPE
    np.testing.assert_array_equal(answer, 0.0)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    wide = trajectories(dtype="float64")
    shapes = jax.eval_shape(network.init, jax.random.key(1), wide[0], Condition(initial=wide[0, 0]))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float64")}
    wide_answer = jax.eval_shape(
        lambda params: network.apply(
            params, wide[0], jnp.asarray(0.3), network.encode(params, Condition(initial=wide[0, 0]))
        ),
        shapes,
    )
    assert wide_answer.dtype == jnp.float64


@pytest.mark.parametrize("name", LEARNED)
def test_learns_two_trajectories_told_apart_by_their_condition(name):
    network, params, _ = setting(name)
    denoiser = precondition(network, SCHEDULE, "x0")
    z, t = jnp.linspace(0, 1, 5), jnp.linspace(0, 1, 6)[:, None]
    wave = jnp.stack([jnp.sin(jnp.pi * z) * jnp.cos(3 * t), jnp.cos(jnp.pi * z) * jnp.sin(3 * t + 1)], -1)
    targets = jnp.stack([wave, -wave]).astype("float32")
    chosen = jnp.arange(8) % 2

    def loss(params, key):
        def one(target, key):
            return denoising_loss(bind(denoiser, params, Condition(initial=target[0])), SCHEDULE, target, key).loss

        return jnp.mean(jax.vmap(one)(targets[chosen], jax.random.split(key, 8)))

    optimiser = optax.adam(1e-2)

    @quick_jit
    def step(params, state, key):
        gradient = jax.grad(loss)(params, key)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(params, updates), state

    state = optimiser.init(params)
    for index in range(100):
        params, state = step(params, state, jax.random.fold_in(jax.random.key(2), index))
        if index == 0:  # one step of the gradient, and the condition has a say
            answers = [forward(name)(params, targets[0], jnp.asarray(0.0, "float32"), target[0]) for target in targets]
            assert float(jnp.abs(answers[0] - answers[1]).max()) > 1e-4

    def draw(params, target, noise):
        denoise = bind(denoiser, params, Condition(initial=target[0]))
        return sample(denoise, SCHEDULE, noise, jax.random.key(0), num_steps=8)

    drawn = quick_jit(jax.vmap(draw, (None, 0, 0)))(params, targets, normal(5, 2, *SHAPE))
    error = jnp.mean((drawn - targets) ** 2, axis=(1, 2, 3)) / jnp.mean(targets**2)
    assert drawn.dtype == jnp.float32 and float(error.max()) < 0.02


def test_unet_on_a_periodic_axis_commutes_with_shifts():
    network = BUILD["unet"](padding=("zero", "circular"), embed_initial=False)
    noisy, rollout = normal(3, 5, 8, 2), normal(4, 5, 8, 2)
    params = network.init(jax.random.key(1), noisy, Condition(noisy[0], rollout, jnp.asarray(0.3, "float32")))
    params = stir(params)

    @quick_jit
    def run(noisy, rollout):
        features = network.encode(params, Condition(noisy[0], rollout, jnp.asarray(0.3, "float32")))
        return network.apply(params, noisy, jnp.asarray(0.2, "float32"), features)

    straight = run(noisy, rollout)
    shifted = run(jnp.roll(noisy, 2, axis=1), jnp.roll(rollout, 2, axis=1))
    np.testing.assert_allclose(shifted, jnp.roll(straight, 2, axis=1), rtol=2e-4, atol=2e-5)
    late = run(jnp.roll(noisy, 2, axis=0), jnp.roll(rollout, 2, axis=0))
    assert float(jnp.abs(late - jnp.roll(straight, 2, axis=0)).max()) > 1e-2  # time is not periodic
    assert float(jnp.abs(run(noisy, 0.0 * rollout) - straight).max()) > 1e-2  # the rollout has a say


def test_group_normalisation_is_that_of_linen():
    inputs = 3.0 + normal(0, 7, 5, 12, dtype="float64") * jnp.arange(1.0, 13.0)
    ours, theirs = GroupNorm(4, "float64"), nn.GroupNorm(num_groups=4, param_dtype="float64")
    params = {"params": {"scale": 1.0 + normal(1, 12, dtype="float64"), "bias": normal(2, 12, dtype="float64")}}
    expected = theirs.apply(params, inputs[None])[0]
    np.testing.assert_allclose(ours.apply(params, inputs), expected, rtol=1e-12, atol=1e-13)
    grouped = ours.apply({"params": {"scale": jnp.ones(12), "bias": jnp.zeros(12)}}, inputs).reshape(-1, 4, 3)
    np.testing.assert_allclose(grouped.mean(axis=(0, 2)), 0.0, atol=1e-12)
    np.testing.assert_allclose(grouped.var(axis=(0, 2)), 1.0, rtol=1e-5)


def test_unet_takes_any_number_of_axes_and_no_condition():
    for shape in ((9, 2), (4, 3, 5, 1)):
        network = BUILD["unet"](heads=0, num_blocks=2)
        noisy = jnp.zeros(shape, "float32")
        params = jax.eval_shape(network.init, jax.random.key(0), noisy, Condition())
        answer = jax.eval_shape(
            lambda params, network=network, noisy=noisy: network.apply(
                params, noisy, jnp.zeros(()), network.encode(params, Condition())
            ),
            params,
        )
        assert answer.shape == shape and answer.dtype == jnp.float32


def test_linear_path_of_the_perceptron_is_linear_in_the_initial_state():
    _, params, _ = setting("mlp")
    kernel = params["encoder"]["linear_path"]["zero"]["kernel"]
    params = {**params, "encoder": {**params["encoder"], "linear_path": {"zero": {"kernel": normal(7, *kernel.shape)}}}}
    noisy, initial = trajectories()[0], trajectories()[1, 0]
    answers = [forward("mlp")(params, noisy, jnp.asarray(0.2, "float32"), factor * initial) for factor in (1.0, -3.0)]
    np.testing.assert_allclose(answers[1], -3.0 * answers[0], rtol=1e-4, atol=1e-5)
    expected = (initial.ravel() @ params["encoder"]["linear_path"]["zero"]["kernel"]).reshape(SHAPE)
    np.testing.assert_allclose(answers[0], expected, rtol=1e-4, atol=1e-5)


def test_narrow_products_stay_close_and_answer_in_the_type_of_the_input():
    _, _, stirred = setting("mlp")
    narrow = BUILD["mlp"](matmul_dtype="bfloat16")
    noisy, initial, level = trajectories()[0], trajectories()[1, 0], jnp.asarray(0.2, "float32")
    answer = quick_jit(
        lambda: narrow.apply(stirred, noisy, level, narrow.encode(stirred, Condition(initial=initial)))
    )()
    wide = forward("mlp")(stirred, noisy, level, initial)
    assert answer.dtype == jnp.float32
    difference = float(jnp.linalg.norm(answer - wide) / jnp.linalg.norm(wide))
    assert 1e-5 < difference < 0.05


def test_parameters_are_drawn_as_promised():
    def shape(*sizes):
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    shapes = {
        "a": {"kernel": shape(3, 3, 40, 100), "bias": shape(100)},
        "b": {"kernel": shape(50, 200), "scale": shape(4)},
        "zero": {"kernel": shape(5, 5)},
    }
    params = draw_params(shapes, jax.random.key(0))
    np.testing.assert_allclose(jnp.std(params["a"]["kernel"]) * 360**0.5, 1.0, atol=0.02)
    np.testing.assert_allclose(jnp.std(params["b"]["kernel"]) * 50**0.5, 1.0, atol=0.03)
    assert not np.isclose(params["a"]["kernel"].ravel()[:9] * 6, params["b"]["kernel"].ravel()[:9] * 50**0.5).any()
    for leaf, value in ((params["a"]["bias"], 0), (params["b"]["scale"], 1), (params["zero"]["kernel"], 0)):
        np.testing.assert_array_equal(leaf, value)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    with pytest.raises(ValueError, match="expected parameters named"):
        draw_params({"a": {"phase": shape(3)}}, jax.random.key(0))


def test_mistakes_are_refused():
    noisy, condition, key = jnp.zeros((6, 5, 2), "float32"), Condition(), jax.random.key(0)
    with pytest.raises(ValueError, match="axes that wrap in multiples of 2"):
        BUILD["unet"](padding="circular").init(key, noisy, condition)
    with pytest.raises(ValueError, match="one padding for each"):
        BUILD["unet"](padding=("zero",)).init(key, noisy, condition)
    with pytest.raises(ValueError, match="expected a trajectory of shape"):
        BUILD["mlp"](shape=(6, 4, 2)).init(key, noisy, condition)
    for sizes in ({"padding": "mirror"}, {"channels": 9}, {"multipliers": ()}, {"heads": 3}, {"patch": 0}):
        with pytest.raises(ValueError, match="expected"):
            BUILD["unet"](**sizes)
    with pytest.raises(TypeError):
        BUILD["mlp"](depth=3)


def test_frames_as_channels_lays_out_and_back_again():
    """A network that adds what the condition's rollout says to its input sees both laid out alike."""
    seen = {}

    def apply(params, noisy, noise_level, features):
        seen["noisy"] = noisy
        return noisy + 2.0 * features.rollout + features.initial.sum()

    inner = Network(init=lambda key, noisy, condition: {}, encode=lambda params, condition: condition, apply=apply)
    network = frames_as_channels(inner)
    noisy, rollout, initial = normal(0, 4, 5, 6, 3), normal(1, 4, 5, 6, 3), normal(2, 5, 6, 3)
    condition = Condition(initial, rollout)
    answer = network.apply({}, noisy, jnp.zeros(()), network.encode({}, condition))
    np.testing.assert_allclose(answer, noisy + 2 * rollout + initial.sum(), rtol=1e-5)
    assert seen["noisy"].shape == (5, 6, 12)
    np.testing.assert_array_equal(seen["noisy"][2, 3], np.ravel(noisy[:, 2, 3]))


def test_a_unet_over_the_grid_alone_couples_frames_and_starts_at_zero():
    network = make_unet(channels=8, groups=4, multipliers=(1, 2), embedding_size=16, heads=0, flat_time=True)
    noisy, condition = normal(0, 4, 6, 5, 2), Condition(normal(1, 6, 5, 2), normal(2, 4, 6, 5, 2))
    params = network.init(jax.random.key(0), noisy, condition)
    one = quick_jit(lambda p, x: network.apply(p, x, jnp.zeros(()), network.encode(p, condition)))
    np.testing.assert_array_equal(one(params, noisy), 0.0)
    params = stir(params)
    change = one(params, noisy.at[0, 2, 2, 0].add(1.0)) - one(params, noisy)
    assert np.all(np.abs(np.asarray(change)).max(axis=(1, 2, 3)) > 0)


@pytest.mark.slow
def test_a_patch_enters_and_leaves_as_channels_place_by_place():
    """Shifted by whole blocks, what comes out is shifted; a bias of the last layer lands at its place of a block."""
    sizes = {"channels": 8, "groups": 4, "multipliers": (1, 2), "embedding_size": 16, "heads": 0}
    network = make_unet(**sizes, padding="circular", patch=2)
    noisy, condition = normal(0, 8, 12, 3), Condition()
    params = stir(network.init(jax.random.key(0), noisy, condition))
    apply = quick_jit(lambda p, x: network.apply(p, x, jnp.zeros(()), network.encode(p, condition)))
    shifted = apply(params, jnp.roll(noisy, (4, 8), (0, 1)))
    np.testing.assert_allclose(shifted, jnp.roll(apply(params, noisy), (4, 8), (0, 1)), atol=1e-5)

    last = [path for path, leaf in jax.tree_util.tree_leaves_with_path(params) if leaf.shape == (12,)]
    assert len(last) == 1
    bias = jnp.arange(12.0)
    told = jax.tree_util.tree_map_with_path(lambda path, leaf: leaf + bias if path == last[0] else leaf, params)
    block = bias.reshape(2, 2, 3)
    np.testing.assert_allclose(apply(told, noisy) - apply(params, noisy), jnp.tile(block, (4, 6, 1)), atol=1e-5)

    plain = make_unet(**sizes, patch=2)
    odd = normal(1, 7, 9, 3)
    params = plain.init(jax.random.key(0), odd, condition)
    assert plain.apply(params, odd, jnp.zeros(()), plain.encode(params, condition)).shape == odd.shape


def test_a_periodic_axis_wraps_and_its_places_have_names():
    sizes = {"channels": 8, "groups": 4, "multipliers": (1, 2), "embedding_size": 16, "heads": 0}
    noisy, missed = normal(0, 8, 12, 3), {}
    for mode in ("circular", "periodic"):
        network = make_unet(**sizes, padding=("edge", mode))
        params = stir(network.init(jax.random.key(0), noisy, Condition()))
        apply = quick_jit(lambda p, x, net=network: net.apply(p, x, jnp.zeros(()), net.encode(p, Condition())))
        answer = apply(params, noisy)
        missed[mode] = jnp.abs(apply(params, jnp.roll(noisy, 4, 1)) - jnp.roll(answer, 4, 1)).max()
    assert missed["circular"] < 1e-5 < 1e-2 < missed["periodic"]
    places = input_channels(noisy, Condition(), ("edge", "periodic"))[0, :, 4:]
    steps = jnp.linalg.norm(jnp.roll(places, -1, 0) - places, axis=1)
    np.testing.assert_allclose(steps, 2 * np.sin(np.pi / 12), rtol=1e-5)
    assert places.shape == (12, 2)


def convolutions(jaxpr):
    """Those of a program in order, inside of what it calls too; a product of blocks is none."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            yield equation
        inner = [equation.params[name] for name in ("jaxpr", "call_jaxpr", "fun_jaxpr") if name in equation.params]
        for part in inner:
            yield from convolutions(getattr(part, "jaxpr", part))


def test_what_leaves_the_unet_is_made_of_all_digits_and_the_inside_of_rounded_ones():
    """Also where a process asks for all digits everywhere else, as the studies do."""
    network = make_unet(channels=8, multipliers=(1, 2), embedding_size=16, heads=0)
    noisy = jnp.ones((8, 8, 2))
    params = network.init(jax.random.key(0), noisy, Condition())
    with jax.default_matmul_precision("float32"):
        features = network.encode(params, Condition())
        program = jax.make_jaxpr(lambda point: network.apply(params, point, jnp.asarray(0.1), features))(noisy)
    precisions = [equation.params["precision"] for equation in convolutions(program.jaxpr)]
    highest, default = (jax.lax.Precision.HIGHEST,) * 2, (jax.lax.Precision.DEFAULT,) * 2
    assert precisions[-1] == highest and precisions.count(default) == len(precisions) - 1 > 5
