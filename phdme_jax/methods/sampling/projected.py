"""Generate, then project: each sample of a teacher brought to what is conserved, exactly."""

import dataclasses
from collections.abc import Callable

from jaxtyping import Array, Key

from phdme_jax.methods.base import Fitted, Host, Options, Task
from phdme_jax.numerics.bound import Bound
from phdme_jax.systems.equations.base import Equations


def with_projection(fitted: Fitted, problem: Equations) -> Fitted:
    """A fitted method whose draws are finished by the projection of the problem, after what else finishes them.

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
    finish, before = problem.priors.project, fitted.model.finish
    if before is not None:
        finish = Bound(_after, before, finish)
    return fitted._replace(model=dataclasses.replace(fitted.model, finish=finish))


def _after(
    before: Callable[[Array, Array], Array], project: Callable[[Array, Array], Array], fields: Array, condition: Array
) -> Array:
    return project(before(fields, condition), condition)


def fit_projected(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """The teacher's own draws, each finished by `Priors.project`; nothing is trained."""
    del options, host, key
    assert teacher is not None
    return with_projection(teacher, task.problem)
