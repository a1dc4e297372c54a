"""Flow maps of two times: one network for the flow over any stretch of time, learned from its own shorter stretches.

    X(x, s, d) = x + d u(x, s, d),   u(x, s, 0) = v(x, s),   one call: X(noise, 0, 1)

u is the mean velocity over [s, s + d] along the flow. For a share of the examples d = 0 and u is matched with the
straight line, as in flow matching. For the others it is matched with what the network itself, held fixed, says of parts
of the stretch:

    endpoint:  x' = x + e v(x, s),     u*(x, s, d) = (e v(x, s) + (d - e) u(x', s + e, d - e)) / d,   weight d / (2 e)
    shortcut:  x' = x + d/2 u(x, s, d/2),   u* = (u(x, s, d/2) + u(x', s + d/2, d/2)) / 2,   d = 1, 1/2, 1/4, ...

Both end where the flow ends: X(x, s, d) = X(x', ...) at s + d. The weight of the first keeps its gradient of the same
size however short e is. Training begins with the teacher's velocity, which the network then has for every d.
Source: Boffi, Albergo, Vanden-Eijnden (2025), arXiv 2505.18825 (self-distillation); Frans, Hafner, Levine, Abbeel
(2024), arXiv 2410.12557 (shortcut, section 3).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from phdme_jax.methods.base import Fitted, Host, Model, Options, Task
from phdme_jax.methods.distilled.student import student_stages
from phdme_jax.methods.equations import network as shared
from phdme_jax.methods.equations.flow import noise_level, velocity_from_network
from phdme_jax.methods.equations.network import EncodedExample, EquationNetwork, Prepared

MeanVelocity = Callable[[Array, Array, Array], Array]
"""Maps (point, time, duration) to the mean velocity over the stretch that begins there."""

OBJECTIVES = ("endpoint", "shortcut")
HALVINGS = 7  # shortest stretch of the shortcut, as published: 1/128


@dataclasses.dataclass(frozen=True)
class FlowMap:
    """The group `flow_map` of the options, which may be left out.

    Attributes:
      matching_share: share of the examples with d = 0.
      step: e, or d itself where that is shorter.
    """

    matching_share: float = 0.5
    step: float = 1.0 / 32.0


def make_mean_velocity(net: EquationNetwork) -> Callable[[PyTree, Prepared], MeanVelocity]:
    """Mean velocity of one example under its condition: (parameters of the network, prepared) -> mean velocity."""

    def mean_velocity_of(network: PyTree, prepared: Prepared) -> MeanVelocity:
        def mean_velocity(point: Array, time: Array, duration: Array) -> Array:
            levels = jnp.stack([noise_level(time), jnp.asarray(duration, point.dtype)])
            apply = lambda at: net.network.apply(network, at, levels, prepared.features)  # noqa: E731
            return velocity_from_network(net.flow_predicts, apply, point, time)

        return mean_velocity

    return mean_velocity_of


def follow_map(mean_velocity: MeanVelocity, noise: Float[Array, "*shape"], num_steps: int) -> Float[Array, "*shape"]:
    """Example that noise is carried to, in even stretches, one call each."""
    duration = jnp.asarray(1.0 / num_steps, noise.dtype)

    def step(point: Array, index: Array) -> tuple[Array, None]:
        return point + duration * mean_velocity(point, index * duration, duration), None

    return jax.lax.scan(step, noise, jnp.arange(num_steps).astype(noise.dtype))[0]


def endpoint_target(
    mean_velocity: MeanVelocity, point: Array, time: Array, duration: Array, step: float
) -> tuple[Array, Array]:
    """u* and its weight from a short step along the flow and the rest of the stretch, see the module's docstring."""
    first = jnp.minimum(jnp.asarray(step, point.dtype), duration)
    rest = duration - first
    slope = mean_velocity(point, time, jnp.zeros_like(duration))
    later = mean_velocity(point + first * slope, time + first, rest)
    return (first * slope + rest * later) / duration, duration / (2.0 * first)


def shortcut_target(mean_velocity: MeanVelocity, point: Array, time: Array, duration: Array) -> tuple[Array, Array]:
    """u* and its weight from two halves of the stretch; the shorter ones of the shortest are taken for d = 0."""
    half = 0.5 * duration
    told = jnp.where(half < 0.5**HALVINGS, 0.0, half)
    first = mean_velocity(point, time, told)
    later = mean_velocity(point + half * first, time + half, told)
    return 0.5 * (first + later), jnp.ones_like(duration)


def draw_stretch(objective: str, key: Key[Array, ""], dtype: Any) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """A time and a duration that end at 1 or before.

    Both ends uniform and ordered for "endpoint"; for "shortcut" a power of 1/2 and a multiple of it.
    """
    one, other = jax.random.split(key)
    if objective == "endpoint":
        ends = jax.random.uniform(one, (2,), dtype)
        return jnp.min(ends), jnp.abs(ends[1] - ends[0])
    parts = 2.0 ** jax.random.randint(one, (), 0, HALVINGS + 1).astype(dtype)
    return jnp.floor(parts * jax.random.uniform(other, (), dtype)) / parts, 1.0 / parts


