"""The sentences at the end of a run: means over seeds worked out by hand."""

from pathlib import Path

import ml_collections
import pytest

from experiments.study.headline import headline
from experiments.study.study import Context, Study
from phdme_jax.app.rows import Measurement, ResultsWriter

ERRORS = {
    "phdme": (0.1, 0.3),
    "diffusion": (1.0, 0.6),
    "diffusion_augmented": (0.3, 0.5),
    "phdme_oracle": (0.01, 0.01),  # is told the true energy
    "reference": (0.0, 0.0),
    "gp_rollout": (0.01, float("nan")),  # failed once
}
COVERED = {"phdme": (0.8, 0.9), "diffusion": (0.5, 0.7)}


@pytest.fixture
def sentences(tmp_path: Path):
    def write(metric: str = "nmse", baseline: str = "") -> list[str]:
        results = ResultsWriter(tmp_path / f"{metric}.jsonl", "vibrating_string")
        for seed in (0, 1):
            for method, values in ERRORS.items():
                results.record("toy", method, seed, "test", {metric: Measurement(values[seed])}, n=4)
                results.record("toy", method, seed, "train", {metric: Measurement(1e-9)}, n=4)
            for method, values in COVERED.items():
                results.record("toy", method, seed, "test", {"coverage": Measurement(values[seed])}, n=4)
        study = Study("toy", "A toy", {}, lambda *_: None, None, (), (), (metric,), baseline=baseline)
        config = ml_collections.ConfigDict({"level": 0.9})
        return headline(Context(study, "smoke", tmp_path, config, (0, 1), (), None, results))

    return write


def test_the_best_method_knows_no_truth_and_never_failed(sentences):
    ranked, covered = sentences(baseline="diffusion")
    assert ranked == "phdme has the best nmse, 0.2; that of diffusion is 0.8, 4 times as large."
    assert covered.startswith("Bands of 90 % hold 85 % of unseen examples as a whole for phdme, 60 to 85 % over")


def test_without_a_baseline_the_next_best_is_named(sentences):
    assert sentences()[0].endswith("; that of diffusion_augmented is 0.4, 2 times as large.")


def test_more_is_better_where_the_metric_says_so(sentences):
    ranked = sentences("samples_per_second")[0]
    assert ranked.startswith("diffusion has the best samples per second, 0.8; that of diffusion_augmented is 0.4")
