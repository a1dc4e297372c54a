"""The Fourier neural operator, each step brought to what the given frame holds of the invariants.

    u <- u - J^T (J J^T)^+ (I(u) - I(u_0)),   J = dI/du,   a few times after each step

I are the invariants that the problem declares, of one frame: of advection mass and energy, of Burgers' equation the
mass alone. Mass and energy of one field have the nearest frame with these values as their fixed point: deviations from
the mean are scaled, and the mean is put right. The projection is done after training and is no part of it, so that the
difference to the teacher is the projection's.
Source: Obieke, Chukwuemeka, Oguadimma (2026), arXiv 2606.14913, for a projection after each step; of it the abstract
alone was read.
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from phdme_jax.diffusion.networks import repeated
from phdme_jax.methods.base import Fitted, Host, Model, Options, Task
from phdme_jax.methods.baselines.fourier_operator import FourierOperator, operate
from phdme_jax.methods.baselines.ring_operator import FrameParams, Kinds, frames_model, ring_operator
from phdme_jax.methods.equations.encoding import decode, encode
from phdme_jax.numerics.bound import Bound
from phdme_jax.systems.equations.base import Equations

ITERATIONS = 6  # Heron's for the size of deviations: from twice the right one to rounding


def frame_invariants(equations: Equations, frame: Float[Array, "*space field"]) -> Float[Array, "invariant"]:
    """What one frame holds of each invariant of equations without conditions of their own, physical units."""
    assert equations.time_axis is not None
    fields = jnp.expand_dims(frame, equations.time_axis)
    found = (invariant(fields, fields[..., :0]) for _, invariant in equations.priors.invariants)
    return jnp.concatenate([jnp.ravel(values) for values in found])


def project_frame(
    equations: Equations, frame: Float[Array, "*space field"], target: Float[Array, "invariant"]
) -> Float[Array, "*space field"]:
    """A frame with given values of the invariants, by Newton steps of least change.

    Args:
      equations: with invariants of single frames.
      frame: physical units.
      target: values of the invariants, from `frame_invariants`.
    Returns:
      the frame. One that is constant keeps its deviations, none.
    """

    def once(_: Array, frame: Array) -> Array:
        slope = jax.jacrev(lambda frame: frame_invariants(equations, frame))(frame)
        flat = jnp.reshape(slope, (len(target), -1))
        # the slopes of mass and energy are parallel where the frame is constant
        weights = jnp.linalg.pinv(flat @ flat.T, hermitian=True) @ (frame_invariants(equations, frame) - target)
        return frame - jnp.reshape(weights @ flat, frame.shape)

    return jax.lax.fori_loop(0, ITERATIONS, once, frame)


def _continued(
    equations: Equations, config: FourierOperator, kinds: Kinds, params: FrameParams, frame: Array, num_frames: int
) -> Array:
    target = frame_invariants(equations, frame)

    def step(frame: Array) -> Array:
        following = operate(config, params.network, encode(params.encoding, kinds, frame), 2)[1]
        return project_frame(equations, decode(params.encoding, kinds, following), target)

    return repeated(step, frame, num_frames)


@lru_cache
def _model(equations: Equations, config: FourierOperator, kinds: Kinds) -> Model:
    return frames_model(equations, Bound(_continued, equations, config, kinds))


def fit_projected_operator(
    task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]
) -> Fitted:
    """The teacher's own network, each of its steps projected; nothing is trained.

    Args:
      task: its problem is `Equations` on a ring with invariants whose first frames are given.
      options: those of the teacher.
      host: not needed.
      teacher: `fno` of the same problem.
      key: not needed.
    Returns:
      the method, its parameters those of the teacher.
    """
    del host, key
    assert teacher is not None
    config = ring_operator("projected_fno", task.problem, options)
    return teacher._replace(model=_model(task.problem, config, tuple(options["data"]["kinds"])))
