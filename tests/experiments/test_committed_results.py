"""Committed results belong to the configuration that their printed command runs."""

import importlib
import json
from pathlib import Path

import pytest

import experiments
from phdme_jax.app.rows import read_rows
from phdme_jax.methods.table import METHODS

FOLDERS = sorted(path.parent for path in (Path(experiments.__file__).parent / "results").glob("*/config.json"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_configuration_is_that_of_the_code(folder):
    record = json.loads((folder / "config.json").read_text())
    module = importlib.import_module(f"experiments.{record['experiment']}")
    if not hasattr(module, "STUDY"):
        module = importlib.import_module(f"{module.__name__}.__main__")
    assert record["config"] == json.loads(json.dumps(module.STUDY.get_config(record["size"]).to_dict()))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_seeds_are_three_or_nothing_is_drawn_and_no_row_stands_twice(folder):
    lines = (folder / "results.jsonl").read_text().splitlines()
    rows = read_rows(folder / "results.jsonl")
    assert len(rows) == len(lines)
    for label in {row.label for row in rows}:
        seeds = {row.seed for row in rows if row.label == label}
        assert len(seeds) == 1 or seeds == set(range(max(3, len(seeds))))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_names_of_methods_are_those_of_the_table_and_hold_no_settings(folder):
    names = {row.method for row in read_rows(folder / "results.jsonl")}
    assert names <= {*METHODS, "reference"}
