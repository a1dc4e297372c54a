"""Variants are what their names say: one change each, and weights that keep what they should."""

import numpy as np
import pytest

from experiments.ablations import STRUCTURES, VARIANTS, changed_weights
from experiments.configs.ablations import get_config


def test_every_variant_changes_a_number_that_there_is():
    config = get_config("laptop")
    for variant in VARIANTS.values():
        for key, value in variant.changes:
            group, name = key.split(".")
            assert type(config[group][name]) is type(value) and config[group][name] != value
        assert variant.structure in STRUCTURES
        assert sum((bool(variant.changes), variant.weights != "uncertainty", variant.structure != "given")) <= 1


def test_variants_with_and_without_the_residual_have_the_same_draws():
    pairs = (("phdme", "phdme_residual_weight_0"), ("diffusion", "diffusion_physics"))
    for left, right in pairs:
        assert VARIANTS[left].method.stream == VARIANTS[right].method.stream
    assert VARIANTS["diffusion_augmented"].method.stream != VARIANTS["phdme"].method.stream


def test_even_weights_keep_their_mean_and_shuffled_ones_their_values():
    weights = np.random.default_rng(0).uniform(0.1, 3.0, size=(4, 5, 6, 2)).astype(np.float32)
    even, shuffled = changed_weights(weights, "off", 0), changed_weights(weights, "shuffled", 0)
    np.testing.assert_allclose(even, np.broadcast_to(weights.mean(axis=(0, 1, 2)), weights.shape), rtol=1e-6)
    assert not np.array_equal(shuffled, weights)
    for field in range(2):
        np.testing.assert_array_equal(np.sort(shuffled[..., field].ravel()), np.sort(weights[..., field].ravel()))
    assert changed_weights(weights, "uncertainty", 0) is weights
    with pytest.raises(ValueError, match="uncertainty, off or shuffled"):
        changed_weights(weights, "on", 0)
