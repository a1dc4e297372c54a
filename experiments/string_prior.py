"""Stage I of the string: how well is the energy learned from one pulse, and how well does it forecast unseen motions?

`python -m experiments.string_prior --size laptop --seeds 3`, about five minutes on 2 cores.

Two protocols. Published: truth and learner share the second-order semi-discretisation, exact or noisy rates at a few
sites, as in the code published with GP-dPHS. Independent: the truth lives on a grid several times finer with another
stencil, the learner sees noisy states only. The number is the mean squared error of the deflection over 20 s. Asked
for are drawn smooth states; with `--validate` the published question, a sine.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.data import string_pulse
from experiments.data.fields import starts_at
from experiments.evaluation.costs import with_seconds
from experiments.evaluation.forecasts import true_rollout
from experiments.study.command import main
from experiments.study.study import Answer, Run, Shown, Study, Variant
from phdme_jax.app import figures
from phdme_jax.app.drawing import Labels
from phdme_jax.app.efforts import effort_slices
from phdme_jax.app.page import Picture, Section
from phdme_jax.app.rows import Measurement
from phdme_jax.app.scores import mean_and_error
from phdme_jax.methods.base import Dynamics, Times
from phdme_jax.methods.energy.dynamics import learned_dynamics
from phdme_jax.methods.energy.posterior import PriorOptions, make_basis
from phdme_jax.methods.presets import RANGES
from phdme_jax.methods.ranges import FROM_ZERO, Range
from phdme_jax.numerics.batching import in_chunks
from phdme_jax.systems import make_system
from phdme_jax.systems.energy.vibrating_string import KELVIN_VOIGT

FIELDS = ("momentum [m/s]", "strain")


def groups(size: str) -> dict[str, Any]:
    """Groups of the configuration: smoke (under a minute) or laptop."""
    sites, points, refinement, orders, samples = {
        "smoke": ((20, 150), 33, 4, (8,), 32),
        "laptop": ((20, 40, 80, 150), 65, 8, (2, 4, 8), 256),
    }[size]
    return {
        "damping": 0.01,
        "duration": 20.0,
        "num_frames": 201,
        "num_test": 8,
        "published": {"num_points": 100, "num_sites": sites, "derivative_noise": 0.1},
        "independent": {"num_points": points, "truth_refinement": refinement, "noise": 0.01, "orders": orders},
        "prior": {"main": 32, "pair": 0, "margin": 2.0},
        "tests": {"time_tests": 64, "space_tests": 16},
        "substeps": 2,
        "samples": {"count": samples, "num_points": 64, "num_frames": 64, "substeps": 4},
    }


def make_variants(config: ConfigDict) -> Iterator[Variant]:
    """Rates at sites, drawn at random or chosen, exact or noisy at the most of them; states, by the stencil's order."""
    for count in config.published.num_sites:
        for choice in ("random", "chosen"):
            yield Variant("gp_rollout", (("sites", count), ("choice", choice)))
    noisy = (("sites", max(config.published.num_sites)), ("rate_noise", config.published.derivative_noise))
    for choice in ("random", "chosen"):
        yield Variant("gp_rollout", (noisy[0], ("choice", choice), noisy[1]))
    for order in config.independent.orders:
        yield Variant("gp_rollout", (("order", order),))


@lru_cache
def _roll(dynamics: Dynamics, times: Times) -> Any:
    return jax.jit(
        jax.vmap(lambda params, start: dynamics.rollout(params, start, times, dynamics.substeps), in_axes=(None, 0))
    )


def scores(answer: Answer) -> Mapping[str, Measurement]:
    """Error of the deflection, of the damping, and the largest rise of the learned energy."""
    starts = answer.bench.splits[answer.split].condition
    dynamics = answer.fitted.model.dynamics
    assert dynamics is not None
    energy = np.asarray(_roll(dynamics, answer.bench.task.times)(answer.fitted.params, starts).energy)
    learned = answer.fitted.found[KELVIN_VOIGT]
    return {
        **errors(answer.forecasts.mean, answer.truth),
        "parameter_error": Measurement(abs(learned / answer.run.config.damping - 1)),
        "energy_drift": Measurement(float((np.diff(energy) / energy[:, :1]).max())),
    }


def errors(heights: np.ndarray, truth: np.ndarray) -> dict[str, Measurement]:
    """Mean squared error of deflections (sample, time, grid), and in units of the variance of each sample's truth."""
    error = np.mean((heights - truth) ** 2, axis=(1, 2))
    return {"mse": mean_and_error(error, "m^2"), "nmse": mean_and_error(error / truth.var(axis=(1, 2)))}


def reference_rows(run: Run) -> None:
    """What the true energy reaches on the learner's grid, by the order of its stencil."""
    for order in run.config.independent.orders:
        learner = run.changed((("order", order),))
        world, times = learner.bench.world, learner.bench.task.times
        exact = true_rollout(world.system, world.asked[:, 0], times, run.config.substeps)
        found = errors(string_pulse.deflections(exact), world.heights)
        learner.record("reference", run.context.asked, found, len(exact))


def independent_rows(run: Run) -> None:
    """The published scheme, nothing drawn: two independent processes, 81 points, exact rates, damping known."""
    if run.seed != run.context.seeds[0]:
        return
    world = run.bench.world
    forecast = string_pulse.independent_forecast(world, run.bench.task.times, run.config.substeps)
    found = errors(string_pulse.deflections(forecast), world.heights)
    run.record("gp_dphs_independent", run.context.asked, found, len(forecast))


