"""The stages of one training, each in a folder of its own, and their seconds."""

from pathlib import Path
from typing import Any

from phdme_jax.training.loop import LoopOptions, train
from phdme_jax.training.state import make_optimizer
from phdme_jax.training.step import MixedData


class StageTrainer:
    """Runs the stages of one training in folders of their own and adds up their time."""

    def __init__(
        self, name: str, real_fraction: float, ema_decay: float, digest: str, workdir: Path, matrix_steps: bool = True
    ) -> None:
        self.name, self.real_fraction, self.ema_decay = name, real_fraction, ema_decay
        self.digest, self.workdir, self.matrix_steps = digest, workdir, matrix_steps
        self.seconds: dict[str, float] = {}

    def run(self, stage: str, loss: Any, params: Any, data: Any, key: Any, steps: int, batch: int, rate: float) -> Any:
        """Averaged parameters after training on `data`, synthetic and real."""
        # matrices of the small dense propagator take orthogonalised steps
        optimizer = make_optimizer(
            rate,
            min(100, steps // 10),
            steps,
            final_fraction=0.01,
            matrix_steps=self.matrix_steps and stage not in ("residual", "spread"),
        )
        options = LoopOptions(
            batch_size=batch,
            num_steps=steps,
            config_digest=self.digest,
            ema_decay=self.ema_decay,
            real_fraction=self.real_fraction,
            description=f"{self.name} {stage}",
        )
        dataset = MixedData(*data) if self.real_fraction else data[0]
        state, report = train(
            loss, params, dataset, key, optimizer=optimizer, options=options, workdir=self.workdir / stage
        )
        self.seconds[stage] = report.seconds_per_step * steps
        return state.ema_params
