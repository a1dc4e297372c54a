"""Committed results belong to the configuration that their printed command runs."""

import importlib
import json
from pathlib import Path

import pytest

import experiments
from phdme_jax.app.rows import read_rows

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
    rows = read_rows(folder / "results.jsonl")
    keys = [(row.system, row.method, row.seed, row.split, row.metric) for row in rows]
    assert len(set(keys)) == len(keys)
    for method in {row.method for row in rows}:
        seeds = {row.seed for row in rows if row.method == method}
        assert len(seeds) == 1 or seeds == set(range(max(3, len(seeds))))
