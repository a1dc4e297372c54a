"""What a fit needs before it may start: measurements that agree with the structure, and options that can be."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from phdme_jax.files import InputError
from phdme_jax.forecasting.agreement import check_copies, check_ends, check_motion, check_scale, project
from phdme_jax.forecasting.files import GRID_TOLERANCE, FileLayout, Trajectories, TrajectorySource, read_trajectories
from phdme_jax.forecasting.options import check_options
from phdme_jax.forecasting.structures import INTERNAL_LENGTH, Units, known_structure, stencil_order
from phdme_jax.gp.observations import frame_rule
from phdme_jax.methods.base import Options
from phdme_jax.methods.energy.options import cut_windows
from phdme_jax.systems.energy.base import Structure, constant_parts

EVEN_TOLERANCE = 1e-3
WELL_EXPLAINED = 0.5
LARGEST_STAGE = 8e9  # bytes


@dataclass(frozen=True, eq=False)
class Observed:
    """What a forecaster remembers of the trajectories it was fitted to, physical units.

    Attributes:
      time: of the frames.
      grid: points.
      scale: root mean square of each field, its constant part left out.
      centre: mean of the constant parts, see `constant_parts`.
      excursion: largest absolute deviation of each field from the centre.
      digests: of the trajectories, which tell one set of data from another.
      projections: of the trajectories, so that none of them calibrates, see `project`.
    """

    time: Float[np.ndarray, " time"]
    grid: Float[np.ndarray, " grid"]
    scale: Float[np.ndarray, " field"]
    centre: Float[np.ndarray, " field"]
    excursion: Float[np.ndarray, " field"]
    digests: tuple[str, ...]
    projections: Float[np.ndarray, "sample projection"]

    @property
    def even_times(self) -> bool:
        """Whether the frames are evenly spaced."""
        steps = np.diff(self.time)
        return bool(np.max(np.abs(steps - steps.mean())) <= EVEN_TOLERANCE * steps.mean())


@dataclass(frozen=True, eq=False)
class FitInputs:
    """Checked input of a fit.

    Attributes:
      name: of the structure.
      options: as they will run with these data.
      units: internal units.
      structure: internal units.
      trajectories: to learn from, boundary values imposed, physical units.
      observed: what is remembered of them.
      notes: sentences that the user should read.
    """

    name: str
    options: Options
    units: Units
    structure: Structure
    trajectories: Trajectories
    observed: Observed
    notes: tuple[str, ...]


def internal_structure(name: str, num_points: int, options: Mapping[str, Any]) -> Structure:
    """The structure of a name on a grid of internal length, from its group of options."""
    return known_structure(name).build(num_points=num_points, length=INTERNAL_LENGTH, **options)


def read_inputs(source: TrajectorySource, name: str, options: Options) -> FitInputs:
    """Read and check everything that a fit learns from.

    Args:
      source: trajectories to learn from.
      name: of the structure.
      options: see `make_options`.
    Returns:
      the checked input.
    Raises:
      InputError: any defect, in one sentence.
    """
    known = known_structure(name)
    check_options(options)
    where = _name(source, "trajectories")
    trajectories = read_trajectories(source, known.layout, where)
    grid, time = trajectories.grid[0], trajectories.time
    _check_grid_start(where, grid)
    physical, order, notes = _physical_structure(name, grid, options["structure"])
    notes += check_ends(where, physical, trajectories.state, check_scale(where, physical, trajectories))
    trajectories = _constrained(physical, trajectories)
    stiffness, explained = check_motion(where, physical, trajectories)
    if explained < WELL_EXPLAINED:
        notes.append(
            f"the linear part of {name} explains {100 * max(explained, 0):.0f} % of the motion between frames; noise, "
            "frames too far apart or other physics look like this"
        )
    resolved = frame_rule(time, trajectories.state)[1]
    if not resolved.all():
        notes.append(
            f"{np.sum(~resolved)} of {resolved.size} intervals between frames are too long for the motion in them and "
            "teach nothing about the energy"
        )
    constant = constant_parts(physical, trajectories.state)
    scale = np.sqrt(np.mean((trajectories.state - constant) ** 2, axis=(0, 1, 2)))
    centre = constant.mean(axis=(0, 1, 2))
    excursion = np.abs(trajectories.state - centre).max(axis=(0, 1, 2))
    projections = project(trajectories.state / scale)
    check_copies(where, projections)
    options = _as_they_run(options, order, time.size)
    return FitInputs(
        name=name,
        options=options,
        units=known.units(stiffness, excursion, float(grid[-1] - grid[0]), float(time[0])),
        structure=internal_structure(name, grid.size, options["structure"]),
        trajectories=trajectories,
        observed=Observed(time, grid, scale, centre, excursion, _digests(trajectories), projections),
        notes=tuple(notes),
    )


def _name(source: TrajectorySource, words: str) -> str:
    """What a source is called in messages."""
    return words if isinstance(source, Trajectories | Mapping) else str(source)


def _physical_structure(name: str, grid: np.ndarray, asked: Mapping[str, Any]) -> tuple[Structure, int, list[str]]:
    """The structure in the user's units, the order of its stencils, and a sentence where that is not the one asked."""
    known, closure = known_structure(name), asked["closure"]
    try:
        order = stencil_order(asked["order"], closure, grid.size, known.orders)
        structure = known.build(num_points=grid.size, length=float(grid[-1] - grid[0]), **{**asked, "order": order})
    except ValueError as error:
        raise InputError(str(error)) from error
    if order == asked["order"]:
        return structure, order, []
    note = (
        f"{grid.size} grid points allow stencils of order {order} among those that the closure {closure} has, "
        f"{known.orders[closure]}; {asked['order']} was asked for"
    )
    return structure, order, [note]


