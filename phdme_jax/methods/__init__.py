"""Floor 2: where the wings meet. Adding a method is one entry here and, where it needs one, a file."""

from phdme_jax.methods.base import Method

_ALL = (
    Method("phdme", "posterior rollouts, initial-state conditioning, weighted physics residual", 4),
    Method("phdme_rollout", "the same, conditioned on the posterior-mean rollout", 5, mean="rollout"),
    Method("phdme_oracle", "phdme with the true energy in place of the learned one", 7, energy="true"),
    Method("diffusion", "the same networks, trained on the observed data alone", 0, data="observed", physics=False),
    Method("diffusion_augmented", "posterior rollouts, no physics residual", 1, physics=False),
    Method("gp_rollout", "posterior-mean energy integrated in time, no diffusion", 3, kind="rollout"),
    Method("gp_dphs_independent", "two independent processes on the efforts", 2, kind="rollout", energy="independent"),
    Method("quadratic_hamiltonian", "the best quadratic energy, integrated", 6, kind="rollout", energy="quadratic"),
    Method("hnn", "energy density and damping by a network, structure known", 8, kind="network", data="observed"),
    Method("neural_ode", "rates by a network of the neighbours of each point", 9, kind="network", data="observed"),
    Method("fno", "a Fourier neural operator from frame to frame", 10, kind="network", data="observed"),
)
METHODS: dict[str, Method] = {method.name: method for method in _ALL}


def make_method(name: str) -> Method:
    """Look a method up by name.

    Raises:
      ValueError: unknown name.
    """
    if name not in METHODS:
        raise ValueError(f"expected a method among {sorted(METHODS)}, got {name!r}")
    return METHODS[name]
