"""Equal static records are equal, find what was compiled for one another, and come back from a pickle."""

import pickle
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from phdme_jax.diffusion.mlp import make_mlp
from phdme_jax.diffusion.preconditioning import precondition
from phdme_jax.diffusion.schedule import SCHEDULES, CosineSchedule
from phdme_jax.diffusion.unet import make_unet
from phdme_jax.forecasting.structures import STRUCTURES
from phdme_jax.methods.table import METHODS
from phdme_jax.systems import EQUATIONS, SYSTEMS
from phdme_jax.systems.energy.alternatives import with_dissipation, with_opposite_sign, without_dissipation
from phdme_jax.systems.energy.base import with_inputs
from phdme_jax.systems.energy.oscillators import chain_structure, oscillator_structure
from phdme_jax.systems.energy.shallow_water import shallow_water_structure
from phdme_jax.systems.energy.vibrating_string import string_structure

FACTORIES = {
    **SYSTEMS,
    **EQUATIONS,
    **{f"{name} schedule": schedule for name, schedule in SCHEDULES.items()},
    **{f"{name} of fit": partial(known.build, num_points=16, length=1.0) for name, known in STRUCTURES.items()},
    "string by parts": partial(string_structure, closure="sbp"),
    "water by parts": partial(shallow_water_structure, closure="sbp"),
    "chain": lambda: chain_structure("chain", (1.0, 2.0)),
    "inputs": lambda: with_inputs(oscillator_structure(driven=True)),
    "without dissipation": lambda: without_dissipation(string_structure()),
    "with dissipation": lambda: with_dissipation(string_structure(), 1),
    "opposite sign": lambda: with_opposite_sign(string_structure()),
    "mlp": partial(make_mlp, shape=(3, 2)),
    "unet": lambda: precondition(make_unet(flat_time=True), CosineSchedule()),
}


@pytest.mark.parametrize("name", FACTORIES)
def test_records_made_alike_are_equal_and_come_back_from_a_pickle(name):
    first, second = (FACTORIES[name]() for _ in range(2))
    back = pickle.loads(pickle.dumps(first))
    assert first is not second and first == second == back
    assert hash(first) == hash(second) == hash(back)


@pytest.mark.parametrize("name", METHODS)
def test_methods_come_back_from_a_pickle(name):
    assert pickle.loads(pickle.dumps(METHODS[name])) == METHODS[name]


def test_records_made_otherwise_are_not_equal():
    others = [{"num_points": 32}, {"length": 3.0}, {"order": 2}, {"closure": "sbp"}, {"damping": ()}, {"name": "other"}]
    records = [string_structure(**options) for options in ({}, *others)]
    assert len(set(records)) == len(records)
    assert with_dissipation(records[0], 0) != with_dissipation(records[0], 1)
    assert SYSTEMS["vibrating_string"](stress="linear") != SYSTEMS["vibrating_string"]()


def test_a_program_is_compiled_once_for_equal_records():
    traces = []

    @partial(jax.jit, static_argnums=0)
    def constrained(structure, state):
        traces.append(structure)
        return structure.constrain(state)

    for _ in range(2):
        constrained(string_structure(), jnp.ones((64, 2)))
    constrained(pickle.loads(pickle.dumps(string_structure())), jnp.ones((64, 2)))
    assert len(traces) == 1
