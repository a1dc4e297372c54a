"""Particles that go on with the velocity of the last frame that is given; nothing is learned."""

from collections.abc import Callable
from functools import partial
from typing import Any

from jaxtyping import Array, Key

from phdme_jax.methods.base import Fitted, Host, Options, Task, mean_model
from phdme_jax.methods.particles.steps import continued, known
from phdme_jax.systems.equations.base import Equations
from phdme_jax.systems.particles.base import Motion


def fit_constant(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """The method; exact where no force acts."""
    del options, host, teacher, key
    return Fitted(mean_model(partial(_go_on, task.problem), ()), (), {})


def _go_on(problem: Equations, params: Any, condition: Array) -> Array:
    del params
    return continued(problem, partial(_straight, problem.grid.spacing[0]), known(problem, condition))


def _straight(interval: float, coupling: Array) -> Callable[[Motion], Motion]:
    del coupling
    return lambda motion: Motion(motion.position + interval * motion.velocity, motion.velocity)
