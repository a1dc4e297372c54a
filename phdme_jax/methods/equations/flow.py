"""Flow matching of fields that obey known equations: the velocity alone, and with the residual at the end (PBFM)."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from phdme_jax.diffusion.flow import Velocity, carry_noise, flow_matching_loss, follow_flow, sample_flow
from phdme_jax.methods.base import Fitted, Host, Model, Options, Task
from phdme_jax.methods.equations import network as shared
from phdme_jax.methods.equations.constraints import residual_of
from phdme_jax.methods.equations.informed import Informed
from phdme_jax.methods.equations.network import EncodedExample, EquationNetwork, Prepared, Recipe

PREDICTED = ("velocity", "edm", "x0")
EARLIEST = 1e-3  # time at which the noise level that the network is told stops growing
LEAST_LEFT = 0.05  # of the time to the examples that errors of a predicted example are divided by
RESTART_UNTIL = 0.2  # steps that begin before this time start anew from fresh noise, as published with physics


def noise_level(t: Float[Array, ""]) -> Float[Array, ""]:
    """What a network is told of a time: a quarter of the logarithm of noise over example."""
    inside = jnp.clip(t, EARLIEST, 1.0 - EARLIEST)
    return 0.25 * (jnp.log1p(-inside) - jnp.log(inside))


def velocity_from_network(
    predicts: str, network: Callable[[Array], Array], point: Float[Array, "*shape"], t: Float[Array, ""]
) -> Float[Array, "*shape"]:
    """Velocity at a point from what a network says of it.

        "velocity":  v = F(x)
        "edm":       v = (2t - 1) x / q + F(x / sqrt(q)) / sqrt(q),   q = t^2 + (1 - t)^2
        "x0":        v = (F(x / sqrt(q)) - x) / max(1 - t, LEAST_LEFT)

    The second is the best linear guess of the velocity of data of unit variance, and what the network adds to it; input
    and target of the network have unit variance at all times. At t = 0 the point of one call, x + v, is F itself: no
    noise has to be cancelled. With the third the network says the clean example at all times. Where examples depend on
    few numbers a network says these far better than noise, which it would have to carry through.

    Args:
      predicts: "velocity", "edm" or "x0".
      network: of one array of the shape of the point, the time known to it.
      point: x.
      t: its time, 0 at the noise and 1 at the examples.
    Returns:
      the velocity.
    Raises:
      ValueError: another word.
    Source: Karras et al. (2022), arXiv 2206.00364, eq. 7, for straight lines; Li and He (2025), arXiv 2511.13720.
    """
    if predicts == "velocity":
        return network(point)
    if predicts not in PREDICTED:
        raise ValueError(f"expected flow_predicts among {PREDICTED}, got {predicts!r}")
    square = t**2 + (1.0 - t) ** 2
    root = jnp.sqrt(square)
    if predicts == "x0":
        return (network(point / root) - point) / jnp.maximum(1.0 - t, LEAST_LEFT)
    return (2.0 * t - 1.0) / square * point + network(point / root) / root


def make_velocity(net: EquationNetwork) -> shared.FieldOf:
    """Velocity of one example under its condition: (parameters of the network, prepared) -> velocity."""

    def velocity_of(network: PyTree, prepared: Prepared) -> Velocity:
        def velocity(point: Array, t: Array) -> Array:
            t = jnp.asarray(t, point.dtype)
            apply = lambda at: net.network.apply(network, at, noise_level(t), prepared.features)  # noqa: E731
            return velocity_from_network(net.flow_predicts, apply, point, t)

        return velocity

    return velocity_of


def make_matching_loss(net: EquationNetwork) -> shared.Loss:
    """The flow-matching loss: (parameters of the network, example, key) -> (loss, metrics)."""
    prepare, velocity_of = shared.make_prepare(net), make_velocity(net)

    def loss(network: PyTree, example: EncodedExample, key: Array) -> tuple[Array, dict[str, Array]]:
        velocity = velocity_of(network, prepare(network, example.given))
        matching = flow_matching_loss(velocity, example.fields, key).loss
        return matching, {"matching": matching}

    return loss


def make_merged_loss(net: EquationNetwork, unroll: int, detached: bool = False) -> shared.Loss:
    """Two losses whose gradients are to be merged: the flow-matching loss, and t mean|r| where the point is carried to.

    Args:
      net: the network.
      unroll: steps to the end.
      detached: see `constraints.make_constraints`.
    Returns:
      (parameters of the network, example, key) -> (losses, metrics).
    Source: Baldan, Liu, Guardone, Thuerey (2025), arXiv 2506.08604, section 3.
    """
    prepare, velocity_of = shared.make_prepare(net), make_velocity(net)

    def loss(network: PyTree, example: EncodedExample, key: Array) -> tuple[Array, dict[str, Array]]:
        given = example.given
        velocity = velocity_of(network, prepare(network, given))
        terms = flow_matching_loss(velocity, example.fields, key)
        end = follow_flow(velocity, terms.point, terms.time, unroll, first=terms.velocity)
        residual = residual_of(net.equations, net.kinds, given.encoding, given.condition, detached)
        size = jnp.mean(jnp.abs(residual(end)))
        return jnp.stack([terms.loss, terms.time * size]), {"matching": terms.loss, "residual": size}

    return loss


def make_model(net: EquationNetwork, options: Options, restart_until: float = 0.0) -> Model:
    """A flow that samples as its options say; it has no denoiser.

    Args:
      net: the network.
      options: group `sampling`.
      restart_until: see `sample_flow`.
    Returns:
      the model.
    Raises:
      ValueError: no step.
    """
    chosen = shared.Sampling(**options["sampling"])
    num_steps, even = chosen.flow_steps, chosen.flow_method == "euler" or restart_until > 0
    if num_steps < 1:
        raise ValueError(f"expected flow_steps >= 1, got {num_steps}")
    if chosen.flow_method not in ("euler", "dpm"):
        raise ValueError(f"expected flow_method euler or dpm, got {chosen.flow_method!r}")

    def draw_normalised(velocity: Velocity, latent: Array, key: Array) -> Array:
        if even:
            return sample_flow(velocity, latent, key, num_steps, restart_until)
        return carry_noise(velocity, latent, num_steps)

    model = shared.make_model(net, shared.make_prepare(net), make_velocity(net), draw_normalised, num_steps)
    return dataclasses.replace(model, denoise=None, sample=None)


def fit_flow_matching(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """A velocity along straight lines, without physics."""
    del teacher

    def recipe(net: EquationNetwork) -> Recipe:
        return Recipe("flow", lambda number: make_matching_loss(net), make_model(net, options))

    return shared.fit_recipe(recipe, task, options, host, key)


def fit_merged(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """The same with the residual at the end, gradients merged; the number of a stage counts the steps to the end.

    Source: Baldan, Liu, Guardone, Thuerey (2025), arXiv 2506.08604, there with the residual's gradient through all
    fields; `informed.detached` holds it to the solution.
    """
    del teacher
    detached = Informed(**options["informed"]).detached

    def recipe(net: EquationNetwork) -> Recipe:
        model = make_model(net, options, RESTART_UNTIL)
        return Recipe("merged", lambda number: make_merged_loss(net, int(number), detached), model)

    return shared.fit_recipe(recipe, task, options, host, key)
