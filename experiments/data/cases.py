"""Benches of equations, several in one study, each with arguments of its own."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ml_collections import ConfigDict

from experiments.data.equations import bench_of, load_or_make
from experiments.study.study import Bench, Context, Split
from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.base import Equations
from phdme_jax.systems.given_frames import with_given_frames


def equations_of_case(config: ConfigDict, case: str) -> Equations:
    """The equations that a case names, with its arguments of the group `cases`; `given_frames` of them are given."""
    options = config.cases[case].to_dict()
    count = options.pop("given_frames", 0)
    equations = make_equations(case, **options)
    return with_given_frames(equations, count) if count else equations


def case_bench(
    options_of_case: Callable[[ConfigDict, str], dict[str, Any]],
    context: Context,
    config: ConfigDict,
    case: str,
    seed: int,
) -> Bench:
    """One seed of a study of several equations, whose examples are drawn anew from each.

    Args:
      options_of_case: (configuration, case) -> groups of options for the methods.
      context: of the run.
      config: groups `cases` and `data`; where it has the group `asked`, `num_samples` of each condition.
      case: name of the equations.
      seed: draws the examples.
    Returns:
      the bench; its world is the sets of examples by split.
    """
    equations, options = equations_of_case(config, case), options_of_case(config, case)
    counts = {"train": config.data.num_train, context.asked: config.data.num_test}
    made_from = {"case": case, "equations": config.cases[case].to_dict()}
    sets = load_or_make(dict.fromkeys(counts, equations), counts, seed, context.workdir / case, made_from)
    splits = {context.asked: Split(*sets[context.asked])}
    bench = bench_of(context, equations, options, sets, splits, seed)
    return replace(bench, num_samples=config.asked.num_samples) if "asked" in config else bench
