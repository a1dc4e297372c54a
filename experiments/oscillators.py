"""Measured oscillators: energy and damping from the first half of a recording, forecast of the second.

    python -m experiments.oscillators --data_dir ../shared/data --size laptop --seeds 3

One mass on a spring (`oscillator`) and two masses between springs (`double_oscillator`), one recording each. Learned
from are the recorded positions and their slopes. The velocities in the files are a linear filter of thirteen positions
that takes a quarter off the fast motion of two masses, so that positions would not be their integral. Forecasts start
from the last frame whose slope needs no frame of the second half, and are scored against positions and velocities as
recorded: the forecast positions of every method are passed through that filter, whose weights are found on the first
half. Two masses are in a ratio that only the data know: the one of largest evidence, for every method with masses.
Source: Schmidt and Lipson (2009), Science 324, 81-85 (recordings).
"""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize_scalar
from scipy.signal import savgol_filter

from experiments.configs.oscillators import get_config
from experiments.study.command import RunContext, Study, main
from phdme_jax.app import figures
from phdme_jax.app.drawing import Curve, Labels
from phdme_jax.app.page import Picture, Section
from phdme_jax.app.rows import Measurement
from phdme_jax.files import InputError
from phdme_jax.gp import basis as gp_basis
from phdme_jax.gp import fit as gp_fit
from phdme_jax.gp import observations as gp_rows
from phdme_jax.methods.baselines import windows as network_training
from phdme_jax.methods.baselines.neural_dynamics import HamiltonianField, NeuralField, solve_field
from phdme_jax.methods.energy import prior as priors
from phdme_jax.systems.energy.base import Structure
from phdme_jax.systems.energy.oscillators import chain_structure, elongation_matrix, oscillator_structure

FILES = {"oscillator": "real_linear_h_1.txt", "double_oscillator": "real_double_linear_h_1.txt"}
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
    def forecast_times(self) -> np.ndarray:
        """From the last frame that is learned from to the end."""
        return self.times[self.learned.stop - 1 :]

    def as_recorded(self, positions: np.ndarray) -> np.ndarray:
        """Scored frames, (time, field), of positions at `forecast_times`: velocities as the file's were made."""
        start = self.learned.stop - 1
        whole = np.concatenate([self.states[:start, : self.degrees], positions])
        velocities = _differences(whole) @ self.weights
        return np.concatenate([whole[self.scored], velocities[self.split - FILTER_REACH :]], axis=1)


def _differences(positions: np.ndarray) -> np.ndarray:
    """q_{t+k} - q_{t-k}, (time - 2 reach, degree, reach)."""
    reach, count = FILTER_REACH, len(positions)
    pairs = [
        positions[reach + k : count - reach + k] - positions[reach - k : count - reach - k] for k in range(1, reach + 1)
    ]
    return np.stack(pairs, axis=-1)


def load(data_dir: Path, name: str) -> Recording:
    """Read a recording: columns trial, time, positions, velocities.

    Raises:
      InputError: the file is missing or not such a table.
    """
    path = data_dir / "schmidt_lipson" / FILES[name]
    try:
        table = np.loadtxt(path, comments="%", ndmin=2)
    except OSError:
        raise InputError(f"{path}: there is no such file; expected the recording below --data_dir") from None
    except ValueError as error:
        raise InputError(f"{path}: is not a table of numbers ({error}); expected columns trial, time, x, v") from None
    degrees = (table.shape[1] - 2) // 2
    if degrees < 1 or table.shape[1] != 2 + 2 * degrees or len(table) < 60 or not np.isfinite(table).all():
        raise InputError(f"{path}: has shape {table.shape}; expected 60 finite rows or more of trial, time, x, v")
    split, time = len(table) // 2, table[:, 1] - table[0, 1]
    # frames are counted at a steady rate; the file rounds their times to milliseconds
    time = np.linspace(0.0, time[-1], len(time))
    position, velocity = table[:, 2 : 2 + degrees], table[:, 2 + degrees :]
    # tapered, the mean over a few periods that are not whole is still that of the rest
    position = position - np.average(position[:split], axis=0, weights=np.hanning(split))
    slope = savgol_filter(position, 2 * REACH + 1, ORDER, deriv=1, delta=float(time[1]), axis=0)
    size, speed = position[:split].std(), slope[REACH : split - REACH].std()
    states, truth = (np.concatenate([position / size, rate / speed], axis=1) for rate in (slope, velocity))
    known, made = _differences(position[:split] / size), velocity[FILTER_REACH : split - FILTER_REACH] / speed
    weights = np.linalg.lstsq(known.reshape(-1, FILTER_REACH), made.reshape(-1), rcond=None)[0]
    return Recording(states, truth, time * speed / size, split, weights)


class Forecast(NamedTuple):
    """Positions and velocities of the second half, positions of samples or None, seconds of learning."""

    mean: np.ndarray
    samples: np.ndarray | None
    seconds: float


