"""Distillation into one call, with the residual of the equations in the loss or without it (PIDDM), and refined noise.

    d(eps) = eps + v(eps, 0),   L = mean |d(eps) - x(eps)|^2 + lambda mean_j (r_j(d(eps)) / s_j)^2

x(eps) is what the teacher's flow makes of the noise, so that the student knows which example it is asked for: the
residual is that of an example, not of a mean of many. s_j is the root mean square of what white noise of unit size in
the normalised fields adds to equation j, so that lambda does not depend on the grid or on units.
Source: Zhang, Wang, Zou (2026), arXiv 2505.22391, with a flow-matching teacher.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from phdme_jax.methods.base import Fitted, Host, Model, Options, Task
from phdme_jax.methods.distilled.pairs import Pair, encoded, make_pairs
from phdme_jax.methods.equations import network as shared
from phdme_jax.methods.equations.constraints import residual_of
from phdme_jax.methods.equations.flow import make_velocity
from phdme_jax.methods.equations.network import EncodedExample, EquationNetwork, Given, Params, Prepared

PROBES = 32  # examples that the size of a residual is measured on
SMALL = 1e-2  # size of the noise that it is measured with, normalised units


@dataclasses.dataclass(frozen=True)
class Distillation:
    """The group `distilled` of the options.

    Attributes:
      num_pairs: pairs of noise and example in memory.
      num_steps: of the teacher's integrator.
      refresh: share of the pairs that is made anew before each later stage.
      residual_weight: lambda, times the number of a stage.
      detached: whether the residual asks for another solution alone.
      refinements: gradient steps on the noise of `piddm_ref`.
      refinement_rate: of these steps.
      noise_weight: pull of the noise towards its usual size, |eps|^2 / n = 1.
    """

    num_pairs: int
    num_steps: int = 16
    refresh: float = 0.25
    residual_weight: float = 1.0
    detached: bool = False
    refinements: int = 20
    refinement_rate: float = 1e-2
    noise_weight: float = 0.0


def make_student(net: EquationNetwork) -> Callable[[PyTree, Prepared], Callable[[Array], Array]]:
    """One call: (parameters of the network, prepared) -> (noise -> normalised fields)."""
    velocity_of = make_velocity(net)

    def student_of(network: PyTree, prepared: Prepared) -> Callable[[Array], Array]:
        velocity = velocity_of(network, prepared)
        return lambda noise: noise + velocity(noise, jnp.zeros((), noise.dtype))

    return student_of


def residual_scale(
    net: EquationNetwork, examples: EncodedExample, detached: bool, key: Key[Array, ""]
) -> Float[Array, "equation"]:
    """Root mean square of what white noise of unit size in normalised fields adds to each residual.

    Args:
      net: holds the equations.
      examples: true ones, leaves with a leading axis.
      detached: see `constraints.residual_of`.
      key: of the noise.
    Returns:
      the size of each residual, physical units; one for those that do not change.
    """

    def square(example: EncodedExample, key: Array) -> Array:
        given = example.given
        residual = residual_of(net.equations, net.kinds, given.encoding, given.condition, detached)
        noise = SMALL * jax.random.normal(key, example.fields.shape, example.fields.dtype)
        change = (residual(example.fields + noise) - residual(example.fields)) / SMALL
        return jnp.mean(change**2, axis=tuple(range(change.ndim - 1)))

    count = len(examples.fields)
    squares = jnp.mean(jax.vmap(square)(examples, jax.random.split(key, count)), axis=0)
    return jnp.sqrt(jnp.where(squares > 0, squares, 1.0))


def scaled_residual(net: EquationNetwork, given: Given, scale: Array, detached: bool) -> Callable[[Array], Array]:
    """Normalised fields -> mean over equations and places of (r / s)^2."""
    residual = residual_of(net.equations, net.kinds, given.encoding, given.condition, detached)
    return lambda fields: jnp.mean((residual(fields) / scale) ** 2)


def student_loss(net: EquationNetwork, chosen: Distillation, weight: float, scale: Array) -> Callable[..., Any]:
    """Loss of one pair: (parameters of the network, pair, key) -> (loss, metrics)."""
    prepare, student_of = shared.make_prepare(net), make_student(net)

    def loss(network: PyTree, pair: Pair, key: Array) -> tuple[Array, dict[str, Array]]:
        del key
        found = student_of(network, prepare(network, pair.given))(pair.noise)
        matching = jnp.mean((found - pair.fields) ** 2)
        if not weight:
            return matching, {"matching": matching}
        physics = scaled_residual(net, pair.given, scale, chosen.detached)(found)
        return matching + weight * physics, {"matching": matching, "residual": physics}

    return loss


def _network(task: Task, options: Options) -> EquationNetwork:
    shape = task.train().fields.shape[1:]
    network, kinds = shared.make_network(shape, **options["network"]), tuple(options["data"]["kinds"])
    return EquationNetwork(task.problem, network, kinds, shape)


def fit_student(
    task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""], physics: bool = False
) -> Fitted:
    """Train a one-step model on pairs of its teacher, from the teacher's own parameters.

    Pairs are the same for all students of a teacher: the first ones are made by the task's key, a share of them anew
    before each later stage.

    Args:
      task: its problem is `Equations`.
      options: groups `network`, `data`, `distilled`, `stages` and `training`; stages are (factor, steps, batch, rate)
        under `distilled`, the factor that of the residual's weight.
      host: where it trains.
      teacher: a `flow_matching`.
      key: of the method and seed.
      physics: whether the residual is in the loss.
    Returns:
      the fitted method; its parameters are `Params` with the sizes of its residuals. Seconds of the teacher and of the
      pairs are counted as training.
    """
    assert teacher is not None
    net, chosen = _network(task, options), Distillation(**options["distilled"])
    examples, params = task.train(), teacher.params
    few = examples._replace(fields=examples.fields[:PROBES], condition=examples.condition[:PROBES])
    scale = residual_scale(net, shared.encode_examples(net, params, few), chosen.detached, jax.random.fold_in(key, 0))
    network, seconds = params.network, dict(teacher.seconds)
    pairs: Any = None
    for index, (factor, steps, batch, rate) in enumerate(options["stages"]["distilled"]):
        count = chosen.num_pairs if pairs is None else max(1, round(chosen.refresh * chosen.num_pairs))
        if pairs is None or chosen.refresh > 0:
            made = host.keep(
                f"pairs_{index}",
                partial(make_pairs, net, teacher, task, count, chosen.num_steps, jax.random.fold_in(task.key, index)),
            )
            seconds[f"pairs_{index}"] = float(made["seconds"])
            fresh = encoded(params, made)
            join = lambda old, new: jnp.concatenate([new, old])[: chosen.num_pairs]  # noqa: E731
            pairs = fresh if pairs is None else jax.tree.map(join, pairs, fresh)
        loss = student_loss(net, chosen, factor * chosen.residual_weight if physics else 0.0, scale)
        stage, stage_key = f"distilled_{index}", jax.random.fold_in(key, 1 + index)
        network, seconds[stage] = host.train(
            stage, loss, network, pairs, stage_key, steps=steps, batch=batch, rate=rate,
            ema_decay=options["training"]["ema_decay"],
        )  # fmt: skip
    return Fitted(make_model(net), params._replace(network=network, residual_scale=scale), seconds)


def make_model(net: EquationNetwork, refined: Distillation | None = None) -> Model:
    """A student as the protocol wants it.

    Args:
      net: the network.
      refined: how the noise is refined on the residual before the call; None leaves it as it is drawn.
    Returns:
      the model.
    """
    student_of = make_student(net)

    def field_of(network: PyTree, prepared: Prepared) -> shared.Field:
        student = student_of(network, prepared)
        return lambda noise, _: student(noise)

    def draw_normalised(student: shared.Field, latent: Array, key: Array) -> Array:
        del key
        return student(latent, jnp.zeros((), latent.dtype))

    model = shared.make_model(net, shared.make_prepare(net), field_of, draw_normalised, 1)
    model = dataclasses.replace(model, denoise=None, sample=None)
    if refined is None:
        return model
    chosen, plain = refined, model.draw

    def draw(params: Params, prepared: Prepared, latent: Array, key: Array) -> Array:
        student = student_of(params.network, prepared)
        assert params.residual_scale is not None
        misfit = scaled_residual(net, prepared.given, params.residual_scale, chosen.detached)
        return plain(params, prepared, refine(lambda noise: misfit(student(noise)), latent, chosen), key)

    return dataclasses.replace(model, draw=draw, num_calls=1 + chosen.refinements, num_backward=chosen.refinements)


def refine(
    misfit: Callable[[Array], Array], noise: Float[Array, "*shape"], chosen: Distillation
) -> Float[Array, "*shape"]:
    """Noise after steps of Adam down a misfit of what is made of it."""
    optimizer = optax.adam(chosen.refinement_rate)

    def objective(point: Array) -> Array:
        return misfit(point) + chosen.noise_weight * (jnp.mean(point**2) - 1.0) ** 2

    def step(carry: tuple[Array, Any], _: None) -> tuple[tuple[Array, Any], None]:
        point, state = carry
        updates, state = optimizer.update(jax.grad(objective)(point), state)
        return (optax.apply_updates(point, updates), state), None

    (point, _), _ = jax.lax.scan(step, (noise, optimizer.init(noise)), None, length=chosen.refinements)
    return point


def fit_refined(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """The student with noise that is refined on the residual; nothing is trained."""
    del host, key
    assert teacher is not None
    model = make_model(_network(task, options), Distillation(**options["distilled"]))
    return teacher._replace(model=model)
