"""Stage I of the string: how well is the energy learned from one pulse, and forecast on an unseen sine?

    python -m experiments.string_prior --size laptop --seeds 3

Two protocols. "published": truth and learner share the second-order semi-discretisation, exact or noisy rates at a few
sites, as in the code published with GP-dPHS. "independent": the truth lives on a grid eight times finer with another
stencil, the learner sees noisy states only. The number is the mean squared error of the deflection over 20 s.
"""

import time
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.configs.string_prior import get_config
from experiments.evaluation import forecasts as evaluation
from experiments.study.command import RunContext, Study, main
from experiments.vibrating_string import PROBLEM
from phdme_jax.app import figures
from phdme_jax.app.drawing import Labels
from phdme_jax.app.efforts import effort_slices
from phdme_jax.app.page import Picture, Section
from phdme_jax.app.rows import Measurement
from phdme_jax.files import RunFailed
from phdme_jax.gp import basis as gp_basis
from phdme_jax.gp import fit as gp_fit
from phdme_jax.gp import independent
from phdme_jax.gp import observations as gp_rows
from phdme_jax.methods.energy import prior as priors
from phdme_jax.numerics import solve_reference
from phdme_jax.systems import make_system
from phdme_jax.systems.energy.base import System, parameter_values, vector_field, zero_parameters
from phdme_jax.systems.energy.vibrating_string import KELVIN_VOIGT, deflection, modes_state, pulse_state

SYSTEM = "vibrating_string"
deflections = jax.jit(jax.vmap(deflection))


@lru_cache
def string(**options: Any) -> System:
    """The system of the registry; the same record for the same options."""
    return make_system(SYSTEM, **options)


def published_states(system: System) -> tuple[Any, Any]:
    """Training and test initial state of the published study: a pulse, and the first sine mode with amplitude 4."""
    points = jnp.asarray(system.structure.grid.coordinates())
    sine = modes_state(points, jnp.array([4.0]), jnp.array([0.0]))
    return system.structure.constrain(pulse_state(points)), sine


@lru_cache
def reference_pair(system: System, times: priors.Times) -> tuple[np.ndarray, np.ndarray]:
    """Reference trajectories of the pulse and of the sine, by diffrax at 1e-9 / 1e-10."""
    values = parameter_values(system, jnp.float64)
    field = partial(vector_field, system.structure, system.density)
    solve = jax.jit(lambda state: solve_reference(field, state, jnp.asarray(times), values))
    pairs = [solve(state) for state in published_states(system)]
    if not all(bool(ok) for _, ok in pairs):
        raise RunFailed("the reference solution of the string failed; try a smaller grid")
    return np.asarray(pairs[0][0]), np.asarray(pairs[1][0])


def make_prior(system: System, config: Any, box: gp_basis.Box, rows: gp_rows.Observations) -> priors.Prior:
    """Fit the energy to rows; the compiled fit's run time is kept apart from compilation."""
    structure = system.structure
    basis = gp_basis.Basis(2, config.prior.main, config.prior.pair)
    start = gp_fit.initial_hyperparameters(basis, box, len(structure.parameters))
    learn = jax.jit(lambda rows, box, start: gp_fit.fit(basis, box, rows, start, structure.parameters))
    compiled = learn.lower(rows, box, start).compile()
    began = time.perf_counter()
    posterior = jax.block_until_ready(compiled(rows, box, start))
    return priors.Prior(structure, basis, posterior, config.substeps, time.perf_counter() - began)


def rows_at_sites(
    system: System, config: Any, states: np.ndarray, rates: np.ndarray, sites: np.ndarray
) -> tuple[gp_basis.Box, gp_rows.Observations]:
    """Derivative rows at chosen sites and the gauge anchor."""
    structure = system.structure
    basis = gp_basis.Basis(2, config.prior.main, config.prior.pair)
    box = gp_basis.make_box(jnp.asarray(states), jnp.zeros(2), config.prior.margin)

    @jax.jit
    def build(states: Any, rates: Any, sites: Any) -> gp_rows.Observations:
        rows = gp_rows.derivative_rows(basis, box, structure.flow, structure.parameters, states, rates, sites)
        return gp_rows.concatenate([rows, gp_rows.anchor_rows(basis, box, len(structure.parameters))])

    return box, build(jnp.asarray(states), jnp.asarray(rates), jnp.asarray(sites))


def chosen_sites(system: System, config: Any, states: np.ndarray, count: int) -> np.ndarray:
    """Sites picked by what the prior knows least, from states alone; every fourth frame, interior points."""
    basis = gp_basis.Basis(2, config.prior.main, config.prior.pair)
    box = gp_basis.make_box(jnp.asarray(states), jnp.zeros(2), config.prior.margin)
    kernel = gp_fit.kernel_of(gp_fit.initial_hyperparameters(basis, box, 1), box)
    frames, points = np.arange(0, states.shape[0], 4), np.arange(1, states.shape[1] - 1)
    candidates = np.stack(np.meshgrid(frames, points, indexing="ij"), axis=-1).reshape(-1, 2)
    still = zero_parameters(system.structure, jnp.dtype("float64"))
    return np.asarray(
        gp_rows.select_sites(
            basis, box, lambda e, *_: system.structure.flow(e, still), gp_basis.prior_deviations(basis, box, kernel),
            jnp.asarray(states), jnp.asarray(candidates), count,
        )
    )  # fmt: skip