@lru_cache
def structure_of(masses: tuple[float, ...]) -> Structure:
    """Operators of one mass on a spring, or of a chain of masses; the same record for the same masses."""
    if len(masses) == 1:
        return oscillator_structure("oscillator", units=("1", "1"))
    return chain_structure("double_oscillator", masses)


def to_fields(states: np.ndarray, degrees: int) -> np.ndarray:
    """Fields of the structure, (*, field), from positions and velocities: elongations in a chain."""
    if degrees == 1:
        return states
    return np.concatenate([states[..., :degrees] @ elongation_matrix(degrees).T, states[..., degrees:]], axis=-1)


def from_fields(fields: np.ndarray, degrees: int) -> np.ndarray:
    """Positions and velocities from the fields of the structure."""
    if degrees == 1:
        return fields
    return np.concatenate([np.cumsum(fields[..., :degrees], axis=-1), fields[..., -degrees:]], axis=-1)


def find_masses(config: Any, recording: Recording) -> tuple[float, ...]:
    """Masses in units of the first: one, or two in the ratio of largest evidence on the learned frames.

    Raises:
      ValueError: more than two masses.
    """
    if recording.degrees == 1:
        return (1.0,)
    if recording.degrees > 2:
        raise ValueError(f"expected one or two masses, got {recording.degrees}")
    learned = jnp.asarray(to_fields(recording.states, recording.degrees)[recording.learned])
    times = tuple(recording.times[recording.learned].tolist())
    basis = gp_basis.Basis(learned.shape[1], config.prior.main, 0)
    box = gp_basis.make_box(learned, jnp.zeros(learned.shape[1]), config.prior.margin)
    parameters = structure_of((1.0, 1.0)).parameters
    start = gp_fit.initial_hyperparameters(basis, box, len(parameters))

    @jax.jit
    def cost(log_ratio: Any) -> Any:
        flow = chain_structure("double_oscillator", (1.0, jnp.exp(log_ratio))).flow
        rows = gp_rows.integral_rows(basis, box, flow, parameters, learned, times, config.prior.time_tests, 1)
        rows = gp_rows.concatenate([rows, gp_rows.anchor_rows(basis, box, len(parameters))])
        return gp_fit.fit(basis, box, rows, start, parameters).objective

    tried = np.log(RATIOS)
    best = int(np.clip(np.argmin([float(cost(log_ratio)) for log_ratio in tried]), 1, len(tried) - 2))
    bounds = (tried[best - 1], tried[best + 1])
    found = minimize_scalar(
        lambda log_ratio: float(cost(log_ratio)), bounds=bounds, method="bounded", options={"xatol": 0.01}
    )
    return (1.0, float(np.exp(found.x)))


def forecast_energy(
    context: RunContext, recording: Recording, masses: tuple[float, ...], seed: int, quadratic: bool
) -> Forecast:
    """Energy and damping by weak-form rows of the first half; the mean and samples integrated over the second."""
    config, structure, degrees = context.config, structure_of(masses), recording.degrees
    fields = to_fields(recording.states, degrees)
    size = fields.shape[1]
    options = {
        "main": config.prior.main, "pair": 0, "margin": config.prior.margin, "time_tests": config.prior.time_tests,
        "space_tests": 1, "substeps": config.substeps, "centre": (0.0,) * size,
        "shapes": ("quadratic" if quadratic else "free",) * size, "iterations": config.prior.iterations,
    }  # fmt: skip
    learned = recording.learned
    prior = priors.fit_prior(structure, fields[None, learned], tuple(recording.times[learned].tolist()), **options)
    first = learned.stop - 1
    times, key = tuple(recording.forecast_times.tolist()), jax.random.fold_in(jax.random.key(6), seed)
    starts = np.repeat(fields[None, first], config.prior.draws, axis=0)
    paths = (priors.mean_rollouts(prior, starts[:1], times), priors.sampled_rollouts(prior, starts, times, key))
    mean, drawn = (from_fields(np.asarray(path.trajectory), degrees)[..., :degrees] for path in paths)
    scored = slice(recording.split - first, recording.scored.stop - first)
    return Forecast(recording.as_recorded(mean[0]), drawn[:, scored], prior.seconds)


def forecast_network(
    context: RunContext, recording: Recording, masses: tuple[float, ...], seed: int, hamiltonian: bool
) -> Forecast:
    """A network trained on the first half, solved over the second."""
    degrees, learned = recording.degrees, recording.learned
    states = to_fields(recording.states, degrees) if hamiltonian else recording.states
    still = np.zeros((len(recording.times), 0))
    options = context.config.network

    def make(scale: Any, key: Any) -> Any:
        if hamiltonian:
            return HamiltonianField(structure_of(masses), scale, **options, key=key)
        return NeuralField(scale, 0, **options, key=key)

    parts = (states[learned], recording.times[learned], still[learned])
    key = jax.random.fold_in(jax.random.key(8), seed)
    kind = "hnn" if hamiltonian else "neural_ode"
    kept = context.workdir / "training" / f"{structure_of(masses).name}_{kind}_{seed}.eqx"
    field, seconds = network_training.train(make, parts, context.config.training, key, kept)
    arrays = (jnp.asarray(recording.forecast_times), jnp.zeros((len(recording.forecast_times), 0)))
    path = np.asarray(jax.jit(partial(solve_field, field))(jnp.asarray(states[learned.stop - 1]), *arrays))
    mean = from_fields(path, degrees) if hamiltonian else path
    return Forecast(recording.as_recorded(mean[:, :degrees]), None, seconds)


