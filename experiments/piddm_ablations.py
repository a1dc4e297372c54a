"""What the parts of PIDDM are worth, and questions about examples unlike those that were learned from.

`python -m experiments.piddm_ablations --size laptop --seeds 3`

One change at a time of the pairs that a student is trained on: calls of the teacher a pair, none made anew, half as
many; a weight of zero of the residual is `distilled`. Shifted examples have shorter waves in what drives them; they are
asked forward and inverse, and their bands are calibrated on examples that are not shifted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ml_collections import ConfigDict

from experiments import darcy_one_step, poisson_2d
from experiments.data.equations import check_equations, equation_bench, equations_of
from experiments.report.answers import answer_section
from experiments.report.equations import closeness_section, cost_section, sample_section
from experiments.study.command import main
from experiments.study.study import Bench, Context, Shown, Study, Variant
from phdme_jax.app.page import Section
from phdme_jax.systems.equations.base import Equations

CASES = {"poisson_2d": poisson_2d.STUDY, "darcy_nodal": darcy_one_step.STUDY}
METHODS = ("flow_matching", "distilled", "piddm")
ANSWERS = ("diffusionpde", "eci", "kriging")
SHIFTED: dict[str, dict[str, dict[str, float]]] = {
    "smoke": {"poisson_2d": {"inverse_length": 6.0}, "darcy_nodal": {"length": 0.15}},
    "laptop": {"poisson_2d": {"inverse_length": 6.0}, "darcy_nodal": {"length": 0.05}},
}
OWN = ("residual_weight", "solves_pairs")  # of the group `distilled`, chosen for each problem
NUM_SHIFTED = {"smoke": 4, "laptop": 32}


def groups(size: str) -> dict[str, Any]:
    """Groups of the study of Poisson's equation, and what differs of each problem in a group of its name."""
    base: dict[str, Any] = dict(CASES["poisson_2d"].sizes[size]())
    base["questions"] |= {"num_shifted": NUM_SHIFTED[size], "sparse": False}
    for case, study in CASES.items():
        found = study.sizes[size]()
        kinds, equations = found["data"]["kinds"], found["equations"]
        own = {name: found["distilled"][name] for name in OWN}
        answers = {"residual_push": found["answers"]["residual_push"]}
        base[case] = {
            "kinds": kinds,
            "equations": equations,
            "distilled": own,
            "answers": answers,
            "shifted": SHIFTED[size][case],
        }
    del base["equations"], base["data"]["kinds"]
    return base


def config_of(config: ConfigDict, case: str) -> ConfigDict:
    """The configuration of one problem, as its own study has it."""
    own, config = config[case], config.copy_and_resolve_references()
    with config.unlocked():
        config.equations, config.data.kinds = own.equations, own.kinds
        config.distilled.update(own.distilled)
        config.answers.update(own.answers)
    return config


def problem(config: ConfigDict, case: str) -> Equations:
    """The equations of one problem."""
    return equations_of(config_of(config, case), case)


def make_bench(context: Context, config: ConfigDict, case: str, seed: int) -> Bench:
    """One seed of one problem."""
    return equation_bench(context, config_of(config, case), case, seed, config[case].shifted.to_dict())


def check(context: Context) -> None:
    """Refuses what does not fit a problem; raises ValueError."""
    for case in context.systems:
        alone = replace(context.study, cases=(case,))
        check_equations(replace(context, study=alone, config=config_of(context.config, case)))


def make_variants(config: ConfigDict) -> Iterator[Variant]:
    """A method and at most one change of its pairs."""
    for method in (*METHODS, *ANSWERS):
        yield Variant(method)
    pairs = config.distilled
    for key, values in (
        ("num_calls", tuple(max(1, int(factor * pairs.num_calls)) for factor in (0.25, 0.5, 2))),
        ("refresh", (0.0,)),
        ("num_pairs", (pairs.num_pairs // 2,)),
    ):
        for value in values:
            yield Variant("piddm", ((f"distilled.{key}", value),))


def about(config: ConfigDict) -> str:
    """What is learned from what, in a sentence."""
    return f"Learned from {config.data.num_train} examples and {config.distilled.num_pairs} pairs of the teacher."


def change_section(shown: Shown) -> Sequence[Section]:
    """All variants in one table."""
    text = (
        f"One change at a time from {shown.context.config.distilled.num_pairs} pairs of "
        f"{shown.context.config.distilled.num_calls} calls, a share of {shown.context.config.distilled.refresh:g} of "
        "them made anew before the last stage. distilled is piddm without the residual in its loss."
    )
    metrics = ("residual_rms", "residual_rms_unseen", "mmse", "smse", "spectrum_error")
    return [Section("One change at a time", text, (), metrics, splits=(shown.context.asked,))]


def examples_section(shown: Shown) -> Sequence[Section]:
    """A few generated fields of each method beside the data."""
    return sample_section(shown.run.bench.task.problem.fields, shown)


def _sizes() -> Mapping[str, Any]:
    return {size: lambda size=size: groups(size) for size in SHIFTED}


STUDY = Study(
    name="piddm_ablations",
    title="What the parts of PIDDM are worth, and questions about other examples",
    sizes=_sizes(),
    cases=tuple(CASES),
    problem=problem,
    bench=make_bench,
    scores=poisson_2d.STUDY.scores,
    sections=(change_section, closeness_section, examples_section, answer_section, cost_section),
    metrics=("residual_rms", "smse", "nfe"),
    baseline="flow_matching",
    about=about,
    check=check,
    ranges=poisson_2d.RANGES,
    variants=make_variants,
    extras=poisson_2d.STUDY.extras,
    trial_methods=METHODS,
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
