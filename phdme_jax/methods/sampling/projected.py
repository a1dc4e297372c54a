"""Generate, then project: each sample of a teacher brought to what is conserved, exactly."""

import dataclasses

from jaxtyping import Array, Key

from phdme_jax.methods.base import Fitted, Host, Options, Task
from phdme_jax.systems.equations.base import Equations


def with_projection(fitted: Fitted, problem: Equations) -> Fitted:
    """A fitted method whose draws are finished by the projection of the problem.

    Args:
      fitted: a method.
      problem: the equations.
    Returns:
      the method with another `finish`.
    Raises:
      ValueError: equations without a projection.
    """
    if problem.priors.project is None:
        raise ValueError(f"expected equations with a projection on what is conserved, got {problem.name}")
    return fitted._replace(model=dataclasses.replace(fitted.model, finish=problem.priors.project))


def fit_projected(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """The teacher's own draws, each finished by `Priors.project`; nothing is trained."""
    del options, host, key
    assert teacher is not None
    return with_projection(teacher, task.problem)
