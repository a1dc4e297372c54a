"""What a fit needs before it may start: known structures, units, checks of the files, initial states to roll out.

A user's string may be a guitar's or a bridge's. Everything is therefore fitted in internal units, chosen from the data
so that waves travel at speed one along a string ten long, and converted back at every public border.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phdme_jax.files import InputError
from phdme_jax.forecasting.files import GRID_TOLERANCE, FileLayout, Trajectories, read_trajectories
from phdme_jax.numerics.quadrature import interval_weights
from phdme_jax.systems.energy.base import Structure, line_parity, zero_parameters
from phdme_jax.systems.energy.vibrating_string import KELVIN_VOIGT, VISCOUS, string_structure

EVEN_TOLERANCE = 1e-3
LARGEST_UNIT, WELL_EXPLAINED = 1e30, 0.5
ENDS_SILENT, ENDS_REFUSED = 0.05, 0.25
INTERNAL_LENGTH, INTERNAL_EXCURSION = 10.0, 0.6


@dataclasses.dataclass(frozen=True)
class Units:
    """Internal units: physical = unit x internal, with the first frame at internal time zero.

    Attributes:
      start: time of the first frame.
      time: unit of time.
      length: unit of length.
      fields: unit of each field.
    """

    start: float
    time: float
    length: float
    fields: tuple[float, ...]

    def frames(self, time: np.ndarray) -> tuple[float, ...]:
        """Internal times of frames."""
        return tuple(((time - self.start) / self.time).tolist())


@dataclasses.dataclass(frozen=True)
class KnownStructure:
    """A structure that `fit` knows.

    Attributes:
      layout: what its files hold.
      build: (num_points, length, **options) -> Structure.
      orders: closure -> stencil orders it has.
      units: (stiffness, excursion, length, start) -> internal units; the first two per field, physical.
      energy_unit: physical energy density in internal ones.
      parameter_units: unit of each dissipation parameter by name.
    """

    layout: FileLayout
    build: Callable[..., Structure]
    orders: dict[str, tuple[int, ...]]
    units: Callable[[np.ndarray, np.ndarray, float, float], Units]
    energy_unit: Callable[[Units], float]
    parameter_units: Callable[[Units], dict[str, float]]


def string_units(stiffness: np.ndarray, excursion: np.ndarray, length: float, start: float) -> Units:
    """Units in which the string is ten long, both stiffnesses at rest are one and the largest excursion is 0.6.

        c = sqrt(kappa_p kappa_q),   T = Z/c,   P/Q = sqrt(kappa_q/kappa_p)

    Args:
      stiffness: kappa of momentum and strain, physical units.
      excursion: largest momentum and strain.
      length: of the string.
      start: time of the first frame.
    Returns:
      the units.
    """
    unit, ratio = length / INTERNAL_LENGTH, float(np.sqrt(stiffness[1] / stiffness[0]))
    strain = float(max(excursion[0] / ratio, excursion[1])) / INTERNAL_EXCURSION
    return Units(start, unit / float(np.sqrt(stiffness[0] * stiffness[1])), unit, (ratio * strain, strain))


def _string_energy_unit(units: Units) -> float:
    # both p_t = (e_q)_z and q_t = (e_p)_z keep their form exactly when E T = P Q Z
    return units.fields[0] * units.fields[1] * units.length / units.time


def _string_parameter_units(units: Units) -> dict[str, float]:
    momentum, strain = units.fields
    return {KELVIN_VOIGT: momentum * units.length / strain, VISCOUS: momentum / (strain * units.length)}


STRUCTURES: dict[str, KnownStructure] = {
    "vibrating_string": KnownStructure(
        layout=FileLayout("vibrating_string", ("momentum", "strain"), 1, 0, min_grid_points=8),
        build=string_structure,
        orders={"mirror": (2, 4, 6, 8), "sbp": (2, 4)},
        units=string_units,
        energy_unit=_string_energy_unit,
        parameter_units=_string_parameter_units,
    ),
}


@dataclasses.dataclass(frozen=True)
class FitInputs:
    """Checked input of a fit, boundary values imposed.

    Attributes:
      name: of the structure.
      options: arguments of its builder, internal units.
      structure: the structure, internal units.
      units: internal units.
      observed: trajectories to learn from, physical units.
      calibration: trajectories to calibrate on, or None.
      notes: sentences the user should read.
    """

    name: str
    options: dict[str, Any]
    structure: Structure
    units: Units
    observed: Trajectories
    calibration: Trajectories | None
    notes: tuple[str, ...]


def known_structure(name: str) -> KnownStructure:
    """The structure of a name; raises InputError that names those there are."""
    if name not in STRUCTURES:
        raise InputError(f"unknown structure {name!r}; fit knows {', '.join(STRUCTURES)}")
    return STRUCTURES[name]


def stencil_order(order: int, closure: str, num_points: int, orders: dict[str, tuple[int, ...]]) -> int:
    """The highest order of a closure that is not above the one asked for and fits on the grid (2 order + 1 points).

    Raises:
      ValueError: unknown closure, or no order fits.
    """
    if closure not in orders:
        raise ValueError(f"expected a closure among {sorted(orders)}, got {closure!r}")
    fitting = [known for known in orders[closure] if known <= order and 2 * known + 1 <= num_points]
    if not fitting:
        raise ValueError(
            f"no stencil of order {order} or less fits on {num_points} grid points; {closure} has {orders[closure]}"
        )
    return max(fitting)


def read_inputs(name: str, data: Path, calibration: Path | None, method: str, structure: dict[str, Any]) -> FitInputs:
    """Read and check everything a fit depends on.

    Args:
      name: of the structure.
      data: file of the trajectories to learn from.
      calibration: file of the trajectories to calibrate on, or None.
      method: phdme needs evenly spaced frames.
      structure: options of the structure (order, closure, damping).
    Returns:
      the checked input.
    Raises:
      InputError: any defect, in one sentence.
      ValueError: options the structure does not have.
    """
    known = known_structure(name)
    observed = read_trajectories(data, known.layout)
    grid = observed.grid[0]
    _check_grid_start(data, grid)
    if method == "phdme":
        _check_even(data, observed.time)
    length, notes = float(grid[-1] - grid[0]), []
    options = structure | {"num_points": int(grid.size), "length": INTERNAL_LENGTH}
    options["order"] = stencil_order(structure["order"], structure["closure"], grid.size, known.orders)
    if options["order"] < structure["order"]:
        notes.append(
            f"{grid.size} grid points allow stencils of order {options['order']} among those that the closure "
            f"{structure['closure']} has, {known.orders[structure['closure']]}; {structure['order']} was asked for"
        )
    physical = known.build(**(options | {"length": length}))
    with np.errstate(over="ignore"):
        scale = np.sqrt(np.mean(observed.state**2, axis=(0, 1, 2)))
    for field, value in zip(physical.fields, scale, strict=True):
        if not value > 0:
            raise InputError(f"{data}: {field} is zero everywhere; expected trajectories that move")
    sizes = {**dict(zip(physical.fields, scale, strict=True)), "time": np.ptp(observed.time), "grid": length}
    for word, value in sizes.items():
        if not 1 / LARGEST_UNIT < value < LARGEST_UNIT:
            raise InputError(f"{data}: {word} has values around {value:.3g}; choose a unit that brings them nearer one")
    notes += check_ends(data, physical, observed.state, scale)
    observed = _constrained(physical, observed)
    stiffness, explained = rest_stiffness(physical, observed.state, observed.time)
    if not (stiffness > 0).all():
        words = ", ".join(f"{field} {value:.3g}" for field, value in zip(physical.fields, stiffness, strict=True))
        raise InputError(
            f"{data}: the fields do not move as those of {name} (the stiffnesses that fit best are {words}, expected "
            "positive ones); check the order of the fields, their signs and the units of time and grid"
        )
    if explained < WELL_EXPLAINED:
        notes.append(
            f"the linear part of {name} explains {100 * max(explained, 0):.0f} % of the motion between frames; noise, "
            "frames too far apart or other physics look like this"
        )
    units = known.units(stiffness, np.abs(observed.state).max(axis=(0, 1, 2)), length, float(observed.time[0]))
    extra = None
    if calibration is not None:
        extra, more = _read_calibration(calibration, known.layout, physical, observed, scale)
        notes += more
    return FitInputs(name, options, known.build(**options), units, observed, extra, tuple(notes))


def _read_calibration(
    path: Path, layout: FileLayout, structure: Structure, observed: Trajectories, scale: np.ndarray
) -> tuple[Trajectories, list[str]]:
    found, grid = read_trajectories(path, layout), observed.grid[0]
    other = found.grid[0]
    if other.size != grid.size or np.max(np.abs(other - grid)) > GRID_TOLERANCE * (grid[-1] - grid[0]):
        raise InputError(
            f"{path}: its grid has {other.size} points from {other[0]:g} to {other[-1]:g}; expected that of the data, "
            f"{grid.size} points from {grid[0]:g} to {grid[-1]:g}"
        )
    step = np.min(np.diff(observed.time))
    if found.time.size != observed.time.size or np.max(np.abs(found.time - observed.time)) > EVEN_TOLERANCE * step:
        raise InputError(
            f"{path}: its {found.time.size} times from {found.time[0]:g} to {found.time[-1]:g} are not those of the "
            f"data ({observed.time.size} from {observed.time[0]:g} to {observed.time[-1]:g}); expected the same times"
        )
    notes = check_ends(path, structure, found.state, scale)
    found = _constrained(structure, found)
    if any(np.array_equal(one, other) for one in found.state for other in observed.state):
        raise InputError(
            f"{path}: holds a trajectory of the data the prior learns from; expected trajectories that trained nothing"
        )
    return found, notes


def _constrained(structure: Structure, trajectories: Trajectories) -> Trajectories:
    state = np.asarray(jax.vmap(jax.vmap(structure.constrain))(jnp.asarray(trajectories.state, float)))
    return dataclasses.replace(trajectories, state=state)


def _check_grid_start(path: Path, grid: np.ndarray) -> None:
    if abs(grid[0]) > GRID_TOLERANCE * (grid[-1] - grid[0]):
        raise InputError(f"{path}: grid starts at {grid[0]:g}; expected 0 at the first end, try grid - grid[0]")


def _check_even(path: Path, time: np.ndarray) -> None:
    steps = np.diff(time)
    if np.max(np.abs(steps - steps.mean())) > EVEN_TOLERANCE * steps.mean():
        raise InputError(
            f"{path}: time is not evenly spaced (steps from {steps.min():g} to {steps.max():g}), which the time step "
            "that phdme learns needs; try --method phdme_rollout, which works with uneven times, or interpolate"
        )


def check_ends(path: Path | str, structure: Structure, state: np.ndarray, scale: np.ndarray) -> list[str]:
    """Compare what must vanish at the ends with the root mean square of its field.

    Args:
      path: file, for messages.
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
        words = f"{path}: {name} at the ends is {100 * share:.3g} % of its root mean square"
        if share > ENDS_REFUSED:
            raise InputError(f"{words}, but {structure.name} has fixed ends, where it vanishes; check the grid's ends")
        if share > ENDS_SILENT:
            notes.append(f"{words}; it was set to zero there, as {structure.name} has fixed ends")
    return notes


