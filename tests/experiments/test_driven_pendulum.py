"""The reference case on its published protocol: the learned energy finds the right well, a quadratic one cannot."""

import json

from experiments.driven_pendulum import STUDY
from experiments.study.command import main


def test_the_energy_learned_from_one_noisy_driven_trajectory_finds_the_well(tmp_path):
    arguments = ["--size", "laptop", "--seeds", "2", "--methods", "gp_rollout,quadratic_hamiltonian"]
    assert main(STUDY, [*arguments, "--config.sampling.num_samples=2", "--workdir", str(tmp_path)]) == 0
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    values = {(row["method"], row["seed"], row["metric"]): row["value"] for row in rows}
    for seed in (0, 1):
        # the two wells are 3.8 apart: the wrong one alone costs an nMSE of several
        assert values["gp_rollout", seed, "nmse"] < 0.5
        assert values["gp_rollout", seed, "parameter_error"] < 0.25
        assert values["quadratic_hamiltonian", seed, "nmse"] > 2.0
    assert (tmp_path / "report.html").exists() and (tmp_path / "figures" / "efforts.png").exists()
