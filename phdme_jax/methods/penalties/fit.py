"""Diffusion models with priors of the examples: augmentation, a network that commutes with the group, penalties.

Where a method knows the symmetry, translations are taken out of what the denoiser sees and answers. What is linear and
has a subspace can be imposed in the same way, which is the limit of a large weight, without its price.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PyTree

from phdme_jax.diffusion.networks import Network
from phdme_jax.diffusion.preconditioning import precondition
from phdme_jax.diffusion.schedule import Schedule
from phdme_jax.methods.base import Fitted, Host, Options, Task
from phdme_jax.methods.equations import network as shared
from phdme_jax.methods.equations.diffusion import edm_terms, make_model, teacher_schedule
from phdme_jax.methods.equations.network import EncodedExample, EquationNetwork, Prepared, Recipe
from phdme_jax.methods.penalties.penalty import (
    Features,
    PenaltyOptions,
    chosen,
    fit_features,
    level_weight,
    penalty_of,
    penalty_options,
    with_channels,
)
from phdme_jax.numerics.bound import Bound
from phdme_jax.systems.equations.base import Equations
from phdme_jax.systems.given_frames import told_frames
from phdme_jax.systems.priors import Feasibility, Symmetry

DRAWS = 16  # of levels and noise, for each example that the start is measured on
SYMMETRIES = ("", "augmented", "equivariant", "any")


class Parts(NamedTuple):
    """What a method knows beside the data; static.

    Attributes:
      augments: whether examples are moved by the group while training.
      restricts: linear projections of fields: those that take out what translations change, and those on the subspaces
        of what is linear.
      feasibilities: that are asked for.
    """

    augments: Symmetry | None
    restricts: tuple[Callable[[Array], Array], ...]
    feasibilities: tuple[Feasibility, ...]


Answer = Callable[[PyTree, Prepared, Array, Array], tuple[Array, Array]]
"""(parameters of the network, prepared, noisy, t) -> mean of the fields, and of features, normalised."""


def make_answer(
    network: Network, schedule: Schedule, predicts: str, restricts: Sequence[Callable[[Array], Array]]
) -> Answer:
    """Denoiser of fields and what the network says of features, as it says it, in its last channels.

    Projections act on fields in physical units less their shift. Both what is seen and what is answered is projected:
    noise beside the subspace is neither seen nor left, which is the same as noise in the subspace alone.

    Args:
      network: maybe answers with more channels than it sees, see `with_channels`.
      schedule: of the noise.
      predicts: see `precondition`.
      restricts: linear projections of fields, one after the other.
    Returns:
      the denoiser.
    """

    def restricted(fields: Array, scale: Array) -> Array:
        for project in restricts:
            fields = project(fields * scale) / scale
        return fields

    def answer(params: PyTree, prepared: Prepared, noisy: Array, t: Array) -> tuple[Array, Array]:
        scale = prepared.given.encoding.scale
        seen = restricted(noisy, scale)
        split, heads = noisy.shape[-1], []

        def apply(params: PyTree, scaled: Array, level: Array, features: Any) -> Array:
            found = network.apply(params, scaled, level, features)
            heads.append(found[..., split:])
            return found[..., :split]

        raw = Network(network.init, network.encode, apply)
        fields = precondition(raw, schedule, predicts).apply(params, seen, t, prepared.features)
        return restricted(fields, scale), heads[0]

    return answer


def _moved(symmetry: Symmetry, example: EncodedExample, key: Array) -> EncodedExample:
    """The example moved by an element drawn evenly; encodings commute with it."""
    element, given = symmetry.draw(key), example.given
    fields, channels = symmetry.act(element, example.fields, given.channels)
    _, condition = symmetry.act(element, example.fields, given.condition)
    return EncodedExample(fields, given._replace(channels=channels, condition=condition))


def make_loss(
    net: EquationNetwork,
    answer: Answer,
    schedule: Schedule,
    parts: Parts,
    options: PenaltyOptions,
    features: Features | None,
    starts: Sequence[Array | float],
) -> shared.Loss:
    """Denoising with penalties, of one example.

    Args:
      net: the network.
      answer: its denoiser.
      schedule: of the noise.
      parts: what is known.
      options: of the penalties.
      features: sizes of a general feasibility's features.
      starts: J of each feasibility before training; ones where the penalties themselves are wanted.
    Returns:
      (parameters of the network, example, key) -> (loss, metrics).
    """
    prepare = shared.make_prepare(net)
    penalties = [penalty_of(net, one, features) for one in parts.feasibilities]
    sharing = Counter(one.form for one in parts.feasibilities)

    def loss(network: PyTree, example: EncodedExample, key: Array) -> tuple[Array, dict[str, Array]]:
        # the first half is that of a model without priors: with none they see the same noise
        noise_key, move_key = jax.random.split(key)
        if parts.augments is not None:
            example = _moved(parts.augments, example, move_key)
        prepared, said = prepare(network, example.given), []

        def denoise(noisy: Array, t: Array) -> Array:
            fields, head = answer(network, prepared, noisy, t)
            said.append(head)
            return fields

        terms = edm_terms(denoise, schedule, example.fields, noise_key)
        total, metrics = terms.loss, {"denoising": terms.loss}
        for one, penalty, start in zip(parts.feasibilities, penalties, starts, strict=True):
            weight = level_weight(schedule, one.form, options, terms.time)
            asked = weight * penalty(terms.x0_hat, said[0], example)
            metrics[_name(one)] = asked
            total = total + options.weights[one.form] / sharing[one.form] * asked / start
        return total, metrics

    return loss


def _name(feasibility: Feasibility) -> str:
    return f"{feasibility.form}_{feasibility.name}"


def untrained_penalties(
    loss: shared.Loss, network: PyTree, examples: EncodedExample, key: Array, parts: Parts
) -> list[Array]:
    """J of each feasibility of a network as it is, the mean over examples and levels; one where it vanishes."""
    count = len(examples.fields)

    @jax.jit
    def mean_penalties(key: Array) -> dict[str, Array]:
        _, metrics = jax.vmap(loss, (None, 0, 0))(network, examples, jax.random.split(key, count))
        return jax.tree.map(jnp.mean, metrics)

    many = jax.lax.map(mean_penalties, jax.random.split(key, DRAWS))
    found = (jnp.mean(many[_name(one)]) for one in parts.feasibilities)
    return [jnp.where(value > 0, value, 1.0) for value in found]


def parts_of(task: Task, options: Options, symmetry: str, forms: Sequence[str], exact: bool = False) -> Parts:
    """What a method of the table knows of a problem.

    Args:
      task: its problem is `Equations`.
      options: groups `penalties` and, maybe, `symmetric_network`.
      symmetry: a word of `SYMMETRIES`; "any" is a network that commutes where the options have one, else augmentation.
      forms: of the feasibilities asked for.
      exact: whether what is linear and has a subspace is imposed by it, in the place of a penalty.
    Returns:
      the parts.
    Raises:
      ValueError: a word that is not one, no feasibility with a weight where some are asked for, or fields in a
        logarithm that are to stay in a subspace.
    """
    if symmetry not in SYMMETRIES:
        raise ValueError(f"expected a symmetry among {SYMMETRIES}, got {symmetry!r}")
    priors = task.problem.priors
    imposed = tuple(one.subspace for one in priors.feasibilities if exact and one.subspace is not None)
    if imposed and set(options["data"]["kinds"]) != {"linear"}:
        raise ValueError(f"expected fields of kind linear for a subspace of {task.problem.name}, got others")
    asked = tuple(one for one in priors.feasibilities if not (exact and one.subspace is not None))
    found = chosen(asked, penalty_options(options, forms), forms)
    if forms and symmetry == "" and not found:
        raise ValueError(
            f"expected penalties.weights of a form among {tuple(forms)} above zero for {task.problem.name}, got none"
        )
    known = priors.symmetry if symmetry else None
    by_network = symmetry == "equivariant" or (symmetry == "any" and "symmetric_network" in options)
    centre = (known.centre,) if known is not None and known.centre is not None else ()
    return Parts(None if by_network else known, (*centre, *imposed), found)


def fit_priors(
    task: Task,
    options: Options,
    host: Host,
    teacher: Fitted | None,
    key: Key[Array, ""],
    symmetry: str = "",
    forms: tuple[str, ...] = (),
    exact: bool = False,
) -> Fitted:
    """Denoising with the priors that are named; without any it is `fit_diffusion` to the last digit.

    Args:
      task: its problem is `Equations`.
      options: groups of `fit_diffusion`, with `training.noise` "edm"; `penalties`, see `PenaltyOptions`;
        `symmetric_network`, a network that commutes with the problem's group, for methods that are to.
      host: where it trains.
      teacher: none.
      key: of the method and seed.
      symmetry: a word of `SYMMETRIES`.
      forms: of feasibilities that are penalties.
      exact: whether what is linear and has a subspace is imposed by it, in the place of a penalty; where two frames or
        more are given, draws also have what these leave of it.
    Returns:
      the fitted method.
    Raises:
      ValueError: another noise, a problem without what is asked for, or no `symmetric_network`.
    Source: Zhou, Wang, Yu (2025), arXiv 2409.00730.
    """
    del teacher
    noise = options["training"].get("noise", "chain")
    if noise != "edm":
        raise ValueError(f'expected training.noise "edm" for priors, got {noise!r}')
    parts, schedule = parts_of(task, options, symmetry, forms, exact), teacher_schedule(options)
    if symmetry and parts.augments is None:
        if "symmetric_network" not in options:
            raise ValueError("expected the group symmetric_network, a network that commutes with the symmetry; add it")
        options = {**options, "network": options["symmetric_network"]}
    settings, predicts = penalty_options(options, forms), options["training"]["predicts"]
    net = shared.network_of(task, options)
    general = [one for one in parts.feasibilities if one.form == "general"]
    if len(general) > 1:
        raise ValueError(f"expected one general feasibility at the most, got {len(general)} of {task.problem.name}")
    few = shared.few_examples(net, task, settings.probes)
    features = fit_features(net, general[0], few) if general else None
    count = features.shift.shape[0] if features is not None else 0
    net = dataclasses.replace(net, network=with_channels(net.network, count))
    answer = make_answer(net.network, schedule, predicts, parts.restricts)
    starts: list[Any] = [1.0] * len(parts.feasibilities)
    if parts.feasibilities:
        probe = make_loss(net, answer, schedule, parts, settings, features, starts)
        probe_key = jax.random.fold_in(key, 1)
        untrained = shared.init_network(net, jax.tree.map(lambda leaf: leaf[0], few), False, jax.random.split(key)[0])
        starts = untrained_penalties(probe, untrained, few, probe_key, parts)

    def denoise_of(network: PyTree, prepared: Prepared) -> Callable[[Array, Array], Array]:
        return lambda noisy, t: answer(network, prepared, noisy, t)[0]

    loss = make_loss(net, answer, schedule, parts, settings, features, starts)
    recipe = Recipe("diffusion", lambda number: loss, make_model(net, schedule, options, denoise_of))
    fitted = shared.fit_recipe(lambda _: recipe, task, options, host, key, net)
    return _continuing(fitted, task.problem) if exact else fitted


def _continuing(fitted: Fitted, problem: Equations) -> Fitted:
    """The method whose draws have of what is linear what two given frames or more leave of it; nothing is trained."""
    known = tuple(one.continues for one in problem.priors.feasibilities if one.continues is not None)
    if problem.given_frames < 2 or not known:
        return fitted
    return fitted._replace(model=dataclasses.replace(fitted.model, finish=Bound(_continued, known)))


def _continued(known: Sequence[Callable[[Array, Array], Array]], fields: Array, condition: Array) -> Array:
    line, _ = told_frames(condition, fields.shape[-1])
    for continues in known:
        fields = continues(fields, line)
    return fields