def sample_rows(run: Run) -> None:
    """Energy of samples of the highest order rolled out on another grid, with and without damping, and seconds."""
    if run.seed != run.context.seeds[0]:
        return
    config, size, substeps = run.config, run.config.samples, run.config.samples.substeps
    learner, times = _highest_order(run), tuple(np.linspace(0.0, config.duration, size.num_frames).tolist())
    posterior = learner.fitted("gp_rollout").params
    system = make_system(run.case, damping=config.damping, num_points=size.num_points, order=8)
    basis = make_basis(system.structure, PriorOptions(**learner.bench.options["prior"]))
    dynamics = learned_dynamics(system.structure, basis, substeps)
    keys = jax.random.split(jax.random.key(run.seed), size.count)
    starts = starts_at(np.asarray(jax.vmap(system.initial_state("random_smooth"))(keys)), size.num_frames)
    sample = jax.jit(
        jax.vmap(lambda params, start, key: dynamics.sample(params, start, key, times, substeps), in_axes=(None, 0, 0))
    )
    undamped = posterior._replace(parameters=jax.tree.map(jnp.zeros_like, posterior.parameters))
    for params, settings in ((posterior, ()), (undamped, (("damping", 0.0),))):
        roll = partial(in_chunks, partial(sample, params), 64, starts, keys)
        roll()  # compiles
        rolled, seconds = with_seconds(roll)
        level = rolled.energy / np.abs(rolled.energy[:, :1])
        drift = np.abs(level - 1) if settings else np.diff(level, axis=1)
        rows = {
            "energy_drift": Measurement(float(drift.max())),
            "rejection_rate": Measurement(float(1 - rolled.ok.mean())),
            "seconds_per_sample": Measurement(seconds / size.count, "s"),
        }
        run.changed((("forecast", "samples"), *settings)).record("gp_rollout", run.context.asked, rows, size.count)


def _highest_order(run: Run) -> Run:
    return run.changed((("order", run.config.independent.orders[-1]),))


def _question(config: ConfigDict, validates: bool) -> str:
    return "on the published sine" if validates else f"mean over {config.num_test} drawn smooth states"


def accuracy_section(shown: Shown) -> Sequence[Section]:
    """What the rows mean."""
    config = shown.context.config
    text = (
        f"Mean squared error of the deflection, {_question(config, shown.context.validates)}. "
        "sites: rates at so many sites, drawn at random or "
        "chosen from the states (see select_sites), exact or with "
        f"{100 * config.published.derivative_noise:g} % noise on the rates. order: states alone with "
        f"{100 * config.independent.noise:g} % noise, learner's stencil of that order; its reference is the true "
        "energy on that grid. gp_dphs_independent: two processes on the efforts, 81 points, exact rates, damping known."
    )
    return [Section("Accuracy", text, (), ("mse", "nmse", "parameter_error", "fit_seconds"))]


def energy_section(shown: Shown) -> Sequence[Section]:
    """The learned energy of the highest order, and its rollout of the published sine."""
    learner, path = _highest_order(shown.run), shown.context.figure_path
    fitted, world, times = learner.fitted("gp_rollout"), learner.bench.world, learner.bench.task.times
    slices = effort_slices(fitted, world.system.density, world.pulse, FIELDS)
    sine = starts_at(np.asarray(string_pulse.published_states(world.system)[1])[None], len(times))
    rolled = _roll(fitted.model.dynamics, times)(fitted.params, sine)
    exact = true_rollout(world.system, np.asarray(sine.state), times, shown.context.config.substeps)[0]
    axes = (np.asarray(times), world.system.grid.coordinates())
    labels = Labels(title="unseen sine", x="time [s]", y="position [m]", panels=FIELDS)
    sine_path = figures.space_time_panel(path("sine"), exact, rolled.trajectory[0], *axes, labels)
    efforts_path = figures.effort_learned_vs_true(path("efforts"), slices, Labels())
    law = Picture(efforts_path, "Learned energy gradient against the true one")
    forecast = Picture(sine_path, "True energy, learned energy and difference on one grid")
    text = (
        "Samples of the posterior, the largest over all relative to the initial energy: with the learned damping the "
        "increase between frames, without damping the drift."
    )
    samples = Section("Energy of rollouts", text, (), ("energy_drift", "rejection_rate", "seconds_per_sample"))
    return [Section("The learned energy", "", (law, forecast)), samples]


STUDY = Study(
    name="string_prior",
    title="Vibrating string, stage I: learning the energy",
    sizes={size: partial(groups, size) for size in ("smoke", "laptop")},
    problem=string_pulse.published_system,
    bench=string_pulse.pulse_bench,
    scores=(scores,),
    sections=(accuracy_section, energy_section),
    metrics=("mse", "nmse", "parameter_error"),
    cases=("vibrating_string",),
    about=lambda config: "Learned from one pulse, asked for unseen motions.",
    variants=make_variants,
    extras=(reference_rows, independent_rows, sample_rows),
    check=string_pulse.check_pulse,
    ranges=RANGES
    | {
        "num_frames": Range(2),
        "num_test": Range(1),
        "num_points": Range(4),
        "derivative_noise": FROM_ZERO,
        "noise": FROM_ZERO,
    },
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
