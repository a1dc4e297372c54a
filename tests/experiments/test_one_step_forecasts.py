"""Studies of forecasts in one call."""

import numpy as np
import pytest

from experiments import shallow_water_one_step, string_one_step
from experiments.study.command import main
from phdme_jax.app.rows import read_rows


@pytest.mark.slow
@pytest.mark.parametrize("module", [string_one_step, shallow_water_one_step])
def test_a_student_forecasts_its_teachers_mean_in_one_call(module, tmp_path):
    assert main(module.STUDY, ["--size", "smoke", "--workdir", str(tmp_path)]) == 0
    found = {
        (row.method, row.settings.get("sampling.num_steps"), row.metric): row.value
        for row in read_rows(tmp_path / "results.jsonl")
        if row.split == "test" and row.method != "reference"
    }
    assert found["phdme_one_step", None, "nfe"] == 1 and found["phdme", None, "nfe"] == 4
    assert found["phdme", 1, "nfe"] == 1
    np.testing.assert_allclose(found["phdme_one_step", None, "nmse"], found["phdme", None, "nmse"], rtol=1e-5)
    # what it learned took the teacher's time and its own
    assert found["phdme_one_step", None, "train_seconds"] > found["phdme", None, "train_seconds"]
    assert found["phdme_one_step", None, "samples_per_second"] > found["phdme", None, "samples_per_second"]
