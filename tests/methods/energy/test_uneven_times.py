"""A noisy recording at uneven times teaches the energy as well as one at even times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.gp.basis import efforts
from phdme_jax.methods.base import Examples, Start
from phdme_jax.methods.energy.posterior import PriorOptions, fit_energy
from phdme_jax.systems.energy.vibrating_string import string_structure

STRUCTURE = string_structure(24, order=8, damping=("kelvin_voigt_damping", "viscous_damping"))
EVEN = np.linspace(0.0, 20.0, 40)
STEP = EVEN[1]
TIMES = {
    "random": np.concatenate([[0.0], np.sort(np.random.default_rng(1).uniform(0.0, 20.0, 39))]),
    "pause": np.where(np.arange(40) >= 20, EVEN + 10 * STEP, EVEN),
    "logarithmic": np.geomspace(0.4, 20.4, 40) - 0.4,
    "near-coincident": np.where(np.arange(40) == 20, EVEN[19] + 1e-3 * STEP, EVEN),
}


def waves(count, seed, time, noise=0.0):
    """Standing waves of a linear string, whose efforts are its fields."""
    generator = np.random.default_rng(seed)
    z, mode = np.linspace(0.0, 10.0, 24), np.pi / 10 * np.arange(1, 4)[:, None, None]
    amplitude = 0.3 * generator.normal(size=(count, 3, 1, 1)) / np.arange(1, 4)[:, None, None]
    clock = mode * time[:, None] + generator.uniform(0.0, 6.28, (count, 3, 1, 1))
    strain = np.sum(amplitude * np.cos(mode * z) * np.cos(clock), axis=1)
    momentum = -np.sum(amplitude * np.sin(mode * z) * np.sin(clock), axis=1)
    state = np.stack([momentum, strain], axis=-1)
    state = state + noise * state.std(axis=(0, 1, 2)) * generator.normal(size=state.shape)
    state[:, :, [0, -1], 0] = 0.0
    return state


@pytest.fixture(scope="module")
def error():
    """Of the learned efforts, relative mean square, and the largest damping that was learned where there is none."""
    states = jnp.asarray(waves(5, 1, EVEN))

    def of(time):
        start = Start(np.zeros((4, 24, 2)), np.zeros((4, len(time), 0)))
        examples = Examples(waves(4, 0, time, 0.01), start, tuple(time.tolist()))
        basis, posterior, _ = fit_energy(STRUCTURE, examples, PriorOptions(12, 1.5, 16, 4, 0, 8))
        missed = jax.jit(efforts, static_argnums=0)(basis, posterior.mean, states) - states
        return float(jnp.mean(missed**2) / jnp.mean(states**2)), max(map(float, posterior.parameters.values()))

    return of


@pytest.mark.slow
def test_learned_energies_of_noisy_recordings_do_not_suffer_from_uneven_times(error):
    even, damping = error(EVEN)
    assert even < 1e-4 and damping < 3e-3
    found = {kind: error(time) for kind, time in TIMES.items()}
    assert all(value < 5 * even and loss < 5e-3 for value, loss in found.values()), (even, found)
