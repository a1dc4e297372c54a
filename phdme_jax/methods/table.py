"""The table of methods, for systems with an energy and for known equations alike: one line a method."""

import importlib
from functools import partial
from typing import Any

from phdme_jax.methods.base import Fit, Fitted, Method, Task
from phdme_jax.methods.baselines import independent
from phdme_jax.methods.baselines.constant_velocity import fit_constant
from phdme_jax.methods.baselines.kriging import fit_kriging
from phdme_jax.methods.baselines.optimised_data import fit_optimised_data
from phdme_jax.methods.diffusion import fit_diffusion
from phdme_jax.methods.distilled.flow_map import fit_flow_map
from phdme_jax.methods.distilled.forecaster import fit_one_step
from phdme_jax.methods.distilled.student import fit_refined, fit_student
from phdme_jax.methods.energy import gp_rollout, oracle
from phdme_jax.methods.energy.generator import Recipe, make_fit
from phdme_jax.methods.equations.diffusion import fit_informed
from phdme_jax.methods.equations.flow import fit_flow_matching, fit_merged
from phdme_jax.methods.equations.gradient_input import fit_gradient_input
from phdme_jax.methods.equations.random_walk import fit_random_walk
from phdme_jax.methods.particles.pair_rollout import fit_generated, fit_pairs
from phdme_jax.methods.penalties.fit import fit_priors
from phdme_jax.methods.sampling.constrained_flow import fit_constrained
from phdme_jax.methods.sampling.corrected import fit_corrected
from phdme_jax.methods.sampling.d_flow import fit_d_flow
from phdme_jax.methods.sampling.diffusion_pde import fit_diffusion_pde
from phdme_jax.methods.sampling.guided import fit_guided
from phdme_jax.methods.sampling.matched_flow import fit_matched_flow
from phdme_jax.methods.sampling.prior_and_solver import fit_prior_and_solver
from phdme_jax.methods.sampling.projected import fit_projected
from phdme_jax.methods.sampling.resolved import fit_resolved
from phdme_jax.methods.sampling.student_search import fit_student_search
from phdme_jax.methods.sampling.told_residual import fit_residual_guidance
from phdme_jax.methods.sensors.assimilation import fit_assimilation
from phdme_jax.methods.sensors.ensemble import make_ensemble_smoother
from phdme_jax.methods.sensors.generator import fit_sensed
from phdme_jax.methods.sensors.interpolated import make_interpolated
from phdme_jax.methods.sensors.variational import make_variational
from phdme_jax.numerics.bound import Bound
from phdme_jax.systems.priors import FORMS

PHDME, PIDM, PBFM = "arXiv 2601.21234", "arXiv 2403.14404", "arXiv 2506.08604"
PIDDM, PRIORS = "arXiv 2505.22391", "arXiv 2409.00730"
GP_DPHS = "arXiv 2406.11809"
PG, COCOGEN = "J. Comput. Phys. 478, 111972", "SIAM J. Sci. Comput. 47, C399"
ENERGY, EQUATIONS = frozenset({"structure"}), frozenset({"residual"})
STEP = ENERGY | {"even_times"}  # a learned time step is repeated
GIVEN_RING = frozenset({"given_frames", "periodic"})
TRUE_ENERGY = STEP | {"true_energy"}
PAIRS, MAP_OPTIONS = ("distilled", "stages.distilled"), ("flow_map", "stages.flow_map")
SYMMETRY = frozenset({"symmetry"})
PARTICLES = frozenset({"particles", "given_frames"})
MAP, RESOLVE = EQUATIONS | {"map"}, EQUATIONS | {"resolve"}


def _fit_later(module: str, name: str, *arguments: Any) -> Fitted:
    return getattr(importlib.import_module(f"phdme_jax.methods.{module}"), name)(*arguments)


def _later(module: str, name: str) -> Bound:
    """A fit whose module is imported when it is first run, as what it alone needs takes long to import."""
    return Bound(_fit_later, module, name)


def _fit_either(structured: Fit, given: Fit, task: Task, *arguments: Any) -> Fitted:
    """Of a system with a structure, or of known equations whose first frames are given."""
    return (structured if "structure" in task.problem.offers else given)(task, *arguments)


_Student = partial(Method, needs=EQUATIONS, scope="named")
_Answer = partial(Method, needs=EQUATIONS, scope="named", questions=True)
_Prior = partial(Method, source=PRIORS, scope="named")
_Sensed = partial(Method, needs=STEP, scope="named", questions=True, own=("sensors",))

