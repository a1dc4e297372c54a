"""Recordings of one mass on a spring (`oscillator`) and of two masses between springs (`double_oscillator`).

Learned from are the recorded positions and their slopes. The velocities in the files are a linear filter of thirteen
positions that takes a quarter off the fast motion of two masses, so that positions would not be their integral.
Forecasts start from the last frame whose slope needs no frame of the second half, and are scored against positions and
velocities as recorded: the forecast positions of every method are passed through that filter, whose weights are found
on the first half. A validation run sees the first half alone, and scores its last quarter. Two masses are in a ratio
that only the data know: the one of largest evidence.

Source: Schmidt and Lipson (2009), Science 324, 81-85; its supporting material, unpacked as `schmidt_lipson` in the
data folder.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from experiments.study.study import Bench, Context, Split
from phdme_jax.files import InputError, input_file
from phdme_jax.gp import basis as gp_basis
from phdme_jax.gp import fit as gp_fit
from phdme_jax.gp import observations as gp_rows
from phdme_jax.methods.base import Examples, Start, Task, Times
from phdme_jax.numerics.bound import Bound
from phdme_jax.systems.energy.base import System
from phdme_jax.systems.energy.oscillators import chain_structure, elongation_matrix, oscillator_structure

FILES = {"oscillator": "real_linear_h_1.txt", "double_oscillator": "real_double_linear_h_1.txt"}
DEGREES = {"oscillator": 1, "double_oscillator": 2}
# slopes are those of cubics through nine frames
REACH, ORDER = 4, 3
# frames to each side that a recorded velocity was made of: further weights are below a hundredth of the largest
FILTER_REACH = 6
RATIOS = np.geomspace(0.25, 4.0, 7)


class Recording(NamedTuple):
    """A recording in units of its own first half, so that q_t = v.

    Attributes:
      states: positions about their rest, then their slopes, (time, field).
      truth: the same with velocities as recorded.
      times: since the first frame.
      split: index of the first frame that is scored.
      weights: velocities in the file are sum_k weights_k (q_{t+k} - q_{t-k}), k from one.
    """

    states: np.ndarray
    truth: np.ndarray
    times: np.ndarray
    split: int
    weights: np.ndarray

    @property
    def degrees(self) -> int:
        """Degrees of freedom."""
        return self.states.shape[1] // 2

    @property
    def learned(self) -> slice:
        """Frames that are learned from: those of the first half whose slopes need no others."""
        return slice(REACH, self.split - REACH)

    @property
    def scored(self) -> slice:
        """Frames of the second half but for the last few, whose recorded velocities were made from one side."""
        return slice(self.split, len(self.times) - FILTER_REACH)

    @property
    def start(self) -> int:
        """The last frame that is learned from, where forecasts start."""
        return self.learned.stop - 1

    def as_recorded(self, positions: np.ndarray) -> np.ndarray:
        """Scored frames, (time, field), of positions from `start` on: velocities as the file's were made."""
        whole = np.concatenate([self.states[: self.start, : self.degrees], positions])
        velocities = _differences(whole) @ self.weights
        return np.concatenate([whole[self.scored], velocities[self.split - FILTER_REACH :]], axis=1)


def _differences(positions: np.ndarray) -> np.ndarray:
    """q_{t+k} - q_{t-k}, (time - 2 reach, degree, reach)."""
    reach, count = FILTER_REACH, len(positions)
    pairs = [
        positions[reach + k : count - reach + k] - positions[reach - k : count - reach - k] for k in range(1, reach + 1)
    ]
    return np.stack(pairs, axis=-1)


