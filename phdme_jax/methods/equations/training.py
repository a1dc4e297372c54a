"""Models of fields that obey known equations, trained and sampled as a study's configuration says."""

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.equations import FieldSet, resolver
from phdme_jax.diffusion import NETWORKS
from phdme_jax.diffusion.schedule import SteppedCosineSchedule
from phdme_jax.methods.equations.encoding import Encoding, encode, fit_encoding
from phdme_jax.methods.equations.informed import Informed
from phdme_jax.methods.equations.models import (
    EquationExample,
    EquationMethod,
    EquationModel,
    calls,
    draw,
    init_model,
    make_loss,
)
from phdme_jax.numerics.batching import timed
from phdme_jax.systems.equations.base import Equations
from phdme_jax.training.stages import StageTrainer


@dataclasses.dataclass(frozen=True)
class Codes:
    """Encodings of fields and of conditions, told from the training set."""

    kinds: tuple[str, ...]
    fields: Encoding
    given: Encoding


def fit_codes(train: FieldSet, kinds: tuple[str, ...]) -> Codes:
    """Encodings of a training set; conditions that never change are left as they are."""
    given = fit_encoding(jnp.asarray(train.condition), ("linear",) * train.condition.shape[-1])
    given = given._replace(scale=jnp.where(given.scale > 1e-9, given.scale, 1.0))
    narrow = [jax.tree.map(lambda leaf: leaf.astype(jnp.float32), code) for code in (
        fit_encoding(jnp.asarray(train.fields), kinds), given,
    )]  # fmt: skip
    return Codes(kinds, *narrow)


def encoded(codes: Codes, examples: FieldSet) -> EquationExample:
    """Examples as networks see them, float32; conditions in physical units beside."""
    fields = encode(codes.fields, codes.kinds, jnp.asarray(examples.fields))
    linear = ("linear",) * examples.condition.shape[-1]
    given = encode(codes.given, linear, jnp.asarray(examples.condition))
    parts: Any = [np.asarray(part, np.float32) for part in (fields, examples.condition, given)]
    return EquationExample(*parts)


def build_model(equations: Equations, method: EquationMethod, config: Any, shape: tuple[int, ...]) -> Any:
    """The model of a method, its network without arrays.

    Args:
      equations: the equations.
      method: the method.
      config: of the study.
      shape: of an example's fields.
    Returns:
      the model.
    """
    sizes = config.network.to_dict()
    name = sizes.pop("name")
    if name not in NETWORKS:
        raise ValueError(f"expected a network among {tuple(NETWORKS)}, got {name!r}")
    if name == "mlp":
        sizes["shape"] = shape
    informed = config.informed.to_dict()
    detached, solves_objective = informed.pop("detached"), informed.pop("solves_objective", False)
    weights = {"mean": informed.pop("mean_weight"), "sample": informed.pop("sample_weight")}
    estimation = method.physics if method.physics in weights else "mean"
    schedule = SteppedCosineSchedule(num_levels=informed["num_levels"])
    return EquationModel(
        equations=equations,
        network=NETWORKS[name](**sizes),
        schedule=schedule,
        kinds=tuple(config.data.kinds),
        method=method,
        informed=Informed(residual_weight=weights[estimation], estimation=estimation, **informed),
        solves_objective=solves_objective,
        predicts=config.training.predicts,
        detached=detached and method.physics in ("mean", "sample", "map", "merged"),
        corrections=tuple(config.sampling.corrections),
        correction_rule=config.sampling.correction_rule,
    )


def _sampled(method: EquationMethod) -> EquationMethod:
    """The method without the solution computed anew, which asks for double precision and is done apart."""
    return dataclasses.replace(method, after="nothing") if method.after == "resolve" else method


