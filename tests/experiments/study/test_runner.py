"""The loop on a toy: what is calibrated with what, what is not done again, what is trained anew."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.evaluation.forecasts import coverage
from experiments.study import runner
from experiments.study.study import Bench, Context, Split, Study, Variant
from phdme_jax.app.rows import Measurement, ResultsWriter
from phdme_jax.calibration import coverage_interval
from phdme_jax.forecasting.bands import spread
from phdme_jax.methods.base import Examples, Fitted, Method, Model, Task, stage_key
from phdme_jax.methods.draws import draw_forecasts

FITS: list[float] = []


def fit(task, options, host, teacher, key):
    """Forecasts are the condition plus noise of the size in the options, smaller where the condition is."""
    FITS.append(options["training"]["size"])
    size = options["training"]["size"]
    model = Model(
        prepare=lambda params, condition: condition,
        draw=lambda params, prepared, latent, key: prepared + params * jnp.abs(prepared) * latent,
        latent=lambda key: jax.random.normal(key, (2, 3)),
        mean=lambda params, prepared: prepared,
        times=(),
    )
    return Fitted(model, jnp.asarray(size), {"fit": 1.0})


def make_bench(context, config, case, seed):
    key = jax.random.key(seed)

    def split(name, count):
        drawn = jax.random.normal(stage_key(key, "samples", len(name)), (2, count, 2, 3))
        return Split(np.asarray(drawn[0] + 0.1 * drawn[1]), np.asarray(drawn[0]))

    train = Examples(np.zeros((5, 2, 3)), np.zeros((5, 2, 3)))
    return Bench(
        task=Task(None, lambda: train, lambda key, count: None, key, ()),
        options=config.to_dict(),
        splits={"calibration": split("calibration", 40), "test": split("test", 10)},
        key=key,
        sample_key=lambda split, method: stage_key(key, "samples", len(split)),
        num_samples=config.sampling.num_samples,
        scale=np.full(3, 20.0),
        level=0.9,
    )


def width(answer):
    return {"nmse": Measurement(float(answer.calibration.quantile))}


@pytest.fixture
def context(tmp_path, monkeypatch):
    FITS.clear()
    monkeypatch.setattr(runner, "METHODS", {"diffusion": Method("diffusion", "a toy", stream=1, fit=fit)})
    groups = {"training": {"size": 0.5}, "sampling": {"num_samples": 4}}
    study = Study("toy", "A toy", {"smoke": lambda: groups}, lambda *_: None, make_bench, (width,), (), ("nmse",))
    results = ResultsWriter(tmp_path / "results.jsonl", "toy")
    return Context(study, "smoke", tmp_path, ConfigDict(groups), (0,), ("diffusion",), None, results)


def test_bands_are_calibrated_with_the_spread_and_a_hundredth_of_the_scale(context):
    run = runner.SeedRun(context, "toy", 0)
    answers = run.answers("diffusion")
    calibration, test = answers["calibration"], answers["test"]
    scores = np.abs(calibration.truth - calibration.forecasts.mean) / (spread(calibration.forecasts) + 0.2)
    np.testing.assert_allclose(calibration.band_scores, scores.max(axis=(1, 2)), rtol=1e-5)
    # the ceil(0.9 * 41)-th of forty scores
    np.testing.assert_allclose(test.calibration.quantile, np.sort(scores.max(axis=(1, 2)))[36], rtol=1e-5)


def fit_asked(task, options, host, teacher, key):
    """Draws of the distribution of the truth, but for a constant error where something was observed."""

    def draw(params, prepared, latent, key):
        return prepared[..., 0] + 0.3 * latent + params * prepared[..., 1]

    model = Model(
        prepare=lambda params, condition: condition, draw=draw, latent=lambda key: jax.random.normal(key, (4, 2))
    )
    return Fitted(model, jnp.asarray(options["training"]["size"]), {})


def asked_bench(context, config, case, seed):
    key = jax.random.key(3)

    def split(count):
        drawn = np.asarray(jax.random.normal(stage_key(key, "generated", count), (3, count, 4, 2)))
        observed = drawn[2] > 0
        observed[:, 0] = False
        condition = np.stack([drawn[0], observed], axis=-1)
        return Split(drawn[0] + 0.3 * drawn[1], condition, calibrated_by="kept", counted=~observed)

    plain = make_bench(context, config, case, seed)
    other = Split(np.zeros((2, 4, 2)), np.zeros((2, 4, 2, 2)))
    splits = {"kept": split(60), "asked": split(500), "other": other}
    return replace(
        plain,
        scale=np.full(2, 20.0),
        splits=splits,
        sample_key=lambda name, method: stage_key(key, "samples", len(name)),
    )


def test_bands_cover_where_it_counts_and_know_nothing_of_other_places(context, monkeypatch):
    monkeypatch.setattr(runner, "METHODS", {"diffusion": Method("diffusion", "a toy", stream=1, fit=fit_asked)})
    context = replace(context, study=replace(context.study, bench=asked_bench))
    wrong = runner.SeedRun(context, "toy", 0, (("training.size", 1e3),)).answers("diffusion")
    right = runner.SeedRun(context, "toy", 0, (("training.size", 0.0),)).answers("diffusion")
    found, expected = (
        coverage(one.truth, one.forecasts, one.calibration, one.band_scores, one.bench.splits["asked"].counted)
        for one in (wrong["asked"], right["asked"])
    )
    low, high = coverage_interval(60, 500, 0.9, 0.999)
    assert low <= found["coverage"].value <= high
    assert found["coverage"] == expected["coverage"]
    assert found["band_width"].value == pytest.approx(expected["band_width"].value, rel=1e-5)
    assert wrong["asked"].calibration.quantile == pytest.approx(right["asked"].calibration.quantile, rel=1e-5)
    assert wrong["other"].calibration is None and wrong["other"].band_scores is None


def test_variants_that_have_all_their_rows_are_not_repeated(context):
    variants = [Variant("diffusion"), Variant("diffusion", (("training.size", 0.7),))]
    context = replace(context, study=replace(context.study, variants=lambda config: variants))
    runner.run_study(context.study, context)
    assert FITS == [0.5, 0.7]
    rows = [json.loads(line) for line in context.results.path.read_text().splitlines()]
    assert [row.get("settings", {}) for row in rows if row["metric"] == "nmse"] == [{}, {"training.size": 0.7}]
    runner.run_study(context.study, context)
    assert FITS == [0.5, 0.7]


def test_what_only_finishes_a_draw_is_neither_fitted_nor_drawn_again(context, monkeypatch):
    drawn = []

    def draw(*asked):
        drawn.append(asked)
        return draw_forecasts(*asked)

    def bench(context, config, case, seed):
        def moved(method, fitted):
            return fitted._replace(model=replace(fitted.model, finish=lambda fields, condition: 2.0 * fields))

        plain = make_bench(context, config, case, seed)
        return replace(plain, adapted=moved) if config.get("solved") else plain

    solved, other = ("solved", True), ("training.size", 0.7)
    variants = [Variant("diffusion", changes) for changes in ((), (solved,), (other,), (other, solved))]
    study = replace(context.study, variants=lambda config: variants, bench=bench)
    monkeypatch.setattr(runner, "draw_forecasts", draw)
    runner.run_study(study, replace(context, study=study))
    assert FITS == [0.5, 0.7] and len(drawn) == 4, "two fits, two splits of each"
    rows = [json.loads(line) for line in context.results.path.read_text().splitlines()]
    errors = [row["value"] for row in rows if row["metric"] == "nmse"]
    assert len(set(errors)) == 4, "what is recorded is finished"


def test_variants_of_some_cases_are_run_on_no_others(context):
    variants = [Variant("diffusion"), Variant("diffusion", (("training.size", 0.7),), cases=("left",))]
    study = replace(context.study, variants=lambda config: variants, cases=("left", "right"))
    runner.run_study(study, replace(context, study=study))
    rows = [json.loads(line) for line in context.results.path.read_text().splitlines()]
    found = [(row["system"], row.get("settings", {})) for row in rows if row["metric"] == "nmse"]
    assert found == [("left", {}), ("left", {"training.size": 0.7}), ("right", {})]


def test_changes_that_no_training_reads_share_what_is_trained(context):
    plain = runner.SeedRun(context, "toy", 0)
    more, other = plain.changed([("sampling.num_samples", 8)]), plain.changed([("training.size", 0.7)])
    one, same, changed = (run.host(runner.METHODS["diffusion"]) for run in (plain, more, other))
    assert same.folder == one.folder and same.digest == one.digest
    assert changed.folder != one.folder and changed.digest != one.digest


def test_options_of_a_student_train_its_teacher_and_its_pairs_no_second_time(context, monkeypatch):
    methods = {
        "teacher": Method("teacher", "", 0, fit),
        "student": Method("student", "", 1, fit, teacher="teacher", own=("training.student",)),
    }
    monkeypatch.setattr(runner, "METHODS", methods)
    monkeypatch.setattr(runner, "lineage", lambda name: [methods["teacher"], methods[name]])
    monkeypatch.setattr(runner, "OWN", frozenset({"training.student"}))
    plain = runner.SeedRun(context, "toy", 0)
    runs = plain, plain.changed([("training.student", 2.0)])
    teachers, students = ([run.host(methods[name]) for run in runs] for name in methods)
    assert teachers[0].folder == teachers[1].folder and teachers[0].digest == teachers[1].digest
    assert students[0].folder != students[1].folder and students[0].digest != students[1].digest
    assert students[0].shared == students[1].shared and students[0].shared_digest == students[1].shared_digest


def test_keys_of_stages_differ():
    keys = [stage_key(jax.random.key(0), stage, index) for stage in ("starts", "rollouts", "costs") for index in (0,)]
    keys += [stage_key(jax.random.key(0), stage, index) for stage in ("method", "generated") for index in range(20)]
    assert len({jax.random.key_data(key).tobytes() for key in keys}) == len(keys)
