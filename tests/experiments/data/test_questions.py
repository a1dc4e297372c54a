"""Splits of questions: what is seen of which field, and what a study makes of them."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from experiments import circle, poisson_1d, poisson_2d
from experiments.data.questions import Asking, question_splits
from experiments.evaluation.equations import hidden_places
from experiments.study.command import main
from experiments.study.study import Variant
from phdme_jax.calibration import coverage_interval
from phdme_jax.methods.base import Examples
from phdme_jax.systems import make_equations

KEY = jax.random.key(0)


def test_questions_see_the_cause_the_solution_or_so_many_places_of_both():
    equations = make_equations("poisson_2d", num_points=10)
    fields = np.random.default_rng(0).standard_normal((6, 10, 10, 2)) + 3.0
    condition = np.zeros((6, 10, 10, 0))
    splits = question_splits(
        equations, Examples(fields, condition), Asking(4, 3, 0.07), ("linear",) * 2, "_validation", KEY
    )
    assert list(splits) == ["forward_validation", "inverse_validation", "reconstruction_validation"]
    for split in splits.values():
        assert split.questions and split.num_samples == 3 and len(split.truth) == 4
        mask, values = split.condition.mask, split.condition.values
        np.testing.assert_array_equal(values, mask * fields[:4])
        assert split.condition.noise.shape == (4, 2) and not split.condition.noise.any()
    forward, inverse, some = (split.condition.mask for split in splits.values())
    assert not forward[..., 0].any() and forward[..., 1].all() and not inverse[..., 1].any() and inverse[..., 0].all()
    np.testing.assert_array_equal(some.sum(axis=(1, 2)), 7.0)
    assert np.abs(some[0] - some[1]).sum() > 0 and np.abs(some[..., 0] - some[..., 1]).sum() > 0


def test_one_field_alone_is_seen_at_the_places_of_a_reconstruction():
    equations = make_equations("darcy_nodal", num_points=10)
    fields = np.exp(np.random.default_rng(0).standard_normal((4, 10, 10, 2)))
    examples, asking = Examples(fields, fields[..., :0]), Asking(4, 3, 0.07, noise=0.1, sparse=True)
    splits = question_splits(equations, examples, asking, ("linear", "log"), "", KEY)
    assert list(splits) == ["forward", "inverse", "reconstruction", "sparse_forward", "sparse_inverse"]
    both, cause, solution = (splits[name].condition for name in list(splits)[2:])
    assert not cause.mask[..., 0].any() and not solution.mask[..., 1].any()
    np.testing.assert_array_equal(cause.mask + solution.mask, both.mask)
    np.testing.assert_array_equal(cause.values + solution.values, both.values)
    np.testing.assert_array_equal(cause.mask.sum(axis=(1, 2)), [[0.0, 7.0]] * 4)


def test_noise_is_in_units_of_the_fields_and_told():
    equations = make_equations("burgers", num_points=16, num_frames=16)
    fields = 5.0 * np.random.default_rng(1).standard_normal((50, 16, 16, 1))
    splits = question_splits(
        equations, Examples(fields, fields[..., :0]), Asking(50, 2, 0.5, 5, 0.1), ("linear",), "", KEY
    )
    assert list(splits) == ["reconstruction", "sensors"]
    question = splits["sensors"].condition
    seen = question.mask[..., 0]
    assert (seen.sum(axis=(1, 2)) == 5 * 16).all() and (seen == seen[:, :, :1]).all()  # at all times
    missed = (question.values - fields)[question.mask > 0]
    assert missed.std() == pytest.approx(0.5, rel=0.05) and question.noise[0, 0] == pytest.approx(0.5, rel=0.02)


def test_noise_of_a_positive_field_is_that_of_its_logarithm():
    equations = make_equations("darcy_nodal", num_points=16, num_modes=8)
    fields = np.exp(2.0 * np.random.default_rng(2).standard_normal((40, 16, 16, 2)))
    kinds = ("linear", "log")
    question = question_splits(equations, Examples(fields, fields[..., :0]), Asking(40, 2, 0.5, 0, 0.1), kinds, "", KEY)
    found = question["forward"].condition
    missed = np.log(found.values[..., 1] / fields[..., 1])
    assert (found.values[..., 1] > 0).all() and missed.std() == pytest.approx(0.2, rel=0.05)
    assert found.noise[0, 1] == pytest.approx(0.2, rel=0.05)


def rows_of(folder):
    lines = (folder / "results.jsonl").read_text().splitlines()
    return {(row["method"], row["split"], row["metric"]): row["value"] for row in map(json.loads, lines)}


def answered(folder, methods):
    arguments = ["--size", "smoke", "--seeds", "1", "--methods", methods, "--workdir", str(folder)]
    assert main(poisson_1d.STUDY, arguments) == 0
    return rows_of(folder)


@pytest.mark.slow
def test_a_study_asks_what_can_answer_and_nothing_else(tmp_path):
    """Sources are Gaussian and solutions linear in them: kriging answers forward questions, up to its noise."""
    rows = answered(tmp_path, "kriging")
    assert rows["kriging", "forward", "relative_l2_solution"] < 0.02
    assert rows["kriging", "reconstruction", "constraint_error"] < 0.01  # the least noise is a thousandth
    assert ("kriging", "forward", "coverage") not in rows, "no band where no example was kept for it"
    assert ("kriging", "test", "residual_rms") not in rows and ("kriging", "forward", "relative_l2_source") not in rows
    # four waves need four places; two are seen
    assert 0.05 < rows["kriging", "reconstruction", "relative_l2_source"] < 1.2
    assert 0.5 < rows["kriging", "reconstruction", "spread_skill"] < 2.0


@pytest.mark.slow
def test_bands_of_answers_cover_as_often_as_they_promise(tmp_path):
    """From 40 examples of 64 numbers kriging is sure of what is wrong: the calibration makes its bands hold."""
    asking = {"count": 40, "num_samples": 4, "num_calibration": 29}
    sizes = {"smoke": lambda: {**poisson_1d.SIZES["smoke"](), "questions": asking, "level": 0.9}}
    study = replace(poisson_1d.STUDY, sizes=sizes, default_size="smoke")
    arguments = ["--size", "smoke", "--methods", "kriging", "--config.data.num_train=40", "--workdir", str(tmp_path)]
    assert main(study, arguments) == 0
    rows = rows_of(tmp_path)
    low, high = coverage_interval(29, 40, 0.9, 0.999)
    for split in ("forward", "inverse", "reconstruction"):
        assert low <= rows["kriging", split, "coverage"] <= high
        assert 0 < rows["kriging", split, "band_width"] < np.inf
    assert not any(split.startswith("calibration") for _, split, _ in rows)


def test_a_level_that_the_calibration_cannot_reach_is_refused(tmp_path, capsys):
    arguments = ["--size", "smoke", "--methods", "kriging", "--config.questions.num_calibration=8"]
    assert main(poisson_2d.STUDY, [*arguments, "--workdir", str(tmp_path / "run")]) == 2
    assert "at least 9 for level 0.9, got 8" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_each_question_is_calibrated_by_others_of_its_kind_and_shifted_ones_are_told_whole_fields():
    equations = make_equations("poisson_2d", num_points=10)
    drawn = np.random.default_rng(3).standard_normal((3, 12, 10, 10, 2))
    asked, *others = (Examples(fields, fields[..., :0]) for fields in drawn)
    unseen = dict(zip(("calibration", "shifted"), others, strict=True))
    asking = Asking(4, 3, 0.07, num_calibration=9, num_shifted=5)
    splits = question_splits(equations, asked, asking, ("linear",) * 2, "", KEY, unseen)
    plain = question_splits(equations, asked, asking, ("linear",) * 2, "", KEY)
    kinds = ("forward", "inverse", "reconstruction")
    assert list(splits) == [*(f"calibration_{kind}" for kind in kinds), *kinds, "forward_shifted", "inverse_shifted"]
    for kind in kinds:
        np.testing.assert_array_equal(splits[kind].condition.values, plain[kind].condition.values)
        assert splits[kind].calibrated_by == splits[f"calibration_{kind}"].calibrated_by == f"calibration_{kind}"
        np.testing.assert_array_equal(splits[kind].counted, splits[kind].condition.mask == 0)
        np.testing.assert_array_equal(splits[f"calibration_{kind}"].truth, drawn[1, :9])
    masks = (splits[name].condition.mask[0] for name in ("reconstruction", "calibration_reconstruction"))
    assert np.abs(np.subtract(*masks)).sum() > 0, "places are drawn anew"
    np.testing.assert_array_equal(splits["forward_shifted"].truth, drawn[2, :5])
    assert splits["forward_shifted"].calibrated_by == "calibration_forward"


def test_what_was_observed_is_not_scored():
    values = np.arange(2 * 3 * 2, dtype=float).reshape(2, 3, 2)
    mask = np.zeros((2, 3, 2))
    mask[0, 1, 0] = mask[0, 0, 1] = mask[1, 2, 0] = mask[1, 2, 1] = 1.0
    found = hidden_places(mask, values)
    np.testing.assert_array_equal(found[..., 0], [[0, 4, 3, 5], [6, 8, 7, 9]])
    mask[1, 2, 1], mask[1, 0, 0] = 0.0, 1.0  # two of one field, none of the other
    np.testing.assert_array_equal(hidden_places(mask, values)[1, :, 0], [8, 7, 9, 11])
    mask[1, 1, 0] = 1.0
    with pytest.raises(ValueError, match="as many observed places"):
        hidden_places(mask, values)


@pytest.mark.slow
def test_a_search_of_the_fields_solves_and_knows_no_prior(tmp_path):
    rows = answered(tmp_path, "kriging,optimised_data")
    assert rows["optimised_data", "forward", "relative_l2_solution"] < 0.05
    assert rows["kriging", "reconstruction", "crps"] < rows["optimised_data", "reconstruction", "crps"]


@pytest.mark.slow
def test_a_solved_variant_trains_nothing_anew(tmp_path):
    study = replace(
        circle.STUDY, variants=lambda config: [Variant("diffusion"), Variant("diffusion", (("solved", True),))]
    )
    arguments = ["--size", "smoke", "--seeds", "1", "--methods", "diffusion", "--workdir", str(tmp_path)]
    few = ["--config.data.num_train=128", "--config.data.num_test=64", "--config.sampling.num_steps=10"]
    assert main(study, [*arguments, *few]) == 0
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    found = {
        tuple(row.get("settings", {})): row["value"]
        for row in rows
        if (row["method"], row["metric"], row["split"]) == ("diffusion", "residual_mae", "test")
    }
    assert found["solved",] < 1e-12 < 1e-3 < found[()]
    for metric in ("train_seconds", "seconds_per_update", "memory"):
        plain, solved = (row["value"] for row in rows if (row["method"], row["metric"]) == ("diffusion", metric))
        assert 0 < plain == solved, "the same training"
    assert {folder.name for folder in (tmp_path / "training").iterdir()} == {"diffusion_0"}
    assert not (tmp_path / "variants").exists()