def mode_matrix(parity: int, num_points: int, count: int) -> np.ndarray:
    """The smoothest functions of a parity about both ends, sines (-1) or cosines (+1), shape (grid, mode)."""
    first = 1 if parity < 0 else 0
    mode = np.arange(first, first + min(count, num_points - 2))
    angle = np.pi * np.outer(np.arange(num_points), mode) / (num_points - 1)
    matrix = np.sin(angle) if parity < 0 else np.cos(angle)
    if parity < 0:
        matrix[[0, -1]] = 0.0  # sin(k pi) is not zero to the last bit
    return matrix


def smoothest_part(structure: Structure, state: np.ndarray, modes: int) -> np.ndarray:
    """States (..., grid, field) projected on the leading `modes` sines or cosines of each field, by least squares."""
    smooth = np.empty_like(state)
    for field, parity in enumerate(line_parity(structure)):
        matrix = mode_matrix(parity, state.shape[-2], modes)
        smooth[..., field] = state[..., field] @ (matrix @ np.linalg.pinv(matrix)).T
    return smooth


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


def draw_initial_states(
    structure: Structure,
    states: np.ndarray,
    count: int,
    key: Any,
    *,
    modes: int,
    shrinkage: float,
    frame_share: float,
    amplitude: tuple[float, float],
) -> np.ndarray:
    """Initial states for rollouts, drawn from a prior made of all observed frames, each a possible initial state.

        a ~ N(0, (1 - s) A^T A / F + s diag(A^T A) / F),   x = u sum_k a_k phi_k,   u ~ U(amplitude)

    A holds the amplitudes of the F frames in the leading sines (fields that vanish at the ends) and cosines (the
    others), all fields together, so that what moves together in the data does so in the draws. The shrinkage s lets
    every mode also move alone. A share of the draws is observed frames themselves, smoothed and scaled by u.

    Args:
      structure: parities and boundary values.
      states: observed states, (..., grid, field).
      count: number of draws.
      key: random key.
      modes: sines or cosines of each field.
      shrinkage: s, between 0 and 1.
      frame_share: share of the draws that are observed frames.
      amplitude: lower and upper end of the scaling u.
    Returns:
      initial states, (count, grid, field).
    """
    num_points, num_fields = states.shape[-2:]
    frames = states.reshape(-1, num_points, num_fields)
    matrices = [mode_matrix(parity, num_points, modes) for parity in line_parity(structure)]
    parts = [frames[..., field] @ np.linalg.pinv(matrix).T for field, matrix in enumerate(matrices)]
    amplitudes = np.concatenate(parts, axis=-1)
    draw_key, pick_key, which_key, size_key = jax.random.split(key, 4)
    together = amplitudes.T @ amplitudes / len(frames)
    variance, directions = np.linalg.eigh((1 - shrinkage) * together + shrinkage * np.diag(np.diag(together)))
    root = directions * np.sqrt(np.maximum(variance, 0))
    drawn = np.asarray(jax.random.normal(draw_key, (count, len(root)), jnp.float64)) @ root.T
    picked = amplitudes[np.asarray(jax.random.randint(pick_key, (count,), 0, len(frames)))]
    is_frame = np.asarray(jax.random.uniform(which_key, (count, 1), jnp.float64)) < frame_share
    size = np.asarray(jax.random.uniform(size_key, (count, 1), jnp.float64, *amplitude))
    drawn = np.where(is_frame, picked, drawn) * size
    cuts = np.cumsum([matrix.shape[1] for matrix in matrices])[:-1]
    fields = [part @ matrix.T for part, matrix in zip(np.split(drawn, cuts, axis=1), matrices, strict=True)]
    return np.asarray(jax.vmap(structure.constrain)(jnp.asarray(np.stack(fields, axis=-1))))
