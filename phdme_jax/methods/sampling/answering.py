"""What all methods share that answer questions: options, a question in normalised units, what is missed of it."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from phdme_jax.methods.base import Fitted, Options, Task
from phdme_jax.methods.equations import network as shared
from phdme_jax.methods.equations.encoding import decode
from phdme_jax.methods.equations.network import EquationNetwork, Given, Params, Prepared, Sampling
from phdme_jax.methods.equations.questions import Observed, Question, observed, of_condition
from phdme_jax.methods.equations.residual_size import scaled_residual
from phdme_jax.numerics.bound import Bound

TINY = 1e-12  # below the square of anything that is missed: roots have slopes


@dataclasses.dataclass(frozen=True)
class Answering:
    """The group `answers` of the options, which may be left out.

    Attributes:
      push: of `dps`: length of its steps, in normalised units.
      gamma: of `sda` and `residual_guidance`: variance of an example given a noisy one, in units of r^2 b / (b + r^2).
      variance_bound: b there; zero is none, gamma r^2, as published.
      langevin_corrections: of `sda` and `moment_matched`, at every level but the first, see `samplers.sample`; steps
        between levels are then those of "ddim".
      langevin_step: of these.
      solver_corrections: the same of `prior_and_solver`.
      iterations: of `moment_matched` and `matched_flow`, of least residuals in each call.
      solver_iterations: of `prior_and_solver`, the same.
      observation_push: of `diffusionpde`.
      residual_push: of `diffusionpde`, in the last fifth of its levels.
      pushed_steps: of `dps`, of `diffusionpde` and of `sda` with corrections, whose errors fall with their number; zero
        takes those of `sampling`.
      published_residual: whether `diffusionpde` goes down `Equations.published`, where there is one.
      guidance: of `residual_guidance`, weight of the denoiser that is told a residual of zero over the one that is told
        nothing; at one it is that denoiser alone.
      times: of `eci` and `pcfm`.
      mixes: of `eci`, at each time.
      resample_every: of `eci`, corrections between fresh draws of its noise; zero keeps the first, as published for
        initial values.
      anchored: whether `eci` and `pcfm` go through the noise at each time, as published; else on from where they are,
        see `constrained.sample_eci`.
      imposes_conserved: whether `eci`, `pcfm` and `matched_flow` impose what is conserved beside the observations,
        where the problem has it; `eci` what is affine in the fields alone.
      imposed_frames: of `pcfm` and `matched_flow`, frames after the first at which they impose the residual too, of
        fields with an axis of time; five of Burgers' equation as published.
      searches: of `d_flow`, steps of L-BFGS.
      student_searches: of `piddm_search`, steps of Adam.
      student_rate: of these steps.
      flow_steps: of `d_flow`, calls to follow the flow once.
      residual_weight: of `d_flow`, `piddm_search` and `optimised_data`, beside the mean square of the observations'
        misfit.
      descents: of `optimised_data`, steps of L-BFGS.
    """

    push: float = 1.0
    gamma: float = 1.0
    variance_bound: float = 1.0
    langevin_corrections: int = 0
    langevin_step: float = 0.5
    solver_corrections: int = 0
    iterations: int = 4
    solver_iterations: int = 16
    observation_push: float = 1.0
    residual_push: float = 0.1
    pushed_steps: int = 0
    published_residual: bool = False
    guidance: float = 2.0
    times: int = 100
    mixes: int = 1
    resample_every: int = 0
    anchored: bool = True
    imposes_conserved: bool = True
    imposed_frames: int = 0
    searches: int = 10
    student_searches: int = 100
    student_rate: float = 0.05
    flow_steps: int = 12
    residual_weight: float = 1.0
    descents: int = 2000


def answering_options(options: Options) -> Answering:
    """The group `answers`, usual values where it is left out."""
    return Answering(**options.get("answers", {}))


def corrected(sampling: Sampling, corrections: int, step: float) -> tuple[Sampling, dict[str, Any]]:
    """Sampling with Langevin corrections, and what asks `samplers.sample` for them.

    Between corrections it goes in steps of `ddim`, which recall no other state.

    Args:
      sampling: as without them, which it stays where there are none.
      corrections: at every level.
      step: of these.
    Returns:
      how to sample, and further arguments.
    """
    if not corrections:
        return sampling, {}
    return sampling._replace(sampler="ddim"), {"corrections": corrections, "correction_step": step}


class Asked(NamedTuple):
    """What all samples of a question share."""

    prepared: Prepared
    observed: Observed


Draw = Callable[[Params, Asked, Array, Array], Array]
"""(params, asked, latent, key) -> normalised fields."""


def answering(net: EquationNetwork, teacher: Fitted, draw: Draw, calls: int = 0, backward: int = 0) -> Fitted:
    """The teacher with questions for conditions and another draw.

    Args:
      net: the teacher's network.
      teacher: what was trained; its parameters are `Params`.
      draw: see `Draw`.
      calls: of the network a sample.
      backward: gradients through it a sample.
    Returns:
      what answers.
    """
    plain = teacher.model

    def prepare(params: Params, question: Question) -> Asked:
        return Asked(plain.prepare(params, question.condition), observed(question, params.fields, net.kinds))

    def draw_fields(params: Params, asked: Asked, latent: Array, key: Array) -> Array:
        return decode(params.fields, net.kinds, draw(params, asked, latent, jax.random.split(key)[1]))

    model = dataclasses.replace(
        plain,
        prepare=prepare,
        draw=draw_fields,
        denoise=None,
        sample=None,
        num_calls=calls,
        num_backward=backward,
        finish=None if plain.finish is None else Bound(of_condition, plain.finish),
    )
    return teacher._replace(model=model)


def missed(asked: Asked) -> Callable[[Array], Array]:
    """Normalised fields -> sum of the squares that they miss of the observations, normalised units."""
    seen = asked.observed
    return lambda fields: jnp.sum((seen.mask * (fields - seen.values)) ** 2)


def broken(net: EquationNetwork, params: Params, prepared: Prepared) -> Callable[[Array], Array]:
    """Normalised fields -> mean square of the residual in units of its size."""
    assert params.residual_scale is not None
    return scaled_residual(net, prepared.given, params.residual_scale, detached=False)


def misfit(net: EquationNetwork, params: Params, asked: Asked, weight: float) -> Callable[[Array], Array]:
    """Normalised fields -> mean square of what they miss of the observations, and weight times that of the residual."""
    of_values, of_equations = missed(asked), broken(net, params, asked.prepared)
    count = jnp.maximum(jnp.sum(asked.observed.mask), 1.0)
    return lambda fields: of_values(fields) / count + weight * of_equations(fields)


def without_network(task: Task, options: Options) -> tuple[EquationNetwork, Fitted]:
    """Encodings alone, in double precision, as squares of residuals and covariances are conditioned badly.

    Args:
      task: its problem is `Equations`.
      options: groups `network`, of which nothing is computed, and `data`.
    Returns:
      the network that gives shapes, and what `answering` takes for a teacher.
    """
    net = dataclasses.replace(shared.network_of(task, options), dtype="float64")
    model = shared.make_model(net, _prepare_given, _no_network, _no_network, 0)
    return net, Fitted(model, shared.fit_params(net, task.train()), {})


def _prepare_given(network: object, given: Given) -> Prepared:
    del network
    return Prepared(given, None)


def _no_network(*arguments: object) -> Any:
    raise AssertionError("expected no call of a network")