def trace_sample(equations: Equations, method: EquationMethod, config: Any) -> None:
    """Draw an example, a network and a sample in the abstract: nothing is computed, but all that does not fit is told.

    Raises:
      ValueError: what a part of them does not know.
    """

    def whole(key: Any) -> Any:
        example = equations.draw(key)
        one: Any = FieldSet(*(part[None] for part in example[:2]))  # type: ignore[arg-type]
        codes = fit_codes(one, tuple(config.data.kinds))
        model = build_model(equations, _sampled(method), config, example.fields.shape)
        parts = [part[0].astype(jnp.float32) for part in (*one, one.condition)]
        params = init_model(model, parts[0], parts[2], key)
        num_steps = config.sampling.flow_steps if method.model == "flow" else config.sampling.num_steps
        return draw(model, params, codes.fields, EquationExample(*parts), key, num_steps, config.sampling.sampler)

    jax.eval_shape(whole, jax.random.key(0))


def train_model(
    model: EquationModel, codes: Codes, train: EquationExample, config: Any, key: Any, digest: str, workdir: Path
) -> tuple[Any, float]:
    """Train a model in the stages of its kind.

    Args:
      model: the model.
      codes: encodings.
      train: encoded training set.
      config: of the study.
      key: root key of the method and seed.
      digest: of the configuration, guards the checkpoints.
      workdir: folder of this training.
    Returns:
      averaged parameters, and seconds of training without compilation.
    """
    method = model.method
    kind = {"none": method.model, "input": method.model, "merged": "merged"}.get(method.physics, "informed")
    init_key, train_key = jax.random.split(key)
    params = init_model(model, jnp.asarray(train.fields[0]), jnp.asarray(train.given[0]), init_key)
    trainer = StageTrainer(method.name, 0.0, config.training.ema_decay, digest, workdir, matrix_steps=False)
    for index, (physics, *numbers) in enumerate(config.stages[kind]):
        loss = make_loss(_at_stage(model, physics), codes.fields)
        stage = f"{kind}_{index}"
        params = trainer.run(stage, loss, params, (train, None), jax.random.fold_in(train_key, index), *numbers)
    return params, sum(trainer.seconds.values())


def _at_stage(model: EquationModel, physics: float) -> EquationModel:
    """The model with as much physics as a stage has: steps to the end for flows, a factor of all weights for PIDM."""
    if model.method.physics == "merged":
        return dataclasses.replace(model, unroll=int(physics))
    options = model.informed
    weights = ("residual_weight", "inequality_weight", "objective_weight")
    scaled = {name: physics * getattr(options, name) for name in weights}
    return dataclasses.replace(model, informed=dataclasses.replace(options, **scaled))


@lru_cache
def _drawer(model: EquationModel, num_steps: int, sampler: str) -> Callable:
    @jax.jit
    def many(params: Any, encoding: Any, fields: Any, condition: Any, given: Any, keys: Any) -> Any:
        def one(*parts: Any) -> Any:
            *example, key = parts
            return draw(model, params, encoding, EquationExample(*example), key, num_steps, sampler)

        return jax.vmap(one)(fields, condition, given, keys)

    return many


def generate(
    model: EquationModel, params: Any, codes: Codes, wanted: EquationExample, sampling: Any, key: Any
) -> tuple[np.ndarray, float, int]:
    """Fields for the conditions of some examples, one each, before a solution is computed anew.

    Args:
      model: the model.
      params: of its network.
      codes: encodings.
      wanted: examples whose conditions are taken.
      sampling: the group of the configuration.
      key: random key.
    Returns:
      fields in physical units, float64; seconds a sample without compilation; calls of the network a sample.
    """
    flow = model.method.model == "flow"
    num_steps = sampling.flow_steps if flow else sampling.num_steps
    many = _drawer(dataclasses.replace(model, method=_sampled(model.method)), num_steps, sampling.sampler)
    blank = np.zeros_like(wanted.fields)
    keys = jax.random.split(key, len(blank))

    def chunk(*parts: Any) -> Any:
        return many(params, codes.fields, *parts)

    fields, seconds = timed(chunk, blank, wanted.condition, wanted.given, keys)
    return fields, seconds, calls(model.method, num_steps, sampling.sampler)


def solve_anew(equations: Equations, fields: np.ndarray, condition: np.ndarray) -> tuple[np.ndarray, float]:
    """The solutions of many examples computed anew, in double precision, and the seconds of one."""
    return timed(resolver(equations), fields, np.asarray(condition, np.float64))
