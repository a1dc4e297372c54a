"""Every method runs the whole study on a tiny size, and its numbers obey what must hold for any method."""

import json
import math
from pathlib import Path

import pytest

from experiments import shallow_water_1d, vibrating_string
from experiments.study.command import main
from phdme_jax.methods.legacy import METHODS

# a whole study: the training of four networks and their compilation take minutes
pytestmark = pytest.mark.slow

TINY = [
    "--size", "smoke", "--seeds", "1",
    "--config.data.num_points=17", "--config.data.num_frames=10",
    "--config.data.truth_refinement=2", "--config.data.num_calibration=9", "--config.data.num_test=4",
    "--config.rollouts.count=16", "--config.network.propagator.radius=3",
]  # fmt: skip


# a study, and a time in which waves cross a fifth of the grid
CASES = [(vibrating_string.STUDY, 2.0), (shallow_water_1d.STUDY, 0.2)]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case[0].name)
def rows(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("study")
    study, duration = request.param
    every = ",".join(METHODS)
    assert main(study, [*TINY, "--methods", every, f"--config.data.duration={duration}", "--workdir", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert all(name in page for name in METHODS)
    assert list((folder / "figures").glob("*.png"))
    lines = Path(folder / "results.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def value(rows: list[dict], method: str, metric: str, split: str = "test") -> float:
    (row,) = (r for r in rows if (r["method"], r["metric"], r["split"]) == (method, metric, split))
    return row["value"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_finite_numbers(rows: list[dict], method: str) -> None:
    for metric in ("nmse", "mse", "crps", "energy_score", "coverage", "residual_rms"):
        assert math.isfinite(value(rows, method, metric))


def test_reference_residual_is_below_every_method(rows: list[dict]) -> None:
    floor = value(rows, "reference", "residual_rms")
    assert all(floor < value(rows, method, "residual_rms") for method in METHODS)


def test_a_rollout_conditioned_generator_stays_near_its_rollout(rows: list[dict]) -> None:
    assert value(rows, "phdme_rollout", "nmse") < 10 * value(rows, "gp_rollout", "nmse")


def test_energies_integrated_with_damping_do_not_gain_energy(rows: list[dict]) -> None:
    # the true energy along the forecast of a learned one may rise by what was learned wrongly, but not more
    assert value(rows, "gp_rollout", "energy_drift") < 0.05
