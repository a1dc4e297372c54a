"""Points of the unit circle, a task on which students and their teacher are trained in seconds."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from phdme_jax.methods.base import Examples, Task, stage_key
from phdme_jax.methods.presets import INFORMED, MLP, equation_groups, equation_stages
from phdme_jax.methods.table import METHODS
from phdme_jax.systems import make_equations
from phdme_jax.training.stages import Trainer

KEY = jax.random.key(5)
NETWORK = {**MLP, "width": 64}
OPTIONS = {
    "data": {"kinds": ("linear", "linear")},
    "network": NETWORK,
    "stages": {
        **equation_stages(1500, 64, 2e-3),
        "distilled": ((0.0, 300, 64, 1e-3), (1.0, 1000, 64, 1e-3)),
        "flow_map": ((1.0, 3000, 64, 1e-3),),
    },
    "informed": {"mean_weight": 1.0, "sample_weight": 1.0, **INFORMED},
    **equation_groups("x0", {"refinement_rate": 0.03}),
    "distilled": {"num_pairs": 2000, "num_calls": 24, "residual_weight": 1.0},
}


@lru_cache
def task():
    """Two thousand points."""
    equations = make_equations("circle")
    fields = np.asarray(jax.vmap(lambda key: equations.draw(key).fields)(jax.random.split(KEY, 2000)))
    train = Examples(fields, np.zeros((len(fields), 0)))
    return Task(equations, lambda: train, lambda key, count: train.condition[:count], KEY)


@lru_cache
def fitted(name):
    """A method after its teacher, each trained once."""
    method = METHODS[name]
    teacher = fitted(method.teacher) if method.teacher else None
    return method.fit(task(), OPTIONS, Trainer(), teacher, stage_key(KEY, "method", method.stream))


def drawn(name, count=1000):
    """Points of a method, (count, 2)."""
    fit = fitted(name)
    prepared = fit.model.prepare(fit.params, jnp.zeros((0,)))

    def one(key):
        return fit.model.draw(fit.params, prepared, fit.model.latent(key), key)

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(8), count)))


def reaches_all_around(points):
    """Whether 6 % of the points lie in each eighth of the circle; of even ones it is 12.5 %."""
    angle = np.arctan2(points[:, 1], points[:, 0])
    return np.histogram(angle, bins=8, range=(-np.pi, np.pi))[0].min() > 0.06 * len(points)