def flow_map_loss(net: EquationNetwork, chosen: FlowMap, objective: str) -> shared.Loss:
    """Loss of one example: (parameters of the network, example, key) -> (loss, metrics)."""
    if objective not in OBJECTIVES:
        raise ValueError(f"expected an objective among {OBJECTIVES}, got {objective!r}")
    prepare, mean_velocity_of = shared.make_prepare(net), make_mean_velocity(net)

    def loss(network: PyTree, example: EncodedExample, key: Array) -> tuple[Array, dict[str, Array]]:
        stretch_key, time_key, noise_key, choice_key = jax.random.split(key, 4)
        fields = example.fields
        time, duration = draw_stretch(objective, stretch_key, fields.dtype)
        matches = jax.random.uniform(choice_key) < chosen.matching_share
        time = jnp.where(matches, jax.random.uniform(time_key, (), fields.dtype), time)
        noise = jax.random.normal(noise_key, fields.shape, fields.dtype)
        point = (1.0 - time) * noise + time * fields
        held = mean_velocity_of(*jax.lax.stop_gradient((network, prepare(network, example.given))))
        safe = jnp.where(matches, 1.0, jnp.maximum(duration, 1e-4))
        if objective == "endpoint":
            target, weight = endpoint_target(held, point, time, safe, chosen.step)
        else:
            target, weight = shortcut_target(held, point, time, safe)
        target, weight = jnp.where(matches, fields - noise, target), jnp.where(matches, 1.0, weight)
        found = mean_velocity_of(network, prepare(network, example.given))(point, time, jnp.where(matches, 0.0, safe))
        squares = jnp.mean((found - target) ** 2)
        return weight * squares, {"matching": squares * matches, "consistency": squares * ~matches}

    return loss


def with_duration(fresh: PyTree, teacher: PyTree) -> PyTree:
    """A velocity's parameters as those of a network that is told a duration too, of which nothing depends at first.

    Args:
      fresh: parameters for two levels; where they are larger than the teacher's, it is by rows that the second level
        multiplies.
      teacher: parameters for one.
    Returns:
      parameters for two levels.
    """
    return jax.tree.map(lambda new, old: jnp.zeros_like(new).at[tuple(map(slice, old.shape))].set(old), fresh, teacher)


def fit_flow_map(
    task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""], objective: str = "endpoint"
) -> Fitted:
    """Train a flow map from its teacher's velocity on the training examples, and on what it says of itself.

    Args:
      task: its problem is `Equations`.
      options: groups `network`, `data`, `flow_map`, `stages`, `sampling` and `training`; stages are (factor, steps,
        batch, rate) under `flow_map`, the factor unused.
      host: where it trains.
      teacher: a `flow_matching`.
      key: of the method and seed.
      objective: "endpoint" or "shortcut".
    Returns:
      the fitted method; the teacher's seconds are counted as training.
    """
    assert teacher is not None
    net, chosen = shared.network_of(task, options), FlowMap(**options.get("flow_map", {}))
    params, seconds = teacher.params, dict(teacher.seconds)
    data = shared.encode_examples(net, params, task.train())
    example = jax.tree.map(lambda leaf: leaf[0], data)
    fresh = jax.eval_shape(
        lambda key: net.network.init(key, example.fields, shared.condition_of(example.given.channels), 2), key
    )
    network = with_duration(fresh, params.network)
    for index, (_, steps, batch, rate) in enumerate(student_stages(options, "flow_map")):
        stage, stage_key = f"flow_map_{index}", jax.random.fold_in(key, index)
        network, seconds[stage] = host.train(
            stage,
            flow_map_loss(net, chosen, objective),
            network,
            data,
            stage_key,
            steps=steps,
            batch=batch,
            rate=rate,
            ema_decay=options["training"]["ema_decay"],
        )
    num_steps = shared.Sampling(**options["sampling"]).map_steps
    return Fitted(make_model(net, num_steps), params._replace(network=network), seconds)


def make_model(net: EquationNetwork, num_steps: int) -> Model:
    """A flow map as the protocol wants it; it has no denoiser."""
    mean_velocity_of = make_mean_velocity(net)

    def draw_normalised(mean_velocity: Any, latent: Array, key: Array) -> Array:
        del key
        return follow_map(mean_velocity, latent, num_steps)

    model = shared.make_model(net, shared.make_prepare(net), mean_velocity_of, draw_normalised, num_steps)  # type: ignore[arg-type]
    return dataclasses.replace(model, denoise=None, sample=None)
