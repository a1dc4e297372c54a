"""Generative models of fields that obey known equations: their losses and samplers, per example.

A model is a denoiser (diffusion) or a velocity (flow matching) over one network. Physics enters in training (the
residual of what the model predicts), as an input (the gradient of the residual), or after sampling (correction, or
the solution computed anew).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from phdme_jax.diffusion.flow import flow_matching_loss, follow_flow, sample_flow
from phdme_jax.diffusion.networks import Condition, Network
from phdme_jax.diffusion.preconditioning import Denoise, precondition
from phdme_jax.diffusion.samplers import num_function_evaluations, sample
from phdme_jax.diffusion.schedule import Schedule
from phdme_jax.methods.equations.encoding import Encoding, decode, encode
from phdme_jax.methods.equations.informed import Informed, Physics, informed_loss
from phdme_jax.methods.sampling.correction import correct
from phdme_jax.systems.equations.base import Equations, stacked_residual

NULL_SHARE = 0.1  # of training examples whose gradient input is left out
INFORMED = ("mean", "sample", "map")  # physics that is a term of the loss of a diffusion model
EARLIEST = 1e-3  # time of a flow at which the noise level that its network is told stops growing


@dataclass(frozen=True)
class EquationMethod:
    """One row of a comparison.

    Attributes:
      name: name in results.
      summary: one line for reports.
      stream: number of the method's random draws; methods that share a network share it.
      model: "diffusion" or "flow".
      physics: how the residual enters training: "none", "mean" or "sample" (PIDM), "map" (PIDM at the mean of a
        denoiser that is not shown the noisy solution, but predicts it from the others), "input" (its gradient, told
        to the network), or "merged" (at the unrolled end, with conflict-free gradients).
      after: what follows sampling: "nothing", "correct" or "resolve".
      restart_until: steps of a flow that begin before this time start anew from fresh noise, see `flow.sample_flow`.
    """

    name: str
    summary: str
    stream: int
    model: str = "diffusion"
    physics: str = "none"
    after: str = "nothing"
    restart_until: float = 0.0


class EquationExample(NamedTuple):
    """One training example, normalised; arrays only."""

    fields: Float[Array, "*grid field"]
    condition: Float[Array, "*grid channel"]
    given: Float[Array, "*grid channel"]


@dataclass(frozen=True)
class EquationModel:
    """What the losses and samplers of one method share; arrays are arguments.

    Attributes:
      equations: the equations.
      network: the raw network.
      schedule: noise schedule of diffusion models.
      kinds: encoding of each field, see `encoding`.
      method: the method.
      informed: how the residual enters the loss of PIDM.
      detached: whether the residual in the loss asks for another solution alone: no gradient goes to the other fields,
        whose distribution it would bend. Always so where physics is a "map".
      solves_objective: whether the objective of PIDM is that of the solution computed anew. That of the generated one,
        as published, does not see what a change of the other fields does to the solution.
      predicts: what the network of a diffusion model predicts, see `precondition`.
      unroll: steps to the end at which a flow's residual is taken.
      guidance: weight of the model that sees the gradient over the one that does not, at sampling.
      corrections: steps of the correction during the last levels, one each, and at the end.
      correction_rule: see `correction.correct_once`.
    """

    equations: Equations
    network: Network
    schedule: Schedule
    kinds: tuple[str, ...]
    method: EquationMethod
    informed: Informed = field(default_factory=Informed)
    detached: bool = False
    solves_objective: bool = False
    predicts: str = "x0"
    unroll: int = 1
    guidance: float = 3.0
    corrections: tuple[int, int] = (50, 25)
    correction_rule: str = "exact"

    def __post_init__(self) -> None:
        if self.solves_objective and self.equations.solved_objective is None:
            raise ValueError(f"expected equations with a solved objective, got {self.equations.name}")
        if self.method.physics == "map" and not has_map(self.equations):
            raise ValueError(f"expected equations with fields beside the solution, got {self.equations.name}")
        if self.method.physics == "map" and self.predicts != "x0":
            raise ValueError(f"expected predicts='x0', the noise of the solution being hidden, got {self.predicts!r}")


def has_map(equations: Equations) -> bool:
    """Whether there are fields beside the solution, from which it can be predicted."""
    return len(equations.fields) > equations.num_solution


def physics_of(model: EquationModel, encoding: Encoding, condition: Float[Array, "*grid channel"]) -> Physics:
    """Residual, inequality and objective as functions of normalised fields."""
    equations = model.equations

    def decoded(function: Callable[[Array, Array], Array]) -> Callable[[Array], Array]:
        return lambda point: function(decode(encoding, model.kinds, point), condition)

    def residual(fields: Array, given: Array) -> Array:
        if model.detached or model.method.physics == "map":
            count = equations.num_solution
            rest = jax.lax.stop_gradient(fields[..., count:])
            fields = jnp.concatenate([fields[..., :count], rest], axis=-1)
        return stacked_residual(equations, fields, given)

    inequality = equations.inequality
    objective = equations.solved_objective if model.solves_objective else equations.objective
    return Physics(
        decoded(residual),
        None if inequality is None else decoded(inequality),
        None if objective is None else decoded(objective),
    )


def _condition(model: EquationModel, given: Array, gradient: Array | None) -> Condition:
    """What the network is told beside the noisy fields, as channels."""
    channels = [given] if given.shape[-1] else []
    if gradient is not None:
        channels.append(gradient)
    return Condition(rollout=jnp.concatenate(channels, axis=-1)) if channels else Condition()


def init_model(
    model: EquationModel, example: Float[Array, "*grid field"], given: Float[Array, "*grid channel"], key: PRNGKeyArray
) -> Any:
    """Parameters of the network for examples of these shapes."""
    gradient = jnp.zeros_like(example) if model.method.physics == "input" else None
    return model.network.init(key, example, _condition(model, given, gradient))


def residual_gradient(physics: Physics, noisy: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Gradient of the mean absolute residual at the noisy fields, scaled to a root mean square of one.

    Source: Shu, Li, Barati Farimani (2023), J. Comput. Phys. 478, section 3.3, there of a batch and not scaled.
    """
    residual = physics.residual
    assert residual is not None
    gradient = jax.grad(lambda point: jnp.mean(jnp.abs(residual(point))))(noisy)
    return gradient / jnp.sqrt(jnp.mean(gradient**2) + 1e-12)