def score(
    context: RunContext, seed: int, name: str, prior: priors.Prior, truth: np.ndarray, heights: np.ndarray
) -> None:
    """Roll the mean energy out on the sine and write the rows of one fit."""
    config = context.config
    times = tuple(np.linspace(0.0, config.duration, config.num_frames).tolist())
    rolled = priors.mean_rollouts(prior, truth[None, 0], times)
    error = (np.asarray(deflections(jnp.asarray(rolled.trajectory[0, ..., 1]))) - heights) ** 2
    energy = rolled.energy[0]
    learned = float(prior.posterior.parameters[KELVIN_VOIGT])
    rows = {
        "mse": Measurement(float(error.mean()), "m^2"),
        "nmse": Measurement(float(error.mean() / heights.var())),
        "parameter_error": Measurement(abs(learned / config.damping - 1)),
        "energy_drift": Measurement(float(np.diff(energy).max() / energy[0])),
        "fit_seconds": Measurement(prior.seconds, "s"),
    }
    context.results.record(SYSTEM, name, seed, "test", rows, 1)


def published_protocol(context: RunContext, seed: int) -> None:
    """Exact or noisy rates at a few sites, shared second-order semi-discretisation."""
    config = context.config
    system = string(damping=config.damping, num_points=config.published.num_points, order=2)
    times = tuple(np.linspace(0.0, config.duration, config.num_frames).tolist())
    pulse, sine = reference_pair(system, times)
    heights = np.asarray(deflections(jnp.asarray(sine[..., 1])))
    values = parameter_values(system, jnp.float64)
    rates = np.asarray(
        jax.vmap(lambda x: vector_field(system.structure, system.density, x, values))(jnp.asarray(pulse))
    )
    generator = np.random.default_rng(seed)
    noisy = rates + config.published.derivative_noise * rates.std(axis=(0, 1)) * generator.normal(size=rates.shape)
    for count in config.published.num_sites:
        drawn = np.stack(
            [generator.integers(0, len(pulse), count), generator.integers(1, pulse.shape[1] - 1, count)], axis=1
        )
        cases = {f"gp_rollout_{count}_random": (rates, drawn)}
        chosen = chosen_sites(system, config, pulse, count)
        cases[f"gp_rollout_{count}_chosen"] = (rates, chosen)
        if count == max(config.published.num_sites):
            cases[f"gp_rollout_{count}_random_noisy"] = (noisy, drawn)
            cases[f"gp_rollout_{count}_chosen_noisy"] = (noisy, chosen)
        for name, (observed, sites) in cases.items():
            prior = make_prior(system, config, *rows_at_sites(system, config, pulse, observed, sites))
            score(context, seed, name, prior, sine, heights)
    if seed == context.seeds[0]:
        _independent_baseline(context, system, times, pulse, rates, sine, heights)


def _independent_baseline(context: RunContext, system: System, times: priors.Times, *arrays: np.ndarray) -> None:
    """The published scheme: two independent processes, 81 points, damping known."""
    pulse, rates, sine, heights = (jnp.asarray(array) for array in arrays)
    spacing = system.structure.grid.spacing[0]
    sites = independent.published_sites(pulse.shape[0], pulse.shape[1])
    learn = jax.jit(partial(independent.fit_independent, spacing=spacing))
    fitted = learn.lower(pulse, rates, sites).compile()(pulse, rates, sites)
    values = parameter_values(system, jnp.float64)
    roll = jax.jit(
        lambda fitted, x: independent.roll_out_independent(
            system.structure.flow, fitted, values, x, jnp.asarray(times), context.config.substeps
        )
    )
    trajectory, ok = roll(fitted, sine[0])
    error = float(jnp.mean((deflections(trajectory[..., 1]) - heights) ** 2)) if bool(ok) else float("nan")
    rows = {"mse": Measurement(error, "m^2"), "nmse": Measurement(error / float(jnp.var(heights)))}
    context.results.record(SYSTEM, "gp_dphs_independent", context.seeds[0], "test", rows, 1)


