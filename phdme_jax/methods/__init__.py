"""Floor 2: where the wings meet. Adding a method is one entry here and, where it needs one, a file."""

from phdme_jax.methods.base import Method
from phdme_jax.methods.equation_models import EquationMethod

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


_OF_EQUATIONS = (
    EquationMethod("diffusion", "denoising alone", 0),
    EquationMethod("pidm_me", "the residual of the denoiser's mean in the loss", 1, physics="mean"),
    EquationMethod("pidm_se", "the residual of a sample in the loss", 2, physics="sample"),
    EquationMethod("pidm_map", "the solution predicted from other fields, its residual in the loss", 6, physics="map"),
    EquationMethod("pg_diffusion", "the gradient of the residual told to the network", 3, physics="input"),
    EquationMethod("cocogen", "diffusion, corrected down the residual while and after sampling", 0, after="correct"),
    EquationMethod("generate_then_solve", "diffusion, the solution computed anew", 0, after="resolve"),
    EquationMethod("flow_matching", "a velocity along straight lines, without physics", 4, model="flow"),
    EquationMethod(
        "pbfm", "the same, residual at the end, gradients merged", 5, "flow", physics="merged", restart_until=0.2
    ),
)
EQUATION_METHODS: dict[str, EquationMethod] = {method.name: method for method in _OF_EQUATIONS}
