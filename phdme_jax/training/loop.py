"""The host loop of all experiments: chunks, progress, event files, checkpoints, exact resumption.

A run is a function of its arguments alone: killed at any moment and started again with the same arguments, it ends
with the same parameters bit for bit (on the same machine and the same number of devices). Checkpoints lie on chunk
boundaries, and the boundaries depend on the options alone.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Key, PyTree

from phdme_jax.files import RunFailed, config_digest
from phdme_jax.training import checkpoint, sharding
from phdme_jax.training.memory import peak_bytes
from phdme_jax.training.state import TrainState, init_train_state
from phdme_jax.training.step import (
    ExampleLoss,
    MixedData,
    TrainChunk,
    draw_batch,
    make_drawn_step,
    make_mixed_draw,
    make_train_chunk,
    make_train_step,
)


class TrainingDiverged(RunFailed):
    """Loss or gradient stopped being finite; the message names the step and the last good checkpoint."""


@dataclasses.dataclass(frozen=True)
class LoopOptions:
    """Numbers and names of a training run.

    Attributes:
      batch_size: examples a step.
      num_steps: length of the run.
      config_digest: digest of the experiment's configuration (`phdme_jax.files.config_digest`); guards the checkpoints.
      ema_decay: limit of the decay of the parameter average.
      chunk_steps: steps between two looks of the host; progress, events and checkpoints come between chunks.
      scan: whether a chunk is one compiled call (a `num_steps` that is a multiple of `chunk_steps` then saves compiling
        a shorter last chunk) or one call a step; None scans except on CPU, where convolutions in a scan are slow. Scan
        there for networks without convolutions whose step is shorter than a millisecond.
      real_fraction: share of real examples in a batch; above 0 the dataset is a `MixedData`.
      slice_size: examples of a batch whose gradients a CPU computes side by side, so that they stay in its caches; a
        divisor of the batch. Zero takes all, as other devices and several of them do.
      checkpoint_seconds: wall time between checkpoints; 0 writes one after every chunk. The last is always written.
      description: title of the progress bar.
    """

    batch_size: int
    num_steps: int
    config_digest: str
    ema_decay: float = 0.999
    chunk_steps: int = 25
    scan: bool | None = None
    real_fraction: float = 0.0
    slice_size: int = 0
    checkpoint_seconds: float = 60.0
    description: str = "training"

    def __post_init__(self) -> None:
        """Refuses numbers that no run can have."""
        for name in ("batch_size", "num_steps", "chunk_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1, got {getattr(self, name)}")
        for name in ("ema_decay", "real_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"expected 0 <= {name} < 1, got {getattr(self, name)}")
        if self.slice_size < 0 or (self.slice_size and self.batch_size % self.slice_size):
            raise ValueError(
                f"expected a slice_size that divides a batch of {self.batch_size}, or zero, got {self.slice_size}"
            )


class TrainReport(NamedTuple):
    """What a run tells beside its state.

    Attributes:
      steps: number of updates at the end of each chunk, shape (chunk,), earlier processes of the run included.
      losses: mean loss over each chunk, shape (chunk,).
      seconds_per_step: median over the chunks, compilation, events and checkpoints excluded [s].
      compile_seconds: tracing and compilation in this process [s]; 0 where nothing was left to do.
      memory: bytes that a compiled step, or chunk of steps, holds at most, its arguments (the dataset among them)
        included, see `memory.peak_bytes`; of the process that began the run, None where its backend does not say.
      resumed_at: step at which this process took over; 0 for a new run.
      checkpoint: folder of the final checkpoint, None where none was kept.
    """

    steps: np.ndarray
    losses: np.ndarray
    seconds_per_step: float
    compile_seconds: float
    memory: float | None
    resumed_at: int
    checkpoint: Path | None


ChunkMetrics = Mapping[str, Array | np.ndarray]  # of each step of a chunk, on the device or the host
RunChunk = Callable[[int, TrainState], tuple[TrainState, ChunkMetrics]]

Tell = Callable[[int, Mapping[str, float]], None]
# (folder of the run or None, description, first step, number of steps) -> what is told (step, mean metrics) a chunk
Watch = Callable[[Path | None, str, int, int], contextlib.AbstractContextManager[Tell]]


@contextlib.contextmanager
def unwatched(folder: Path | None, description: str, start: int, num_steps: int) -> Iterator[Tell]:
    """A watch that shows nothing."""
    del folder, description, start, num_steps
    yield lambda step, metrics: None


class _History(NamedTuple):
    steps: list[int]
    losses: list[float]
    seconds: list[float]
    memory: float | None = None


def train(
    example_loss: ExampleLoss,
    params: PyTree,
    dataset: PyTree,
    key: Key[Array, ""],
    *,
    optimizer: optax.GradientTransformation,
    options: LoopOptions,
    workdir: str | Path | None = None,
    watch: Watch = unwatched,
) -> tuple[TrainState, TrainReport]:
    """Trains, or goes on training, or returns at once with the finished run of `workdir`.

    Uses as many devices as divide the batch. Writes `workdir/checkpoints`.

    Args:
      example_loss: `(params, example, key) -> (loss, metrics)` for one example; every metric is a scalar.
      params: initial parameters.
      dataset: pytree of arrays with one leading example axis, kept whole on every device; a `MixedData` of two such
        trees where `options.real_fraction` is above 0.
      key: key of the run's draws and of the loss.
      optimizer: optax transformation.
      options: numbers and names of the run.
      workdir: folder of this run alone; None keeps nothing.
      watch: told the step and the mean metrics after every chunk.

    Returns:
      (final state, report).

    Raises:
      TrainingDiverged: loss or gradient not finite.
      InputError: the checkpoints in `workdir` belong to another configuration, key or set of options.
      RunFailed: a checkpoint cannot be written.
    """
    if isinstance(dataset, MixedData) != (options.real_fraction > 0):
        raise ValueError(
            f"expected a MixedData exactly where real_fraction > 0, got {type(dataset).__name__} with "
            f"real_fraction={options.real_fraction}; try MixedData(synthetic, real)"
        )
    folder = None if workdir is None else Path(workdir) / "checkpoints"
    digest = _run_digest(options, key)
    mesh = sharding.data_mesh_for(options.batch_size)
    state = sharding.replicate(init_train_state(params, optimizer), mesh)
    history = _History([], [], [])
    found = None if folder is None else checkpoint.restore_latest(folder, state, digest)
    if found is not None:
        state, history = found.tree, _History(**found.metadata)
    start, compile_seconds = int(state.step), 0.0
    if start < options.num_steps:
        dataset, key = sharding.replicate((dataset, key), mesh)
        begin = time.perf_counter()
        run_chunk, memory = _compile(example_loss, optimizer, options, mesh, (state, dataset, key))
        compile_seconds = time.perf_counter() - begin
        history = history if history.steps else history._replace(memory=memory)
        state = _run(run_chunk, state, history, options, digest, folder, watch)
    return state, _report(history, options, compile_seconds, start, folder)


def _run_digest(options: LoopOptions, key: Key[Array, ""]) -> str:
    """Digest of all that decides the result: the configuration, the key and the options that are not for show."""
    deciding = dataclasses.asdict(options)
    del deciding["checkpoint_seconds"], deciding["description"]
    if not deciding["slice_size"]:
        del deciding["slice_size"]
    return config_digest({**deciding, "key": jax.random.key_data(key).tolist()})


def _compile(
    example_loss: ExampleLoss,
    optimizer: optax.GradientTransformation,
    options: LoopOptions,
    mesh: Mesh,
    arguments: tuple[TrainState, PyTree, Key[Array, ""]],
) -> tuple[RunChunk, float | None]:
    """Compiles what the rest of the run needs, and says how many bytes it holds.

    `arguments` are state, dataset and key, already on the mesh.
    """
    state, dataset, key = arguments
    sliced = options.slice_size and mesh.size == 1 and mesh.devices.flat[0].platform == "cpu"
    slices = options.batch_size // options.slice_size if sliced else 1
    train_step = make_train_step(example_loss, optimizer, options.ema_decay, slices=slices)
    train_step = sharding.split_batch(train_step, mesh)
    draw = make_mixed_draw(options.real_fraction) if options.real_fraction > 0 else draw_batch
    scan = mesh.devices.flat[0].platform != "cpu" if options.scan is None else options.scan
    if not scan:
        drawn_step = make_drawn_step(train_step, draw, options.batch_size)
        compiled = sharding.shard_chunk(drawn_step, mesh).lower(state, dataset, key).compile()
        run = lambda length, state: _call_repeatedly(compiled, length, state, dataset, key, mesh)  # noqa: E731
        return run, peak_bytes(compiled)
    boundaries = range(int(state.step), options.num_steps, options.chunk_steps)
    chunks = {}
    for length in {min(options.chunk_steps, options.num_steps - boundary) for boundary in boundaries}:
        chunk = make_train_chunk(train_step, draw, options.batch_size, length)
        chunks[length] = sharding.shard_chunk(chunk, mesh).lower(state, dataset, key).compile()
    memories = [peak_bytes(chunk) for chunk in chunks.values()]
    known = [memory for memory in memories if memory is not None]
    return lambda length, state: chunks[length](state, dataset, key), max(known, default=None)


def _call_repeatedly(
    drawn_step: TrainChunk, length: int, state: TrainState, dataset: PyTree, key: Key[Array, ""], mesh: Mesh
) -> tuple[TrainState, ChunkMetrics]:
    rows = []
    for _ in range(length):
        state, metrics = drawn_step(state, dataset, key)
        rows.append(metrics)
        if mesh.size > 1:  # collectives of several CPU devices deadlock when many steps pile up
            jax.block_until_ready(state)
    return state, jax.tree.map(lambda *values: np.stack(values), *jax.device_get(rows))


def _run(
    run_chunk: RunChunk,
    state: TrainState,
    history: _History,
    options: LoopOptions,
    digest: str,
    folder: Path | None,
    watch: Watch,
) -> TrainState:
    """Runs the chunks that are left, telling and saving between them; extends `history` in place."""
    step, saved_at = int(state.step), time.monotonic()
    with watch(None if folder is None else folder.parent, options.description, step, options.num_steps) as tell:
        while step < options.num_steps:
            length = min(options.chunk_steps, options.num_steps - step)
            begin = time.perf_counter()
            state, metrics = jax.block_until_ready(run_chunk(length, state))
            seconds = (time.perf_counter() - begin) / length
            values = jax.device_get(metrics)
            _require_finite(values, step, folder)
            step += length
            means = {name: float(np.mean(value)) for name, value in values.items() if name != "finite"}
            history.steps.append(step)
            history.losses.append(means["loss"])
            history.seconds.append(seconds)
            tell(step, means)
            late = step == options.num_steps or time.monotonic() - saved_at >= options.checkpoint_seconds
            if folder is not None and late:
                checkpoint.save_checkpoint(folder, step, state, digest, history._asdict())
                saved_at = time.monotonic()
    return state


def _require_finite(metrics: ChunkMetrics, step: int, folder: Path | None) -> None:
    """Raises at the first step of a chunk that was not finite, `step` being the number of updates before the chunk."""
    if metrics["finite"].all():
        return
    first = int(np.argmin(metrics["finite"]))
    last_good = None if folder is None else checkpoint.latest_checkpoint(folder)
    raise TrainingDiverged(
        f"training diverged at step {step + first}: loss {metrics['loss'][first]:.4g}, gradient norm "
        f"{metrics['grad_norm'][first]:.4g}; last good checkpoint: {last_good or 'none yet'}; "
        "try a smaller learning rate, a longer warm-up, or look for examples that are not finite"
    )


def _report(
    history: _History, options: LoopOptions, compile_seconds: float, start: int, folder: Path | None
) -> TrainReport:
    return TrainReport(
        steps=np.asarray(history.steps),
        losses=np.asarray(history.losses),
        seconds_per_step=float(np.median(history.seconds)),
        compile_seconds=compile_seconds,
        memory=history.memory,
        resumed_at=start,
        checkpoint=None if folder is None else (folder / str(options.num_steps)).absolute(),
    )
