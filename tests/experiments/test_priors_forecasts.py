"""The study of forecasts of fields: its rows, and what each score compares."""

import json

import jax
import numpy as np
import pytest

from experiments import priors_forecasts
from experiments.data.equations import FieldSet
from experiments.evaluation.field_forecasts import continuation_scores, obedience_scores
from experiments.study.command import main, parse
from phdme_jax.forecasting.bands import Forecasts
from phdme_jax.systems import make_equations
from phdme_jax.systems.given_frames import with_given_frames

FEW = [
    "--config.data.num_train=16",
    "--config.data.num_test=8",
    "--config.stages.diffusion=((1,3,4,1e-3),)",
    "--config.baselines.stages.fno=((2,3,4,1e-3),)",
]


@pytest.mark.slow
def test_study_of_three_methods_writes_what_they_are_scored_by(tmp_path):
    arguments = ["--size", "smoke", "--methods", "diffusion,fno,projected_fno", "--cases", "advection", *FEW]
    assert main(priors_forecasts.STUDY, [*arguments, "--workdir", str(tmp_path)]) == 0
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    rows = {(row["method"], row["metric"]): row["value"] for row in lines if row["split"] == "test"}
    for metric in ("rmse", "nmse", "crps", "residual_rms", "residual_rms_unseen", "mass_error", "energy_error"):
        for method in ("reference", "diffusion", "fno", "projected_fno"):
            assert np.isfinite(rows[method, metric])
    assert rows["reference", "rmse"] < 1e-12 and rows["reference", "nmse_of_held_frame"] > 0.1
    assert ("diffusion", "spread_skill") in rows and ("fno", "spread_skill") not in rows
    assert rows["projected_fno", "energy_error"] < 1e-6 < 1e-4 < rows["fno", "energy_error"]
    assert (rows["diffusion", "nfe"], rows["fno", "nfe"]) == (24, 15)
    assert (tmp_path / "figures" / "advection_forecasts.png").exists()


def test_methods_are_run_where_they_fit():
    found = {
        variant.method: variant.cases
        for variant in priors_forecasts.make_variants(priors_forecasts.STUDY.get_config("laptop"))
    }
    both = ("advection", "viscous_burgers")
    assert found == {
        **dict.fromkeys(priors_forecasts.METHODS, both),
        **dict.fromkeys(("subspace", "penalty_linear"), ("advection",)),
        "penalty_multilinear": ("viscous_burgers",),
    }


@pytest.mark.slow
def test_every_method_fits_its_cases(tmp_path):
    study = priors_forecasts.STUDY
    arguments = ["--size", "smoke", "--methods", ",".join(study.methods), "--workdir", str(tmp_path)]
    study.check(parse(study, arguments))


@pytest.fixture(scope="module")
def drawn():
    equations = with_given_frames(make_equations("advection", num_points=8, num_frames=5, highest_wave=2), 2)
    samples = jax.jit(jax.vmap(equations.draw))(jax.random.split(jax.random.key(0), 6))
    return equations, np.asarray(samples.fields), np.asarray(samples.condition)


def test_forecasts_are_scored_where_nothing_is_given(drawn):
    """Samples that miss by -1 and +3 after the given frames miss by one in the mean, whatever they were before."""
    equations, fields, _ = drawn
    samples = np.stack([fields - 1.0, fields + 3.0], axis=1)
    samples[:, :, :, :2] = 100.0
    ok = np.ones(6, bool)
    rows = continuation_scores(equations, fields, Forecasts(None, samples, ok, 0.0))
    assert rows["rmse"].value == pytest.approx(1.0) and rows["rmse"].stderr == pytest.approx(0.0, abs=1e-12)
    assert rows["nmse"].value == pytest.approx(1 / fields[:, :, 2:].var())
    single = continuation_scores(equations, fields, Forecasts(samples[:, 1], None, ok, 0.0))
    assert single["rmse"].value == pytest.approx(3.0) and "spread_skill" not in single
    assert single["crps"].value == pytest.approx(3.0 / fields[:, :, 2:].std())


def test_what_a_forecast_keeps_is_measured_from_the_given_frames(drawn):
    """Three frames that hold one more than the two that are given: 0.6 from the mean of all five, or 0.4."""
    equations, fields, condition = drawn
    wrong = fields + 1.0
    rows = obedience_scores(equations, FieldSet(wrong, condition))
    assert rows["mass_error"].value == pytest.approx(np.sqrt((2 * 0.6**2 + 3 * 0.4**2) / 5))
    assert obedience_scores(equations, FieldSet(fields, condition))["mass_error"].value < 1e-12
    assert "resolve_error" not in rows


def test_a_failed_forecast_makes_no_number_finite(drawn):
    equations, fields, _ = drawn
    failed = Forecasts(np.zeros_like(fields), None, np.arange(6) > 0, 0.0)
    assert continuation_scores(equations, fields, failed)["rmse"].value == np.inf
