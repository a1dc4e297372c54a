"""Numbers with which a run would fail late, or learn nothing, are refused before it begins."""

import pytest

from experiments.configs.fit import get_config
from experiments.study.command import main
from experiments.vibrating_string import STUDY
from phdme_jax.app.overrides import apply_overrides
from phdme_jax.files import InputError


@pytest.mark.parametrize(
    ("key", "text", "part"),
    [
        ("sampling.num_samples", "0", "at least 1, got 0"),
        ("sampling.num_steps", "0", "at least 1, got 0"),
        ("rollouts.count", "1", "at least 2, got 1"),
        ("prior.time_tests", "0", "at least 1, got 0"),
        ("prior.margin", "0.5", "at least 1.0, got 0.5"),
        ("training.residual_stage", "0,16,1e-3", "positive numbers, got [0, 16, 0.001]"),
        ("training.propagator_stages", "((1,100,-4,1e-3))", "positive numbers, got [[1, 100, -4, 0.001]]"),
    ],
)
def test_out_of_range(key, text, part):
    config = get_config("smoke")
    config.lock()
    before = config.to_dict()
    with pytest.raises(InputError, match=f"--config.{key} expects") as caught:
        apply_overrides(config, {key: text})
    assert part in str(caught.value)
    assert config.to_dict() == before


def test_the_least_values_themselves_are_taken():
    config = get_config("smoke")
    config.lock()
    apply_overrides(config, {"sampling.num_samples": "1", "prior.margin": "1.0", "training.residual_stage": "1,1,1e-9"})
    assert config.sampling.num_samples == 1 and config.prior.margin == 1.0


def test_noise_of_observed_trajectories_is_no_target(tmp_path, capsys):
    changes = ("--config.physics.residual_target=trajectory", "--config.training.real_fraction=0.5")
    assert main(STUDY, ["--size", "smoke", *changes, "--workdir", str(tmp_path / "run")]) == 2
    assert "try physics.residual_target=zero" in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "argument",
    [
        "network.unet.channels=12", "network.unet.channels=0", "training.ema_decay=2", "data.num_points=4",
        "system.stress=foo", "structure.order=3", "physics.residual_target=rollout", "network.prediction=noise",
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_refused_before_a_folder_is_made(argument, tmp_path, capsys):
    folder = tmp_path / "run"
    code = main(STUDY, ["--size", "smoke", f"--config.{argument}", "--workdir", str(folder)])
    error = capsys.readouterr().err
    assert code == 2 and not folder.exists()
    assert error.startswith("error: ") and error.count("\n") == 1
