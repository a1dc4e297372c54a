"""Measured oscillators: energy and damping from the first half of a recording, forecast of the second.

    python -m experiments.oscillators --data_dir ../shared/data --size laptop --seeds 3

One mass on a spring (`oscillator`) and two (`double_oscillator`), one recording each. Momenta are the recorded
velocities, which its authors derived from the positions; the forecast starts from the state recorded at the split.
Source: Schmidt and Lipson (2009), Science 324, 81-85 (recordings).
"""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import figures, network_training, priors
from experiments.configs.oscillators import get_config
from experiments.drawing import Curve, Labels
from experiments.files import InputError
from experiments.report import Picture
from experiments.results import Measurement
from experiments.run import RunContext, Section, Study, main
from phdme_jax.gp import sampling as gp_sampling
from phdme_jax.methods.neural_dynamics import HamiltonianField, NeuralField, solve_field
from phdme_jax.systems.base import Structure
from phdme_jax.systems.oscillators import oscillator_structure

FILES = {"oscillator": "real_linear_h_1.txt", "double_oscillator": "real_double_linear_h_1.txt"}


class Recording(NamedTuple):
    """A recording in units of its own first half, so that q_t = p holds as recorded.

    Attributes:
      states: positions about their mean, then velocities, (time, field).
      times: since the first frame.
      split: index of the first frame that is forecast.
    """

    states: np.ndarray
    times: np.ndarray
    split: int


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
    if degrees < 1 or table.shape[1] != 2 + 2 * degrees or len(table) < 40 or not np.isfinite(table).all():
        raise InputError(f"{path}: has shape {table.shape}; expected 40 finite rows or more of trial, time, x, v")
    split, time = len(table) // 2, table[:, 1] - table[0, 1]
    # frames are counted at a steady rate; the file rounds their times to milliseconds
    time = np.linspace(0.0, time[-1], len(time))
    position, velocity = table[:, 2 : 2 + degrees], table[:, 2 + degrees :]
    position = position - position[:split].mean(axis=0)
    size, speed = position[:split].std(), velocity[:split].std()
    return Recording(np.concatenate([position / size, velocity / speed], axis=1), time * speed / size, split)


class Forecast(NamedTuple):
    """Mean of the second half, samples or None, seconds of learning."""

    mean: np.ndarray
    samples: np.ndarray | None
    seconds: float


@lru_cache
def structure_of(degrees: int) -> Structure:
    """Operators of the degrees of freedom; the same record for the same number."""
    return oscillator_structure("oscillator", degrees=degrees, units=("1", "1"))


