"""Goes: the tables of the two old stacks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One row of a comparison.

    Attributes:
      name: name in results.
      summary: one line for reports.
      stream: number of the method's random draws, its own among all methods.
      kind: "generative" (a trained diffusion model), "rollout" (an energy integrated in time, nothing trained), or
        "network" (dynamics or a time step learned by a network from the observed trajectories).
      data: "observed" trajectories alone, or "rollouts" of the posterior beside them; for generative methods.
      mean: what the diffusion model is centred on: "propagator" (learned from the initial state) or "rollout" (the
        posterior-mean rollout).
      physics: whether the residual of the learned energy enters the loss.
      energy: which energy is integrated or sampled: "posterior", "quadratic", "independent", or "true", which no
        other method is told.
    """

    name: str
    summary: str
    stream: int
    kind: str = "generative"
    data: str = "rollouts"
    mean: str = "propagator"
    physics: bool = True
    energy: str = "posterior"


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
