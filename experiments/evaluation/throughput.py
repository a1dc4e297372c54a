"""How many trajectories a method samples in a second."""

from experiments.evaluation.costs import draw_seconds
from experiments.evaluation.forecasts import field_scores
from experiments.study.study import Answer
from phdme_jax.app.rows import Measurement
from phdme_jax.methods.base import stage_key


def throughput_scores(answer: Answer) -> dict[str, Measurement]:
    """Scores of forecasts of fields, calls of the network, seconds of training, and trajectories sampled a second."""
    return field_scores(answer) | {
        "nfe": Measurement(float(answer.fitted.model.num_calls)),
        "train_seconds": Measurement(sum(answer.fitted.seconds.values()), "s"),
        "samples_per_second": Measurement(sampling_rate(answer), "1/s"),
    }


def sampling_rate(answer: Answer) -> float:
    """Trajectories a second, of all starts of a split at once."""
    bench, condition = answer.bench, answer.bench.splits[answer.split].condition
    seconds = draw_seconds(answer.fitted, condition, bench.num_samples, stage_key(bench.key, "costs"))
    return len(answer.truth) * bench.num_samples / seconds
