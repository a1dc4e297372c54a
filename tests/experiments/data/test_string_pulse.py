"""The published study of the string: what is observed, and that an energy is learned from it."""

from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.data import string_pulse
from experiments.string_prior import groups
from phdme_jax.systems.energy.vibrating_string import KELVIN_VOIGT

pytestmark = pytest.mark.slow

CASE = "vibrating_string"


def small(**changes):
    config = ConfigDict(groups("smoke"))
    config.published.update({"num_points": 40, "num_sites": (20, 60)})
    config.update({"duration": 4.0, "num_frames": 41, "prior": {"main": 12}, **changes})
    return config


@pytest.fixture(scope="module")
def world():
    return string_pulse.world_of_rates(small(), CASE, 0, 0)


def test_rates_are_those_of_the_pulse_and_their_noise_is_ten_per_cent(world):
    # at rest only the momentum moves, by the force of the strain
    assert np.abs(world.exact[0, :, 1]).max() < 1e-9 < np.abs(world.exact[0, :, 0]).max()
    noise = (world.noisy - world.exact) / world.exact.std(axis=(0, 1))
    assert noise.std() == pytest.approx(0.1, rel=0.05)
    other = string_pulse.world_of_rates(small(), CASE, 1, 0)
    np.testing.assert_array_equal(other.exact, world.exact)
    assert not np.array_equal(other.drawn[20], world.drawn[20])


def test_sites_are_interior_and_chosen_ones_are_distinct(world):
    for count, sites in world.drawn.items():
        assert sites.shape == (count, 2) and sites.min(axis=0)[1] >= 1
        assert sites.max(axis=0)[1] < world.pulse.shape[1] - 1


def learned_damping(**changes):
    bench = string_pulse.pulse_bench(
        SimpleNamespace(asked="validation", validates=True), small(sites=20, choice="chosen", **changes), CASE, 0
    )
    return bench.task.energy(bench.options, bench.key, False).found[KELVIN_VOIGT]


def test_exact_rates_at_chosen_sites_give_the_damping_and_noisy_ones_do_not():
    true = small().damping
    exact, noisy = (abs(learned_damping(**changes) / true - 1) for changes in ({}, {"rate_noise": 0.1}))
    assert exact < 1e-4 < 1e-3 < noisy
