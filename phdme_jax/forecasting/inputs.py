"""What a fit needs before it may start: measurements that agree with the structure, and options that can be."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from phdme_jax.files import InputError
from phdme_jax.forecasting.files import GRID_TOLERANCE, FileLayout, Trajectories, TrajectorySource, read_trajectories
from phdme_jax.forecasting.options import check_options
from phdme_jax.forecasting.structures import INTERNAL_LENGTH, Units, known_structure, stencil_order
from phdme_jax.methods.base import Options
from phdme_jax.methods.energy.initial_states import smoothest_part
from phdme_jax.numerics.quadrature import interval_weights
from phdme_jax.systems.energy.base import Structure, line_parity, zero_parameters

EVEN_TOLERANCE = 1e-3
LARGEST_UNIT, WELL_EXPLAINED = 1e30, 0.5
ENDS_SILENT, ENDS_REFUSED = 0.05, 0.25
LARGEST_STAGE = 8e9  # bytes


@dataclass(frozen=True, eq=False)
class Observed:
    """What a forecaster remembers of the trajectories it was fitted to, physical units.

    Attributes:
      time: of the frames.
      grid: points.
      scale: root mean square of each field.
      excursion: largest absolute value of each field.
      digests: of the trajectories, so that none of them calibrates.
    """

    time: Float[np.ndarray, " time"]
    grid: Float[np.ndarray, " grid"]
    scale: Float[np.ndarray, " field"]
    excursion: Float[np.ndarray, " field"]
    digests: tuple[str, ...]

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
    where = str(source) if not isinstance(source, Trajectories | Mapping) else "trajectories"
    trajectories = read_trajectories(source, known.layout, where)
    grid, time = trajectories.grid[0], trajectories.time
    _check_grid_start(where, grid)
    length, notes = float(grid[-1] - grid[0]), []
    asked = options["structure"]
    try:
        order = stencil_order(asked["order"], asked["closure"], grid.size, known.orders)
        physical = known.build(num_points=grid.size, length=length, **{**asked, "order": order})
    except ValueError as error:
        raise InputError(str(error)) from error
    if order < asked["order"]:
        notes.append(
            f"{grid.size} grid points allow stencils of order {order} among those that the closure "
            f"{asked['closure']} has, {known.orders[asked['closure']]}; {asked['order']} was asked for"
        )
    scale = _check_scale(where, physical, trajectories)
    notes += check_ends(where, physical, trajectories.state, scale)
    trajectories = _constrained(physical, trajectories)
    excursion = np.abs(trajectories.state).max(axis=(0, 1, 2))
    scale = np.sqrt(np.mean(trajectories.state**2, axis=(0, 1, 2)))
    stiffness, explained = _check_motion(where, physical, trajectories)
    if explained < WELL_EXPLAINED:
        notes.append(
            f"the linear part of {name} explains {100 * max(explained, 0):.0f} % of the motion between frames; noise, "
            "frames too far apart or other physics look like this"
        )
    options = _as_they_run(options, order, time.size)
    return FitInputs(
        name=name,
        options=options,
        units=known.units(stiffness, excursion, length, float(time[0])),
        structure=internal_structure(name, grid.size, options["structure"]),
        trajectories=trajectories,
        observed=Observed(time, grid, scale, excursion, _digests(trajectories)),
        notes=tuple(notes),
    )


def _as_they_run(options: Options, order: int, num_frames: int) -> Options:
    """The options with what these data leave of them: the order of the stencils, windows that the frames hold."""
    windows: dict[int, tuple] = {}
    for window, *numbers in options["training"]["propagator_stages"]:
        windows.setdefault(min(window, num_frames - 1), tuple(numbers))
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
    where = str(source) if not isinstance(source, Trajectories | Mapping) else "calibration trajectories"
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
    if set(_digests(found)) & set(observed.digests):
        raise InputError(
            f"{where}: holds a trajectory of the data the prior learns from; expected trajectories that trained nothing"
        )
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
    state = np.asarray(jax.vmap(jax.vmap(structure.constrain))(jnp.asarray(trajectories.state, float)))
    return replace(trajectories, state=state)


def _check_grid_start(where: str, grid: np.ndarray) -> None:
    if abs(grid[0]) > GRID_TOLERANCE * (grid[-1] - grid[0]):
        raise InputError(f"{where}: grid starts at {grid[0]:g}; expected 0 at the first end, try grid - grid[0]")


def _check_scale(where: str, structure: Structure, trajectories: Trajectories) -> np.ndarray:
    """Root mean square of each field; refuses what does not move and units that numbers cannot carry."""
    with np.errstate(over="ignore"):
        scale = np.sqrt(np.mean(trajectories.state**2, axis=(0, 1, 2)))
    for field, value in zip(structure.fields, scale, strict=True):
        if not value > 0:
            raise InputError(f"{where}: {field} is zero everywhere; expected trajectories that move")
    sizes = dict(zip(structure.fields, scale, strict=True))
    sizes |= {"time": np.ptp(trajectories.time), "grid": np.ptp(trajectories.grid[0])}
    for quantity, value in sizes.items():
        if not 1 / LARGEST_UNIT < value < LARGEST_UNIT:
            raise InputError(
                f"{where}: {quantity} has values around {value:.3g}; choose a unit that brings them nearer one"
            )
    return scale


def check_ends(where: str, structure: Structure, state: np.ndarray, scale: np.ndarray) -> list[str]:
    """Compare what must vanish at the ends with the root mean square of its field.

    Args:
      where: file, for messages.
      structure: gives the fields that vanish at the ends.
      state: any number of states, shape (..., grid, field).
      scale: root mean square of each field over the observed trajectories.
    Returns:
      a sentence where the ends move a little, nothing where they move no more than noise would.
    Raises:
      InputError: the ends move.
    """
    notes = []
    for field, (name, parity) in enumerate(zip(structure.fields, line_parity(structure), strict=True)):
        if parity > 0:
            continue
        share = float(np.sqrt(np.mean(state[..., [0, -1], field] ** 2)) / scale[field])
        found = f"{where}: {name} at the ends is {100 * share:.3g} % of its root mean square"
        if share > ENDS_REFUSED:
            raise InputError(f"{found}, but {structure.name} has fixed ends, where it vanishes; check the grid's ends")
        if share > ENDS_SILENT:
            notes.append(f"{found}; it was set to zero there, as {structure.name} has fixed ends")
    return notes


def _check_motion(where: str, structure: Structure, trajectories: Trajectories) -> tuple[np.ndarray, float]:
    stiffness, explained = rest_stiffness(structure, trajectories.state, trajectories.time)
    if not (stiffness > 0).all():
        found = ", ".join(f"{field} {value:.3g}" for field, value in zip(structure.fields, stiffness, strict=True))
        raise InputError(
            f"{where}: the fields do not move as those of {structure.name} (the stiffnesses that fit best are {found}, "
            "expected positive ones); check the order of the fields, their signs and the units of time and grid"
        )
    return stiffness, explained


def rest_stiffness(
    structure: Structure, state: np.ndarray, time: np.ndarray, modes: int = 12
) -> tuple[np.ndarray, float]:
    """Stiffness of each field that explains the motion best, without dissipation: kappa in x_t = J (kappa x).

        x(t_{k+1}) - x(t_k) = sum_a kappa_a int J (one_a x_a) dt,   least squares on the smoothest modes

    Args:
      structure: operators.
      state: trajectories, (sample, time, grid, field).
      time: their times.
      modes: modes in space kept, so that noise is not differentiated.
    Returns:
      kappa, shape (field,), negative where the data do not move as the structure says; and the share of the motion's
      variance that it explains.
    """
    count, smooth = state.shape[-1], smoothest_part(structure, state, modes)
    parameters = zero_parameters(structure, jnp.float64)
    apply = jax.vmap(jax.vmap(lambda efforts: structure.flow(efforts, parameters)))
    weights = interval_weights(tuple((time - time[0]).tolist()))
    change = np.diff(smooth, axis=1)
    scale = np.maximum(np.sqrt(np.mean(change**2, axis=(0, 1, 2))), np.finfo(float).tiny)
    columns = []
    for field in range(count):
        rates = np.asarray(apply(jnp.asarray(smooth * (np.arange(count) == field))))
        columns.append(np.einsum("kt,stgf->skgf", weights, rates) / scale)
    design = np.stack([column.ravel() for column in columns], axis=-1)
    # columns of very different size (units of the user) would spoil the rank decision
    size = np.maximum(np.linalg.norm(design, axis=0), np.finfo(float).tiny)
    wanted = (change / scale).ravel()
    solution = np.linalg.lstsq(design / size, wanted)[0]
    missed = wanted - design / size @ solution
    return solution / size, float(1 - missed @ missed / (wanted @ wanted))