def make_denoise(
    model: EquationModel, params: Any, given: Array, physics: Physics, sees_gradient: Array | float = 1.0
) -> Denoise:
    """Denoiser of one example under its condition; zero for `sees_gradient` hides the gradient from the network.

    Where physics is a "map", the network sees zeros for the noisy solution. What it answers for the solution is then
    its mean given the other noisy fields, at the lowest level all but the solution itself: the mean of something
    certain has no Jensen gap, and no noise is left in it for a residual to find.
    """
    denoiser = precondition(model.network, model.schedule, model.predicts)

    def denoise(noisy: Array, t: Array) -> Array:
        gradient = None
        if model.method.physics == "input":
            gradient = sees_gradient * residual_gradient(physics, noisy)
        if model.method.physics == "map":
            noisy = noisy.at[..., : model.equations.num_solution].set(0.0)
        features = denoiser.encode(params, _condition(model, given, gradient))
        return denoiser.apply(params, noisy, t, features)

    return denoise


def make_velocity(model: EquationModel, params: Any, given: Array) -> Callable[[Array, Array], Array]:
    """Velocity of one example under its condition."""
    features = model.network.encode(params, _condition(model, given, None))

    def velocity(point: Array, t: Array) -> Array:
        inside = jnp.clip(t, EARLIEST, 1.0 - EARLIEST)
        level = 0.25 * (jnp.log1p(-inside) - jnp.log(inside))
        return model.network.apply(params, point, level, features)

    return velocity


