"""Answers of a flow whose end is made to obey observations and conservation at each time (ECI, PCFM).

Nothing is trained.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from phdme_jax.diffusion import constrained
from phdme_jax.diffusion.constrained import Correct, Residual, project
from phdme_jax.methods.base import Fitted, Host, Options, Task
from phdme_jax.methods.equations.constraints import OfExample, conserved_of, residual_of
from phdme_jax.methods.equations.flow import make_velocity
from phdme_jax.methods.equations.network import EquationNetwork, Params, network_of
from phdme_jax.methods.equations.questions import Observed
from phdme_jax.methods.equations.residual_size import with_residual_scale
from phdme_jax.methods.sampling.answering import Answering, Asked, answering, answering_options


class Effort(NamedTuple):
    """What projections take: Gauss-Newton steps at the end, conjugate gradients of each, and those of a step before."""

    final_steps: int
    iterations: int
    before: int


VALUES, AFFINE, CURVED = Effort(2, 2, 2), Effort(3, 40, 40), Effort(6, 40, 40)
STEPPED = Effort(6, 150, 150)  # first steps of a scheme say some of what is conserved again


def fit_constrained(
    task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""], rule: str = "eci"
) -> Fitted:
    """A flow whose end is made to obey a constraint at each time.

    Its end is written over with the observations, what else is conserved and affine corrected by the least change of
    the rest (ECI), or projected on observations, all that is conserved and, where asked for, the residual of the first
    frames (PCFM).

    Args:
      task: gives the network its shape, and what is conserved.
      options: groups `data`, `network` and `answers`.
      host: unused.
      teacher: a flow.
      key: unused.
      rule: "eci" or "pcfm".
    Returns:
      what answers; constraints hold to rounding, the noise of observations is not read.
    Source: Cheng et al. (2025), arXiv 2412.01786; Utkarsh et al. (2025), arXiv 2506.04171.
    """
    del host
    assert teacher is not None
    chosen, net = answering_options(options), network_of(task, options)
    velocity_of, teacher = make_velocity(net), able_to_impose(net, chosen, teacher, task, key)

    def draw(params: Params, asked: Asked, latent: Array, key: Array) -> Array:
        velocity, seen = velocity_of(params.network, asked.prepared), asked.observed
        balance = imposed(net, chosen, params, asked)
        if rule == "eci":
            return constrained.sample_eci(
                velocity,
                latent,
                key,
                settled(seen, AFFINE, balance if net.equations.affine_conserved else None),
                chosen.times,
                num_mixes=chosen.mixes,
                resample_every=chosen.resample_every,
                anchored=chosen.anchored,
            )
        steps = first_steps(net, chosen, params, asked)
        effort = effort_for(net, balance, steps)
        ends = constrained.sample_pcfm(
            velocity,
            latent,
            together(seen, balance, steps),
            chosen.times,
            iterations=effort.before,
            final_steps=0,
            anchored=chosen.anchored,
        )
        return settled(seen, effort, balance, steps)(ends)

    return answering(net, teacher, draw, chosen.times * (chosen.mixes if rule == "eci" else 1))


def effort_for(net: EquationNetwork, balance: OfExample | None, steps: OfExample | None) -> Effort:
    """What projections take on observations and, where they are not None, what is conserved and the first steps."""
    if steps is not None:
        return STEPPED
    return VALUES if balance is None else AFFINE if net.equations.affine_conserved else CURVED


def able_to_impose(net: EquationNetwork, chosen: Answering, teacher: Fitted, task: Task, key: Key[Array, ""]) -> Fitted:
    """A teacher that knows the size of the residual where its first steps are imposed.

    Raises:
      ValueError: they are to be imposed where the fields are not known to have an axis of time, or fewer frames.
    """
    if not chosen.imposed_frames:
        return teacher
    axis = net.equations.time_axis
    if axis is None:
        raise ValueError(
            f"expected fields with an axis of time for answers.imposed_frames={chosen.imposed_frames}, and "
            f"{net.equations.name} is not known to have one; set it to 0"
        )
    if chosen.imposed_frames >= net.equations.grid.points[axis]:
        raise ValueError(
            f"expected answers.imposed_frames below the {net.equations.grid.points[axis]} frames of "
            f"{net.equations.name}, got {chosen.imposed_frames}"
        )
    return teacher._replace(params=with_residual_scale(net, teacher.params, task, key))


def first_steps(net: EquationNetwork, chosen: Answering, params: Params, asked: Asked) -> OfExample | None:
    """Normalised fields -> residual at the first frames, in units of its size; None where it is not imposed."""
    if not chosen.imposed_frames:
        return None
    assert params.residual_scale is not None
    given, scale = asked.prepared.given, params.residual_scale
    residual = residual_of(net.equations, net.kinds, given.encoding, given.condition)
    last, axis = 1 + chosen.imposed_frames, net.equations.time_axis
    assert axis is not None
    return lambda fields: jax.lax.slice_in_dim(residual(fields), 1, last, axis=axis) / scale


def imposed(net: EquationNetwork, chosen: Answering, params: Params, asked: Asked) -> OfExample | None:
    """Normalised fields -> what must vanish as it is conserved; None where nothing is, or it is not imposed."""
    if not chosen.imposes_conserved:
        return None
    return conserved_of(net.equations, net.kinds, params.fields, asked.prepared.given.condition)


def settled(seen: Observed, effort: Effort, *others: OfExample | None) -> Correct:
    """Observations written over and, by the least change of all other values, all else that is not None imposed.

    Observations hold exactly, and the rest is better conditioned than with both imposed side by side.
    """
    asked = [other for other in others if other is not None]
    if not asked:
        return seen.written_over

    def rest(point: Array) -> Array:
        fields = seen.written_over(point)
        return jnp.concatenate([other(fields).ravel() for other in asked])

    def correct(fields: Array) -> Array:
        return seen.written_over(project(rest, fields, effort.final_steps, effort.iterations))

    return correct


def together(seen: Observed, *others: OfExample | None) -> Residual:
    """What is missed of observations and of all else that is not None, side by side."""
    asked = [other for other in others if other is not None]

    def residual(fields: Array) -> Array:
        missed = (seen.mask * (fields - seen.values)).ravel()
        return jnp.concatenate([missed, *(other(fields).ravel() for other in asked)])

    return residual