def read_table(path: Path, columns: int) -> np.ndarray:
    """The rows of one trial, evenly spaced in time, as a file of trial, time, positions and velocities holds them.

    Args:
      path: the file; lines that begin with % are no rows.
      columns: how many numbers a row has.
    Returns:
      the table.
    Raises:
      InputError: the file is missing, cut short or no such table, or its rows are not those of one even recording.
    """
    path = input_file(path, "the recording below --data_dir")
    try:
        text = path.read_text("utf-8-sig")
        table = np.loadtxt(text.splitlines(), comments="%", ndmin=2)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is not a table of numbers ({error}); expected columns trial, time, x, v") from None
    if table.shape[1] != columns or len(table) < 60 or not np.isfinite(table).all():
        raise InputError(f"{path}: has shape {table.shape}; expected 60 finite rows or more of trial, time, x, v")
    *rows, last = [line for line in text.splitlines() if line.strip() and not line.startswith("%")]
    if not text.endswith(("\n", "\r")) and len(last) < min(map(len, rows)):
        raise InputError(f"{path}: its last row {last.strip()[-20:]!r} is cut short; try a fresh copy of the file")
    trials = np.unique(table[:, 0])
    if len(trials) > 1:
        raise InputError(f"{path}: holds the trials {trials.tolist()}; expected one, keep the rows of one of them")
    steps = np.diff(table[:, 1])
    step = float(np.median(steps))
    wrong = np.flatnonzero(np.abs(steps - step) > 0.5 * abs(step))
    if step <= 0 or wrong.size:
        row = int(wrong[0]) if wrong.size else 0
        raise InputError(
            f"{path}: time goes from {table[row, 1]:g} to {table[row + 1, 1]:g} after row {row + 1}, and by {step:g} "
            f"usually; expected even, increasing times, {wrong.size or 'all'} steps are others, cut the table there"
        )
    return table


def load(data_dir: Path, name: str, validates: bool = False) -> Recording:
    """Read a recording: columns trial, time, positions, velocities.

    Args:
      data_dir: folder of measured data.
      name: of the system.
      validates: whether to leave out the second half, and score the last quarter of the first.
    Returns:
      the recording.

    Raises:
      InputError: see `read_table`.
    """
    from scipy.signal import savgol_filter

    degrees = DEGREES[name]
    table = read_table(data_dir / "schmidt_lipson" / FILES[name], 2 + 2 * degrees)
    split = len(table) // 2
    if validates:
        table, split = table[:split], 3 * split // 4
    time = table[:, 1] - table[0, 1]
    # frames are counted at a steady rate; the file rounds their times to milliseconds
    time = np.linspace(0.0, time[-1], len(time))
    position, velocity = table[:, 2 : 2 + degrees], table[:, 2 + degrees :]
    # tapered, the mean over a few periods that are not whole is still that of the rest
    position = position - np.average(position[:split], axis=0, weights=np.hanning(split))
    slope = savgol_filter(position, 2 * REACH + 1, ORDER, deriv=1, delta=float(time[1]), axis=0)
    size, speed = position[:split].std(), slope[REACH : split - REACH].std()
    if not (size > 0 and speed > 0):
        raise InputError(f"{data_dir}: the recording of the {name} does not move; expected positions that change")
    states, truth = (np.concatenate([position / size, rate / speed], axis=1) for rate in (slope, velocity))
    known, made = _differences(position[:split] / size), velocity[FILTER_REACH : split - FILTER_REACH] / speed
    weights = np.linalg.lstsq(known.reshape(-1, FILTER_REACH), made.reshape(-1), rcond=None)[0]
    return Recording(states, truth, time * speed / size, split, weights)


def elongations(states: Float[Array, "*points state"], degrees: int) -> Float[Array, "*points field"]:
    """Elongations of the springs and velocities from positions and velocities of a chain."""
    matrix = jnp.asarray(elongation_matrix(degrees), states.dtype)
    return jnp.concatenate([states[..., :degrees] @ matrix.T, states[..., degrees:]], axis=-1)


def positions(fields: Float[Array, "*points field"], degrees: int) -> Float[Array, "*points state"]:
    """Positions and velocities from elongations and velocities of a chain."""
    return jnp.concatenate([jnp.cumsum(fields[..., :degrees], axis=-1), fields[..., -degrees:]], axis=-1)


@lru_cache
def system_of(masses: tuple[float, ...]) -> System:
    """One mass on a spring, or a chain of masses, of unknown energy; the same record for the same masses."""
    if len(masses) == 1:
        return System(oscillator_structure("oscillator", units=("1", "1")))
    measured = (Bound(positions, degrees=len(masses)), Bound(elongations, degrees=len(masses)))
    return System(chain_structure("double_oscillator", masses), coordinates=measured)


def to_fields(system: System, states: np.ndarray) -> np.ndarray:
    """Fields of the structure from positions and velocities."""
    return states if system.coordinates is None else np.asarray(system.coordinates[1](jnp.asarray(states)))


def from_fields(system: System, fields: np.ndarray) -> np.ndarray:
    """Positions and velocities from the fields of the structure."""
    return fields if system.coordinates is None else np.asarray(system.coordinates[0](jnp.asarray(fields)))