# fmt: off
_ALL = (
    # learned energies: name, summary, stream, fit, source, teacher, needs
    Method("phdme", "posterior rollouts, conditioned on the initial state, weighted physics residual", 4,
           make_fit(), PHDME, "gp_rollout", STEP),
    Method("phdme_rollout", "the same around the rollout of the mean energy", 5,
           make_fit(centre="rollout"), "", "gp_rollout", ENERGY),
    Method("phdme_oracle", "phdme with the true energy in place of the learned one", 7,
           oracle.fit, "", None, TRUE_ENERGY, scope="full"),
    Method("diffusion", "denoising of what was observed alone", 0, fit_diffusion),
    Method("diffusion_augmented", "posterior rollouts, no physics residual", 1,
           make_fit(physics=False), "", "gp_rollout", STEP),
    Method("gp_rollout", "the learned energy integrated in time, no diffusion", 3,
           Bound(_fit_either, gp_rollout.fit, fit_pairs), GP_DPHS, None, ENERGY, PARTICLES),
    Method("quadratic_hamiltonian", "the best quadratic energy, integrated", 6,
           gp_rollout.fit_quadratic, "", None, ENERGY),
    Method("diffusion_physics", "what was observed alone, with the residual of the learned energy", 0,
           make_fit(data="observed"), "", "gp_rollout", STEP, scope="named"),
    Method("gp_dphs_independent", "two independent processes on the efforts", 2, independent.fit, GP_DPHS, None,
           ENERGY | {"inversion"}),
    Method("hnn", "energy density and damping by a network, structure known", 8,
           Bound(_fit_either, _later("baselines.field_networks", "fit_hamiltonian"),
                 _later("baselines.pair_network", "fit_hamiltonian")),
           "arXiv 2107.08024", None, STEP, PARTICLES, scope="full"),
    Method("neural_ode", "rates by a network of the neighbours of each point", 9,
           _later("baselines.field_networks", "fit_neural"), "arXiv 1806.07366", None, STEP, scope="full"),
    Method("fno", "a Fourier neural operator from frame to frame", 10,
           Bound(_fit_either, _later("baselines.field_networks", "fit_fourier"),
                 _later("baselines.ring_operator", "fit_ring_operator")),
           "arXiv 2010.08895", None, STEP, GIVEN_RING, scope="full"),
    Method("phlearn", "the public package of pseudo-Hamiltonian networks", 11,
           _later("baselines.phlearn", "fit_phlearn"), "arXiv 2206.02660", None, ENERGY | {"ports"}, scope="full"),
    Method("phdme_one_step", "phdme in one call of its network", 13,
           Bound(fit_one_step, Recipe()), "arXiv 2101.02388", "phdme", STEP, scope="named", own=("one_step",)),
    # learned energies, forecasts from a few sensors
    _Sensed("phdme_sensors", "phdme from states that a diffusion model draws around Laplace's approximation", 20,
            Bound(fit_sensed, Recipe()), "", "phdme"),
    _Sensed("diffusion_sensors", "the same, trained on what was observed alone", 20,
            Bound(fit_sensed, Recipe(data="observed", physics=False)), "", "diffusion"),
    _Sensed("fourdvar", "incremental 4D-Var on energies drawn from the posterior, observations perturbed", 21,
            Bound(fit_assimilation, make_variational), "Q. J. R. Meteorol. Soc. 120, 1367", "gp_rollout"),
    _Sensed("enks", "an ensemble smoother on energies drawn from the posterior", 22,
            Bound(fit_assimilation, make_ensemble_smoother), "Comput. Geosci. 55, 3", "gp_rollout"),
    _Sensed("interpolate_then_roll", "the first frame interpolated, the learned energy rolled out", 23,
            Bound(fit_assimilation, make_interpolated), "", "gp_rollout"),
    # known equations
    Method("pidm_me", "the residual of the denoiser's mean in the loss", 1, fit_informed, PIDM, None, EQUATIONS),
    Method("pidm_se", "the residual of a sample in the loss", 2,
           Bound(fit_informed, estimation="sample"), PIDM, None, EQUATIONS),
    Method("pidm_map", "the solution predicted from the other fields, its residual in the loss", 6,
           Bound(fit_informed, hides_solution=True), "", None, MAP),
    Method("pg_diffusion", "the gradient of the residual told to the network", 3,
           fit_gradient_input, PG, None, EQUATIONS),
    Method("cocogen", "diffusion, corrected down the residual while and after sampling", 0,
           fit_corrected, COCOGEN, "diffusion", EQUATIONS),
    Method("residual_pushed", "diffusion, pushed down the residual in its last steps", 0,
           Bound(fit_diffusion_pde, asks=False), "arXiv 2406.17763", "diffusion", EQUATIONS, scope="named"),
    Method("generate_then_solve", "diffusion, the solution computed anew", 0, fit_resolved, "", "diffusion", RESOLVE),
    Method("flow_matching", "a velocity along straight lines, without physics", 4,
           fit_flow_matching, "", None, EQUATIONS),
    Method("pbfm", "the same, residual at the end, gradients merged", 5, fit_merged, PBFM, None, EQUATIONS),
    _Student("distilled", "a one-step student of the flow, without physics", 7,
             fit_student, "", "flow_matching", own=PAIRS),
    _Student("piddm", "the same with the residual in its loss", 8,
             Bound(fit_student, physics=True), PIDDM, "flow_matching", own=PAIRS),
    _Student("piddm_ref", "the same, its noise refined on the residual", 8, fit_refined, PIDDM, "piddm"),
    _Student("flow_map", "the flow over any stretch of time, from its own shorter ones", 9,
             fit_flow_map, "arXiv 2505.18825", "flow_matching", own=MAP_OPTIONS),
    _Student("shortcut", "the same from halves of each stretch", 10,
             Bound(fit_flow_map, objective="shortcut"), "arXiv 2410.12557", "flow_matching", own=MAP_OPTIONS),
    # priors of the examples: their symmetry, and what each obeys, as penalties by the form of Jensen's gap
    _Prior("augmented", "diffusion, examples moved by their symmetry", 15, Bound(fit_priors, symmetry="augmented"),
           needs=SYMMETRY),
    _Prior("equivariant", "diffusion by a network that commutes with the symmetry", 16,
           Bound(fit_priors, symmetry="equivariant"), needs=SYMMETRY, own=("symmetric_network",)),
    *(_Prior(f"penalty_{form}", f"diffusion with a penalty, {form}", 0, Bound(fit_priors, forms=(form,)),
             needs=frozenset({form}), own=("penalties",)) for form in FORMS),
    _Prior("subspace", "diffusion in the subspace that what is linear leaves", 0, Bound(fit_priors, exact=True),
           source="", needs=frozenset({"subspace"})),
    _Prior("priors", "symmetry, subspace and penalties together", 16,
           Bound(fit_priors, symmetry="any", forms=FORMS, exact=True),
           needs=SYMMETRY, own=("penalties", "symmetric_network")),
    Method("random_walk_prior", "a flow in a few calls from the random walk that the given frames start", 18,
           fit_random_walk, "arXiv 2505.18647", None, frozenset({"given_frames"}), scope="named",
           own=("symmetric_network",)),
    Method("projected", "diffusion, each sample brought to one momentum and one energy", 0, fit_projected, "",
           "diffusion", frozenset({"project"}), scope="named"),
    # forecasts of fields from their first frames
    Method("projected_fno", "fno, each step brought to what the given frame holds of what is conserved", 10,
           _later("baselines.projected_operator", "fit_projected_operator"), "arXiv 2606.14913", "fno",
           GIVEN_RING | {"invariants"}, scope="named"),
    Method("eno", "fno whose motion must follow from an energy that is learned with it", 17,
           _later("baselines.energy_operator", "fit_energy_operator"), "arXiv 2402.09018", None, GIVEN_RING,
           scope="named", own=("baselines.eno",)),
    Method("generate_then_roll", "equivariant diffusion, its first frames continued by the learned energy of pairs", 16,
           fit_generated, "", "equivariant", frozenset({"particles", "symmetry"}), scope="named"),
    Method("nri", "an interaction network of particles from frame to frame, the graph known", 19,
           _later("baselines.interaction_network", "fit_interaction"), "arXiv 1802.04687", None, PARTICLES,
           scope="named"),
    Method("constant_velocity", "particles that keep the last velocity given", 0, fit_constant, "", None, PARTICLES,
           scope="named"),
    # questions about fields of known equations
    _Answer("dps", "diffusion, pushed down what it misses of the observations", 0,
            fit_guided, "arXiv 2209.14687", "diffusion"),
    _Answer("sda", "diffusion, guided by the observations' likelihood", 0,
            Bound(fit_guided, rule="sda"), "arXiv 2306.10574", "diffusion"),
    _Answer("moment_matched", "the same with the covariance of the denoiser's Jacobian", 0,
            Bound(fit_guided, rule="moment_matched"), "arXiv 2405.13712", "diffusion"),
    _Answer("diffusionpde", "diffusion, pushed down observations and residual", 0,
            fit_diffusion_pde, "arXiv 2406.17763", "diffusion"),
    _Answer("eci", "the flow, its end written over with the observations", 4,
            fit_constrained, "arXiv 2412.01786", "flow_matching"),
    _Answer("pcfm", "the flow, its end projected on observations and what is conserved", 4,
            Bound(fit_constrained, rule="pcfm"), "arXiv 2506.04171", "flow_matching"),
    _Answer("matched_flow", "the same in the metric of the flow's own covariance", 4, fit_matched_flow, "",
            "flow_matching"),
    _Answer("d_flow", "the flow, its noise searched for", 4, fit_d_flow, "arXiv 2402.14017", "flow_matching"),
    _Answer("piddm_search", "its student with the residual in its loss, the noise searched for", 8,
            fit_student_search, PIDDM, "piddm"),
    _Answer("residual_guidance", "diffusion told the size of the residual, guided to zero and by the observations", 14,
            fit_residual_guidance, "Osaka, Takeishi, Yairi (2026)", "diffusion", own=("residual_guidance",)),
    Method("prior_and_solver", "diffusion of the cause alone, guided by the observations through the solver", 13,
           fit_prior_and_solver, "arXiv 2601.23280", None, MAP | RESOLVE, scope="named", questions=True),
    _Answer("optimised_data", "fields that obey observations and equations, without a network", 11, fit_optimised_data),
    _Answer("kriging", "the Gaussian with the moments of the data, given the observations", 12, fit_kriging),
)
# fmt: on
METHODS: dict[str, Method] = {method.name: method for method in _ALL}


def lineage(name: str) -> list[Method]:
    """A method after its teachers, the first one's first."""
    method = METHODS[name]
    return [*(lineage(method.teacher) if method.teacher else []), method]
