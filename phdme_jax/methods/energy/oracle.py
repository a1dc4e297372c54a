"""PHDME with the true energy in place of the learned one: how much the learned energy costs."""

from jaxtyping import Array, Key

from phdme_jax.methods.base import Fitted, Host, Options, Task
from phdme_jax.methods.energy.dynamics import rollout_model, true_dynamics
from phdme_jax.methods.energy.generator import Recipe, fit_generator


def fit(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """Train on rollouts of the true energy, with its residual; options as for `fit_generator`."""
    del teacher
    dynamics = true_dynamics(task.problem, options["prior"]["substeps"])
    moving = len(task.problem.fields) - task.companions
    truth = Fitted(rollout_model(dynamics, task.times, moving), (), {})
    return fit_generator(Recipe(kept="rollouts_true"), task, options, host, truth, key)
