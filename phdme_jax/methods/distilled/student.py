"""Distillation into one call, with the residual of the equations in the loss or without it (PIDDM), and refined noise.

    d(eps) = eps + v(eps, 0),   L = mean |d(eps) - x(eps)|^2 + lambda mean_j (r_j(d(eps)) / s_j)^2

x(eps) is what the teacher's flow makes of the noise, so that the student knows which example it is asked for: the
residual is that of an example, not of a mean of many. s_j is the size of equation j at smooth fields that do not obey
it, so that lambda depends neither on units nor, for smooth errors, on the grid.
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

from phdme_jax.methods.base import Fitted, Host, Model, Options, Task, stage_key
from phdme_jax.methods.distilled.pairs import Pair, encoded, make_pairs, solved
from phdme_jax.methods.equations import network as shared
from phdme_jax.methods.equations.flow import make_velocity
from phdme_jax.methods.equations.network import EquationNetwork, Params, Prepared
from phdme_jax.methods.equations.residual_size import scaled_residual, with_residual_scale


@dataclasses.dataclass(frozen=True)
class Distillation:
    """The group `distilled` of the options, which may be left out.

    Attributes:
      num_pairs: pairs of noise and example in memory.
      num_calls: of the teacher, a pair.
      refresh: share of the pairs that is made anew before each later stage.
      residual_weight: lambda, times the number of a stage.
      detached: whether the residual asks for another solution alone.
      solves_pairs: whether a student with physics learns from pairs whose solutions are computed anew: then pair and
        residual ask for the same solution.
    """

    num_pairs: int = 4096
    num_calls: int = 24
    refresh: float = 0.25
    residual_weight: float = 1.0
    detached: bool = False
    solves_pairs: bool = False


def make_student(net: EquationNetwork) -> Callable[[PyTree, Prepared], Callable[[Array], Array]]:
    """One call: (parameters of the network, prepared) -> (noise -> normalised fields)."""
    velocity_of = make_velocity(net)

    def student_of(network: PyTree, prepared: Prepared) -> Callable[[Array], Array]:
        velocity = velocity_of(network, prepared)
        return lambda noise: noise + velocity(noise, jnp.zeros((), noise.dtype))

    return student_of


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


def student_stages(options: Options, name: str = "distilled") -> tuple[tuple[float, int, int, float], ...]:
    """Those of this name, or where there are none half of those of the flow: a third of it with a factor of zero."""
    if name in options["stages"]:
        return options["stages"][name]
    _, steps, batch, rate = options["stages"]["flow"][0]
    first, rest = max(1, steps // 6), max(1, steps // 3)
    return ((0.0, first, batch, 0.5 * rate), (1.0, rest, batch, 0.5 * rate))


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
    net, chosen = shared.network_of(task, options), Distillation(**options.get("distilled", {}))
    params = with_residual_scale(net, teacher.params, task, jax.random.fold_in(key, 0))
    scale = params.residual_scale
    assert scale is not None
    network, seconds = params.network, dict(teacher.seconds)
    pairs: Any = None
    for index, (factor, steps, batch, rate) in enumerate(student_stages(options)):
        count = chosen.num_pairs if pairs is None else max(1, round(chosen.refresh * chosen.num_pairs))
        if pairs is None or chosen.refresh > 0:
            name, pair_key = f"pairs_{index}_{count}_{chosen.num_calls}", stage_key(task.key, "pairs", index)
            made = host.keep(name, partial(make_pairs, net, teacher, task, count, chosen.num_calls, pair_key))
            if physics and chosen.solves_pairs:
                made = host.keep(f"{name}_solved", partial(solved, net, teacher.params, made))
            seconds[f"pairs_{index}"] = float(made["seconds"])
            fresh = encoded(params, made)
            join = lambda old, new: jnp.concatenate([new, old])[: chosen.num_pairs]  # noqa: E731
            pairs = fresh if pairs is None else jax.tree.map(join, pairs, fresh)
        loss = student_loss(net, chosen, factor * chosen.residual_weight if physics else 0.0, scale)
        stage, draws = f"distilled_{index}", jax.random.fold_in(key, 1 + index)
        network, seconds[stage] = host.train(
            stage,
            loss,
            network,
            pairs,
            draws,
            steps=steps,
            batch=batch,
            rate=rate,
            ema_decay=options["training"]["ema_decay"],
        )
    return Fitted(make_model(net), params._replace(network=network), seconds)


def make_model(net: EquationNetwork, refined: shared.Sampling | None = None) -> Model:
    """A student as the protocol wants it.

    Args:
      net: the network.
      refined: how the noise is refined on the residual before the call; None leaves it as it is drawn. Noise makes all
        fields at once: the gradient is that of the whole residual, whatever the student was trained with.
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
        misfit = scaled_residual(net, prepared.given, params.residual_scale, detached=False)
        return plain(params, prepared, refine(lambda noise: misfit(student(noise)), latent, chosen), key)

    return dataclasses.replace(model, draw=draw, num_calls=1 + chosen.refinements, num_backward=chosen.refinements)


def refine(
    misfit: Callable[[Array], Array], noise: Float[Array, "*shape"], chosen: shared.Sampling
) -> Float[Array, "*shape"]:
    """Noise after steps of Adam down a misfit of what is made of it, see `Sampling`."""
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
    model = make_model(shared.network_of(task, options), shared.Sampling(**options["sampling"]))
    return teacher._replace(model=model)
