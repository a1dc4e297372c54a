"""Poisson's equation on a few points, networks of it with random parameters, and a host that trains nothing."""

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp

from phdme_jax.methods.base import Examples, Task
from phdme_jax.methods.equations import network as shared
from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.base import Equations
from tests.rough import rough

POISSON = make_equations("poisson_1d", num_points=20, num_waves=3)
SIZES = {"name": "mlp", "width": 16, "num_blocks": 1, "embedding_size": 16}
OPTIONS = {
    "data": {"kinds": ("linear", "linear")},
    "network": SIZES,
    "stages": dict.fromkeys(("diffusion", "informed", "flow", "merged"), ((1.0, 2, 4, 0.001), (3.0, 2, 4, 0.0001))),
    "informed": {"num_levels": 100},
    "training": {"ema_decay": 0.9, "predicts": "x0"},
    "sampling": {"num_steps": 8, "flow_steps": 10, "corrections": (4, 200)},
}
SAMPLES = jax.jit(jax.vmap(POISSON.draw))(jax.random.split(jax.random.key(0), 64))
EXAMPLES = Examples(SAMPLES.fields, SAMPLES.condition)


class World(NamedTuple):
    """A network in double precision, its encodings and random parameters, and one encoded example."""

    net: shared.EquationNetwork
    params: shared.Params
    example: shared.EncodedExample


@lru_cache
def world(sees_gradient: bool = False, equations: Equations = POISSON) -> World:
    """A network of Poisson's equation, or of a variant of it."""
    net = shared.EquationNetwork(equations, shared.make_network((20, 2), **SIZES), ("linear",) * 2, (20, 2), "float64")
    params = shared.fit_params(net, EXAMPLES)
    example = jax.tree.map(lambda leaf: leaf[0], shared.encode_examples(net, params, EXAMPLES))
    network = rough(shared.init_network(net, example, sees_gradient, jax.random.key(1)))
    return World(net, params._replace(network=network), example)


class Disturbing:
    """A host whose training adds noise to the parameters, and that writes down what it was asked."""

    def __init__(self):
        self.asked = []

    def train(self, stage, loss, params, data, key, **numbers):
        self.asked.append((stage, loss, data, key, numbers))
        return rough(params), 1.0

    def keep(self, name, make):
        return make()


def task():
    """Poisson's equation and 64 examples of it."""
    return Task(POISSON, lambda: EXAMPLES, lambda key, count: EXAMPLES.condition[:count], jax.random.key(0))


def sampled(fitted, key, params=None):
    """One sample of a fitted method, as the protocol draws it, before it is finished."""
    model, params = fitted.model, fitted.params if params is None else params
    return jax.jit(lambda p, k: model.draw(p, model.prepare(p, jnp.zeros((20, 0))), model.latent(k), k))(params, key)
