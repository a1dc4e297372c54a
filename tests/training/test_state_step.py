"""Optimiser, average, steps and chunks against hand-computed updates and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from phdme_jax.training import (
    MixedData,
    TrainState,
    conflict_free,
    draw_batch,
    example_keys,
    init_train_state,
    learning_rate_schedule,
    make_drawn_step,
    make_mixed_draw,
    make_optimizer,
    make_train_chunk,
    make_train_step,
    step_inputs,
    update_average,
)

DTYPES = [jnp.float32, jnp.float64]


def quadratic_loss(params, example, key):
    """(w . x - y)^2 / 2 whose gradient is (w . x - y) x."""
    error = params["w"] @ example["x"] - example["y"]
    return error**2 / 2, {"error": error}


def noisy_loss(params, example, key):
    """Two-layer network on a noisy input: uses its key, as a diffusion loss does."""
    noise = jax.random.normal(key, example["x"].shape, example["x"].dtype)
    hidden = jnp.tanh((example["x"] + 0.1 * noise) @ params["first"] + params["bias"])
    error = hidden @ params["second"] - example["y"]
    return jnp.mean(error**2), {"largest": jnp.max(jnp.abs(error))}


def convolution_loss(params, example, key):
    """Two convolutions on an image, to see the compiler's other kernels."""
    noise = jax.random.normal(key, example["image"].shape, example["image"].dtype)
    hidden = (example["image"] + noise)[None]
    for kernel in (params["in"], params["out"]):
        hidden = jax.nn.silu(
            jax.lax.conv_general_dilated(hidden, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        )
    return jnp.mean((hidden[0] - noise) ** 2), {}


def network(dtype, width=16):
    first, second = jax.random.split(jax.random.key(0))
    return {
        "first": jax.random.normal(first, (5, width), dtype),
        "bias": jnp.zeros((width,), dtype),
        "second": jax.random.normal(second, (width, 3), dtype),
    }


def regression_data(dtype, count=50):
    inputs, targets = jax.random.split(jax.random.key(1))
    return {"x": jax.random.normal(inputs, (count, 5), dtype), "y": jax.random.normal(targets, (count, 3), dtype)}


def leaves_equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))


def test_schedule_matches_formula():
    schedule = learning_rate_schedule(2e-3, warmup_steps=10, total_steps=110, final_fraction=0.1)
    expected = {0: 0.0, 5: 1e-3, 10: 2e-3, 60: 2e-3 * 0.55, 110: 2e-4, 500: 2e-4}
    for step, rate in expected.items():
        assert float(schedule(step)) == pytest.approx(rate, rel=1e-6, abs=1e-12)
    assert float(learning_rate_schedule(2e-3, 0, 100)(0)) == pytest.approx(2e-3)


@pytest.mark.parametrize("arguments", [(1e-3, 10, 10), (1e-3, -1, 10)])
def test_schedule_refuses_long_warmup(arguments):
    with pytest.raises(ValueError, match="warmup_steps < total_steps"):
        make_optimizer(*arguments)


def test_first_update_is_signed_learning_rate_with_decay():
    """At step 1, bias-corrected Adam moves by the rate times the sign of the gradient, whatever its size."""
    rate, decay = 1e-2, 0.1
    optimizer = make_optimizer(rate, 0, 100, weight_decay=decay)
    params = {"w": jnp.array([1.0, -2.0])}
    gradients = {"w": jnp.array([30.0, -40.0])}
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    expected = -rate * (jnp.array([1.0, -1.0]) + decay * params["w"])
    np.testing.assert_allclose(updates["w"], expected, rtol=1e-6)


def test_matrix_steps_are_orthogonal_whatever_the_gradients_condition_and_leave_vectors_to_adam():
    """Newton-Schulz evens singular values out; Adam's first Nesterov step is 0.9 x 0.1 / 0.19 + 1 times the sign."""
    random = np.random.default_rng(0)
    left, right = (np.linalg.qr(random.normal(size=(n, 4)))[0] for n in (8, 4))
    gradients = {"w": jnp.asarray(left * np.geomspace(1.0, 0.03, 4) @ right.T), "b": jnp.array([0.3, -4.0])}
    params = jax.tree.map(jnp.zeros_like, gradients)
    rate = 1e-2
    optimizer = make_optimizer(rate, 0, 100, clip_norm=1e9, matrix_steps=True)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    stretch = np.linalg.svd(np.asarray(updates["w"]), compute_uv=False)
    assert np.linalg.cond(np.asarray(gradients["w"])) > 30 and stretch.max() / stretch.min() < 2
    assert float(jnp.sum(updates["w"] * gradients["w"])) < 0  # downhill
    np.testing.assert_allclose(updates["b"], -rate * (0.09 / 0.19 + 1) * jnp.array([1.0, -1.0]), rtol=1e-4)


