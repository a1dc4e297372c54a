"""Floor 2: where the wings meet. Adding a method is one entry here and, where it needs one, a file."""

from phdme_jax.methods.base import Method

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("phdme", "posterior rollouts, initial-state conditioning, weighted physics residual"),
        Method("phdme_rollout", "the same, conditioned on the posterior-mean rollout", mean="rollout"),
        Method("diffusion", "the same networks, trained on the observed data alone", data="observed", physics=False),
        Method("diffusion_augmented", "posterior rollouts, no physics residual", physics=False),
        Method("gp_rollout", "posterior-mean energy integrated in time, no diffusion", kind="rollout"),
        Method("quadratic_hamiltonian", "the best quadratic energy, integrated", kind="rollout", energy="quadratic"),
        Method("gp_dphs_independent", "two independent processes on the efforts", kind="rollout", energy="independent"),
    )
}


def make_method(name: str) -> Method:
    """Look a method up by name.

    Raises:
      ValueError: unknown name.
    """
    if name not in METHODS:
        raise ValueError(f"expected a method among {sorted(METHODS)}, got {name!r}")
    return METHODS[name]
