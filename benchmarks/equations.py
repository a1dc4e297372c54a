"""What is timed of known equations: their data, plane elasticity, a step of the U-Net's training."""

import importlib.util
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import sparse
from scipy.sparse.linalg import splu

from benchmarks.harness import Timing, measure, measure_in_turn, record, times_peer
from phdme_jax.diffusion import make_unet
from phdme_jax.diffusion.convolution import convolve
from phdme_jax.diffusion.networks import Condition
from phdme_jax.systems import make_equations
from phdme_jax.systems.equations import elasticity

Row = dict[str, Any]
SIZES: dict[str, Any] = {
    "channels": 32,
    "multipliers": (1, 2, 4, 8),
    "num_blocks": 2,
    "embedding_size": 128,
    "heads": 4,
}


def darcy_data() -> Iterator[Row]:
    """Examples of Darcy flow at 64 x 64 in double precision, 32 one after the other and side by side."""
    keys = jax.random.split(jax.random.key(0), 32)
    for name in ("darcy_kle", "darcy_nodal"):
        equations = make_equations(name, num_points=64)
        one = lambda key, equations=equations: equations.draw(key).fields  # noqa: E731
        for part, many in (("in turn", lambda keys, one=one: jax.lax.map(one, keys)), ("at once", jax.vmap(one))):
            timing, _ = measure(many, keys, runs=5)
            yield record(name, f"32 examples {part}, 64 x 64", timing, seconds_per_example=timing.median / 32)


def elasticity_residual() -> Iterator[Row]:
    """Residual of eight bodies of 64 x 64 squares in single precision, and their equilibria in double precision."""
    random = np.random.default_rng(0)
    density = jnp.asarray(random.uniform(0.001, 1.0, (8, 64, 64)))
    field = jnp.asarray(random.standard_normal((8, 65, 65, 2)))
    load = jnp.zeros_like(field).at[:, -1, 32, 1].set(1.0)
    fixed = jnp.zeros_like(field).at[:, 0].set(1.0)
    narrow = [part.astype(jnp.float32) for part in (field, density, load, fixed)]
    timing, _ = measure(jax.vmap(elasticity.equilibrium_residual), *narrow, runs=50)
    yield record("elasticity", "residual, 8 bodies of 64 x 64 squares", timing)
    timing, _ = measure(jax.vmap(elasticity.solve_equilibrium), density, load, fixed, runs=5)
    yield record("elasticity", "equilibrium, 8 bodies of 64 x 64 squares", timing)


