"""A Fourier neural operator from frame to frame, whatever the problem: the regression baseline."""

from jaxtyping import Array, Key

from phdme_jax.methods.base import Fitted, Host, Options, Task
from phdme_jax.methods.baselines.field_networks import fit_fourier as fit_trajectories
from phdme_jax.methods.baselines.ring_operator import fit_ring_operator


def fit_fourier(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """Train on windows of what was observed: of a system that moves, or of fields whose first frames are given."""
    fit = fit_trajectories if "structure" in task.problem.offers else fit_ring_operator
    return fit(task, options, host, teacher, key)
