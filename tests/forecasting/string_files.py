"""A linear string with known waves, as arrays and as files for the fit and forecast commands."""

from pathlib import Path
from typing import Any

import numpy as np

from phdme_jax.app.overrides import apply_overrides
from phdme_jax.forecasting.options import RANGES, make_options

LENGTH, SPEED, POINTS, FRAMES = 0.65, 310.0, 12, 14
STIFFNESS = (0.25, 4 * SPEED**2)  # momentum is not a velocity here: kappa_p is not one
# a fit so small that it runs in seconds
TINY = {
    "physics.residual_weight": "0",
    "prior.main": "4",
    "prior.time_tests": "10",
    "prior.space_tests": "8",
    "rollouts.count": "16",
    "network.propagator.width": "8",
    "network.unet.multipliers": "1",
    "sampling.num_samples": "4",
    "sampling.num_steps": "2",
}
LEVEL = 0.6


def tiny_options(**changes: str) -> dict[str, Any]:
    options = make_options("smoke")
    apply_overrides(options, TINY | changes, RANGES)
    return options


def waves(count: int, seed: int, time: np.ndarray | None = None, points: int = POINTS) -> dict[str, np.ndarray]:
    """Exact standing waves of a linear string with p_t = kappa_q q_z, q_t = kappa_p p_z and fixed ends."""
    random = np.random.default_rng(seed)
    if time is None:
        time = 7.0 + np.linspace(0, 1.0 * LENGTH / SPEED, FRAMES)
    grid = np.linspace(0, LENGTH, points)
    mode = np.arange(1, 4)[:, None, None]
    amplitude, phase = 1e-3 * random.normal(size=(count, 3, 1, 1)) / mode**2, random.uniform(0, 6.28, (count, 3, 1, 1))
    space, clock = mode * np.pi / LENGTH * grid, SPEED * mode * np.pi / LENGTH * (time[:, None] - time[0]) + phase
    # with s the deflection: q = s_z and kappa_p p = s_t
    strain = amplitude * mode * np.pi / LENGTH * np.cos(space) * np.cos(clock)
    momentum = -amplitude * SPEED * mode * np.pi / LENGTH * np.sin(space) * np.sin(clock) / STIFFNESS[0]
    state = np.stack([momentum.sum(1), strain.sum(1)], axis=-1)
    state[:, :, [0, -1], 0] = 0.0
    return {"state": state, "time": time, "grid": grid}


def fit_arguments(files: Path, run: Path, *more: str, data: str = "data.npz") -> list[str]:
    size = ("--size=smoke", f"--level={LEVEL}", *(f"--config.{key}={value}" for key, value in TINY.items()))
    return ["--data", str(files / data), "--structure", "vibrating_string", "--workdir", str(run), *size, *more]


def forecast_arguments(files: Path, run: Path, out: Path, *more: str, state: str = "state.npz") -> list[str]:
    return ["--run", str(run), "--initial", str(files / state), "--out", str(out), *more]


def sentence(capsys) -> str:
    """The one sentence of a refusal."""
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "Traceback" not in error
    return error


def change(files: Path, name: str, source: str = "data.npz", **arrays) -> str:
    """A copy of a file with some arrays changed; a function is applied to the array."""
    with np.load(files / source) as archive:
        kept = {key: archive[key] for key in archive.files}
    kept |= {key: value(kept[key].copy()) if callable(value) else value for key, value in arrays.items()}
    np.savez(files / name, **kept)
    return name
