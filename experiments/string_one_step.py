"""The string's forecaster in one call of its network: `python -m experiments.string_one_step --size laptop --seeds 3`.

All is as in the string study; the sampler's 20 calls are distilled into one of a smaller network, see
`phdme_jax.methods.distilled.forecaster`. Beside it stand the sampler in fewer calls and in one, without a student.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from ml_collections import ConfigDict

from experiments import vibrating_string
from experiments.evaluation.forecasts import reference_rows
from experiments.evaluation.throughput import throughput_scores
from experiments.study.command import main
from experiments.study.study import Variant

CALLS = (8, 1)  # of the sampler, beside the teacher's


def make_variants(config: ConfigDict) -> Iterator[Variant]:
    """The student, its teacher, and the teacher in fewer calls."""
    yield Variant("phdme_one_step")
    yield Variant("phdme")
    for calls in CALLS:
        if calls < config.sampling.num_steps:
            yield Variant("phdme", (("sampling.num_steps", calls),))


def one_step_groups(size: str) -> dict[str, Any]:
    """What differs of the configuration: 20 calls of the teacher, samples of a forecast, the group `one_step`."""
    if size == "smoke":
        return {
            "sampling": {"num_steps": 4, "num_samples": 4},
            "one_step": {"num_pairs": 64, "num_calls": 4, "stage": (20, 8, 1e-3), "unet": {"embedding_size": 8}},
        }
    # half the teacher's channels; validation of shallow water, seed 1: CRPS 1.015 and 1.009 times the teacher's after
    # 2,000 and 8,000 steps
    smaller = {"channels": 32} if size == "laptop" else {}
    return {
        "sampling": {"num_steps": 20, "num_samples": 16},
        "one_step": {"num_pairs": 4096, "num_calls": 20, "stage": (8000, 16, 1e-3), "unet": smaller},
    }


def groups(size: str) -> dict[str, Any]:
    """Groups of the configuration at one size."""
    return {**vibrating_string.groups(size), **one_step_groups(size)}


STUDY = replace(
    vibrating_string.STUDY,
    name="string_one_step",
    title="Vibrating string: forecasts in one call",
    cases=("vibrating_string",),
    sizes={size: partial(groups, size) for size in ("smoke", "laptop", "accelerator")},
    methods=("phdme", "phdme_one_step"),
    trial_methods=("phdme", "phdme_one_step"),
    variants=make_variants,
    scores=(throughput_scores,),
    metrics=("nmse", "crps", "samples_per_second", "nfe"),
    baseline="phdme",
    extras=(reference_rows,),
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
