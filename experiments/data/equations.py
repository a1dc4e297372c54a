"""Examples of fields that obey known equations, drawn once a seed and kept in the run folder, and the bench of them."""

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.data.questions import Asking, question_splits
from experiments.study.study import Bench, Context, Split
from phdme_jax.files import RunFailed, kept_arrays, require_memory
from phdme_jax.methods import presets
from phdme_jax.methods.base import Examples, Fitted, Method, Task, stage_key
from phdme_jax.methods.equations.check import check
from phdme_jax.methods.ranges import Range
from phdme_jax.methods.sampling.resolved import resolved
from phdme_jax.methods.table import METHODS, lineage
from phdme_jax.numerics.batching import for_many, in_chunks, num_workers, thread_slice
from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.base import Equations

# numbers that keys of data are made from; 1 was the test before there was a validation split, and choices were made on
# it; 2 was the shifted set then, and is not used again
SPLITS = {"train": 0, "validation": 1, "test": 3, "shifted": 4, "reference": 5}
RANGES = presets.RANGES | dict.fromkeys(("num_train", "num_test", "num_shifted"), Range(2))


class FieldSet(NamedTuple):
    """Examples in physical units, float64.

    Attributes:
      fields: (sample, *grid, field).
      condition: (sample, *grid, channel).
    """

    fields: np.ndarray
    condition: np.ndarray


@lru_cache
def resolver(equations: Equations) -> Callable[[Any, Any], Any]:
    """Many fields and conditions to the fields with their solutions computed anew, compiled once."""
    assert equations.resolve is not None
    return for_many(equations.resolve)


def draw_set(equations: Equations, count: int, key: Any) -> FieldSet:
    """Draw examples, those that do not count left out.

    Args:
      equations: whose examples.
      count: how many.
      key: random key.
    Returns:
      the examples.
    Raises:
      RunFailed: fewer than half of those drawn count.
    """
    one = for_many(equations.draw)
    fields, conditions, drawn, found = [], [], 0, 0
    while found < count:
        keys = jax.random.split(jax.random.fold_in(key, drawn), max(1, count - found))
        samples = in_chunks(one, thread_slice(count), keys, workers=num_workers(), fixed=True)
        kept = np.asarray(samples.ok)
        fields.append(samples.fields[kept])
        conditions.append(samples.condition[kept])
        found, drawn = found + int(kept.sum()), drawn + len(kept)
        if found < drawn / 2:
            raise RunFailed(f"{drawn - found} of {drawn} examples of {equations.name} came out unusable")
    return FieldSet(np.concatenate(fields), np.concatenate(conditions))


def load_or_make(
    equations: dict[str, Equations], counts: dict[str, int], seed: int, folder: Path, source: dict[str, Any]
) -> dict[str, FieldSet]:
    """Sets of examples by split, made once and then read from the folder.

    Args:
      equations: of each split; "shifted" may draw other examples than the others.
      counts: examples of each split.
      seed: of the draws.
      folder: of the run.
      source: what the equations were made from, as JSON can carry it.
    Returns:
      the sets.
    """
    sets = {}
    for split, one in equations.items():
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(11), seed), SPLITS[split])
        made_from = {**source, "count": counts[split], "key": jax.random.key_data(key).tolist()}
        path = folder / "data" / f"{split}_{seed}.npz"
        sets[split] = FieldSet(**kept_arrays(path, made_from, lambda: draw_set(one, counts[split], key)._asdict()))
    return sets


def equations_of(config: ConfigDict, case: str) -> Equations:
    """The equations of a study."""
    return make_equations(case, **config.equations)


def options_of(config: ConfigDict, case: str) -> dict[str, Any]:
    """Groups of options for the methods, the same for all cases."""
    del case
    return config.to_dict()