def forecast_energy(context: RunContext, recording: Recording, seed: int, quadratic: bool) -> Forecast:
    """Energy and damping by weak-form rows of the first half; the mean and samples integrated over the second."""
    config, half = context.config, slice(0, recording.split)
    size = recording.states.shape[1]
    structure = structure_of(size // 2)
    options = {
        "main": config.prior.main, "pair": 0 if quadratic or size == 2 else config.prior.pair,
        "margin": config.prior.margin, "time_tests": config.prior.time_tests, "space_tests": 1,
        "substeps": config.substeps, "centre": (0.0,) * size,
        "shapes": ("quadratic",) * size if quadratic else ("free",) * size,
    }  # fmt: skip
    prior = priors.fit_prior(structure, recording.states[None, half], tuple(recording.times[half].tolist()), **options)
    start = jnp.asarray(recording.states[recording.split])
    times = jnp.asarray(recording.times[recording.split :])

    def roll(energy: Any) -> Any:
        parameters = prior.posterior.parameters
        return gp_sampling.roll_out(
            prior.basis, structure.flow, jnp.ones(()), energy, parameters, start, times, prior.substeps
        ).trajectory

    keys = jax.random.split(jax.random.fold_in(jax.random.key(6), seed), config.prior.draws)
    mean = jax.jit(roll)(prior.posterior.mean)
    drawn = jax.jit(jax.vmap(lambda key: roll(gp_sampling.sample_energy(prior.posterior, key))))(keys)
    return Forecast(np.asarray(mean), np.asarray(drawn), prior.seconds)


def forecast_network(context: RunContext, recording: Recording, seed: int, hamiltonian: bool) -> Forecast:
    """A network trained on the first half, solved over the second."""
    half, size = slice(0, recording.split), recording.states.shape[1]
    still = np.zeros((len(recording.times), 0))
    options = context.config.network

    def make(scale: Any, key: Any) -> Any:
        if hamiltonian:
            return HamiltonianField(structure_of(size // 2), scale, **options, key=key)
        return NeuralField(scale, 0, **options, key=key)

    parts = (recording.states[half], recording.times[half], still[half])
    key = jax.random.fold_in(jax.random.key(8), seed)
    field, seconds = network_training.train(make, parts, context.config.training, key)
    later = slice(recording.split, None)
    arrays = [jnp.asarray(part[later]) for part in (recording.times, still)]
    mean = jax.jit(partial(solve_field, field))(jnp.asarray(recording.states[recording.split]), *arrays)
    return Forecast(np.asarray(mean), None, seconds)


# A method is one line: how it learns from the first half and forecasts the second.
FORECASTERS: dict[str, Callable[[RunContext, Recording, int], Forecast]] = {
    "gp_rollout": partial(forecast_energy, quadratic=False),
    "quadratic_hamiltonian": partial(forecast_energy, quadratic=True),
    "hnn": partial(forecast_network, hamiltonian=True),
    "neural_ode": partial(forecast_network, hamiltonian=False),
}


def evaluate(context: RunContext, recording: Recording, system: str, seed: int, name: str) -> Forecast:
    """Learn, forecast, write the rows; nmse is the mean over all positions and velocities."""
    forecast = FORECASTERS[name](context, recording, seed)
    truth = recording.states[recording.split :]
    share = np.mean((forecast.mean - truth) ** 2, axis=0) / truth.var(axis=0)
    degrees = truth.shape[1] // 2
    rows = {
        "nmse": Measurement(float(share.mean())),
        "nmse_position": Measurement(float(share[:degrees].mean())),
        "nmse_velocity": Measurement(float(share[degrees:].mean())),
    }
    context.results.record(system, name, seed, "test", rows, 1)
    context.results.record(system, name, seed, "train", {"fit_seconds": Measurement(forecast.seconds, "s")}, 1)
    return forecast


def run_study(context: RunContext) -> list[Section]:
    """Every recording, seed and method, rows and figures."""
    assert context.data_dir is not None
    sections = []
    for system in FILES:
        recording, pictures = load(context.data_dir, system), []
        for seed in context.seeds:
            for name in context.methods:
                forecast = evaluate(context, recording, system, seed, name)
                print(f"{system}, seed {seed}: {name} done", flush=True)
                if seed == context.seeds[0]:
                    pictures.append(_draw(context, recording, system, name, forecast))
        words = (
            f"The first {recording.split} frames of {len(recording.times)} are learned from, the others forecast from "
            "the state recorded at the split. Networks choose the length of their windows by the last fifth of the "
            "first half. Positions and velocities are in units of their deviation over the first half."
        )
        sections.append(Section(system.replace("_", " "), words, tuple(pictures), ("nmse", "fit_seconds")))
    return sections


def _draw(context: RunContext, recording: Recording, system: str, name: str, forecast: Forecast) -> Picture:
    degrees = recording.states.shape[1] // 2
    samples = None if forecast.samples is None else forecast.samples[..., :degrees]
    panels = tuple(f"position {index + 1}" for index in range(degrees))
    path = figures.forecast_lines(
        context.figure_path(f"{system}_{name}"), recording.times[recording.split :],
        recording.states[recording.split :, :degrees], Curve(name, forecast.mean[:, :degrees], samples=samples),
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
