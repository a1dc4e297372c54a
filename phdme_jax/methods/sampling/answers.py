"""Answers to questions from a trained teacher, by what is done while it samples; nothing is trained.

    dps             the next state is pushed down |y - H x0_hat|                     (teacher: diffusion)
    sda             x0_hat moved by the score of N(y; H x0_hat, noise^2 + gamma r^2)
    moment_matched  the same with the covariance that the denoiser's Jacobian says
    diffusionpde    Heun's method, pushed down observations and residual
    eci, pcfm       the flow's end corrected or projected                            (teacher: flow matching)
    d_flow          the noise searched for

y are the observations, H takes them of an example, r = sigma / alpha. All in normalised units.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from phdme_jax.diffusion import constrained
from phdme_jax.diffusion.guidance import moment_matched, residual_guidance
from phdme_jax.diffusion.preconditioning import Denoise
from phdme_jax.diffusion.samplers import num_function_evaluations, sample, sample_pushed
from phdme_jax.methods.base import Fitted, Host, Options, Task
from phdme_jax.methods.distilled.student import PROBES, make_network_of, residual_scale
from phdme_jax.methods.equations import network as shared
from phdme_jax.methods.equations.constraints import residual_of
from phdme_jax.methods.equations.diffusion import make_schedule
from phdme_jax.methods.equations.encoding import decode
from phdme_jax.methods.equations.flow import follow, make_velocity
from phdme_jax.methods.equations.informed import Informed
from phdme_jax.methods.equations.network import EquationNetwork, Given, Params, Prepared, Sampling
from phdme_jax.methods.equations.questions import Observed, Question, observed
from phdme_jax.systems.equations.base import Equations


@dataclasses.dataclass(frozen=True)
class Answering:
    """The group `answers` of the options, which may be left out.

    Attributes:
      push: of `dps`: length of its steps, in normalised units.
      gamma: of `sda`: variance of an example given a noisy one, in units of r^2 / (1 + r^2).
      iterations: of `moment_matched`, of conjugate gradients.
      observation_push: of `diffusionpde`.
      residual_push: of `diffusionpde`, in the last fifth of its levels.
      times: of `eci` and `pcfm`.
      mixes: of `eci`, at each time.
      anchored: whether both go through the noise, as published; that of `eci` is a fresh one each time.
      searches: of `d_flow`, steps of L-BFGS.
      flow_steps: of `d_flow`, calls to follow the flow once.
      residual_weight: of `d_flow` and `optimised_data`, beside the mean square of the observations' misfit.
      descents: of `optimised_data`, steps of L-BFGS.
    """

    push: float = 1.0
    gamma: float = 1.0
    iterations: int = 4
    observation_push: float = 1.0
    residual_push: float = 0.1
    times: int = 100
    mixes: int = 1
    anchored: bool = False
    searches: int = 10
    flow_steps: int = 12
    residual_weight: float = 1.0
    descents: int = 2000


TINY = 1e-12  # below the square of anything that is missed: roots have slopes


class Asked(NamedTuple):
    """What all samples of a question share."""

    prepared: Prepared
    observed: Observed


Draw = Callable[[Params, Asked, Array, Array], Array]
"""(params, asked, latent, key) -> normalised fields."""


def answering(teacher: Fitted, kinds: tuple[str, ...], draw: Draw, calls: int, backward: int) -> Fitted:
    """The teacher with questions for conditions and another draw.

    Args:
      teacher: what was trained; its parameters are `Params`.
      kinds: encoding of each field.
      draw: see `Draw`.
      calls: of the network a sample.
      backward: gradients through it a sample.
    Returns:
      what answers.
    """
    plain = teacher.model

    def prepare(params: Params, question: Question) -> Asked:
        return Asked(plain.prepare(params, question.condition), observed(question, params.fields, kinds))

    def draw_fields(params: Params, asked: Asked, latent: Array, key: Array) -> Array:
        return decode(params.fields, kinds, draw(params, asked, latent, jax.random.split(key)[1]))

    finish = plain.finish
    model = dataclasses.replace(
        plain, prepare=prepare, draw=draw_fields, denoise=None, sample=None, num_calls=calls, num_backward=backward,
        finish=None if finish is None else lambda fields, question: finish(fields, question.condition),  # type: ignore[attr-defined]
    )  # fmt: skip
    return teacher._replace(model=model)


def _kinds(options: Options) -> tuple[str, ...]:
    return tuple(options["data"]["kinds"])


# ---- diffusion models


def fit_guided(
    task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""], rule: str = "dps"
) -> Fitted:
    """Guidance of a diffusion model by observations alone.

    Args:
      task: unused.
      options: groups `data`, `informed`, `sampling` and `answers`.
      host: unused.
      teacher: a diffusion model.
      key: unused.
      rule: "dps", "sda" or "matched".
    Returns:
      what answers.
    Source: Chung et al. (2023), arXiv 2209.14687, algorithm 1; Rozet and Louppe (2023), arXiv 2306.10574, section 3.2;
    Rozet et al. (2024), arXiv 2405.13712.
    """
    del task, host, key
    assert teacher is not None and teacher.model.denoise is not None
    plain, chosen, sampling = teacher.model.denoise, Answering(**options.get("answers", {})), _sampling(options)
    schedule = make_schedule(Informed(**options["informed"]))

    def draw(params: Params, asked: Asked, latent: Array, key: Array) -> Array:
        denoise, seen, missed = plain(params, asked.prepared), asked.observed, _missed(asked)
        push, guided = None, denoise
        if rule == "dps":

            def push(noisy: Array, t: Array) -> Array:
                return chosen.push * jax.grad(lambda point: jnp.sqrt(missed(denoise(point, t)) + TINY))(noisy)

        elif rule == "sda":
            guided = _spread_guidance(denoise, schedule, seen, chosen.gamma)
        else:
            variance = jnp.broadcast_to(seen.noise**2, seen.mask.shape)
            guided = moment_matched(
                denoise, schedule, lambda fields: seen.mask * fields, seen.values, variance, chosen.iterations
            )
        return sample(
            guided, schedule, latent, key,
            sampler=sampling.sampler, num_steps=sampling.num_steps, spacing=sampling.spacing, push=push,
        )  # fmt: skip

    calls = num_function_evaluations(sampling.sampler, sampling.num_steps)
    backward = calls * (chosen.iterations + 2 if rule == "matched" else 1)
    return answering(teacher, _kinds(options), draw, calls, backward)


def _sampling(options: Options) -> Sampling:
    return Sampling(**options["sampling"])


def _spread_guidance(denoise: Denoise, schedule: Any, seen: Observed, gamma: float) -> Denoise:
    """Observations as Gaussians around x0_hat, the variance of an example given a noisy one gamma r^2 / (1 + r^2)."""

    def guided(noisy: Array, t: Array) -> Array:
        square = schedule.noise_ratio(jnp.asarray(t, noisy.dtype)) ** 2
        scale = jnp.sqrt(seen.noise**2 / (seen.noise**2 + gamma * square / (1.0 + square)))
        return residual_guidance(denoise, schedule, lambda fields: scale * seen.misfit(fields), 1.0)(noisy, t)

    return guided


def fit_diffusion_pde(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """Heun's method pushed down what is missed of the observations and, at the end, down the residual.

        x <- x - zeta_obs grad |y - H x0_hat|                                          in the first four fifths
        x <- x - zeta_obs / 10 grad |y - H x0_hat| - zeta_pde grad |r(x0_hat)| / n     after that

    with x0_hat that of the second call of a step and gradients through both calls. The equation is that of the problem,
    not the published code's stencils, whose Darcy and Burgers residuals leave out the spacing; residuals r are in units
    of their size at mixed examples, n is the root of the number of places.

    Source: Huang et al. (2024), DiffusionPDE, arXiv 2406.17763, algorithm 1.
    """
    del host
    assert teacher is not None and teacher.model.denoise is not None
    plain, chosen, sampling = teacher.model.denoise, Answering(**options.get("answers", {})), _sampling(options)
    schedule, kinds = make_schedule(Informed(**options["informed"])), _kinds(options)
    teacher = with_residual_scale(task, options, teacher, key)

    def draw(params: Params, asked: Asked, latent: Array, key: Array) -> Array:
        del key
        denoise, missed = plain(params, asked.prepared), _missed(asked)
        broken = _broken(task.problem, kinds, params, asked)

        def potential(x0_hat: Array, late: Array) -> Array:
            early = chosen.observation_push * jnp.sqrt(missed(x0_hat) + TINY)
            ending = 0.1 * early + chosen.residual_push * jnp.sqrt(broken(x0_hat) + TINY)
            return jnp.where(late, ending, early)

        return sample_pushed(denoise, schedule, latent, potential, sampling.num_steps)

    calls = 2 * sampling.num_steps - 1
    return answering(teacher, kinds, draw, calls, calls - 1)


def with_residual_scale(task: Task, options: Options, teacher: Fitted, key: Key[Array, ""]) -> Fitted:
    """The teacher with the sizes of its residuals, see `methods.distilled.student.residual_scale`."""
    if teacher.params.residual_scale is not None:
        return teacher
    net, examples = make_network_of(task, options), task.train()
    few = examples._replace(fields=examples.fields[:PROBES], condition=examples.condition[:PROBES])
    scale = residual_scale(net, shared.encode_examples(net, teacher.params, few), key)
    return teacher._replace(params=teacher.params._replace(residual_scale=scale))


def _missed(asked: Asked) -> Callable[[Array], Array]:
    """Normalised fields -> sum of the squares that they miss of the observations, normalised units."""
    seen = asked.observed
    return lambda fields: jnp.sum((seen.mask * (fields - seen.values)) ** 2)


def _broken(equations: Equations, kinds: tuple[str, ...], params: Params, asked: Asked) -> Callable[[Array], Array]:
    """Normalised fields -> mean square of the residual in units of its size."""
    given = asked.prepared.given
    residual, scale = residual_of(equations, kinds, given.encoding, given.condition), params.residual_scale
    assert scale is not None
    return lambda fields: jnp.mean((residual(fields) / scale) ** 2)


# ---- flows


def fit_constrained(
    task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""], rule: str = "eci"
) -> Fitted:
    """A flow whose end is written over with the observations, or projected on them, at each time.

    Args:
      task: unused.
      options: groups `data` and `answers`.
      host: unused.
      teacher: a flow.
      key: unused.
      rule: "eci" or "pcfm".
    Returns:
      what answers; observations hold to rounding, their noise is not read.
    Source: Cheng et al. (2025), arXiv 2412.01786; Utkarsh et al. (2025), arXiv 2506.04171.
    """
    del host, key
    assert teacher is not None
    chosen, velocity_of = Answering(**options.get("answers", {})), make_velocity(make_network_of(task, options))

    def draw(params: Params, asked: Asked, latent: Array, key: Array) -> Array:
        velocity, seen = velocity_of(params.network, asked.prepared), asked.observed
        if rule == "eci":
            return constrained.sample_eci(
                velocity, latent, key, seen.written_over, chosen.times, chosen.mixes, 1, chosen.anchored
            )
        return constrained.sample_pcfm(
            velocity, latent, lambda fields: seen.mask * (fields - seen.values), chosen.times,
            iterations=2, final_steps=2, anchored=chosen.anchored,
        )  # fmt: skip

    return answering(teacher, _kinds(options), draw, chosen.times * (chosen.mixes if rule == "eci" else 1), 0)


def fit_d_flow(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """The noise of a flow searched for, from a random one, by what its end misses of observations and equations.

    Source: Ben-Hamu et al. (2024), arXiv 2402.14017.
    """
    del host
    assert teacher is not None
    chosen, velocity_of = Answering(**options.get("answers", {})), make_velocity(make_network_of(task, options))
    kinds, teacher = _kinds(options), with_residual_scale(task, options, teacher, key)

    def draw(params: Params, asked: Asked, latent: Array, key: Array) -> Array:
        del key
        params, asked = jax.lax.stop_gradient((params, asked))  # a search has no slopes
        potential = _potential(task.problem, kinds, params, asked, chosen.residual_weight)
        velocity = velocity_of(params.network, asked.prepared)
        carry = lambda noise: follow(velocity, noise, chosen.flow_steps)  # noqa: E731
        return constrained.sample_d_flow(carry, latent, potential, chosen.searches)

    calls = chosen.flow_steps * (chosen.searches + 1)  # a line search may need more
    return answering(teacher, kinds, draw, calls, calls)


def _potential(
    equations: Equations, kinds: tuple[str, ...], params: Params, asked: Asked, weight: float
) -> Callable[[Array], Array]:
    """Mean square of what is missed of the observations, and weight times that of the residual."""
    missed, broken = _missed(asked), _broken(equations, kinds, params, asked)
    count = jnp.maximum(jnp.sum(asked.observed.mask), 1.0)
    return lambda fields: missed(fields) / count + weight * broken(fields)


# ---- without a network


def fit_optimised_data(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """The fields themselves searched for by what they miss of observations and equations: no network, no prior."""
    del host, teacher
    net, chosen, kinds = _in_double(task, options), Answering(**options.get("answers", {})), _kinds(options)
    params = shared.fit_params(net, task.train())
    plain = Fitted(shared.make_model(net, _prepare_given, _no_network, _no_network, 0), params, {})
    plain = with_residual_scale(task, options, plain, key)

    def draw(params: Params, asked: Asked, latent: Array, key: Array) -> Array:
        del key
        params, asked = jax.lax.stop_gradient((params, asked))  # a search has no slopes
        potential = _potential(task.problem, kinds, params, asked, chosen.residual_weight)
        return constrained.descend(potential, asked.observed.written_over(latent), chosen.descents)

    return answering(plain, kinds, draw, 0, 0)


def _in_double(task: Task, options: Options) -> EquationNetwork:
    """Encodings, noise and answers in double precision: squares of residuals are conditioned badly."""
    return dataclasses.replace(make_network_of(task, options), dtype="float64")


def _prepare_given(network: Any, given: Given) -> Prepared:
    del network
    return Prepared(given, None)


def _no_network(*arguments: Any) -> Any:
    raise AssertionError("expected no call of a network")


def fit_kriging(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """The Gaussian with the mean and covariance of the training examples, given the observations: exact samples.

    Normalised fields, all channels together, 1e-6 of their mean variance added; of Gaussian data it is the posterior,
    but for the error of the moments.
    """
    del host, teacher, key
    net, kinds = _in_double(task, options), _kinds(options)
    params = shared.fit_params(net, task.train())
    fields = shared.encode_examples(net, params, task.train()).fields
    flat = jnp.reshape(fields, (len(fields), -1))
    mean = jnp.mean(flat, axis=0)
    centred = flat - mean
    covariance = centred.T @ centred / (len(flat) - 1)
    covariance = covariance + 1e-6 * jnp.mean(jnp.diagonal(covariance)) * jnp.eye(len(mean))
    root = jnp.linalg.cholesky(covariance)
    model = shared.make_model(net, _prepare_given, _no_network, _no_network, 0)
    plain = Fitted(model, params._replace(network=Moments(mean, root)), {})

    def draw(params: Params, asked: Asked, latent: Array, key: Array) -> Array:
        """A prior sample, moved by what it misses of noisy observations of it (Matheron's rule)."""
        seen, (mean, root) = asked.observed, params.network
        prior = mean + root @ jnp.ravel(latent)
        mask = jnp.ravel(seen.mask)
        noise = jnp.broadcast_to(seen.noise, seen.mask.shape).ravel()
        fresh = noise * jax.random.normal(key, mask.shape, mask.dtype)
        # rows that were not observed have a one on the diagonal
        rows = mask[:, None] * root
        innovation = rows @ rows.T + jnp.diag(jnp.where(mask > 0, noise**2, 1.0))
        missed = mask * (jnp.ravel(seen.values) - prior - fresh)
        weights = jax.scipy.linalg.solve(innovation, missed, assume_a="pos")
        return jnp.reshape(prior + root @ (rows.T @ weights), seen.mask.shape)

    return answering(plain, kinds, draw, 0, 0)


class Moments(NamedTuple):
    """Mean and root of the covariance of flattened normalised fields."""

    mean: Float[Array, "number"]
    root: Float[Array, "number number"]