def test_clipping_bounds_the_second_moment():
    """The clipped gradient (norm 1) enters Adam's second moment, not the raw one (norm 50)."""
    optimizer = make_optimizer(1e-2, 0, 100, clip_norm=1.0)
    params = {"w": jnp.zeros(2)}
    _, state = optimizer.update({"w": jnp.array([30.0, -40.0])}, optimizer.init(params), params)
    second_moment = next(
        part.nu for part in jax.tree.leaves(state, is_leaf=lambda s: hasattr(s, "nu")) if hasattr(part, "nu")
    )
    np.testing.assert_allclose(second_moment["w"], 1e-3 * jnp.array([0.36, 0.64]), rtol=1e-6)


def test_average_recursion_and_warmup():
    values = [1.0, -3.0, 2.0, 5.0]
    average, by_hand = jnp.array(0.0), 0.0
    for step, value in enumerate(values):
        average = update_average(average, jnp.array(value), jnp.array(step, jnp.int32), 0.2)
        decay = min(0.2, (1 + step) / (10 + step))
        by_hand = decay * by_hand + (1 - decay) * value
        assert float(average) == pytest.approx(by_hand, rel=1e-12)
    assert (1 + 0) / 10 < 0.2 < (1 + 3) / 13  # both branches of the minimum were met


@pytest.mark.parametrize("dtype", DTYPES)
def test_step_equals_gradient_descent_by_hand(dtype):
    data = {"x": jnp.array([[1.0, 2.0], [3.0, -1.0]], dtype), "y": jnp.array([0.5, -1.0], dtype)}
    params = {"w": jnp.array([0.2, -0.4], dtype)}
    optimizer = optax.sgd(0.1)
    step = jax.jit(make_train_step(quadratic_loss, optimizer, ema_decay=0.999))
    state, metrics = step(init_train_state(params, optimizer), data, example_keys(jax.random.key(0), 0, 2))
    error = np.asarray(data["x"]) @ np.asarray(params["w"]) - np.asarray(data["y"])
    gradient = (error[:, None] * np.asarray(data["x"])).mean(0)
    moved = np.asarray(params["w"]) - 0.1 * gradient
    tolerance = {"rtol": 1e-6 if dtype == jnp.float32 else 1e-13}
    np.testing.assert_allclose(state.params["w"], moved, **tolerance)
    np.testing.assert_allclose(state.ema_params["w"], 0.1 * np.asarray(params["w"]) + 0.9 * moved, **tolerance)
    np.testing.assert_allclose(metrics["loss"], np.mean(error**2) / 2, **tolerance)
    np.testing.assert_allclose(metrics["error"], np.mean(error), **tolerance)
    np.testing.assert_allclose(metrics["grad_norm"], np.linalg.norm(gradient), **tolerance)
    assert int(state.step) == 1 and bool(metrics["finite"])
    assert state.params["w"].dtype == state.ema_params["w"].dtype == metrics["loss"].dtype == dtype


def test_float32_state_keeps_every_dtype_under_x64():
    optimizer = make_optimizer(1e-3, 5, 100, weight_decay=1e-2)
    state = init_train_state(network(jnp.float32), optimizer)
    step = make_train_step(noisy_loss, optimizer, 0.99)
    after, metrics = jax.eval_shape(step, state, regression_data(jnp.float32), example_keys(jax.random.key(0), 0, 50))
    assert [leaf.dtype for leaf in jax.tree.leaves(after)] == [leaf.dtype for leaf in jax.tree.leaves(state)]
    assert state.step.dtype == jnp.int32
    assert {metrics[name].dtype for name in ("loss", "grad_norm", "largest")} == {jnp.dtype("float32")}


