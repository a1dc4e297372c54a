"""Examples of fields that obey known equations, drawn once a seed and kept in the run folder, and the bench of them."""

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.data.questions import CALIBRATION, SHIFTED, Asking, question_splits
from experiments.study.study import Bench, Context, Split
from phdme_jax.calibration import minimum_calibration_size
from phdme_jax.files import RunFailed, kept_arrays, require_memory
from phdme_jax.methods import presets
from phdme_jax.methods.base import Examples, Fitted, Method, Task, stage_key
from phdme_jax.methods.equations.check import check
from phdme_jax.methods.ranges import Range
from phdme_jax.methods.sampling.projected import with_projection
from phdme_jax.methods.sampling.resolved import resolved
from phdme_jax.methods.table import METHODS, lineage
from phdme_jax.numerics.batching import for_many, in_chunks, num_workers, thread_slice
from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.base import Equations

# numbers that keys of data are made from; 1 was the test before there was a validation split, and choices were made on
# it; 2 was the shifted set then, and is not used again
SPLITS = {"train": 0, "validation": 1, "test": 3, SHIFTED: 4, CALIBRATION: 5, "reference": 6}
RANGES = presets.RANGES | dict.fromkeys(("num_train", "num_test", "num_truth", "num_shifted"), Range(2))


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


def check_equations(context: Context, options: Callable[[ConfigDict, str], dict[str, Any]] = options_of) -> None:
    """Traces an example, a training step and a sample of each method: what does not fit is told, nothing computed.

    Args:
      context: of the run.
      options: (configuration, case) -> groups of options for the methods.
    Raises:
      ValueError: what a part of them does not know.
    """
    groups = context.config.to_dict()
    _check_level(Asking(**groups.get("questions", {})), groups.get("level"))
    count = sum(number for name, number in context.config.data.items() if name.startswith("num_"))
    for case in context.systems:
        equations = context.study.problem(context.config, case)
        assert isinstance(equations, Equations)
        numbers = math.prod(equations.grid.points) * (len(equations.fields) + len(equations.conditions))
        require_memory(f"{count} examples", 8.0 * count * numbers, "lower data.num_train or data.num_test")
        for name in dict.fromkeys(variant.method for variant in context.entries(case)):
            check(
                equations,
                options(context.config, case),
                [method.fit for method in lineage(name)],
                METHODS[name].questions,
            )


def _check_level(asking: Asking, level: float | None) -> None:
    if not asking.num_calibration:
        return
    if level is None:
        raise ValueError("expected a level of the band that questions.num_calibration is for, got none; add `level`")
    if asking.num_calibration < minimum_calibration_size(level):
        raise ValueError(
            f"expected questions.num_calibration of at least {minimum_calibration_size(level)} for level {level:g}, "
            f"got {asking.num_calibration}; add examples, or zero for no band"
        )


def about_equations(config: ConfigDict) -> str:
    """What is learned from what, in a sentence."""
    return f"Learned from {config.data.num_train} examples, compared with {config.data.num_test} unseen ones."


def _asks(context: Context) -> bool:
    return any(METHODS[name].questions for name in context.methods)


def _sources(
    context: Context, config: ConfigDict, equations: Equations, shifted: dict[str, Any] | None
) -> tuple[dict[str, Equations], dict[str, int]]:
    """Equations that each set of examples is drawn from, and how many of each."""
    asking = Asking(**config.to_dict().get("questions", {}))
    sources = {"train": equations, context.asked: equations}
    counts = {"train": config.data.num_train, context.asked: config.data.num_test}
    if _asks(context) and asking.num_calibration:
        sources[CALIBRATION], counts[CALIBRATION] = equations, asking.num_calibration
    if shifted and not context.validates:
        # what is generated without a condition is compared with examples like those that were learned from alone
        count = config.data.num_shifted if equations.conditions else asking.num_shifted if _asks(context) else 0
        if count:
            options = {**config.to_dict()["equations"], **shifted}
            sources[SHIFTED], counts[SHIFTED] = make_equations(equations.name, **options), count
    return sources, counts


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
    made_from = {"case": case, "equations": options["equations"], "shifted": shifted}
    sources, counts = _sources(context, config, equations, shifted)
    sets = load_or_make(sources, counts, seed, context.workdir, made_from)
    asked = [context.asked, *([SHIFTED] if equations.conditions and SHIFTED in sets else [])]
    splits = {split: Split(sets[split].fields, sets[split].condition) for split in asked}
    if _asks(context):
        suffix = "_validation" if context.validates else ""
        mask_key = stage_key(seed_key(seed), "questions", SPLITS[context.asked])
        kinds, asking = tuple(options["data"]["kinds"]), Asking(**options.get("questions", {}))
        unseen = {name: Examples(*found) for name, found in sets.items()}
        splits |= question_splits(equations, unseen.pop(context.asked), asking, kinds, suffix, mask_key, unseen)
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
        number = next((SPLITS[word] for word in split.split("_") if word in SPLITS), SPLITS[context.asked])
        return jax.random.fold_in(stage_key(key, "generated", number), first.stream)

    def finished(method: Method, fitted: Fitted) -> Fitted:
        if options.get("solved"):
            return resolved(fitted, equations, method.questions)
        return with_projection(fitted, equations)

    return Bench(
        task=Task(equations, lambda: Examples(train.fields, train.condition), starts, key),
        options=options,
        splits=splits,
        key=key,
        sample_key=sample_key,
        scale=train.fields.std(axis=tuple(range(train.fields.ndim - 1))),
        level=options.get("level"),
        world=sets,
        adapted=finished if options.get("solved") or options.get("projected") else None,
    )
