"""Ablations of PIDDM: each problem is that of its own study, one change at a time, shifted questions apart."""

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments import piddm_ablations
from experiments.piddm_ablations import CASES, config_of
from experiments.study.command import main, parse


@pytest.mark.parametrize("size", piddm_ablations.STUDY.sizes)
@pytest.mark.parametrize("case", CASES)
def test_each_problem_is_that_of_its_own_study(case, size):
    config = piddm_ablations.STUDY.get_config(size)
    found, expected = config_of(config, case).to_dict(), CASES[case].get_config(size).to_dict()
    found["questions"].pop("num_shifted")
    assert found["questions"] | {"sparse": True} == expected["questions"], "fewer kinds of questions"
    del found["questions"], expected["questions"]
    # slices of a batch change nothing but rounding; those of Poisson's equation are taken for all
    assert found["training"].pop("slice_size") == 4
    del expected["training"]["slice_size"]
    assert {name: found[name] for name in expected} == expected
    assert config[case].shifted.to_dict().keys() <= {"inverse_length", *config[case].equations}


def test_a_variant_is_one_change_of_the_pairs(tmp_path):
    context = parse(piddm_ablations.STUDY, ["--size", "laptop", "--workdir", str(tmp_path / "run")])
    changes = [variant.changes for variant in piddm_ablations.make_variants(context.config) if variant.changes]
    calls = [("distilled.num_calls", value) for value in (6, 12, 48)]
    assert [change for (change,) in changes] == [*calls, ("distilled.refresh", 0.0), ("distilled.num_pairs", 4096)]


def rows_of(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_shifted_questions_are_asked_beside_the_usual_ones(tmp_path):
    """Shorter waves than those that were learned from are harder to find from the solution."""
    study = replace(piddm_ablations.STUDY, cases=("poisson_2d",))
    arguments = ["--size", "smoke", "--methods", "kriging", "--config.poisson_2d.equations.num_points=9"]
    arguments += ["--config.questions.num_shifted=16", "--config.questions.count=16", "--workdir", str(tmp_path)]
    assert main(study, arguments) == 0
    found = {(row["split"], row["metric"]): row["value"] for row in rows_of(tmp_path)}
    splits = {split for split, metric in found if metric == "coverage"}
    assert splits == {"forward", "inverse", "reconstruction", "forward_shifted", "inverse_shifted"}
    usual, shifted = (found[split, "relative_l2_source"] for split in ("inverse", "inverse_shifted"))
    assert 0 < usual < shifted < np.inf
    pictures = {path.name for path in (tmp_path / "figures").glob("answers_*.png")}
    assert {"answers_forward_solution.png", "answers_inverse_shifted_source.png"} <= pictures
    assert not {"answers_forward_source.png", "answers_inverse_solution.png"} & pictures


@pytest.mark.slow
def test_a_trial_runs_through(tmp_path):
    assert main(piddm_ablations.STUDY, ["--size", "smoke", "--methods", "piddm", "--workdir", str(tmp_path)]) == 0
    labels = {json.dumps(row.get("settings")) for row in rows_of(tmp_path) if row["method"] == "piddm"}
    assert len(labels) == 6
