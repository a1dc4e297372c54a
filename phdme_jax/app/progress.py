"""What a person sees of a training: a progress bar, and TensorBoard event files beside its checkpoints."""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from phdme_jax.training.loop import Tell


@contextlib.contextmanager
def shown(folder: Path | None, description: str, start: int, num_steps: int) -> Iterator[Tell]:
    """A watch, see `phdme_jax.training.loop`, with a bar on standard error and events in `folder/events`.

    What a killed process logged beyond its last checkpoint is purged, since it is logged again.
    """
    from tqdm import tqdm

    silent = sys.stderr is None
    pause = 0.5 if not silent and sys.stderr.isatty() else 10.0
    with contextlib.ExitStack() as stack:
        events = None
        if folder is not None:
            from tensorboardX import SummaryWriter

            writer = SummaryWriter(str(folder / "events"), purge_step=start or None, flush_secs=10)
            events = stack.enter_context(writer)
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
            if events is not None:
                for name, value in metrics.items():
                    events.add_scalar(f"train/{name}", value, step)
            if "loss" in metrics:
                bar.set_postfix(loss=f"{metrics['loss']:.3g}", refresh=False)
            bar.update(step - bar.n)

        yield tell