def check_equations(
    context: Context,
    options: Callable[[ConfigDict, str], dict[str, Any]] = options_of,
    problem: Callable[[ConfigDict, str], Equations] = equations_of,
) -> None:
    """Traces an example, a training step and a sample of each method: what does not fit is told, nothing computed.

    Args:
      context: of the run.
      options: (configuration, case) -> groups of options for the methods.
      problem: (configuration, case) -> the equations.
    Raises:
      ValueError: what a part of them does not know.
    """
    count = sum(number for name, number in context.config.data.items() if name.startswith("num_"))
    for case in context.study.systems:
        equations = problem(context.config, case)
        numbers = math.prod(equations.grid.points) * (len(equations.fields) + len(equations.conditions))
        require_memory(f"{count} examples", 8.0 * count * numbers, "lower data.num_train or data.num_test")
        for name in context.methods:
            check(
                equations,
                options(context.config, case),
                [method.fit for method in lineage(name)],
                METHODS[name].questions,
            )


def about_equations(config: ConfigDict) -> str:
    """What is learned from what, in a sentence."""
    return f"Learned from {config.data.num_train} examples, compared with {config.data.num_test} unseen ones."


def equation_bench(
    context: Context, config: ConfigDict, case: str, seed: int, shifted: dict[str, Any] | None = None
) -> Bench:
    """One seed of a study of known equations.

    Args:
      context: of the run.
      config: its configuration.
      case: name of the equations.
      seed: draws the examples.
      shifted: arguments of the factory that change for the shifted split; None leaves it out.
    Returns:
      the bench; its world is the sets of examples by split.
    """
    equations, options = equations_of(config, case), config.to_dict()
    sources = {"train": equations, context.asked: equations}
    if shifted and not context.validates:
        sources["shifted"] = make_equations(case, **options["equations"], **shifted)
    counts = {split: config.data[f"num_{'test' if split == 'validation' else split}"] for split in sources}
    made_from = {"case": case, "equations": options["equations"], "shifted": shifted}
    sets = load_or_make(sources, counts, seed, context.workdir, made_from)
    splits = {split: Split(*sets[split]) for split in sets if split != "train"}
    if any(METHODS[name].questions for name in context.methods):
        suffix = "_validation" if context.validates else ""
        mask_key = stage_key(seed_key(seed), "questions", SPLITS[context.asked])
        asking = Asking(**options.get("questions", {}))
        kinds = tuple(options["data"]["kinds"])
        splits |= question_splits(equations, *sets[context.asked], asking, kinds, suffix, mask_key)
    return bench_of(context, equations, options, sets, splits, seed)


def seed_key(seed: int) -> Any:
    """Root key of a seed."""
    return jax.random.fold_in(jax.random.key(13), seed)


def bench_of(
    context: Context,
    equations: Equations,
    options: dict[str, Any],
    sets: dict[str, FieldSet],
    splits: dict[str, Split],
    seed: int,
) -> Bench:
    """The bench of examples that are there.

    Args:
      context: of the run.
      equations: that methods learn.
      options: groups of options for the methods.
      sets: of examples; "train" is learned from.
      splits: what is asked.
      seed: of methods and samples.
    Returns:
      the bench; its world is the sets.
    """
    key, train = seed_key(seed), sets["train"]

    def starts(key: Any, count: int) -> np.ndarray:
        return train.condition[np.asarray(jax.random.randint(key, (count,), 0, len(train.condition)))]

    def sample_key(split: str, method: Method) -> Any:
        # a method with a teacher draws the teacher's noise: their scores differ by what they make of it alone
        first = lineage(method.name)[0]
        number = SPLITS[split] if split in SPLITS else SPLITS[context.asked]
        return jax.random.fold_in(stage_key(key, "generated", number), first.stream)

    def solved(method: Method, fitted: Fitted) -> Fitted:
        return resolved(fitted, equations, method.questions)

    return Bench(
        task=Task(equations, lambda: Examples(train.fields, train.condition), starts, key),
        options=options,
        splits=splits,
        key=key,
        sample_key=sample_key,
        world=sets,
        adapted=solved if options.get("solved") else None,
    )
