"""Result rows: round trips, what is refused, idempotence, truncation, aggregation by hand."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phdme_jax.app.rows import (
    ROW_FIELDS,
    Measurement,
    ResultRow,
    ResultsWriter,
    aggregate,
    append_rows,
    read_rows,
)
from phdme_jax.app.vocabulary import check_name, vocabulary
from phdme_jax.files import InputError, RunFailed
from phdme_jax.methods.table import METHODS
from tests.disk import full_disk


def row(**changes) -> ResultRow:
    fields = {
        "experiment": "demo",
        "system": "oscillator",
        "method": "phdme",
        "seed": 0,
        "split": "test",
        "metric": "mse",
        "value": 0.5,
        "stderr": 0.1,
        "n": 8,
        "unit": "m²",
    }
    return ResultRow(**{**fields, **changes})


def test_fields_are_those_of_the_format():
    names = ("experiment", "system", "method", "seed", "split", "metric", "value", "stderr", "n", "unit", "settings")
    assert names == ROW_FIELDS


@settings(deadline=None, max_examples=25)
@given(
    value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    seed=st.integers(0, 2**31),
    unit=st.text(min_size=1, max_size=5).filter(lambda text: text.isprintable()),
)
def test_every_row_survives_the_file_exactly(tmp_path_factory, value, seed, unit):
    path = tmp_path_factory.mktemp("rows") / "results.jsonl"
    given_row = row(value=value, seed=seed, unit=unit)
    assert append_rows(path, [given_row]) == 1
    assert read_rows(path) == [given_row]


def test_numpy_numbers_become_plain_json(tmp_path):
    path = tmp_path / "results.jsonl"
    append_rows(path, [row(value=np.float32(0.25), seed=np.int64(3), n=np.int32(7), stderr=None)])
    line = json.loads(path.read_text())
    assert (line["value"], line["seed"], line["n"], line["stderr"]) == (0.25, 3, 7, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"value": math.nan},
        {"value": math.inf},
        {"stderr": math.nan},
        {"value": "0.5"},
        {"value": True},
        {"seed": -1},
        {"seed": 1.0},
        {"seed": True},
        {"n": -1},
        {"unit": ""},
        {"metric": None},
        {"method": "a\x1b[2Jb"},
        {"system": "a\n<script>"},
        {"settings": {"a\nb": 1}},
    ],
)
def test_malformed_rows_are_refused(changes):
    with pytest.raises(InputError, match=f"in {next(iter(changes))}|as {next(iter(changes))}"):
        row(**changes)


def test_nothing_is_written_when_one_row_is_wrong(tmp_path):
    path = tmp_path / "results.jsonl"
    with pytest.raises(InputError, match="unknown metric 'msee'"):
        append_rows(path, [row(), row(metric="msee")])
    assert not path.exists()


def test_vocabulary_is_that_of_the_registries_and_has_room_to_grow():
    for kind in ("method", "metric", "split"):
        names = vocabulary(kind)
        assert len(set(names)) == len(names)
        for name in names:
            check_name(kind, name)
    assert set(METHODS) <= set(vocabulary("method"))
    check_name("metric", "residual_mae_fourth_order")
    check_name("split", "shifted_amplitude")
    check_name("system", "violin")


@pytest.mark.parametrize(
    ("kind", "name", "nearest"),
    [
        ("method", "diffusion_augmentd", "diffusion_augmented"),
        ("method", "phdme_calls_8", "phdme"),
        ("metric", "msee", "mse"),
        ("system", "my string", "small letters"),
    ],
)
def test_a_slip_of_the_pen_or_a_setting_in_a_name_is_refused_with_the_name_meant(kind, name, nearest):
    with pytest.raises(InputError, match=f"unknown {kind} '{name}'.*{nearest}"):
        check_name(kind, name)


def test_settings_tell_rows_apart_and_absent_ones_are_empty(tmp_path):
    path = tmp_path / "results.jsonl"
    writer = ResultsWriter(path, "demo")
    writer.record("oscillator", "phdme", 0, "test", {"mse": Measurement(1.0)}, 3)
    writer.record("oscillator", "phdme", 0, "test", {"mse": Measurement(2.0)}, 3, {"sampling.num_steps": 8})
    plain, changed = read_rows(path)
    assert "settings" not in json.loads(path.read_text().split("\n")[0])
    assert plain.settings == {} and changed.settings == {"sampling.num_steps": 8}
    assert [summary.method for summary in aggregate([plain, changed])] == ["phdme", "phdme (sampling.num_steps=8)"]
    assert writer.has("oscillator", "phdme", 0, "test", {"sampling.num_steps": 8})
    assert not writer.has("oscillator", "phdme", 0, "test", {"sampling.num_steps": 4})


def test_a_run_started_again_changes_nothing_and_a_changed_value_replaces(tmp_path):
    path = tmp_path / "results.jsonl"
    rows = [row(seed=seed) for seed in range(3)]
    append_rows(path, rows)
    content = path.read_bytes()
    assert append_rows(path, rows) == 0
    assert path.read_bytes() == content
    assert append_rows(path, [row(seed=1, value=0.9)]) == 1
    assert [r.value for r in read_rows(path)] == [0.5, 0.9, 0.5]
    assert [r.seed for r in read_rows(path)] == [0, 1, 2]


def from_elsewhere(path):
    """A result file whose digest did not come along."""
    path.with_suffix(".digest").unlink()


@pytest.mark.parametrize("lose", [lambda all: b"", lambda all: all[: len(all) // 2], lambda all: all[1:], bytes.upper])
def test_rows_that_were_lost_or_changed_are_refused_and_made_anew_once_removed(tmp_path, lose):
    path, rows = tmp_path / "results.jsonl", [row(seed=seed) for seed in range(3)]
    append_rows(path, rows[:1])
    append_rows(path, rows[1:])
    whole = path.read_bytes()
    path.write_bytes(lose(whole))
    for act in (read_rows, lambda path: append_rows(path, rows)):
        with pytest.raises(InputError, match="has lost rows that were written to it, or holds others; put it back"):
            act(path)
    path.write_bytes(whole)
    assert read_rows(path) == rows
    path.unlink()
    assert read_rows(path) == [] and append_rows(path, rows) == 3 and path.read_bytes() == whole


def test_a_kill_between_the_rows_and_their_digest_loses_nothing(tmp_path):
    path = tmp_path / "results.jsonl"
    append_rows(path, [row(seed=0)])
    before = path.with_suffix(".digest").read_bytes()
    append_rows(path, [row(seed=1)])
    path.with_suffix(".digest").write_bytes(before)
    assert append_rows(path, [row(seed=2)]) == 1
    assert [r.seed for r in read_rows(path)] == [0, 1, 2]
    path.with_suffix(".digest").write_text('{"bytes": "all"}')
    with pytest.raises(InputError, match="has lost rows"):
        read_rows(path)


def test_without_space_no_row_is_written_and_later_all_are(tmp_path):
    path = tmp_path / "results.jsonl"
    append_rows(path, [row(seed=0)])
    before = path.read_bytes()
    with full_disk(len(before) + 50), pytest.raises(RunFailed, match="cannot be written"):
        append_rows(path, [row(seed=1), row(seed=2)])
    assert path.read_bytes() == before and read_rows(path) == [row(seed=0)]
    assert append_rows(path, [row(seed=seed) for seed in range(3)]) == 2


def test_a_writer_whose_rows_are_gone_stops(tmp_path):
    writer = ResultsWriter(tmp_path / "results.jsonl", "demo")
    writer.record("oscillator", "phdme", 0, "test", {"mse": Measurement(1.0)}, 3)
    writer.path.unlink()
    for act in (writer.rows, lambda: writer.record("oscillator", "phdme", 1, "test", {"mse": Measurement(1.0)}, 3)):
        with pytest.raises(RunFailed, match="rows written a moment ago are gone"):
            act()
    assert not writer.path.exists()


@pytest.mark.parametrize("cut", [1, 20, 90])
def test_a_cut_off_last_line_is_left_out_and_mended(tmp_path, cut):
    path = tmp_path / "results.jsonl"
    rows = [row(seed=seed) for seed in range(3)]
    append_rows(path, rows)
    from_elsewhere(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: -1 - cut])
    assert read_rows(path) == rows[:2]
    assert append_rows(path, rows) == 1
    assert path.read_bytes() == whole


def test_a_last_line_that_only_lacks_its_newline_counts(tmp_path):
    path = tmp_path / "results.jsonl"
    rows = [row(seed=0), row(seed=1)]
    append_rows(path, rows)
    from_elsewhere(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert read_rows(path) == rows
    append_rows(path, [row(seed=2)])
    assert read_rows(path) == [*rows, row(seed=2)]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "results.jsonl"
    append_rows(path, [row(seed=0)])
    from_elsewhere(path)
    whole = path.read_text()
    good = json.loads(whole)
    for bad in ({"experiment": 1}, good | {"settings": 3}, good | {"value": 10**400}, good | {"unit": "\udcff"}):
        path.write_text(json.dumps(bad) + "\n" + whole)
        with pytest.raises(InputError, match="line 1 is not a result row"):
            read_rows(path)


def test_writer_turns_divergence_into_null_and_knows_what_is_done(tmp_path):
    writer = ResultsWriter(tmp_path / "results.jsonl", "demo")
    assert not writer.has("oscillator", "hnn", 0, "test")
    writer.record("oscillator", "hnn", 0, "test", {"mse": Measurement(math.nan, "m²"), "nfe": Measurement(40)}, n=4)
    assert [(r.metric, r.value, r.unit) for r in writer.rows()] == [("mse", None, "m²"), ("nfe", 40.0, "1")]
    assert writer.has("oscillator", "hnn", 0, "test")
    assert not writer.has("oscillator", "hnn", 1, "test")


def test_aggregate_by_hand():
    rows = [row(seed=seed, value=value, n=n) for seed, value, n in ((0, 1.0, 8), (1, 2.0, 8), (2, 6.0, 9))]
    (summary,) = aggregate(rows)
    assert summary.mean == 3.0
    assert summary.standard_deviation == pytest.approx(math.sqrt((4 + 1 + 9) / 2), rel=1e-15)
    assert (summary.num_seeds, summary.num_failed, summary.n, summary.unit) == (3, 0, (8, 9), "m²")


def test_aggregate_counts_failures_and_does_not_average_them():
    summaries = aggregate([row(value=None), row(seed=1, value=4.0), row(method="hnn", value=None)])
    assert [(s.method, s.mean, s.standard_deviation, s.num_seeds, s.num_failed) for s in summaries] == [
        ("phdme", 4.0, None, 1, 1),
        ("hnn", None, None, 0, 1),
    ]


def test_aggregate_keeps_apart_what_differs_and_orders_by_vocabulary():
    rows = [
        row(split="shifted"),
        row(method="fno"),
        row(method="phdme_b"),
        row(),
        row(metric="crps"),
        row(unit="1", metric="rmse"),
        row(experiment="other"),
        row(value=7.0),
    ]
    summaries = aggregate(rows)
    assert [(s.experiment, s.split, s.method, s.metric) for s in summaries] == [
        ("demo", "test", "phdme", "mse"),
        ("demo", "test", "phdme", "rmse"),
        ("demo", "test", "phdme", "crps"),
        ("demo", "test", "phdme_b", "mse"),
        ("demo", "test", "fno", "mse"),
        ("demo", "shifted", "phdme", "mse"),
        ("other", "test", "phdme", "mse"),
    ]
    assert summaries[0].mean == 7.0, "the last row of a key wins"


def test_aggregate_does_not_depend_on_the_order_of_seeds():
    rows = [row(seed=seed, value=0.1 * 3**seed) for seed in range(6)]
    assert aggregate(rows) == aggregate(rows[::-1])


def test_rows_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        row().value = 1.0
