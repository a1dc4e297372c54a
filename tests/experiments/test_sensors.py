"""Studies of forecasts from sensors."""

import json

import numpy as np
import pytest

from experiments import shallow_water_sensors, string_sensors
from experiments.evaluation.sensors import reference_rows
from experiments.study.command import main, parse
from experiments.study.runner import SeedRun
from phdme_jax.forecasting import bands
from phdme_jax.methods.table import METHODS

pytestmark = pytest.mark.slow

TINY = [
    "--size",
    "smoke",
    "--seeds",
    "1",
    "--config.data.num_frames=12",
    "--config.data.num_points=20",
    "--config.data.duration=2.0",
    "--config.data.truth_refinement=2",
    "--config.asked.counts=(2,4)",
]


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    """The same seed asked for numbers, and for choices."""
    folder, found = tmp_path_factory.mktemp("sensors"), []
    for more in ((), ("--validate",)):
        context = parse(string_sensors.STUDY, [*TINY, *more, "--workdir", str(folder / "_".join(("run", *more)))])
        found.append(SeedRun(context, "vibrating_string", 0).bench)
    return found


def test_every_number_of_sensors_has_a_split_and_one_that_calibrates_it(benches):
    final, choosing = benches
    assert list(final.splits) == ["calibration_2", "sensors_2", "calibration_4", "sensors_4"]
    assert list(choosing.splits)[1::2] == ["sensors_2_validation", "sensors_4_validation"]
    method = METHODS["phdme_sensors"]
    assert final.scored(method) == ["sensors_2", "sensors_4"] and final.scored(METHODS["phdme"]) == []
    assert final.splits["sensors_4"].calibrated_by == "calibration_4"


def test_readings_are_those_of_the_truth_with_noise_of_the_stated_size_at_other_places_each(benches):
    bench, _ = benches
    for count in (2, 4):
        split = bench.splits[f"sensors_{count}"]
        mask, values = split.condition.mask, split.condition.values
        window = values.shape[1]
        assert (mask[..., 0].sum(axis=1) == count).all() and (mask[..., 0] == mask[..., 1]).all()
        assert len(np.unique(mask[..., 0], axis=0)) > 1
        error = (values - mask[:, None] * split.truth[:, :window]) / (0.05 * bench.scale)
        seen = np.broadcast_to(mask[:, None] > 0, error.shape)
        assert (error[~seen] == 0).all() and 0.7 < error[seen].std() < 1.3


def test_what_calibrates_is_read_at_other_places_than_what_is_asked(benches):
    splits = benches[0].splits
    for count in (2, 4):
        own, asked = splits[f"calibration_{count}"].condition.mask, splits[f"sensors_{count}"].condition.mask
        number = min(len(own), len(asked))
        assert not np.array_equal(own[:number], asked[:number])
    fewer, more = splits["sensors_2"].condition.mask, splits["sensors_4"].condition.mask
    assert (fewer > more).any()  # not the same places and two more


def test_choices_and_numbers_share_no_trajectory(benches):
    final, choosing = benches
    final, choosing = final.splits["sensors_2"].truth, choosing.splits["sensors_2_validation"].truth
    assert not any(np.allclose(one, other) for one in final for other in choosing)


def test_an_answer_is_calibrated_on_as_many_sensors(tmp_path):
    context = parse(string_sensors.STUDY, [*TINY, "--workdir", str(tmp_path)])
    run = SeedRun(context, "vibrating_string", 0)
    answers = run.answers("interpolate_then_roll")
    quantiles = []
    for count in (2, 4):
        own, asked = answers[f"calibration_{count}"], answers[f"sensors_{count}"]
        floor = 0.01 * np.asarray(run.bench.scale, np.float64)
        expected = bands.calibrate(own.truth, own.forecasts, floor, run.bench.level)
        assert asked.calibration.quantile == expected.quantile
        # a forecast without a distribution of its own mean has that of its samples
        np.testing.assert_array_equal(asked.forecasts.mean, asked.forecasts.samples.mean(axis=1))
        quantiles.append(expected.quantile)
    assert quantiles[0] != quantiles[1]


def test_the_true_energy_finds_the_state_from_many_places_and_knows_how_well(tmp_path):
    more = ["--config.sensors.counts=(2,20)", "--config.asked.counts=(2,20)", "--config.asked.num_test=24"]
    few = [*TINY, *more, "--config.sensors.window=12", "--config.asked.num_samples=16"]
    reference_rows(SeedRun(parse(string_sensors.STUDY, [*few, "--workdir", str(tmp_path)]), "vibrating_string", 0))
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    found = {(row["split"], row["metric"]): row["value"] for row in rows}
    assert found["sensors_20", "nmse"] < 0.02 < found["sensors_2", "nmse"]
    assert found["sensors_20", "crps"] < 0.5 * found["sensors_2", "crps"]
    assert 0.7 < found["sensors_20", "spread_skill"] < 1.4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("--config.asked.counts=(3,)", "asked.counts among them"),
        ("--config.sensors.window=13", "sensors.window from 1 to 12"),
        ("--config.asked.num_calibration=8", "asked.num_calibration of at least 9"),
        ("--config.sensors.counts=(2,4,99)", "at most 20 places"),
    ],
)
def test_questions_that_cannot_be_asked_are_a_sentence_and_exit_code_two(change, words, tmp_path, capsys):
    assert main(string_sensors.STUDY, [*TINY, change, "--workdir", str(tmp_path / "run")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("module", [string_sensors, shallow_water_sensors])
def test_every_method_and_variant_has_rows(module, tmp_path):
    study = module.STUDY
    tiny = [word for word in TINY if "duration" not in word]
    assert main(study, [*tiny, "--methods", ",".join(study.methods), "--workdir", str(tmp_path)]) == 0
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    found = {(row["method"], row.get("settings", {}).get("sensors.num_calls")) for row in rows}
    assert {(name, None) for name in study.methods} <= found
    assert {("phdme_sensors", 0), ("phdme_sensors", 1), ("diffusion_sensors", 1)} <= found
    crps = [row["value"] for row in rows if row["metric"] == "crps"]
    assert np.isfinite(np.asarray(crps, float)).all() and {row["split"] for row in rows} >= {"sensors_2", "sensors_4"}
    assert (tmp_path / "figures" / "starts.png").exists() and (tmp_path / "report.html").exists()
