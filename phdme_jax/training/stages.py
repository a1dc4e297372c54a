"""The host of a fit: each stage of its training in a folder of its own, and arrays that are made once and kept."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Key, PyTree

from phdme_jax.files import kept_arrays
from phdme_jax.training.loop import LoopOptions, Watch, train, unwatched
from phdme_jax.training.state import make_optimizer
from phdme_jax.training.step import ExampleLoss, MixedData


class StageCost(NamedTuple):
    """What a stage of training cost: seconds an update without compilation, and bytes, see `loop.TrainReport`."""

    seconds_per_update: float
    memory: float | None


class Trainer:
    """Trains stage by stage and keeps what takes long: below folders, or in memory without them."""

    def __init__(
        self,
        folder: Path | None = None,
        digest: str = "",
        watch: Watch = unwatched,
        description: str = "",
        shared: Path | None = None,
        suffix: str = "",
        shared_digest: str | None = None,
        slice_size: int = 0,
    ) -> None:
        """A host.

        Args:
          folder: of the training, one below it for each stage; None keeps nothing on disk.
          digest: of all that training depends on, guards the checkpoints.
          watch: shows the progress, see `phdme_jax.training.loop`.
          description: title of the progress.
          shared: folder of kept arrays; None keeps them in memory alone.
          suffix: follows the name of kept arrays in their files' names.
          shared_digest: of all that kept arrays depend on beside their name; `digest` where None.
          slice_size: see `training.loop.LoopOptions`; all examples of a batch where it does not divide it.
        """
        self.folder, self.digest, self.watch, self.description = folder, digest, watch, description
        self.shared, self.suffix = shared, suffix
        self.shared_digest = digest if shared_digest is None else shared_digest
        self.slice_size = slice_size
        self.costs: dict[str, StageCost] = {}  # of the stages trained so far, in order
        self._kept: dict[str, Mapping[str, Any]] = {}

    def train(
        self,
        stage: str,
        loss: ExampleLoss,
        params: PyTree,
        data: PyTree,
        key: Key[Array, ""],
        *,
        steps: int,
        batch: int,
        rate: float,
        ema_decay: float,
        matrix_steps: bool = False,
        real: PyTree | None = None,
        real_fraction: float = 0.0,
    ) -> tuple[PyTree, float]:
        """Train one stage: a short warm-up, then half a cosine down to a hundredth of the rate.

        Args:
          stage: name, of its folder too.
          loss: (params, example, key) -> (loss, metrics).
          params: initial parameters.
          data: examples, leaves with a leading axis.
          key: of the stage's draws.
          steps: length.
          batch: examples a step.
          rate: largest learning rate.
          ema_decay: of the average of the parameters.
          matrix_steps: whether matrices take orthogonalised steps, see `make_optimizer`.
          real: further examples of the same structure.
          real_fraction: their share of every batch.
        Returns:
          averaged parameters, and seconds without compilation.
        """
        optimizer = make_optimizer(rate, min(100, steps // 10), steps, final_fraction=0.01, matrix_steps=matrix_steps)
        options = LoopOptions(
            batch_size=batch,
            num_steps=steps,
            config_digest=self.digest,
            ema_decay=ema_decay,
            real_fraction=real_fraction,
            slice_size=0 if self.slice_size and batch % self.slice_size else self.slice_size,
            description=f"{self.description} {stage}".strip(),
        )
        state, report = train(
            loss,
            params,
            MixedData(data, real) if real_fraction else data,
            key,
            optimizer=optimizer,
            options=options,
            workdir=None if self.folder is None else self.folder / stage,
            watch=self.watch,
        )
        self.costs[stage] = StageCost(report.seconds_per_step, report.memory)
        averaged = jax.tree.map(lambda mean, leaf: mean.astype(leaf.dtype), state.ema_params, state.params)
        return averaged, report.seconds_per_step * steps

    def keep(self, name: str, make: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Arrays of a name, made where they are not kept yet."""
        if name not in self._kept:
            path = None if self.shared is None else self.shared / f"{name}{self.suffix}.npz"
            self._kept[name] = dict(make()) if path is None else kept_arrays(path, {"run": self.shared_digest}, make)
        return self._kept[name]