# A method is one line: how it learns from the first half and forecasts the second.
FORECASTERS: dict[str, Callable[[RunContext, Recording, tuple[float, ...], int], Forecast]] = {
    "gp_rollout": partial(forecast_energy, quadratic=False),
    "quadratic_hamiltonian": partial(forecast_energy, quadratic=True),
    "hnn": partial(forecast_network, hamiltonian=True),
    "neural_ode": partial(forecast_network, hamiltonian=False),
}


def errors(recording: Recording, scored: np.ndarray) -> dict[str, Measurement]:
    """Normalised errors of scored frames; nmse is the mean over all positions and velocities."""
    truth, degrees = recording.truth[recording.scored], recording.degrees
    share = np.mean((scored - truth) ** 2, axis=0) / truth.var(axis=0)
    return {
        "nmse": Measurement(float(share.mean())),
        "nmse_position": Measurement(float(share[:degrees].mean())),
        "nmse_velocity": Measurement(float(share[degrees:].mean())),
    }


def evaluate(context: RunContext, recording: Recording, masses: tuple[float, ...], seed: int, name: str) -> Forecast:
    """Learn, forecast, write the rows."""
    forecast = FORECASTERS[name](context, recording, masses, seed)
    system = structure_of(masses).name
    rows = errors(recording, forecast.mean)
    context.results.record(system, name, seed, "test", rows, 1)
    learned = {"fit_seconds": Measurement(forecast.seconds, "s")}
    if len(masses) > 1 and name != "neural_ode":
        learned["mass_ratio"] = Measurement(masses[1] / masses[0])
    context.results.record(system, name, seed, "train", learned, 1)
    return forecast


def run_study(context: RunContext) -> list[Section]:
    """Every recording, seed and method, rows and figures."""
    assert context.data_dir is not None
    sections = []
    for system in FILES:
        recording, pictures = load(context.data_dir, system), []
        masses = find_masses(context.config, recording)
        # what the filter makes of the recorded positions themselves
        known = recording.states[recording.learned.stop - 1 :, : recording.degrees]
        context.results.record(system, "reference", 0, "test", errors(recording, recording.as_recorded(known)), 1)
        for seed in context.seeds:
            for name in context.methods:
                forecast = evaluate(context, recording, masses, seed, name)
                print(f"{system}, seed {seed}: {name} done", flush=True)
                if seed == context.seeds[0]:
                    pictures.append(_draw(context, recording, system, name, forecast))
        words = (
            f"The first {recording.split} frames of {len(recording.times)} are learned from, the others forecast. "
            "Networks choose the length of their windows by the last fifth of what they learn from. Positions and "
            "velocities are in units of their deviation over the first half."
        )
        if len(masses) > 1:
            words += f" The second mass is {masses[1]:.3g} times the first, by evidence; NeuralODE needs no masses."
        metrics = ("nmse", "mass_ratio", "fit_seconds")
        sections.append(Section(system.replace("_", " "), words, tuple(pictures), metrics))
    return sections


def _draw(context: RunContext, recording: Recording, system: str, name: str, forecast: Forecast) -> Picture:
    degrees = recording.degrees
    panels = tuple(f"position {index + 1}" for index in range(degrees))
    path = figures.forecast_lines(
        context.figure_path(f"{system}_{name}"), recording.times[recording.scored],
        recording.truth[recording.scored, :degrees], Curve(name, forecast.mean[:, :degrees], samples=forecast.samples),
        Labels(x="time [position / velocity unit]", y="position [deviation]", panels=panels),
    )  # fmt: skip
    return Picture(path, f"{name}: forecast of the second half, first seed")


def check(context: RunContext) -> None:
    """Refuse missing or garbled recordings before anything is written."""
    if context.data_dir is None:
        raise InputError("this study needs measured data; say --data_dir DIR, a folder that holds schmidt_lipson/")
    for name in FILES:
        load(context.data_dir, name)


STUDY = Study(
    name="oscillators",
    title="Measured oscillators: learned from the first half, forecast over the second",
    get_config=get_config,
    run=run_study,
    methods=tuple(FORECASTERS),
    sizes=("smoke", "laptop"),
    check=check,
)


if __name__ == "__main__":
    raise SystemExit(main(STUDY))