def independent_protocol(context: RunContext, seed: int) -> priors.Prior:
    """Noisy states only, truth on a finer grid with another stencil; returns the prior of the highest order."""
    config = context.config
    times = tuple(np.linspace(0.0, config.duration, config.num_frames).tolist())
    points, stride = config.independent.num_points, config.independent.truth_refinement
    fine = string(damping=config.damping, num_points=(points - 1) * stride + 1, order=6)
    pulse, sine = reference_pair(fine, times)
    heights = np.asarray(deflections(jnp.asarray(sine[..., 1])))[:, ::stride]
    pulse, sine = pulse[:, ::stride], sine[:, ::stride]
    generator = np.random.default_rng(1000 + seed)
    observed = pulse + config.independent.noise * pulse.std(axis=(0, 1)) * generator.normal(size=pulse.shape)
    for order in config.independent.orders:
        system = string(damping=config.damping, num_points=points, order=order)
        options = {**config.prior, **config.tests, "substeps": config.substeps, "centre": (0.0, 0.0)}
        prior = priors.fit_prior(system.structure, observed[None], times, **options)
        score(context, seed, f"gp_rollout_states_order{order}", prior, sine, heights)
        exact = evaluation.true_rollout(system, sine[None, 0], times, config.substeps)
        error = np.mean((np.asarray(deflections(jnp.asarray(exact[0, ..., 1]))) - heights) ** 2)
        rows = {"mse": Measurement(float(error), "m^2"), "nmse": Measurement(float(error / heights.var()))}
        context.results.record(SYSTEM, f"reference_order{order}", seed, "test", rows, 1)
    if seed == context.seeds[0]:
        _sample_rows(context, seed, prior)
        _draw(context, system, prior, observed)
    return prior


def _sample_rows(context: RunContext, seed: int, prior: priors.Prior) -> None:
    """Energy of rolled-out samples, dissipative and conservative, and the time they take."""
    size = context.config.samples
    system = string(damping=context.config.damping, num_points=size.num_points, order=8)
    times = tuple(np.linspace(0.0, context.config.duration, size.num_frames).tolist())
    draw = system.initial_state("random_smooth")
    initial = np.asarray(jax.vmap(draw)(jax.random.split(jax.random.key(seed), size.count)))
    zero = {name: jnp.zeros_like(value) for name, value in prior.posterior.parameters.items()}
    for name, parameters in (("gp_rollout_samples", prior.posterior.parameters), ("gp_rollout_conservative", zero)):
        case = priors.Prior(
            system.structure, prior.basis, prior.posterior._replace(parameters=parameters), size.substeps, 0.0
        )
        rolled = priors.sampled_rollouts(case, initial, times, jax.random.key(seed))
        began = time.perf_counter()
        priors.sampled_rollouts(case, initial, times, jax.random.key(seed))
        seconds = time.perf_counter() - began
        scale = np.abs(rolled.energy[:, :1])
        drift = np.diff(rolled.energy, axis=1).max(axis=1) / scale[:, 0]
        if name.endswith("conservative"):
            drift = np.abs(rolled.energy / scale - 1).max(axis=1)
        rows = {
            "energy_drift": Measurement(float(drift.max())),
            "rejection_rate": Measurement(float(1 - rolled.ok.mean())),
            "seconds_per_sample": Measurement(seconds / size.count, "s"),
        }
        context.results.record(SYSTEM, name, seed, "test", rows, size.count)


def _draw(context: RunContext, system: System, prior: priors.Prior, observed: np.ndarray) -> None:
    slices = effort_slices(prior, system.density, observed, PROBLEM.labels.fields)
    figures.effort_learned_vs_true(context.figure_path("efforts"), slices, Labels())
    times = tuple(np.linspace(0.0, context.config.duration, context.config.num_frames).tolist())
    sine = np.asarray(published_states(system)[1])
    rolled = priors.mean_rollouts(prior, sine[None], times).trajectory[0]
    exact = evaluation.true_rollout(system, sine[None], times, context.config.substeps)[0]
    figures.space_time_panel(
        context.figure_path("sine"), exact, rolled, np.asarray(times), system.structure.grid.coordinates(),
        Labels(title="unseen sine", x="time [s]", y="position [m]", panels=PROBLEM.labels.fields),
    )  # fmt: skip


def run_study(context: RunContext) -> list[Section]:
    """Both protocols for every seed."""
    for seed in context.seeds:
        published_protocol(context, seed)
        independent_protocol(context, seed)
    config = context.config
    return [
        Section(
            "Accuracy",
            "Mean squared error of the deflection on the unseen sine. gp_rollout_N_random and _chosen: N sites with "
            "exact rates, drawn at random or chosen from the states (see select_sites); _noisy: with "
            f"{100 * config.published.derivative_noise:g} % noise on the rates. gp_rollout_states_orderK: states alone "
            f"with {100 * config.independent.noise:g} % noise, learner's stencil of order K; reference_orderK is the "
            "true energy on that grid. gp_dphs_independent: two processes on the efforts, 81 points, exact rates, "
            "damping known.",
            (),
            ("mse", "nmse", "parameter_error", "fit_seconds"),
        ),
        Section(
            "The learned energy",
            "",
            (
                Picture(context.figure_path("efforts"), "Learned energy gradient against the true one"),
                Picture(context.figure_path("sine"), "True energy, learned energy and difference on one grid"),
            ),
        ),
        Section(
            "Energy of rollouts",
            "gp_rollout_samples: largest increase between frames over all samples, relative to the initial energy. "
            "gp_rollout_conservative: the same energies without damping, largest relative drift.",
            (),
            ("energy_drift", "rejection_rate", "seconds_per_sample"),
        ),
    ]


STUDY = Study(
    name="string_prior",
    title="Vibrating string, stage I: learning the energy",
    get_config=get_config,
    run=run_study,
    methods=("gp_rollout",),
    sizes=("smoke", "laptop"),
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
