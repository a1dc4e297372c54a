"""Numbers with which a run would fail late, or learn nothing, are refused before it begins."""

from copy import deepcopy

import pytest
from ml_collections import ConfigDict

from phdme_jax import make_options
from phdme_jax.app.overrides import apply_overrides
from phdme_jax.files import InputError, flatten, unflatten
from phdme_jax.forecasting.options import RANGES


@pytest.mark.parametrize(
    ("key", "text", "part"),
    [
        ("sampling.num_samples", "0", "at least 1, got 0"),
        ("sampling.num_steps", "0", "at least 1, got 0"),
        ("rollouts.count", "1", "at least 2, got 1"),
        ("prior.time_tests", "0", "at least 1, got 0"),
        ("prior.margin", "0.5", "at least 1.0, got 0.5"),
        ("training.residual_stage", "0,16,1e-3", "at least 1 in a list such as [100, 8, 0.003], got [0, 16, 0.001]"),
        (
            "training.propagator_stages",
            "((1,100,-4,1e-3))",
            "at least 1 in a list such as [1, 100, 16, 0.01], got [[1, 100, -4, 0.001]]",
        ),
    ],
)
def test_out_of_range(key, text, part):
    options = make_options("smoke")
    before = deepcopy(options)
    with pytest.raises(InputError, match=f"--config.{key} expects") as caught:
        apply_overrides(options, {key: text}, RANGES)
    assert part in str(caught.value)
    assert options == before


def test_the_least_values_themselves_are_taken():
    options = make_options("smoke")
    changes = {"sampling.num_samples": "1", "prior.margin": "1.0", "training.residual_stage": "1,1,1e-9"}
    apply_overrides(options, changes, RANGES)
    assert options["sampling"]["num_samples"] == 1 and options["prior"]["margin"] == 1.0
    assert options["training"]["residual_stage"] == (1, 1, 1e-9)


def test_plain_mappings_and_locked_configurations_are_changed_alike():
    plain, locked = make_options("smoke"), ConfigDict(make_options("smoke")).lock()
    for config in (plain, locked):
        changes = {"prior.main": "7", "check_structure": "yes", "structure.damping": "viscous_damping"}
        apply_overrides(config, changes, RANGES)
        with pytest.raises(InputError, match=r"did you mean prior\.main\?"):
            apply_overrides(config, {"prior.mian": "7"}, RANGES)
    assert plain["prior"]["main"] == 7 and plain["structure"]["damping"] == ("viscous_damping",)
    assert flatten(locked) == flatten(plain)
    assert unflatten(flatten(plain)) == plain
