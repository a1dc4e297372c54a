"""Timing of compiled functions: compilation apart, warmed up, blocked, median and spread, wall and processor time."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
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
    compile_seconds = None
    if compiled:
        began = time.perf_counter()
        function = jax.jit(function).lower(*arguments).compile()
        compile_seconds = time.perf_counter() - began
    jax.block_until_ready(arguments)
    result = jax.block_until_ready(function(*arguments))
    wall: list[float] = []
    processor: list[float] = []
    while len(wall) < 2 or (len(wall) < runs and sum(wall) < seconds):
        began, began_processor = time.perf_counter(), time.process_time()
        jax.block_until_ready(function(*arguments))
        wall.append(time.perf_counter() - began)
        processor.append(time.process_time() - began_processor)
    low, median, high = np.quantile(wall, [0.25, 0.5, 0.75]).tolist()
    return Timing(compile_seconds, median, (low, high), float(np.median(processor)), len(wall)), result


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
