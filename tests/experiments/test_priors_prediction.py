"""Scores of the study of predictions of particles, by hand and of the true law; the study at its smallest."""

import json

import jax
import numpy as np
import pytest

from experiments import priors_prediction
from experiments.data.equations import draw_set
from experiments.data.particles import options_of_case
from experiments.evaluation.predictions import displacement_scores, law_continued, prediction_scores
from experiments.study.command import main, parse
from phdme_jax.systems import make_equations
from phdme_jax.systems.given_frames import with_given_frames


def test_displacements_are_counted_by_hand():
    """One trajectory of two particles, two frames given and two not; two samples."""
    truth = np.zeros((1, 4, 2, 4))
    samples = np.zeros((1, 2, 4, 2, 4))
    samples[0, :, :2] = 100.0  # given frames do not count
    samples[..., 2:] = 7.0  # nor do velocities
    samples[0, 0, 2, 0, :2] = [3.0, 4.0]  # a distance of 5, of one particle in the first frame
    samples[0, 1, 3, :, 0] = 2.0  # a distance of 2, of both in the last
    rows = displacement_scores(samples, truth, 2)
    # means over two frames of two particles: 5/4 and 4/4; of the last frame: 0 and 2
    values = {"ade": 1.125, "fde": 1.0, "ade_best": 1.0, "fde_best": 0.0}
    # of the mean, half as far where one sample errs: 5/4 and 2/2 over two frames, and the last
    values |= {"ade_of_mean": 1.125, "fde_of_mean": 1.0}
    assert {name: row.value for name, row in rows.items()} == pytest.approx(values)
    broken = displacement_scores(np.full_like(samples, np.nan), truth, 2)
    assert all(row.value is None for row in broken.values())
    single = displacement_scores(samples[:, :1], truth, 2)
    assert single["ade"].value == single["ade_of_mean"].value == 1.25 and "ade_best" not in single
    around = displacement_scores(truth[:, None] + np.array([1.0, -1.0]).reshape(1, 2, 1, 1, 1), truth, 2)
    assert around["ade"].value == pytest.approx(np.sqrt(2)) and around["ade_of_mean"].value == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["five_springs", "charged_particles", "gravity"])
def test_the_true_law_from_the_last_given_frame_is_the_truth(name):
    equations = with_given_frames(make_equations(name, num_frames=6, dimension=3), 3)
    data = draw_set(equations, 4, jax.random.key(0))
    found = np.asarray(law_continued(equations)(data.condition))
    rows = prediction_scores(equations, found[:, None], data.condition, data.fields)
    for metric in ("ade", "fde", "ade_of_mean", "fde_of_mean", "dynamic_error", "momentum_error"):
        assert rows[metric].value < 1e-9, metric
    wrong = prediction_scores(equations, 0.5 * found[:, None], data.condition, data.fields)
    assert wrong["ade"].value > 0.1 and wrong["energy_error"].value > 10 * rows["energy_error"].value


def test_given_frames_are_put_in_the_place_of_predicted_ones():
    """A prediction that is wrong in the given frames alone is a motion."""
    equations = with_given_frames(make_equations("five_springs", num_frames=6, dimension=3), 3)
    data = draw_set(equations, 4, jax.random.key(0))
    other = data.fields.copy()
    other[:, :3] += 1.0
    rows = prediction_scores(equations, other[:, None], data.condition, data.fields)
    assert rows["ade"].value == 0.0 and rows["dynamic_error"].value < 1e-10


@pytest.mark.slow
def test_every_method_fits_its_cases(tmp_path):
    study = priors_prediction.STUDY
    arguments = ["--size", "smoke", "--methods", ",".join(study.methods), "--workdir", str(tmp_path)]
    context = parse(study, arguments)
    study.check(context)
    assert options_of_case(context.config, "gravity")["network"]["given_vectors"] == 2


@pytest.mark.slow
def test_the_study_runs(tmp_path):
    arguments = ["--size", "smoke", "--cases", "five_springs", "--methods", "gp_rollout,nri,constant_velocity"]
    assert main(priors_prediction.STUDY, [*arguments, "--workdir", str(tmp_path)]) == 0
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    ade = {row["method"]: row["value"] for row in rows if row["metric"] == "ade"}
    assert set(ade) == {"reference", "gp_rollout", "nri", "constant_velocity"}
    assert ade["reference"] < 1e-12 < ade["gp_rollout"] < 0.1 * ade["constant_velocity"]
    assert (tmp_path / "figures" / "five_springs_predictions.png").stat().st_size > 10_000