def find_masses(recording: Recording, *, main: int, margin: float, time_tests: int) -> tuple[float, ...]:
    """Masses in units of the first: one, or two in the ratio of largest evidence on the learned frames.

    Args:
      recording: of one or two masses.
      main: basis sines per field.
      margin: half width of the basis' box in units of the largest excursion.
      time_tests: test functions in time.
    Returns:
      the masses.
    """
    from scipy.optimize import minimize_scalar

    if recording.degrees == 1:
        return (1.0,)
    system = system_of((1.0, 1.0))
    learned = jnp.asarray(to_fields(system, recording.states)[recording.learned])
    times = tuple(recording.times[recording.learned].tolist())
    basis = gp_basis.Basis(learned.shape[1], main, 0)
    box = gp_basis.make_box(learned, jnp.zeros(learned.shape[1]), margin)
    parameters = system.structure.parameters
    start = gp_fit.initial_hyperparameters(basis, box, len(parameters))

    tests = gp_rows.interval_tests(times, learned[None], time_tests)

    @jax.jit
    def cost(log_ratio: Array, learned: Array, box: gp_basis.Box, start: Any) -> Array:
        flow = chain_structure("double_oscillator", (1.0, jnp.exp(log_ratio))).flow
        rows = gp_rows.integral_rows(basis, box, flow, parameters, learned, tests, 1)
        rows = gp_rows.concatenate([rows, gp_rows.anchor_rows(basis, box, len(parameters))])
        return gp_fit.fit(basis, box, rows, start, parameters).objective

    tried = np.log(RATIOS)
    values = [float(cost(log_ratio, learned, box, start)) for log_ratio in tried]
    best = int(np.clip(np.argmin(values), 1, len(tried) - 2))
    found = minimize_scalar(
        lambda log_ratio: float(cost(log_ratio, learned, box, start)),
        bounds=(tried[best - 1], tried[best + 1]),
        method="bounded",
        options={"xatol": 0.01},
    )
    return (1.0, float(np.exp(found.x)))


class Measured(NamedTuple):
    """A recording, and the masses found in it."""

    recording: Recording
    masses: tuple[float, ...]


@lru_cache
def measure(data_dir: Path, case: str, validates: bool, main: int, margin: float, time_tests: int) -> Measured:
    """A recording read and its masses found, once a process; arguments as of `load` and `find_masses`."""
    recording = load(data_dir, case, validates)
    return Measured(recording, find_masses(recording, main=main, margin=margin, time_tests=time_tests))


def oscillator_bench(context: Context, config: ConfigDict, case: str, seed: int) -> Bench:
    """One seed of a recording: what is learned from is the same for all; its world is what was measured."""
    assert context.data_dir is not None
    prior = {**config.prior.to_dict(), "substeps": config.substeps}
    num_samples = prior.pop("draws")
    measured = measure(
        context.data_dir, case, context.validates, *(prior[name] for name in ("main", "margin", "time_tests"))
    )
    recording, system = measured.recording, system_of(measured.masses)
    fields, times = to_fields(system, recording.states), recording.times
    learned, ahead = fields[recording.learned], tuple(times[recording.start :].tolist())

    def condition(states: np.ndarray, num_frames: int = len(ahead)) -> Start:
        return Start(states, np.zeros((len(states), num_frames, 0)))

    def starts(key: Key[Array, ""], count: int) -> Start:
        return condition(learned[np.asarray(jax.random.randint(key, (count,), 0, len(learned)))])

    def observe(drawn: np.ndarray, _: Times) -> np.ndarray:
        states = from_fields(system, drawn)
        return np.stack([recording.as_recorded(path[:, : recording.degrees]) for path in states])

    train = Examples(learned[None], condition(learned[:1], len(learned)), tuple(times[recording.learned].tolist()))
    key, sample_key = (jax.random.fold_in(jax.random.key(root), seed) for root in (8, 6))
    truth = recording.truth[None, recording.scored]
    return Bench(
        task=Task(system, lambda: train, starts, key, ahead),
        options={"prior": prior, "baselines": {name: config[name].to_dict() for name in ("network", "training")}},
        splits={context.asked: Split(truth, condition(learned[-1:]), observe)},
        key=key,
        sample_key=lambda split, method: sample_key,
        num_samples=num_samples,
        method_key=lambda method: key,
        world=measured,
    )
