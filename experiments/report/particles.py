"""Pictures and sections of a study of particles: trajectories, what they conserve, how near their law is."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.evaluation.equations import drawn_fields
from experiments.report.equations import cost_section
from experiments.study.study import MakeSection, Shown
from phdme_jax.app import drawing
from phdme_jax.app.page import Picture, Section
from phdme_jax.systems.equations.base import Equations
from phdme_jax.systems.particles.base import motion_of

SHOWN = 3
MOTION = (
    "dynamic_error",
    "trajectory_error",
    "trajectory_error_median",
    "velocity_error",
    "energy_error",
    "energy_error_median",
    "momentum_error",
)
LAW = (
    "wasserstein_energy",
    "wasserstein_momentum",
    "wasserstein_distance",
    "wasserstein_speed",
    "mmd",
    "marginal_score",
)


@drawing.styled
def trajectory_panels(path: Path, drawn: dict[str, np.ndarray], again: dict[str, np.ndarray], title: str) -> Path:
    """The first two coordinates of a few trajectories, a row a method; thin and black, the motion from their start."""
    names = list(drawn)
    figure = drawing.new_figure(2.0 * SHOWN + 0.6, 2.0 * len(names))
    axes = figure.subplots(len(names), SHOWN, squeeze=False)
    for row, name in zip(axes, names, strict=True):
        for axis, fields, motion in zip(row, drawn[name], again[name], strict=False):
            for particle in range(fields.shape[1]):
                colour = drawing.COLOURS[particle % len(drawing.COLOURS)]
                axis.plot(*fields[:, particle, :2].T, color=colour, linewidth=1.5)
                axis.plot(*fields[-1, particle, :2], "o", color=colour, markersize=3)
                axis.plot(*motion[:, particle, :2].T, color=drawing.TRUTH, linewidth=0.5)
            axis.set_aspect("equal", adjustable="datalim")
            axis.tick_params(labelsize=6)
        row[0].set_ylabel(name, fontsize=7)
    return drawing.save(figure, path, title)


@drawing.styled
def invariant_panels(path: Path, times: np.ndarray, values: dict[str, dict[str, np.ndarray]], title: str) -> Path:
    """What should not change over time, of a few trajectories, a row an invariant, a column a method."""
    names, methods = list(values), list(next(iter(values.values())))
    figure = drawing.new_figure(1.7 * len(methods) + 0.8, 1.7 * len(names) + 0.3)
    axes = figure.subplots(len(names), len(methods), squeeze=False, sharex=True, sharey="row")
    for row, name in zip(axes, names, strict=True):
        for axis, method in zip(row, methods, strict=True):
            for curve, colour in zip(values[name][method], drawing.COLOURS, strict=False):
                axis.plot(times, curve, color=colour, linewidth=1.0)
            axis.label_outer()
            if name == names[0]:
                axis.set_title(method, fontsize=7)
        row[0].set_ylabel(f"change of {name}", fontsize=7)
    for axis in axes[-1]:
        axis.set_xlabel("time", fontsize=7)
    return drawing.save(figure, path, title)


def _changes(equations: Equations, fields: np.ndarray, condition: np.ndarray) -> dict[str, np.ndarray]:
    """First component of each invariant over time, less that of the first frame."""
    found = {
        name: np.asarray(jax.vmap(of)(jnp.asarray(fields), jnp.asarray(condition)))
        for name, of in equations.priors.invariants
    }
    flat = {name: values.reshape(*values.shape[:2], -1)[..., 0] for name, values in found.items()}
    return {name: values - values[:, :1] for name, values in flat.items()}


def trajectory_section(shown: Shown) -> Sequence[Section]:
    """A few trajectories of each method, and what they conserve."""
    run, split = shown.run, shown.context.asked
    equations, asked = run.bench.task.problem, run.bench.splits[split]
    drawn = {"data": asked.truth} | {name: drawn_fields(found[split]) for name, found in shown.answers.items()}
    few = {name: np.asarray(fields[:SHOWN]) for name, fields in drawn.items()}
    given = np.asarray(asked.condition[:SHOWN])
    again = {name: np.asarray(jax.vmap(equations.resolve)(fields, given)) for name, fields in few.items()}
    path = trajectory_panels(shown.context.figure_path(f"{run.case}_trajectories"), few, again, run.case)
    changes = {name: _changes(equations, fields, given) for name, fields in few.items()}
    by_name = {name: {method: found[name] for method, found in changes.items()} for name in changes["data"]}
    times = equations.grid.coordinates(0)
    other = invariant_panels(shown.context.figure_path(f"{run.case}_invariants"), times, by_name, run.case)
    caption = f"{run.case}: {SHOWN} trajectories of each method, first two axes; black: the motion from the same start"
    pictures = (Picture(path, caption), Picture(other, f"{run.case}: what should stay as it is, less the first frame"))
    return [Section(f"Trajectories, {run.case}", "", pictures)]


def motion_section(shown: Shown) -> Sequence[Section]:
    """How well trajectories obey their law of motion."""
    text = (
        "Root mean squares, means over trajectories. Trajectory and velocity: from the motion computed anew from the "
        "own first frame. Dynamic: from one frame to the next. Energy and momentum: from their mean over the frames. "
        "The reference row is the data's. A projection makes energy and momentum right by hand: what else it changes "
        "must be read beside them."
    )
    positions = motion_of(jnp.asarray(shown.run.bench.splits[shown.context.asked].truth)).position
    text += f" Positions have a standard deviation of {float(jnp.std(positions)):.2g}."
    return [Section(f"Motion, {shown.run.case}", text, (), MOTION)]


def law_section(shown: Shown) -> Sequence[Section]:
    """How near the law of the trajectories is to that of the data."""
    text = (
        "Distances between as many generated trajectories and unseen ones; the reference row is that of training "
        "trajectories: the floor that sampling leaves. Wasserstein distances are in units of the deviation over the "
        "data; the squared mean discrepancy is unbiased and may be negative."
    )
    return [Section(f"Law, {shown.run.case}", text, (), LAW)]


def particle_sections() -> tuple[MakeSection, ...]:
    """Sections of every study of particles."""
    return trajectory_section, motion_section, law_section, cost_section
