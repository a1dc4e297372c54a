"""Benches of families of which a part is known: one question for many examples, all draws of its answer."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from experiments.data.equations import bench_of, load_or_make
from experiments.study.study import Bench, Context, Split
from phdme_jax.diffusion.exact import EmpiricalParams
from phdme_jax.methods.base import Fitted, Method
from phdme_jax.methods.equations.encoding import encode
from phdme_jax.methods.equations.questions import Question
from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.base import Equations

SAME = 1e-12  # largest deviation of a value over examples, in units of the field's, at which it counts as known
# where something is seen of a field on (x, time)
PLACES = {"initial": (slice(None), slice(None, 1)), "inlet": (slice(None, 1), slice(None))}


def shared_question(
    fields: Float[np.ndarray, "sample x time field"], condition: Float[np.ndarray, "sample x time channel"], seen: str
) -> Question:
    """The question that examples of a family with a part fixed have in common.

    Args:
      fields: examples.
      condition: of these.
      seen: one of `PLACES`; values there that differ from example to example are left out.
    Returns:
      the question, once for each example.
    Raises:
      ValueError: another word, or nothing that the examples have in common.
    """
    if seen not in PLACES:
        raise ValueError(f"expected values seen at one of {tuple(PLACES)}, got {seen!r}")
    there = np.zeros(fields.shape[1:])
    there[PLACES[seen]] = 1.0
    same = np.std(fields, axis=0) <= SAME * np.std(fields, axis=(0, 1, 2))
    mask = there * same
    if not mask.any():
        raise ValueError(f"expected {seen} values that all examples share, got none; fix what they depend on")
    many = np.broadcast_to(mask, fields.shape)
    return Question(condition, many, many * fields, np.zeros((len(fields), fields.shape[-1])))  # type: ignore[arg-type]


def equations_of_case(config: ConfigDict, case: str, **fixed: Any) -> Equations:
    """The equations that a case names, or those of its own name, with parts of them fixed."""
    return make_equations(config.cases[case].get("equations", case), **config.equations, **fixed)


def options_of_case(config: ConfigDict, case: str) -> dict[str, Any]:
    """Groups of options for the methods, the network padded as the ends of a case want it.

    The network `empirical` is not trained, and has neither padding nor sizes.
    """
    options = config.to_dict()
    if options["network"]["name"] != "empirical":
        return options | {"network": {**options["network"], "padding": options["cases"][case]["padding"]}}
    return options | {
        "network": {"name": "empirical"},
        "stages": dict.fromkeys(options["stages"], ()),
        "training": {**options["training"], "flow_predicts": "edm"},
    }


def with_examples(fields: Float[np.ndarray, "sample *grid field"], kinds: Sequence[str], fitted: Fitted) -> Fitted:
    """What was fitted, with the training set in a network `empirical`; any other network as it is."""
    params = fitted.params
    if not isinstance(params.network, EmpiricalParams):
        return fitted
    known = encode(params.fields, tuple(kinds), jnp.asarray(fields)).reshape(len(fields), -1)
    network = EmpiricalParams(known.astype(params.fields.scale.dtype))
    return fitted._replace(params=params._replace(network=network))


def given_bench(context: Context, config: ConfigDict, case: str, seed: int) -> Bench:
    """One seed of a study whose test set is a family with a part fixed, the values that follow from it imposed.

    Args:
      context: of the run.
      config: groups `equations`, `data`, with `num_truth` draws of the answer whose moments are the truth, and
        `cases`, which names for each case its `equations` where they have another name, what is `fixed`, where values
        are `seen` (see `PLACES`), and the `padding` of the network.
      case: name in results.
      seed: draws the examples.
    Returns:
      the bench, with the split "given", which methods that answer no questions are asked without being told, and some
      draws of the answer; its world is the sets of examples, "reference" the draws whose moments are the truth.
    """
    options, settings = options_of_case(config, case), config.cases[case].to_dict()
    whole, fixed = equations_of_case(config, case), equations_of_case(config, case, **settings["fixed"])
    sources = {"train": whole, context.asked: fixed, "reference": fixed}
    counts = {"train": config.data.num_train, context.asked: config.data.num_test, "reference": config.data.num_truth}
    made_from = {"case": case, "equations": options["equations"], "fixed": settings["fixed"]}
    sets = load_or_make(sources, counts, seed, context.workdir / case, made_from)
    fields, condition = sets[context.asked]
    question = shared_question(fields, condition, settings["seen"])
    name = "given_validation" if context.validates else "given"
    splits = {name: Split(fields, question, questions=True, plain=condition, num_samples=1)}
    bench = bench_of(context, whole, options, sets, splits, seed)

    def adapted(method: Method, fitted: Fitted) -> Fitted:
        known = with_examples(sets["train"].fields, options["data"]["kinds"], fitted)
        return known if bench.adapted is None else bench.adapted(method, known)

    return replace(bench, adapted=adapted)
