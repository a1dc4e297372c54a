"""The reference case on its published protocol: the learned energy finds the right well, a quadratic one cannot."""

import pytest

from experiments.driven_pendulum import STUDY
from experiments.study.command import main
from phdme_jax.app.rows import read_rows


@pytest.mark.slow
def test_the_energy_learned_from_one_noisy_driven_trajectory_finds_the_well(tmp_path):
    arguments = ["--size", "laptop", "--validate", "--seeds", "2", "--methods", "gp_rollout,quadratic_hamiltonian"]
    assert main(STUDY, [*arguments, "--config.sampling.num_samples=2", "--workdir", str(tmp_path)]) == 0
    values = {(row.method, row.seed, row.metric): row.value for row in read_rows(tmp_path / "results.jsonl")}
    for seed in (0, 1):
        # the two wells are 3.8 apart: the wrong one alone costs an nMSE of several
        assert values["gp_rollout", seed, "nmse"] < 0.5
        assert values["gp_rollout", seed, "parameter_error"] < 0.25
        assert values["gp_rollout", seed, "well_error"] == 0.0
        assert values["quadratic_hamiltonian", seed, "nmse"] > 2.0
        assert values["gp_rollout", seed, "rejection_rate"] == 0.0 < values["gp_rollout", seed, "crps"] < 0.5
    assert (tmp_path / "report.html").exists() and (tmp_path / "figures" / "efforts.png").exists()
