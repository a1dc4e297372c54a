"""Answers of a diffusion prior of the cause alone, the solver between it and what was observed of the solution.

    f ~ prior,   y = H (solve(f), f) + noise
    f_hat <- f_hat + V A^T (S + A V A^T)^-1 (y - H (solve(f_hat), f_hat)),   A = d H (solve(f), f) / df at f_hat

with V = sigma^2 / alpha times the Jacobian of the denoiser, S the variances of the noise. The network never sees a
solution: equations and likelihood are exact, what is learned is the cause's distribution. Where the solver is linear
and the prior Gaussian, it is the posterior, once the iterations that invert have converged.
Source: our own form of the decoupled samplers, arXiv 2601.23280, there with a learned operator for the solver; the
guidance is that of Rozet et al. (2024), arXiv 2405.13712.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from phdme_jax.diffusion.guidance import moment_matched
from phdme_jax.diffusion.samplers import num_function_evaluations
from phdme_jax.methods.base import Fitted, Host, Options, Task
from phdme_jax.methods.equations.diffusion import fit_diffusion, sample_as, teacher_schedule
from phdme_jax.methods.equations.encoding import Encoding, decode, encode, fit_encoding
from phdme_jax.methods.equations.network import EquationNetwork, Params, Sampling, network_of
from phdme_jax.methods.equations.questions import LEAST_NOISE
from phdme_jax.methods.sampling.answering import Asked, answering, answering_options, corrected


def fit_prior_and_solver(
    task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]
) -> Fitted:
    """A diffusion model of the fields beside the solution, guided through the solver.

    Args:
      task: its problem offers "map" and "resolve"; the solver is differentiated.
      options: groups `data`, `network`, `informed`, `training`, `sampling`, `answers`, and `stages.diffusion`, so that
        the prior is trained as long as a model of all fields.
      host: where it trains.
      teacher: none.
      key: of the method and seed.
    Returns:
      what answers; a known cause is solved, whatever the prior.
    """
    del teacher
    return solved_answers(fit_prior(task, options, host, key), task, options)


def fit_prior(task: Task, options: Options, host: Host, key: Key[Array, ""]) -> Fitted:
    """A diffusion model of the fields beside the solution."""
    data, examples, count = options["data"], task.train(), task.problem.num_solution
    causes = examples._replace(fields=examples.fields[..., count:])
    kinds = tuple(data["kinds"])[count:]
    alone = dataclasses.replace(task, train=lambda: causes)
    return fit_diffusion(alone, {**options, "data": {**data, "kinds": kinds}}, host, None, key)


def solved_answers(prior: Fitted, task: Task, options: Options) -> Fitted:
    """A prior of the cause, guided by observations of it and of its solution.

    Observations without noise are written into the cause, so that a forward question is its solution whatever the
    prior; all others guide it, none more than noise of `LEAST_NOISE` would.

    Args:
      prior: a diffusion model of the fields beside the solution; its parameters are `Params`.
      task: gives the solver, and the size of solutions.
      options: groups `data`, `network`, `informed`, `sampling` and `answers`.
    Returns:
      what answers, its solution computed anew.
    Raises:
      ValueError: equations without a solver.
    """
    equations, net = task.problem, network_of(task, options)
    if equations.resolve is None:
        raise ValueError(f"expected equations whose solution can be computed anew, got {equations.name}")
    chosen = answering_options(options)
    corrections = chosen.solver_corrections
    sampling, more = corrected(Sampling(**options["sampling"]), corrections, chosen.langevin_step)
    schedule, denoiser = teacher_schedule(options), prior.model.denoise
    count = equations.num_solution
    assert denoiser is not None

    def draw(params: Params, asked: Asked, latent: Array, key: Array) -> Array:
        seen, (given, _) = asked.observed, asked.prepared
        exact = (seen.mask * (seen.noise <= LEAST_NOISE))[..., count:] > 0

        def completed(cause: Array) -> Array:
            return with_solution(net, params.fields, given.condition, cause)

        guided = moment_matched(
            denoiser(params, asked.prepared),
            schedule,
            lambda cause: seen.mask * completed(cause),
            seen.values,
            jnp.broadcast_to(seen.noise**2, seen.mask.shape),
            chosen.solver_iterations,
        )
        known = lambda x0_hat: jnp.where(exact, seen.values[..., count:], x0_hat)  # noqa: E731
        cause = sample_as(sampling, guided, schedule, latent, key, clamp=known, **more)
        return completed(cause)

    whole = prior.params._replace(fields=whole_encoding(net, task, prior.params.fields))
    model = dataclasses.replace(prior.model, finish=equations.resolve)
    calls = num_function_evaluations(sampling.sampler, sampling.num_steps, corrections)
    return answering(net, prior._replace(model=model, params=whole), draw, calls, calls * chosen.solver_iterations)


def whole_encoding(net: EquationNetwork, task: Task, cause: Encoding) -> Encoding:
    """That of all fields: of the solution as the examples say, of the cause as its prior has it."""
    count = net.equations.num_solution
    solution = fit_encoding(jnp.asarray(task.train().fields[..., :count]), net.kinds[:count])
    return Encoding(*(jnp.concatenate([a.astype(b.dtype), b]) for a, b in zip(solution, cause, strict=True)))


def with_solution(
    net: EquationNetwork,
    encoding: Encoding,
    condition: Float[Array, "*grid channel"],
    cause: Float[Array, "*grid cause"],
) -> Float[Array, "*grid field"]:
    """Normalised fields of a normalised cause, the solution solved for; differentiable where the solver is.

    Solved in the widest floating type that is enabled, as solvers may ask for it.
    """
    equations, count = net.equations, net.equations.num_solution
    assert equations.resolve is not None
    of_solution, of_cause = (Encoding(*(leaf[part] for leaf in encoding)) for part in np.s_[:count, count:])
    empty = jnp.zeros((*cause.shape[:-1], count), float)
    fields = jnp.concatenate([empty, decode(of_cause, net.kinds[count:], cause.astype(float))], axis=-1)
    solution = equations.resolve(fields, condition.astype(float))[..., :count]
    solved = encode(of_solution, net.kinds[:count], solution)
    return jnp.concatenate([solved.astype(cause.dtype), cause], axis=-1)
