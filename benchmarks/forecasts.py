"""What is timed of forecasts: generators and mean rollouts from one state, the verb `forecast`, whole processes.

Networks have the sizes of `laptop` and are hardly trained: how long they take does not depend on it.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import phdme_jax
from benchmarks.harness import measure, record
from phdme_jax.methods import draws
from phdme_jax.methods.base import Examples, Fitted, Start, Task
from phdme_jax.methods.energy.dynamics import true_dynamics
from phdme_jax.methods.presets import generator_groups
from phdme_jax.methods.table import METHODS
from phdme_jax.systems import make_system
from phdme_jax.systems.energy.base import System

Row = dict[str, Any]
# points, frames, duration, reach of a step, sizes of the prior, samples of a forecast; seconds that a forecast by four
# calls of the network and a mean rollout may take
CASES: dict[str, tuple[int, int, float, int, dict[str, Any], int, tuple[float, float]]] = {
    "vibrating_string": (64, 64, 20.0, 6, {"main": 32, "pair": 0, "margin": 2.0}, 8, (0.03, 0.009)),
    "shallow_water_2d": (32, 32, 2.0, 3, {"main": 16, "pair": 6, "margin": 5.0}, 4, (0.13, 0.16)),
}


class _Untrained:
    """A host that hands back what it is given."""

    def train(self, stage: str, loss: Any, params: Any, data: Any, key: Any, **numbers: Any) -> tuple[Any, float]:
        return params, 0.0

    def keep(self, name: str, make: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        return make()


def _starts(system: System, times: tuple[float, ...], key: jax.Array, count: int) -> Start:
    draw = lambda key: system.structure.constrain(system.initial_state("random_smooth")(key))  # noqa: E731
    return Start(np.asarray(jax.vmap(draw)(jax.random.split(key, count))), np.zeros((count, len(times), 0)))


def _fitted(name: str, points: int, times: tuple[float, ...], radius: int, prior: dict[str, Any]) -> tuple[Any, ...]:
    """A state, the learned energy and an untrained generator."""
    system = make_system(name, num_points=points)
    starts = partial(_starts, system, times)
    seen = starts(jax.random.key(0), 4)
    solve = jax.jit(jax.vmap(lambda start: true_dynamics(system, 4).rollout((), start, times, 4).trajectory))
    task = Task(system, partial(Examples, solve(seen), seen, times), starts, jax.random.key(1), times)
    options: dict[str, Any] = {
        "prior": {"time_tests": 24, "space_tests": 6, "substeps": 4, "iterations": 20, **prior},
        "rollouts": {"count": 8},
        **generator_groups("laptop", radius),
        "sampling": {"num_steps": 4},
    }
    options["training"]["amplitude_draws"] = 0
    energy = METHODS["gp_rollout"].fit(task, options, _Untrained(), None, jax.random.key(2))
    generator = METHODS["phdme"].fit(task, options, _Untrained(), energy, jax.random.key(3))
    return jax.tree.map(lambda leaf: leaf[:1], seen), energy, generator


def one_state() -> Iterator[Row]:
    """A forecast by `phdme` and a mean rollout from one initial state, on a line and on a plane."""

    def forecast(fitted: Fitted, start: Start, count: int) -> Any:
        return draws.draw_forecasts(fitted, start, count, jax.random.key(4)).samples

    def mean(fitted: Fitted, start: Start) -> Any:
        return draws.means(fitted, draws.prepare(fitted, start))

    for name, (points, frames, duration, radius, prior, samples, limits) in CASES.items():
        times = tuple(np.linspace(0.0, duration, frames).tolist())
        state, energy, generator = _fitted(name, points, times, radius, prior)
        for part, call, limit in (
            ("phdme, 4 calls", partial(forecast, generator, state, samples), limits[0]),
            ("mean rollout", partial(mean, energy, state), limits[1]),
        ):
            timing, found = measure(call, compiled=False)
            finite = bool(np.isfinite(found).all())
            yield record("one_state", f"{name}: {part}", timing, limit=limit, finite=finite)


def _waves(count: int, seed: int) -> dict[str, np.ndarray]:
    """Standing waves of a linear string, 64 frames of 64 points."""
    random, time, place = np.random.default_rng(seed), np.linspace(0.0, 2.0, 64), np.linspace(0.0, 1.0, 64)
    wave = np.pi * np.arange(1, 4)[:, None, None]
    size, phase = 0.01 * random.normal(size=(count, 3, 1, 1)) / wave, random.uniform(0, 6.28, (count, 3, 1, 1))
    turn = 2 * wave * time[:, None] + phase
    strain = (size * wave * np.cos(wave * place) * np.cos(turn)).sum(1)
    momentum = -(2 * size * wave * np.sin(wave * place) * np.sin(turn)).sum(1)
    momentum[..., [0, -1]] = 0.0
    return {"state": np.stack([momentum, strain], axis=-1), "time": time, "grid": place}


@lru_cache
def _saved() -> Path:
    """Folder with a calibrated fit and a state to forecast from."""
    folder = Path(tempfile.mkdtemp())
    options = phdme_jax.make_options("laptop")
    options |= {"check_structure": False, "rollouts": {"count": 16}, "sampling": {"num_steps": 8, "num_samples": 16}}
    options["prior"] |= {"time_tests": 12, "space_tests": 6}
    few = {"spread_stage": (4, 4, 1e-3), "residual_stage": (4, 4, 1e-3), "amplitude_draws": 0}
    options["training"] |= {"propagator_stages": ((1, 10, 4, 1e-3),), **few}
    forecaster = phdme_jax.fit(_waves(4, 0), "vibrating_string", options=options)
    phdme_jax.save(phdme_jax.conformalize(forecaster, _waves(10, 1), level=0.9), folder)
    state = _waves(1, 2)
    np.savez(folder / "state.npz", state=state["state"][0, 0], grid=state["grid"])
    return folder


def resident() -> Iterator[Row]:
    """The verb `forecast` in a process that has called it before: 64 frames of 64 points, 16 samples, 8 calls each."""
    forecaster = phdme_jax.load(_saved())
    timing, made = measure(phdme_jax.forecast, forecaster, _saved() / "state.npz", 16, compiled=False, runs=15)
    yield record("resident", "forecast, 16 samples", timing, limit=0.08, samples=len(made.samples))


def processes() -> Iterator[Row]:
    """Whole processes: the forecast of a kept fit, its programs kept by an earlier one, and the help of a study."""
    folder = _saved()
    files = ["--run", str(folder), "--initial", str(folder / "state.npz"), "--out", str(folder / "forecast.npz")]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder / "programs")}
    for module, arguments, limit in (
        ("phdme_jax.app.forecast_command", [*files, "--samples", "16"], 2.5),
        ("experiments.vibrating_string", ["--help"], 1.0),
    ):
        command = [sys.executable, "-m", module, *arguments]
        run = partial(subprocess.run, command, env=environment, capture_output=True, check=True)
        timing, _ = measure(lambda run=run: bool(run()), compiled=False, runs=5, seconds=30.0)
        yield record("processes", f"{module} {arguments[0]}", timing, limit=limit)