def make_loss(
    model: EquationModel, encoding: Encoding
) -> Callable[[Any, EquationExample, Array], tuple[Array, dict[str, Array]]]:
    """Loss of one example.

    Diffusion: `informed_loss`, without physics where the method has none. Flow: the flow-matching loss; where physics
    is "merged", two losses whose gradients are to be merged, the second t mean|r| at the end the point is carried to.

    Args:
      model: the model.
      encoding: of the fields.
    Returns:
      example_loss(params, example, key) -> (loss or losses, metrics).
    Source: Baldan, Liu, Guardone, Thuerey (2025), arXiv 2506.08604, section 3 (merged).
    """
    method = model.method

    def diffusion(params: Any, example: EquationExample, key: Array) -> tuple[Array, dict[str, Array]]:
        loss_key, null_key = jax.random.split(key)
        physics = physics_of(model, encoding, example.condition)
        sees = (jax.random.uniform(null_key) >= NULL_SHARE).astype(example.fields.dtype)
        denoise = make_denoise(model, params, example.given, physics, sees)
        options = model.informed
        weights = (options.residual_weight, options.inequality_weight, options.objective_weight)
        asked = physics if method.physics in INFORMED and any(weights) else Physics()
        return informed_loss(denoise, model.schedule, example.fields, asked, options, loss_key)

    def flow(params: Any, example: EquationExample, key: Array) -> tuple[Array, dict[str, Array]]:
        velocity = make_velocity(model, params, example.given)
        terms = flow_matching_loss(velocity, example.fields, key)
        if method.physics != "merged":
            return terms.loss, {"matching": terms.loss}
        end = follow_flow(velocity, terms.point, terms.time, model.unroll, first=terms.velocity)
        residual = physics_of(model, encoding, example.condition).residual
        assert residual is not None
        size = jnp.mean(jnp.abs(residual(end)))
        return jnp.stack([terms.loss, terms.time * size]), {"matching": terms.loss, "residual": size}

    return diffusion if method.model == "diffusion" else flow


def draw(
    model: EquationModel,
    params: Any,
    encoding: Encoding,
    example: EquationExample,
    key: PRNGKeyArray,
    num_steps: int,
    sampler: str = "ddpm",
) -> Float[Array, "*grid field"]:
    """One set of fields in physical units.

    Args:
      model: the model.
      params: of its network.
      encoding: of the fields.
      example: gives shape and condition; its fields are not read.
      key: random key.
      num_steps: noise levels, or steps of the flow.
      sampler: of diffusion models, see `samplers.sample`.
    Returns:
      fields.
    """
    method = model.method
    noise_key, sampler_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, example.fields.shape, example.fields.dtype)
    if method.model == "flow":
        velocity = make_velocity(model, params, example.given)
        drawn = sample_flow(velocity, noise, sampler_key, num_steps, method.restart_until)
    else:
        denoise = _sampling_denoise(model, params, encoding, example, num_steps)
        drawn = sample(denoise, model.schedule, noise, sampler_key, sampler=sampler, num_steps=num_steps)
    fields = decode(encoding, model.kinds, drawn)
    if method.after == "resolve":
        assert model.equations.resolve is not None
        return model.equations.resolve(fields, example.condition)
    if method.after == "correct":
        return _corrected(model, fields, example.condition, model.corrections[1])
    return fields


def _sampling_denoise(
    model: EquationModel, params: Any, encoding: Encoding, example: EquationExample, num_steps: int
) -> Denoise:
    physics = physics_of(model, encoding, example.condition)
    denoise = make_denoise(model, params, example.given, physics)
    if model.method.physics == "input":
        blind = make_denoise(model, params, example.given, physics, 0.0)
        return lambda noisy, t: (1.0 - model.guidance) * blind(noisy, t) + model.guidance * denoise(noisy, t)
    if model.method.after != "correct":
        return denoise
    begin = (model.corrections[0] - 1) / max(num_steps - 1, 1)

    def corrected(noisy: Array, t: Array) -> Array:
        x0_hat = denoise(noisy, t)
        fields = _corrected(model, decode(encoding, model.kinds, x0_hat), example.condition, 1)
        return jnp.where(t <= begin, encode(encoding, model.kinds, fields), x0_hat)

    return corrected


def _corrected(model: EquationModel, fields: Array, condition: Array, num_steps: int) -> Array:
    """The fields with their first channels, the solution, corrected."""
    count = model.equations.num_solution
    rest = fields[..., count:]

    def residual(solution: Array) -> Array:
        return stacked_residual(model.equations, jnp.concatenate([solution, rest], axis=-1), condition)

    solution = correct(residual, fields[..., :count], num_steps, model.correction_rule)
    return jnp.concatenate([solution, rest], axis=-1)


def calls(method: EquationMethod, num_steps: int, sampler: str = "ddpm") -> int:
    """Calls of the network a sample takes, see `draw`."""
    if method.model == "flow":
        return num_steps
    return num_function_evaluations(sampler, num_steps) * (2 if method.physics == "input" else 1)
