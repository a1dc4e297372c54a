"""Denoising alone, whatever the problem: the baseline of every method that adds physics."""

from jaxtyping import Array, Key

from phdme_jax.methods.base import Fitted, Host, Options, Task
from phdme_jax.methods.energy.generator import make_fit
from phdme_jax.methods.equations.diffusion import fit_diffusion as fit_fields

_fit_trajectories = make_fit(data="observed", physics=False)


def fit_diffusion(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """Train on what was observed alone: of a system that moves around a learned mean, of fields without one."""
    fit = _fit_trajectories if "structure" in task.problem.offers else fit_fields
    return fit(task, options, host, teacher, key)