def _as_they_run(options: Options, order: int, num_frames: int) -> Options:
    """The options with what these data leave of them: the order of the stencils, windows that the frames hold."""
    windows = cut_windows(options["training"]["propagator_stages"], num_frames)
    stages = tuple((window, *numbers) for window, numbers in windows.items())
    return {
        **options,
        "structure": {**options["structure"], "order": order},
        "training": {**options["training"], "propagator_stages": stages},
    }


def read_calibration(
    source: TrajectorySource, layout: FileLayout, structure: Structure, observed: Observed
) -> tuple[Trajectories, tuple[str, ...]]:
    """Trajectories that trained nothing.

    Args:
      source: file, arrays or record.
      layout: of the structure.
      structure: gives the boundary values.
      observed: what the fit has seen, physical units.
    Returns:
      the trajectories, boundary values imposed, and sentences that the user should read.
    Raises:
      InputError: any defect, in one sentence.
    """
    where = _name(source, "calibration trajectories")
    found = read_trajectories(source, layout, where)
    grid, other = observed.grid, found.grid[0]
    if other.size != grid.size or np.max(np.abs(other - grid)) > GRID_TOLERANCE * (grid[-1] - grid[0]):
        raise InputError(
            f"{where}: its grid has {other.size} points from {other[0]:g} to {other[-1]:g}; expected that of the data, "
            f"{grid.size} points from {grid[0]:g} to {grid[-1]:g}"
        )
    step = np.min(np.diff(observed.time))
    if found.time.size != observed.time.size or np.max(np.abs(found.time - observed.time)) > EVEN_TOLERANCE * step:
        raise InputError(
            f"{where}: its {found.time.size} times from {found.time[0]:g} to {found.time[-1]:g} are not those of the "
            f"data ({observed.time.size} from {observed.time[0]:g} to {observed.time[-1]:g}); expected the same times"
        )
    notes = check_ends(where, structure, found.state, observed.scale)
    found = _constrained(structure, found)
    projections = project(found.state / observed.scale)
    check_copies(where, projections, observed.projections)
    check_copies(where, projections)
    return found, tuple(notes)


def check_memory(shape: tuple[int, ...], options: Options, num_calibration: int) -> None:
    """Refuses what would not fit into memory.

    Args:
      shape: of the observed states, (sample, time, grid, field).
      options: give the numbers of rollouts and samples.
      num_calibration: calibration trajectories.
    Raises:
      InputError: too large.
    """
    _, frames, points, fields = shape
    sizes = {
        "rollouts.count": 28.0 * options["rollouts"]["count"],
        "sampling.num_samples": 16.0 * num_calibration * options["sampling"]["num_samples"],
    }
    for name, bytes_each in sizes.items():
        if (size := bytes_each * frames * points * fields) > LARGEST_STAGE:
            group, last = name.split(".")
            raise InputError(
                f"{frames} frames of {points} points take {size * 1e-9:.0f} GB with {name}={options[group][last]}, "
                f"expected at most {LARGEST_STAGE * 1e-9:g} GB; cut the trajectories, keep every other frame, or lower "
                "that number"
            )


def _digests(trajectories: Trajectories) -> tuple[str, ...]:
    """Of each trajectory; negative zeros are zeros."""
    return tuple(sha256((state + 0.0).tobytes()).hexdigest() for state in trajectories.state)


def _constrained(structure: Structure, trajectories: Trajectories) -> Trajectories:
    state = np.asarray(jax.jit(jax.vmap(jax.vmap(structure.constrain)))(np.asarray(trajectories.state, float)))
    return replace(trajectories, state=state)


def _check_grid_start(where: str, grid: np.ndarray) -> None:
    if abs(grid[0]) > GRID_TOLERANCE * (grid[-1] - grid[0]):
        raise InputError(f"{where}: grid starts at {grid[0]:g}; expected 0 at the first end, try grid - grid[0]")
