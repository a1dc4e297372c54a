"""What is timed of learning an energy: rows of many trajectories, and the likelihood as fits call it."""

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks.harness import Timing, measure, record
from phdme_jax.gp import fit
from phdme_jax.methods.base import Examples, Start
from phdme_jax.methods.energy.posterior import PriorOptions, observed_rows
from phdme_jax.systems.energy.vibrating_string import KELVIN_VOIGT, VISCOUS, string_structure

STRUCTURE = string_structure(64, order=8, damping=(KELVIN_VOIGT, VISCOUS))
OPTIONS = PriorOptions(main=32, margin=1.5, time_tests=48, substeps=4, space_tests=12)
# trajectories; seconds that tracing and compiling may take, and MB above what the process held before
COUNTS: dict[int, tuple[float | None, float | None]] = {4: (None, None), 64: (2.0, 200.0), 1000: (None, 2000.0)}
# seconds of one likelihood and its slopes
LIMIT = 1e-3


def _waves(count: int) -> Examples:
    """Standing waves of a linear string at 64 frames and points, one per cent of noise."""
    generator = np.random.default_rng(0)
    times, z, order = np.linspace(0.0, 20.0, 64), np.linspace(0.0, 10.0, 64), np.arange(1, 6)[:, None, None]
    amplitude = 0.3 * generator.standard_normal((count, 5, 1, 1)) / order
    clock = np.pi / 10 * order * times[:, None] + generator.uniform(0.0, 2 * np.pi, (count, 5, 1, 1))
    space = np.pi / 10 * order * z
    momentum = -np.sum(amplitude * np.sin(space) * np.sin(clock), axis=1)
    states = np.stack([momentum, np.sum(amplitude * np.cos(space) * np.cos(clock), axis=1)], axis=-1)
    states += 0.01 * states.std(axis=(0, 1, 2)) * generator.standard_normal(states.shape)
    start = Start(states[:, 0], np.zeros((count, 64, 0)))
    return Examples(states, start, tuple(times.tolist()))


def _peak() -> float:
    """Largest memory of the process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _timed(examples: Examples) -> tuple[float, float, Any]:
    """Seconds, and those of the processors, that making the rows takes; and what is made."""
    began, processor = time.perf_counter(), time.process_time()
    made = jax.block_until_ready(observed_rows(STRUCTURE, examples, OPTIONS))
    return time.perf_counter() - began, time.process_time() - processor, made


def energy_rows() -> Iterator[dict[str, Any]]:
    """Rows of 4, 64 and 1000 trajectories, and the likelihood with its slopes, alone and beside a busy process."""
    for count, (seconds, memory) in COUNTS.items():
        examples = _waves(count)
        jax.clear_caches()
        base, (first, *_) = _peak(), _timed(examples)
        facts: dict[str, Any] = {"megabytes": _peak() - base, "limit_megabytes": memory}
        wall, processor, (basis, box, rows) = _timed(examples)
        compilation = first - wall
        timing = Timing(compilation, wall, (wall, wall), processor, 1)
        yield record("energy_rows", f"rows, {count} trajectories", timing, **facts)
        if seconds is not None:
            timing = Timing(None, compilation, (compilation, compilation), compilation, 1)
            yield record("energy_rows", f"rows, {count} trajectories: trace, compile", timing, limit=seconds)
        start = fit.initial_hyperparameters(basis, box, len(STRUCTURE.parameters))
        likelihood = jax.value_and_grad(partial(fit.negative_log_likelihood, basis, box, rows))
        timing, _ = measure(likelihood, start, runs=101)
        yield record("energy_rows", f"likelihood, {count} trajectories", timing, limit=LIMIT)
    with ExitStack() as stack:
        busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
        stack.callback(busy.kill)
        beside, _ = measure(likelihood, start, runs=101)
    facts = {"times_alone": beside.median / timing.median, "limit": 1.5 * timing.median}
    yield record("energy_rows", f"likelihood, {count} trajectories, one core busy", beside, **facts)
