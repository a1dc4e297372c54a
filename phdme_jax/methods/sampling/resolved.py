"""Generate, then solve: a teacher whose solution is computed anew from the other fields."""

import dataclasses

from jaxtyping import Array, Key

from phdme_jax.methods.base import Fitted, Host, Options, Task
from phdme_jax.methods.equations.questions import of_condition
from phdme_jax.numerics.bound import Bound
from phdme_jax.systems.equations.base import Equations


def resolved(fitted: Fitted, problem: Equations, questions: bool = False) -> Fitted:
    """A fitted method whose draws are finished by the solution computed anew, unless something else finishes them.

    Args:
      fitted: a method.
      problem: the equations.
      questions: whether the method answers questions.
    Returns:
      the method with another `finish`.
    Raises:
      ValueError: equations without a solution to compute.
    """
    if problem.resolve is None:
        raise ValueError(f"expected equations whose solution can be computed anew, got {problem.name}")
    if fitted.model.finish is not None:
        return fitted
    finish = Bound(of_condition, problem.resolve) if questions else problem.resolve
    return fitted._replace(model=dataclasses.replace(fitted.model, finish=finish))


def fit_resolved(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """The teacher's own draws, each finished by `Equations.resolve`; nothing is trained."""
    del options, host, key
    assert teacher is not None
    return resolved(teacher, task.problem)