@pytest.mark.parametrize("losses", [1, 2])
def test_slices_of_a_batch_add_up_to_the_step_of_the_whole(losses):
    def loss(params, example, key):
        value, metrics = noisy_loss(params, {name: example[name] for name in ("x", "y")}, key)
        return (value if losses == 1 else jnp.stack([value, jnp.sum(jax.tree.leaves(params)[0] ** 2)])), metrics

    optimizer = make_optimizer(1e-2, 0, 100)
    state, keys = init_train_state(network(jnp.float64), optimizer), example_keys(jax.random.key(0), 0, 50)
    batch = {**regression_data(jnp.float64), "nothing": jnp.zeros((50, 3, 0))}
    (whole, told), *others = (
        jax.jit(make_train_step(loss, optimizer, 0.99, slices=slices))(state, batch, keys) for slices in (1, 5, 50)
    )
    for state, metrics in others:
        for one, other in zip(jax.tree.leaves((state, metrics)), jax.tree.leaves((whole, told)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_step_refuses_reserved_metric_names():
    def loss(params, example, key):
        return params["w"].sum(), {"loss": params["w"].sum()}

    optimizer = optax.sgd(0.1)
    state = init_train_state({"w": jnp.ones(2)}, optimizer)
    with pytest.raises(ValueError, match=r"metrics named \['loss'\]"):
        make_train_step(loss, optimizer, 0.9)(state, {"x": jnp.ones((2, 1))}, example_keys(jax.random.key(0), 0, 2))


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_step_that_is_not_finite_changes_nothing(poison):
    """A non-finite loss, or a finite loss with a non-finite gradient (square root at zero), leaves the state alone."""

    def loss(params, example, key):
        if poison == "loss":
            return jnp.sum(params["w"]) * example, {}
        return jnp.sum(jnp.sqrt(jnp.abs(params["w"] * example))), {}

    optimizer = make_optimizer(1e-2, 0, 100)
    step = jax.jit(make_train_step(loss, optimizer, 0.9))
    keys = example_keys(jax.random.key(0), 0, 3)
    state, metrics = step(init_train_state({"w": jnp.ones(2)}, optimizer), jnp.ones(3), keys)
    assert bool(metrics["finite"]) and int(state.step) == 1
    bad = jnp.array([1.0, jnp.nan if poison == "loss" else 0.0, 1.0])
    after, metrics = step(state, bad, keys)
    assert bool(jnp.isfinite(metrics["loss"])) == (poison == "gradient")
    assert not bool(metrics["finite"]) and leaves_equal(after, state)
    again, metrics = step(after, jnp.ones(3), keys)
    assert bool(metrics["finite"]) and int(again.step) == 2 and not leaves_equal(again.params, state.params)


def test_init_owns_its_buffers():
    params = network(jnp.float32)
    kept = jax.tree.map(np.array, params)
    optimizer = optax.adam(1e-3)
    step = jax.jit(make_train_step(noisy_loss, optimizer, 0.9), donate_argnums=0)
    step(init_train_state(params, optimizer), regression_data(jnp.float32), example_keys(jax.random.key(0), 0, 50))
    assert leaves_equal(params, kept)


def test_example_keys_differ_by_step_and_example_and_repeat():
    key = jax.random.key(3)
    keys = jax.jit(jax.vmap(lambda step: example_keys(key, step, 8)))(jnp.arange(4))
    rows = np.asarray(jax.random.key_data(keys)).reshape(32, -1)
    assert len(np.unique(rows, axis=0)) == 32
    again = jax.jit(example_keys, static_argnums=2)(key, jnp.array(2, jnp.int32), 8)
    assert np.array_equal(jax.random.key_data(again), rows[16:24])


def test_draw_is_uniform_and_keeps_examples_together():
    dataset = {"x": jnp.arange(10.0), "label": 100 + jnp.arange(10)}
    draws = jax.jit(jax.vmap(lambda step: draw_batch(dataset, jax.random.key(0), step, 20)))(jnp.arange(500))
    assert np.array_equal(draws["x"] + 100, draws["label"])
    counts = np.bincount(np.asarray(draws["label"]).ravel() - 100, minlength=10)
    chi_square = np.sum((counts - 1000) ** 2 / 1000)
    assert 1.15 < chi_square < 27.9  # two-sided 0.1 % of chi-square with 9 degrees of freedom: random, not a rota


def test_draw_does_not_depend_on_x64():
    dataset = jnp.arange(1000, dtype=jnp.float32)
    wide = draw_batch(dataset, jax.random.key(0), 7, 16)
    with jax.enable_x64(False):
        narrow = draw_batch(dataset, jax.random.key(0), 7, 16)
    assert np.array_equal(wide, narrow)


@pytest.mark.parametrize("dataset", [{"a": jnp.ones((3, 2)), "b": jnp.ones((4, 2))}, jnp.ones((0, 2)), jnp.ones(())])
def test_draw_refuses_ragged_or_empty_datasets(dataset):
    with pytest.raises(ValueError, match="leading example axis"):
        draw_batch(dataset, jax.random.key(0), 0, 2)


def test_mixed_draw_share_and_independence():
    data = MixedData(synthetic=jnp.arange(1000.0), real=-1 - jnp.arange(3.0))
    draw = make_mixed_draw(0.25)
    draws = jax.jit(jax.vmap(lambda step: draw(data, jax.random.key(0), step, 32)))(jnp.arange(200))
    draws = np.asarray(draws)
    assert np.all(np.sum(draws < 0, axis=1) == 8)
    assert set(np.unique(draws[draws < 0])) == {-1.0, -2.0, -3.0}
    assert abs(np.mean(draws[draws >= 0]) - 499.5) < 4 * 1000 / np.sqrt(12 * 200 * 24)


def test_mixed_draw_refuses_what_it_cannot_mix():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="0 < real_fraction < 1"):
        make_mixed_draw(1.0)
    with pytest.raises(ValueError, match="0 real examples"):
        make_mixed_draw(0.01)(MixedData(jnp.ones(5), jnp.ones(5)), key, 0, 8)
    with pytest.raises(ValueError, match="expected real examples like"):
        make_mixed_draw(0.5)(MixedData(jnp.ones((5, 2)), jnp.ones((5, 3))), key, 0, 8)


def run_single_steps(train_step, state, dataset, key, num_steps):
    single, inputs = jax.jit(train_step), jax.jit(step_inputs, static_argnums=(0, 4))
    losses = []
    for _ in range(num_steps):
        state, metrics = single(state, *inputs(draw_batch, dataset, key, state.step, 16))
        losses.append(metrics["loss"])
    return state, np.asarray(losses)


@pytest.mark.parametrize("dtype", DTYPES)
def test_chunks_equal_single_steps_bit_for_bit(dtype):
    params, dataset, key = network(dtype), regression_data(dtype), jax.random.key(7)
    optimizer = make_optimizer(1e-2, 3, 100)
    train_step = make_train_step(noisy_loss, optimizer, 0.99)
    state, losses = run_single_steps(train_step, init_train_state(params, optimizer), dataset, key, 12)
    chunk = jax.jit(make_train_chunk(train_step, draw_batch, 16, 6))
    chunked, first = chunk(init_train_state(params, optimizer), dataset, key)
    chunked, second = chunk(chunked, dataset, key)
    assert leaves_equal(chunked, state)
    assert np.array_equal(np.concatenate([first["loss"], second["loss"]]), losses)
    assert int(state.step) == 12 and not leaves_equal(state.params, params)


def test_convolutions_drawn_steps_equal_single_steps_and_chunks_equal_each_other():
    """Where a scan rounds convolutions differently, it still does so in the same way for every chunk length."""
    first, second, third = jax.random.split(jax.random.key(5), 3)
    params = {
        "in": 0.3 * jax.random.normal(first, (3, 3, 2, 4), jnp.float32),
        "out": 0.3 * jax.random.normal(second, (3, 3, 4, 2), jnp.float32),
    }
    dataset, key = {"image": jax.random.normal(third, (40, 8, 8, 2), jnp.float32)}, jax.random.key(7)
    optimizer = optax.sgd(1e-1)
    train_step = make_train_step(convolution_loss, optimizer, 0.99)
    start = init_train_state(params, optimizer)
    state, _ = run_single_steps(train_step, start, dataset, key, 6)
    drawn, drawn_step = start, jax.jit(make_drawn_step(train_step, draw_batch, 16))
    for _ in range(6):
        drawn, _ = drawn_step(drawn, dataset, key)
    assert leaves_equal(drawn, state)
    long, short = (jax.jit(make_train_chunk(train_step, draw_batch, 16, length)) for length in (6, 2))
    chunked, pieces = long(start, dataset, key)[0], start
    for _ in range(3):
        pieces, _ = short(pieces, dataset, key)
    assert leaves_equal(chunked, pieces)
    for ours, theirs in zip(jax.tree.leaves(chunked.params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_chunk_stays_at_the_failing_step():
    dataset = {"x": jnp.ones((4, 5)), "y": jnp.ones((4, 3))}

    def loss(params, example, key):
        value, metrics = noisy_loss(params, example, key)
        return jnp.where(params["bias"][0] < -0.025, jnp.nan, value), metrics

    optimizer = optax.chain(optax.scale(0.0), optax.add_decayed_weights(0.0), optax.stateless(_descend))
    chunk = jax.jit(make_train_chunk(make_train_step(loss, optimizer, 0.9), draw_batch, 4, 6))
    state, metrics = chunk(init_train_state(network(jnp.float64), optimizer), dataset, jax.random.key(0))
    assert np.array_equal(metrics["finite"], [True, True, True, False, False, False])
    assert int(state.step) == 3
    assert float(state.params["bias"][0]) == pytest.approx(-0.03)


def _descend(updates, params):
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, -0.01), updates)


def test_training_reduces_the_loss_to_the_least_squares_solution():
    """On a linear problem the chunk reaches the solution of the normal equations."""
    inputs = jax.random.normal(jax.random.key(1), (64, 4))
    solution = jnp.array([1.0, -2.0, 0.5, 3.0])
    dataset = {"x": inputs, "y": inputs @ solution}
    optimizer = make_optimizer(5e-2, 20, 1500)
    chunk = jax.jit(make_train_chunk(make_train_step(quadratic_loss, optimizer, 0.99), draw_batch, 16, 1500))
    state, metrics = chunk(init_train_state({"w": jnp.zeros(4)}, optimizer), dataset, jax.random.key(0))
    np.testing.assert_allclose(state.params["w"], solution, atol=1e-4)
    assert isinstance(state, TrainState) and metrics["loss"].shape == (1500,)


def test_merged_gradient_descends_on_both_losses_alike():
    random = np.random.default_rng(0)
    first = {"a": jnp.asarray(random.standard_normal(5)), "b": jnp.asarray(random.standard_normal((2, 3)))}
    second = jax.tree.map(lambda leaf: -0.9 * leaf + 0.01 * jnp.asarray(random.standard_normal(leaf.shape)), first)
    second = jax.tree.map(lambda leaf: 100.0 * leaf, second)
    merged = conflict_free(first, second)

    def flat(tree):
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])

    g, one, two = flat(merged), flat(first), flat(second)
    alike = [g @ one / np.linalg.norm(one), g @ two / np.linalg.norm(two)]
    assert one @ two < 0 < alike[0]
    np.testing.assert_allclose(alike[0], alike[1], rtol=1e-8)
    direction = g / np.linalg.norm(g)
    np.testing.assert_allclose(np.linalg.norm(g), one @ direction + two @ direction, rtol=1e-8)
    alone = flat(conflict_free(first, jax.tree.map(jnp.zeros_like, first)))
    np.testing.assert_allclose(alone, one, rtol=1e-10)


