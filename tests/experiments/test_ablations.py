"""Variants are what their settings say: one change each, of something that there is."""

from experiments.ablations import STUDY
from experiments.data.fields import ALTERNATIVES
from experiments.study.runner import changed
from phdme_jax.methods.energy.options import WEIGHTS
from phdme_jax.methods.table import METHODS

# what no configuration names unless it is changed: the first of each is what a fit does without
UNNAMED = {"physics.weights": WEIGHTS, "structure.alternative": (None, *ALTERNATIVES)}


def test_every_variant_changes_one_thing_that_there_is():
    config = STUDY.get_config("laptop")
    config.lock()
    variants = list(STUDY.variants(config))
    assert len(set(variants)) == len(variants)
    for variant in variants:
        assert len(variant.changes) <= 1
        for key, value in variant.changes:
            group, name = key.split(".")
            if key in UNNAMED:
                assert name not in config[group] and value in UNNAMED[key][1:]
            else:
                assert type(config[group][name]) is type(value) and config[group][name] != value
            assert changed(config, variant.changes)[group][name] == value
            assert config[group].get(name) != value


def test_all_alternatives_are_learned_with_and_all_ways_to_weigh_are_tried():
    tried = [change for variant in STUDY.variants(STUDY.get_config("laptop")) for change in variant.changes]
    for key, values in UNNAMED.items():
        assert [value for name, value in tried if name == key] == list(values[1:])


def test_variants_with_and_without_the_residual_have_the_same_draws():
    assert METHODS["diffusion"].stream == METHODS["diffusion_physics"].stream
    assert METHODS["diffusion_augmented"].stream != METHODS["phdme"].stream
