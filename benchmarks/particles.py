"""What is timed of particles: trajectories on springs, a step of training of the network that commutes with turns."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.harness import measure, record
from phdme_jax.diffusion import make_space_time
from phdme_jax.diffusion.networks import Condition
from phdme_jax.systems import make_equations

Row = dict[str, Any]
SIZES: dict[str, Any] = {"width": 32, "vector_channels": 16, "layers": 3, "heads": 4, "embedding_size": 32}
FRAMES, PARTICLES, BATCH = 20, 5, 32


def springs_data() -> Iterator[Row]:
    """Trajectories of five particles on springs, 49 frames as published, in double precision, 2,000 side by side."""
    equations = make_equations("five_springs", num_frames=49)
    keys = jax.random.split(jax.random.key(0), 2000)
    timing, _ = measure(jax.vmap(lambda key: equations.draw(key).fields), keys, runs=5)
    yield record("springs_data", "2,000 trajectories, 49 frames", timing)


def equivariant_step() -> Iterator[Row]:
    """Gradient of a squared error and step of Adam, single precision, of the network that commutes and of the other."""
    shape = (FRAMES, PARTICLES, 4)
    noisy, target = jax.random.normal(jax.random.key(0), (2, BATCH, *shape), jnp.float32)
    coupling = jnp.broadcast_to(1.0 - jnp.eye(PARTICLES, dtype=jnp.float32), (FRAMES, PARTICLES, PARTICLES))
    level = jnp.linspace(-1.0, 1.0, BATCH, dtype=jnp.float32)
    for equivariant in (True, False):
        network = make_space_time(**SIZES, equivariant=equivariant)
        params = network.init(jax.random.key(1), noisy[0], Condition(rollout=coupling))
        # kernels that start at zero would leave most of the network without effect
        params = jax.tree.map(lambda leaf: leaf + 0.02 * np.sin(np.arange(leaf.size)).reshape(leaf.shape), params)
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
        optimizer = optax.adam(1e-4)

        def step(params: Any, state: Any, network: Any = network, optimizer: Any = optimizer) -> Any:
            def loss(params: Any) -> jax.Array:
                features = network.encode(params, Condition(rollout=coupling))
                found = jax.vmap(lambda x, l: network.apply(params, x, l, features))(noisy, level)
                return jnp.mean((found - target) ** 2)

            value, slope = jax.value_and_grad(loss)(params)
            updates, state = optimizer.update(slope, state, params)
            return optax.apply_updates(params, updates), state, value

        timing, _ = measure(step, params, optimizer.init(params), runs=15, seconds=30.0)
        name = "commutes" if equivariant else "does not commute"
        yield record("equivariant_step", f"{name}, {FRAMES} frames, {PARTICLES} particles, batch {BATCH}", timing)
