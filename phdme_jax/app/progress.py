"""What a person sees of a training: a progress bar, and TensorBoard event files beside its checkpoints."""

import contextlib
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from phdme_jax.files import writing
from phdme_jax.training.loop import Tell

_FLUSH_SECONDS = 10.0


@contextlib.contextmanager
def shown(folder: Path | None, description: str, start: int, num_steps: int) -> Iterator[Tell]:
    """A watch, see `phdme_jax.training.loop`, with a bar on standard error and events in `folder/events`.

    What a killed process logged beyond its last checkpoint is purged, since it is logged again.
    """
    from tqdm import tqdm

    silent = sys.stderr is None
    pause = 0.5 if not silent and sys.stderr.isatty() else 10.0
    with contextlib.ExitStack() as stack:
        write_events = None if folder is None else stack.enter_context(_events(folder / "events", start))
        bar = stack.enter_context(
            tqdm(
                total=num_steps,
                initial=start,
                desc=description,
                unit="it",
                mininterval=pause,
                smoothing=0.1,
                disable=silent,
            )
        )

        def tell(step: int, metrics: Mapping[str, float]) -> None:
            if write_events is not None:
                write_events(step, metrics)
            if "loss" in metrics:
                bar.set_postfix(loss=f"{metrics['loss']:.3g}", refresh=False)
            bar.update(step - bar.n)

        yield tell


@contextlib.contextmanager
def _events(folder: Path, start: int) -> Iterator[Tell]:
    """A file of events, written by the thread that trains: a write that fails is told.

    The library's own writer has a thread and a queue; the thread dies of a full disk, and training waits for the queue.
    """
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.record_writer import RecordWriter

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = RecordWriter(str(folder / f"events.out.tfevents.{time.time():.6f}.{platform.node()}"))
    flushed = time.monotonic()

    def write(**fields: Any) -> None:
        with writing(folder):
            file.write(Event(wall_time=time.time(), **fields).SerializeToString())

    def tell(step: int, metrics: Mapping[str, float]) -> None:
        nonlocal flushed
        values = [Summary.Value(tag=f"train/{name}", simple_value=value) for name, value in metrics.items()]
        write(step=step, summary=Summary(value=values))
        if time.monotonic() - flushed > _FLUSH_SECONDS:
            with writing(folder):
                file.flush()
            flushed = time.monotonic()

    try:
        write(file_version="brain.Event:2")
        if start:
            write(step=start, session_log=SessionLog(status=SessionLog.START))
        yield tell
    finally:
        with writing(folder):
            file.close()