def bodies() -> Iterator[Row]:
    """Equilibrium of a body of 32 or 64 squares, assembly included, beside scipy's SuperLU of the same system.

    The limit is the elimination's operations at the rate of a product of two matrices measured in the same run.
    """
    random = np.random.default_rng(0)
    for size in (32, 64):
        stiffness = jnp.asarray(1e-3 + random.uniform(0.0, 1.0, (size, size)) ** 3)
        load = jnp.zeros((size + 1, size + 1, 2)).at[-1, size // 2, 1].set(1.0)
        fixed = jnp.zeros_like(load).at[0].set(1.0)
        peer = partial(_sparse_equilibrium, *_places(size))
        matrix = jnp.asarray(random.standard_normal((512, 512)))
        solvers: dict[str, Callable[..., Any]] = {
            "ours": elasticity.solve_equilibrium,
            "SuperLU": peer,
            "product": lambda e, *_, m=matrix: (m + e[0, 0]) @ m,
        }
        timed = measure_in_turn(solvers, stiffness, load, fixed, host=("SuperLU",), runs=25)
        product, found = timed.pop("product")[0], {name: np.asarray(result) for name, (_, result) in timed.items()}
        least = (size + 1) * 2 / 3 * (2 * (size + 1)) ** 3 / 512**3 * product.median
        apart = float(np.abs(found["ours"] - found["SuperLU"]).max() / np.abs(found["SuperLU"]).max())
        for name, (timing, _) in timed.items():
            facts = {"apart": apart, "limit_seconds": least, **times_peer(timing, timed["SuperLU"][0])}
            yield record("bodies", f"{size} squares: {name}", timing, **facts)


def _places(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each entry of each square's stiffness."""
    x, y = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    nodes = np.stack([(x + a) * (size + 1) + y + b for a, b in elasticity.CORNERS], -1).reshape(-1, 4)
    places = np.stack([2 * nodes, 2 * nodes + 1], -1).reshape(-1, 8)
    return np.repeat(places, 8, axis=1).ravel(), np.tile(places, (1, 8)).ravel()


def _sparse_equilibrium(rows: np.ndarray, columns: np.ndarray, stiffness: Any, load: Any, fixed: Any) -> np.ndarray:
    values = np.ravel(np.asarray(stiffness)[..., None, None] * elasticity.element_stiffness())
    free, force = np.flatnonzero(np.ravel(fixed) < 0.5), np.ravel(load)
    matrix = sparse.coo_matrix((values, (rows, columns)), shape=(force.size,) * 2).tocsc()[free][:, free]
    options = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
    solved = np.zeros(force.size)
    solved[free] = splu(matrix, **options).solve(force[free])
    return solved.reshape(load.shape)


def unet_step() -> Iterator[Row]:
    """A step of training at 64 x 64, batch 4, two channels, single precision: here, and in PyTorch where installed.

    Both networks have the same parameters, whose outputs must agree; both take a step of Adam on a squared error.
    """
    network = make_unet(**SIZES)
    noisy = jax.random.normal(jax.random.key(0), (4, 64, 64, 2), jnp.float32)
    target = jax.random.normal(jax.random.key(1), noisy.shape, noisy.dtype)
    level = jnp.linspace(-1.0, 1.0, 4, dtype=noisy.dtype)
    params = network.init(jax.random.key(2), noisy[0], Condition())
    # kernels that start at zero would leave most of the network without effect
    params = jax.tree.map(lambda leaf: leaf + 0.02 * np.sin(np.arange(leaf.size)).reshape(leaf.shape), params)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    optimizer = optax.adam(1e-4)

    def forward(params: Any, noisy: Any, level: Any) -> Any:
        features = network.encode(params, Condition())
        return jax.vmap(lambda x, l: network.apply(params, x, l, features))(noisy, level)

    def step(params: Any, state: Any, noisy: Any, level: Any, target: Any) -> Any:
        loss = lambda p: jnp.mean((forward(p, noisy, level) - target) ** 2)  # noqa: E731
        value, slope = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(slope, state, params)
        return optax.apply_updates(params, updates), state, value

    timing, (_, _, value) = measure(step, params, optimizer.init(params), noisy, level, target, runs=15, seconds=60.0)
    yield record("unet_step", "jax, 64 x 64, batch 4, float32", timing)
    if importlib.util.find_spec("torch") is None:
        print("unet_step: PyTorch is not installed; pip install -e '.[peers]' for the comparison")
        return
    output = np.asarray(jax.jit(forward)(params, noisy, level))
    for compiled in (False, True):
        timing, found, other = _torch_step(params, [np.asarray(x) for x in (noisy, level, target)], compiled)
        apart = float(np.abs(output - found).max() / np.abs(output).max())
        if apart > 1e-3 or abs(other / float(value) - 1) > 1e-3:
            raise RuntimeError(f"expected the same outputs and losses, got {apart:.2g} apart, {other} and {value}")
        name = "torch, compiled" if compiled else "torch"
        yield record("unet_step", f"{name}, 64 x 64, batch 4, float32", timing, apart=apart)


def _torch_step(params: Any, arrays: list[np.ndarray], compiled: bool) -> tuple[Timing, np.ndarray, float]:
    import torch

    from benchmarks.torch_unet import UNet

    network = UNet(2, *SIZES.values())
    network.take(jax.tree.map(np.asarray, params))
    noisy, target = (torch.tensor(part.transpose(0, 3, 1, 2).copy()) for part in (arrays[0], arrays[2]))
    level = torch.tensor(arrays[1])
    noisy = noisy.to(memory_format=torch.channels_last)
    network = network.to(memory_format=torch.channels_last)
    with torch.no_grad():
        found = network(noisy, level).numpy().transpose(0, 2, 3, 1)
    run: Any = torch.compile(network) if compiled else network
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.mean((run(noisy, level) - target) ** 2)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    began = time.perf_counter()
    first = step()
    compile_seconds = time.perf_counter() - began if compiled else None
    timing, _ = measure(step, compiled=False, runs=15, seconds=60.0)
    return Timing(compile_seconds, timing.median, timing.quartiles, timing.processor_median, timing.runs), found, first


def gradient_loop() -> Iterator[Row]:
    """Four gradients through a convolution of 32 images in a loop, and by XLA's own convolution; each image size.

    The second is what a loop costs where its gradient is left to XLA.
    """
    for size, channels in ((32, 16), (16, 32), (8, 64)):
        keys = jax.random.split(jax.random.key(0), 2)
        images = jax.random.normal(keys[0], (32, size, size, channels), jnp.float32)
        kernel = 0.1 * jax.random.normal(keys[1], (3, 3, channels, channels), jnp.float32)
        for part, convolution in (("ours", convolve), ("XLA's", jax.lax.conv_general_dilated)):
            apply = partial(convolution, dimension_numbers=("NHWC", "HWIO", "NHWC"))

            def descend(images: jax.Array, kernel: jax.Array, apply: Callable[..., Any] = apply) -> jax.Array:
                def energy(images: jax.Array) -> jax.Array:
                    hidden = jnp.tanh(apply(images, kernel, (1, 1), "SAME"))
                    return jnp.sum(jnp.sin(apply(hidden, kernel, (1, 1), "SAME")))

                def step(images: jax.Array, _: None) -> tuple[jax.Array, None]:
                    return images - 0.01 * jax.grad(energy)(images), None

                return jax.lax.scan(step, images, None, length=4)[0]

            timing, _ = measure(descend, images, kernel, runs=5)
            yield record("convolution", f"4 gradients in a loop, {size} x {size} x {channels}, {part}", timing)
