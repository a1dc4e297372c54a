"""Questions about unseen examples of known equations, as splits of a study."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from experiments.study.study import Split
from phdme_jax.methods.base import Examples
from phdme_jax.methods.equations.encoding import Encoding, decode, encode
from phdme_jax.methods.equations.questions import Question
from phdme_jax.systems.equations.base import Equations

CALIBRATION, SHIFTED = "calibration", "shifted"
WHOLE = ("forward", "inverse")  # questions that are told whole fields


@dataclass(frozen=True)
class Asking:
    """The group `questions` of a study's configuration.

    Attributes:
      count: examples that each question is asked of, the first ones of the split.
      num_samples: of each answer.
      share: of the places of every field, seen by a reconstruction.
      sparse: whether the cause alone, and the solution alone, are seen at these places too.
      sensors: places that are seen at all times where the second axis is time; none where zero.
      noise: standard deviation of what is observed, in units of the field's.
      num_calibration: other examples, on which the band of the answers is calibrated; none where zero.
      num_shifted: examples of another distribution, where the study has one; none where zero.
    """

    count: int = 32
    num_samples: int = 8
    share: float = 0.03
    sensors: int = 0
    noise: float = 0.0
    num_calibration: int = 0
    num_shifted: int = 0
    sparse: bool = False


def question_splits(
    equations: Equations,
    asked: Examples,
    asking: Asking,
    kinds: tuple[str, ...],
    suffix: str,
    key: Key[Array, ""],
    others: Mapping[str, Examples] = MappingProxyType({}),
) -> dict[str, Split]:
    """One split a kind of question.

    Args:
      equations: whose fields.
      asked: unseen examples, of which the first `count` are asked about.
      asking: sizes.
      kinds: encoding of each field, see `methods.equations.encoding`; of a field with a logarithm noise is that of it.
      suffix: of the names, such as "_validation".
      key: of masks and noise.
      others: further unseen examples: "calibration", on which answers to each kind of question are calibrated, and
        "shifted", drawn from another distribution, which are asked forward and inverse alone.
    Returns:
      splits forward (all of the cause) and inverse (all of the solution) where there is a map between them,
      reconstruction (some places of every field), sparse_forward and sparse_inverse (those of the cause, of the
      solution, alone), and sensors; before them one that calibrates each, after them those of the shifted examples.
      What is observed counts in no calibrated band.
    """
    scale = _deviations(asked.fields[: asking.count], kinds)
    ask = partial(_ask, equations, asking, kinds, scale)
    calibrating, shifted = {}, {}
    if CALIBRATION in others:
        calibrating = ask(others[CALIBRATION], asking.num_calibration, jax.random.fold_in(key, 2))
    if SHIFTED in others and asking.num_shifted:
        shifted = ask(others[SHIFTED], asking.num_shifted, jax.random.fold_in(key, 3))
    return {
        **{f"{CALIBRATION}_{name}": split for name, split in calibrating.items()},
        **{f"{name}{suffix}": split for name, split in ask(asked, asking.count, key).items()},
        **{f"{name}_{SHIFTED}": shifted[name] for name in WHOLE if name in shifted},
    }


def _deviations(fields: Float[np.ndarray, "sample *grid field"], kinds: tuple[str, ...]) -> Float[Array, "field"]:
    """Standard deviation of each field, of its logarithm where it is encoded so."""
    return jnp.std(encode(_plain(kinds), kinds, jnp.asarray(fields)), axis=tuple(range(fields.ndim - 1)))


def _plain(kinds: tuple[str, ...]) -> Encoding:
    return Encoding(jnp.zeros(len(kinds)), jnp.ones(len(kinds)))


def as_read(
    fields: Float[np.ndarray, "sample *grid field"],
    kinds: tuple[str, ...],
    noise: Float[Array, "field"] | Float[np.ndarray, "field"],
    key: Key[Array, ""],
) -> np.ndarray:
    """Fields as they are read: with noise, of the logarithm where a field is encoded so; exact where there is none."""
    if not np.any(np.asarray(noise)):
        return fields
    plain = _plain(kinds)
    encoded = encode(plain, kinds, jnp.asarray(fields))
    return np.asarray(decode(plain, kinds, encoded + noise * jax.random.normal(key, fields.shape)))


def _ask(
    equations: Equations,
    asking: Asking,
    kinds: tuple[str, ...],
    scale: Float[Array, "field"],
    examples: Examples,
    count: int,
    key: Key[Array, ""],
) -> dict[str, Split]:
    """Every kind of question about the first examples; `scale` is the unit of the noise."""
    fields, condition = examples.fields[:count], examples.condition[:count]
    masks = _masks(equations, fields.shape, asking, jax.random.fold_in(key, 0))
    seen = as_read(fields, kinds, asking.noise * scale, jax.random.fold_in(key, 1))
    splits = {}
    for name, mask in masks.items():
        noises = np.broadcast_to(asking.noise * scale, (len(fields), fields.shape[-1]))
        question = Question(*map(np.asarray, (condition, mask, mask * seen, noises)))  # type: ignore[arg-type]  # on the host
        splits[name] = Split(
            fields,
            question,
            questions=True,
            num_samples=asking.num_samples,
            calibrated_by=f"{CALIBRATION}_{name}",
            counted=np.asarray(mask) == 0,
        )
    return splits


def _masks(
    equations: Equations, shape: tuple[int, ...], asking: Asking, key: Key[Array, ""]
) -> Mapping[str, Float[np.ndarray, "sample *grid field"]]:
    masks: dict[str, Any] = {}
    solution = (np.arange(shape[-1]) < equations.num_solution).astype(float)
    sides = {"forward": 1.0 - solution, "inverse": solution} if "map" in equations.offers else {}
    masks |= {name: np.broadcast_to(side, shape) for name, side in sides.items()}
    one, other = jax.random.split(key)
    # so many places exactly, others of each field and example
    places = max(1, round(asking.share * int(np.prod(shape[1:-1]))))
    order = np.argsort(np.asarray(jax.random.uniform(one, (shape[0], shape[-1], int(np.prod(shape[1:-1]))))), axis=-1)
    seen = np.argsort(order, axis=-1) < places
    masks["reconstruction"] = np.moveaxis(seen, 1, -1).reshape(shape).astype(float)
    if asking.sparse:
        masks |= {f"sparse_{name}": side * masks["reconstruction"] for name, side in sides.items()}
    if asking.sensors:
        order = np.argsort(np.asarray(jax.random.uniform(other, (shape[0], shape[1]))), axis=-1)
        columns = np.argsort(order, axis=-1) < asking.sensors
        masks["sensors"] = np.broadcast_to(columns.reshape(shape[:2] + (1,) * (len(shape) - 2)), shape).astype(float)
    return masks
