"""Data of a damped wave tell a right structure from wrong ones."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.forecasting.forecaster import starts_from
from phdme_jax.forecasting.structure_check import check_structure
from phdme_jax.methods.base import Examples, Fitted, Task
from phdme_jax.methods.energy import gp_rollout
from phdme_jax.numerics.stepping import rk4_step, rollout
from phdme_jax.systems import make_system
from phdme_jax.systems.energy.alternatives import with_opposite_sign, without_dissipation
from phdme_jax.systems.energy.base import System, parameter_values, vector_field
from phdme_jax.training.stages import Trainer

pytestmark = pytest.mark.slow

TIMES = tuple(np.linspace(0.0, 8.0, 33).tolist())
OPTIONS = {"prior": {"main": 8, "margin": 1.5, "time_tests": 16, "space_tests": 8, "substeps": 2}}


@pytest.fixture(scope="module")
def observed():
    """Two trajectories of a string with Kelvin-Voigt damping, noise of half a per cent."""
    system = make_system("vibrating_string", num_points=24, damping=0.05)
    field = partial(vector_field, system.structure, system.density, parameters=parameter_values(system, jnp.float64))
    starts = jax.vmap(system.initial_state("random_smooth"))(jax.random.split(jax.random.key(3), 2))
    solve = jax.vmap(lambda x: rollout(lambda y, dt: (rk4_step(field, y, dt), dt), x, jnp.asarray(TIMES), 8))
    states = np.asarray(jax.jit(solve)(starts))
    noise = np.random.default_rng(0).normal(size=states.shape) * states.std(axis=(0, 1, 2))
    return system.structure, states + 0.005 * noise


def check(observed, structure):
    examples = Examples(observed[1], starts_from(observed[1][:, 0], TIMES), TIMES)
    task = Task(None, lambda: examples, lambda key, count: None, jax.random.key(0), TIMES)

    def refit(other):
        return gp_rollout.fit(replace(task, problem=System(other)), OPTIONS, Trainer(), None, task.key)

    return check_structure(structure, refit(structure), refit)


def test_the_right_structure_passes(observed):
    found = check(observed, observed[0])
    assert found.skew and found.warnings == () and found.gains["opposite_sign"] < -10


def test_missing_dissipation_is_noticed_where_it_is_missing(observed):
    found = check(observed, without_dissipation(observed[0]))
    assert len(found.warnings) == 1 and "dissipation of momentum" in found.warnings[0]


def test_the_opposite_sign_is_noticed(observed):
    assert any("opposite sign" in text for text in check(observed, with_opposite_sign(observed[0])).warnings)


def test_a_row_with_the_other_sign_is_not_skew(observed):
    """Told from the structure alone, whatever the evidence."""
    equal = Fitted(None, SimpleNamespace(objective=0.0), {})
    found = check_structure(with_opposite_sign(observed[0], 0), equal, lambda structure: equal)
    assert not found.skew and len(found.warnings) == 1 and "not skew" in found.warnings[0]
