"""Pictures and sections of a study of particles that continue given frames."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from experiments.evaluation.predictions import samples_of
from experiments.report.equations import cost_section
from experiments.study.study import MakeSection, Shown
from phdme_jax.app import drawing
from phdme_jax.app.page import Picture, Section
from phdme_jax.systems.particles.base import motion_of

SHOWN = 3
DISPLACEMENT = ("ade", "fde", "ade_of_mean", "fde_of_mean", "ade_best", "fde_best")
MOTION = ("energy_error", "momentum_error", "dynamic_error")


@drawing.styled
def prediction_panels(path: Path, truth: np.ndarray, given: int, drawn: Mapping[str, np.ndarray], title: str) -> Path:
    """The first two coordinates of a few trajectories, a row a method.

    Args:
      path: of the picture.
      truth: fields (trajectory, time, particle, field).
      given: how many of the first frames are.
      drawn: of each method, fields (trajectory, sample, time, particle, field).
      title: of the picture.
    Returns:
      the path.
    """
    figure = drawing.new_figure(2.0 * len(truth) + 0.6, 2.0 * len(drawn))
    axes = figure.subplots(len(drawn), len(truth), squeeze=False, sharex="col", sharey="col")
    places = np.asarray(motion_of(jnp.asarray(truth)).position)
    for row, (name, samples) in zip(axes, drawn.items(), strict=True):
        for axis, true, found in zip(row, places, np.asarray(motion_of(jnp.asarray(samples)).position), strict=True):
            for particle in range(true.shape[1]):
                colour = drawing.COLOURS[particle % len(drawing.COLOURS)]
                # what is predicted begins at the last given frame
                for sample in found:
                    later = np.concatenate([true[given - 1 : given], sample[given:]])
                    axis.plot(*later[:, particle, :2].T, color=colour, linewidth=1.2, alpha=0.6)
                    axis.plot(*later[-1, particle, :2], "o", color=colour, markersize=2.5)
                axis.plot(*true[:given, particle, :2].T, color=drawing.COLOURS[-1], linewidth=2.0)
                axis.plot(*true[given - 1 :, particle, :2].T, color=drawing.TRUTH, linewidth=0.5)
            axis.tick_params(labelsize=6)
            low, high = true[..., :2].min(axis=(0, 1)), true[..., :2].max(axis=(0, 1))
            margin = 0.1 * (high - low).max()
            axis.set(xlim=(low[0] - margin, high[0] + margin), ylim=(low[1] - margin, high[1] + margin))
        row[0].set_ylabel(name, fontsize=7)
    return drawing.save(figure, path, title)


def picture_section(shown: Shown) -> Sequence[Section]:
    """A few trajectories as each method continues them."""
    split, case = shown.context.asked, shown.run.case
    asked, given = shown.run.bench.splits[split], shown.run.bench.task.problem.given_frames
    few = {name: samples_of(found[split])[:SHOWN] for name, found in shown.answers.items()}
    if not few:
        return []
    path = shown.context.figure_path(f"{case}_predictions")
    path = prediction_panels(path, asked.truth[:SHOWN], given, few, case)
    caption = (
        f"{case}: {SHOWN} trajectories, first two axes. Grey and thick: the given frames; black and thin: the truth; "
        "colours: what is predicted, all samples."
    )
    return [Section(f"Predictions, {case}", "", (Picture(path, caption),))]


def displacement_section(shown: Shown) -> Sequence[Section]:
    """How far predictions are from the truth."""
    given, bench = shown.run.bench.task.problem.given_frames, shown.run.bench
    later = bench.splits[shown.context.asked].truth.shape[1] - given
    text = (
        f"{given} frames are given and {later} predicted. ade: mean distance from the true positions over samples, "
        "particles and predicted frames; fde: in the last frame; best: of the best sample of each trajectory, of "
        f"{bench.num_samples} where a method has a distribution, of one else. The reference row is the true law, "
        "continued from the last given frame."
    )
    return [Section(f"Displacement, {shown.run.case}", text, (), DISPLACEMENT)]


def motion_section(shown: Shown) -> Sequence[Section]:
    """How well predictions obey their law of motion, the given frames in their place."""
    text = (
        "Root mean squares of one sample, the given frames in their place; means over trajectories. Energy and "
        "momentum: from their mean over the frames. Dynamic: from one frame to the next, of all fields. The reference "
        "row is what the scheme of the data leaves."
    )
    return [Section(f"Motion, {shown.run.case}", text, (), MOTION)]


def prediction_sections() -> tuple[MakeSection, ...]:
    """Sections of a study that continues particles."""
    return picture_section, displacement_section, motion_section, cost_section
