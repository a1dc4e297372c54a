"""Timing of compiled functions: compilation apart, warmed up, blocked, median and spread, wall and processor time."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Timing:
    """One function's times in seconds.

    Attributes:
      compile_seconds: tracing, lowering and compilation; None where nothing was compiled.
      median: wall time of a run.
      quartiles: lower and upper quartile of the same.
      processor_median: processor time of a run, all threads; tells a busy machine from slow code.
      runs: number of runs after the first, which is not counted.
    """

    compile_seconds: float | None
    median: float
    quartiles: tuple[float, float]
    processor_median: float
    runs: int


def measure(
    function: Callable[..., Any], *arguments: Any, compiled: bool = True, runs: int = 7, seconds: float = 10.0
) -> tuple[Timing, Any]:
    """Time a function on given arguments.

    Args:
      function: a function of arrays; compiled here unless told otherwise.
      *arguments: its arguments.
      compiled: false for host functions.
      runs: timed runs at the most.
      seconds: budget after which no further run starts; two runs are made in any case.
    Returns:
      the times, and the function's result.
    """
    return measure_in_turn({"": function}, *arguments, host=() if compiled else ("",), runs=runs, seconds=seconds)[""]


def measure_in_turn(
    functions: Mapping[str, Callable[..., Any]],
    *arguments: Any,
    host: Collection[str] = (),
    runs: int = 7,
    seconds: float = 10.0,
) -> dict[str, tuple[Timing, Any]]:
    """Time several functions of the same arguments round by round, so that a busy machine slows all alike.

    Args:
      functions: by name; compiled here but for those named in `host`.
      *arguments: their arguments.
      host: names of host functions.
      runs: timed rounds at the most.
      seconds: budget of a function, after which no further round starts; two are made in any case.
    Returns:
      by name: the times, and the function's result.
    """
    compile_seconds: dict[str, float | None] = dict.fromkeys(functions)
    ready = dict(functions)
    for name in functions.keys() - set(host):
        began = time.perf_counter()
        ready[name] = jax.jit(functions[name]).lower(*arguments).compile()
        compile_seconds[name] = time.perf_counter() - began
    jax.block_until_ready(arguments)
    results = {name: jax.block_until_ready(function(*arguments)) for name, function in ready.items()}
    wall: dict[str, list[float]] = {name: [] for name in functions}
    processor: dict[str, list[float]] = {name: [] for name in functions}
    for done in range(runs):
        if done >= 2 and sum(map(sum, wall.values())) > seconds * len(functions):
            break
        for name, function in ready.items():
            began, began_processor = time.perf_counter(), time.process_time()
            jax.block_until_ready(function(*arguments))
            wall[name].append(time.perf_counter() - began)
            processor[name].append(time.process_time() - began_processor)
    timings = {}
    for name, times in wall.items():
        low, median, high = np.quantile(times, [0.25, 0.5, 0.75]).tolist()
        busy = float(np.median(processor[name]))
        timings[name] = Timing(compile_seconds[name], median, (low, high), busy, len(times))
    return {name: (timings[name], results[name]) for name in functions}


def times_peer(timing: Timing, peer: Timing) -> dict[str, float]:
    """Median times in units of a peer's: on the wall, and of the processor, which a busy machine changes less."""
    return {
        "times_peer": timing.median / peer.median,
        "times_peer_processor": timing.processor_median / peer.processor_median,
    }


def environment() -> dict[str, Any]:
    """Where the numbers come from: device, precision, versions, commit, and how busy the machine was."""
    device = jax.devices()[0]
    names = ("jax", "jaxlib", "numpy", "scipy", "diffrax")
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "devices": jax.device_count(),
        "processors": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "lapack_threads": os.environ.get("OPENBLAS_NUM_THREADS"),
        "dtype": str(jnp.zeros(()).dtype),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in names},
        "commit": commit.stdout.strip() or None,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def record(case: str, part: str, timing: Timing, **facts: Any) -> dict[str, Any]:
    """One line of results: what was timed, how long it took, and the facts that give the number its meaning.

    The fact `limit`: seconds that the median may take on two cores with nothing else to do.
    """
    return {"case": case, "part": part, **asdict(timing), **facts, **environment()}


def append(path: Path, row: dict[str, Any]) -> None:
    """Append one row to a JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row, allow_nan=False) + "\n")
