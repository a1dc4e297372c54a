"""How many trajectories a method samples in a second."""

import jax

from experiments.evaluation.costs import with_seconds
from experiments.evaluation.forecasts import field_scores
from experiments.study.study import Answer
from phdme_jax.app.rows import Measurement
from phdme_jax.methods.base import stage_key
from phdme_jax.methods.draws import draw_forecasts

REPEATS = 3


def throughput_scores(answer: Answer) -> dict[str, Measurement]:
    """Scores of forecasts of fields, calls of the network, seconds of training, and trajectories sampled a second."""
    return field_scores(answer) | {
        "nfe": Measurement(float(answer.fitted.model.num_calls)),
        "train_seconds": Measurement(sum(answer.fitted.seconds.values()), "s"),
        "samples_per_second": Measurement(sampling_rate(answer), "1/s"),
    }


def sampling_rate(answer: Answer) -> float:
    """Trajectories a second, of all starts of a split at once, compilation apart; the best of a few."""
    split, key, count = (
        answer.bench.splits[answer.split],
        stage_key(answer.bench.key, "costs"),
        answer.bench.num_samples,
    )
    first = jax.tree.map(lambda leaf: leaf[:1], split.condition)
    draw_forecasts(answer.fitted, first, count, key)  # compiles: slices are padded to one shape
    seconds = []
    for index in range(REPEATS):
        again = jax.random.fold_in(key, index)
        _, found = with_seconds(lambda again=again: draw_forecasts(answer.fitted, split.condition, count, again))
        seconds.append(found)
    return len(answer.truth) * count / min(seconds)