def test_two_losses_of_one_example_are_merged_and_one_is_not():
    optimizer, params = optax.sgd(1.0), {"w": jnp.array([1.0, 2.0])}
    batch, keys = jnp.array([[1.0, 0.0], [3.0, 1.0]]), jax.random.split(jax.random.key(0), 2)

    def losses(params, example, key):
        del key
        return jnp.stack([jnp.sum((params["w"] - example) ** 2), jnp.sum(params["w"]) ** 2]), {}

    state = init_train_state(params, optimizer)
    new, metrics = jax.jit(make_train_step(losses, optimizer, 0.9))(state, batch, keys)

    def mean_loss(params, which):
        return jnp.mean(jax.vmap(lambda example: losses(params, example, None)[0][which])(batch))

    gradients = [jax.grad(mean_loss)(params, which) for which in (0, 1)]
    expected = conflict_free(*gradients)["w"]
    np.testing.assert_allclose(params["w"] - new.params["w"], expected, rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], np.mean([4.0, 5.0]) + 9.0, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_the_average_of_parameters_in_half_precision_follows_them(dtype):
    """A decay of 0.999 is one in bfloat16, and 70,000 steps are infinite in float16."""
    state = init_train_state({"w": jnp.zeros(1, dtype)}, optax.sgd(0.1))
    assert state.params["w"].dtype == dtype and state.ema_params["w"].dtype == jnp.float32
    step = jax.jit(lambda average, k: update_average(average, {"w": jnp.ones(1, dtype)}, k, 0.999))
    average = jax.lax.fori_loop(70_000, 71_000, lambda k, average: step(average, k), state.ema_params)
    np.testing.assert_allclose(average["w"], 1 - 0.999**1000, rtol=1e-4)
