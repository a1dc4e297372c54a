"""Choices are made on a split of their own: a run that validates makes no test set, and no two splits share a draw."""

import json
from dataclasses import replace
from itertools import combinations

import jax
import numpy as np
import pytest

from experiments import circle, string_prior, vibrating_string
from experiments.data import string_pulse
from experiments.study.command import main, parse
from phdme_jax.methods.table import METHODS

SMALL = {
    "vibrating_string": [
        "--config.data.num_points=20", "--config.data.num_frames=6", "--config.data.num_calibration=9",
        "--config.data.num_test=4", "--config.data.truth_refinement=2",
    ],
    "circle": ["--config.data.num_train=6", "--config.data.num_test=4"],
}  # fmt: skip
STUDIES = {"vibrating_string": vibrating_string.STUDY, "circle": circle.STUDY}
ASKED = {
    "vibrating_string": (["calibration", "test", "shifted"], ["calibration", "validation"]),
    "circle": (["test"], ["validation"]),
}


def benches(study, folder):
    context = parse(study, ["--size", "smoke", "--workdir", str(folder), *SMALL[study.name]])
    both = [replace(context, validates=validates) for validates in (False, True)]
    return [study.bench(each, each.config, study.name, 0) for each in both]


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_splits_share_no_draw_and_the_tests_are_sealed_while_choosing(name, tmp_path):
    final, choosing = benches(STUDIES[name], tmp_path)
    assert (list(final.splits), list(choosing.splits)) == ASKED[name]
    # all but the calibration, which both have
    splits = {"train": np.asarray(final.task.train().fields)} | {
        split: asked.truth for bench in (final, choosing) for split, asked in bench.splits.items()
    }
    starts = {
        split: values.reshape(-1, *values.shape[1 if name == "circle" else 2 :]) for split, values in splits.items()
    }
    for (one, left), (other, right) in combinations(starts.items(), 2):
        shared = [np.array_equal(a, b) for a in left for b in right]
        assert not any(shared), f"{one} and {other} share an example"
    # what is learned from is the same
    np.testing.assert_array_equal(final.task.train().fields, choosing.task.train().fields)
    method = METHODS["diffusion"]
    keys = {
        split: jax.random.key_data(bench.sample_key(split, method)).tobytes()
        for bench in (final, choosing)
        for split in bench.splits
    }
    assert len(set(keys.values())) == len(keys)
    files = {path.name for path in (tmp_path / "data").iterdir()}
    assert any(file.startswith("validation") for file in files)


@pytest.mark.slow
def test_a_run_that_validates_writes_rows_of_its_split_alone_and_is_not_mixed_with_others(tmp_path, capsys):
    arguments = ["--size", "smoke", "--methods", "diffusion", "--workdir", str(tmp_path / "run"), *SMALL["circle"]]
    assert main(circle.STUDY, [*arguments, "--validate"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    assert {row["split"] for row in rows} == {"train", "validation"}
    assert not list((tmp_path / "run" / "data").glob("test*"))
    assert "diffusion has the best residual mae" in capsys.readouterr().out
    before = (tmp_path / "run" / "results.jsonl").read_bytes()
    assert main(circle.STUDY, arguments) == 2
    assert (tmp_path / "run" / "results.jsonl").read_bytes() == before


@pytest.mark.parametrize(("name", "key"), [("vibrating_string", "num_observed"), ("circle", "num_train")])
def test_what_does_not_fit_into_memory_is_refused_before_anything_is_written(name, key, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("phdme_jax.files.free_memory", lambda: 1e9)
    folder = tmp_path / "run"
    arguments = [
        "--size",
        "smoke",
        "--workdir",
        str(folder),
        "--methods",
        "diffusion",
        f"--config.data.{key}=1000000000",
    ]
    assert main(STUDIES[name], arguments) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "GB" in message and "lower data.num_" in message
    assert not folder.exists()


@pytest.mark.slow
def test_the_published_question_of_the_pulse_is_the_validation_split(tmp_path):
    context = parse(string_prior.STUDY, ["--size", "smoke", "--workdir", str(tmp_path), "--config.num_frames=3"])
    config = context.config.copy_and_resolve_references()
    with config.unlocked():
        config.order = 8
    final, choosing = (
        string_pulse.pulse_bench(replace(context, validates=validates), config, "vibrating_string", 0)
        for validates in (False, True)
    )
    sine = choosing.splits["validation"].condition.state
    points = choosing.world.system.structure.grid.coordinates()
    np.testing.assert_allclose(sine[0, :, 1], 0.4 * np.pi * np.cos(0.1 * np.pi * points), atol=1e-12)
    drawn = final.splits["test"].condition.state
    assert len(np.unique(drawn, axis=0)) == config.num_test
    # drawn alike on the published grid
    coarse = string_pulse.drawn_states(string_pulse.published_system(config, "vibrating_string"), config.num_test)
    np.testing.assert_allclose(coarse[:, 0, 1], drawn[:, 0, 1], rtol=1e-3)
