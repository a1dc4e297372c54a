"""What a study cannot be run with is refused before its folder is made."""

import pytest

from experiments.study.command import main
from experiments.vibrating_string import STUDY


def test_noise_of_observed_trajectories_is_no_target(tmp_path, capsys):
    changes = ("--config.physics.residual_target=trajectory", "--config.training.real_fraction=0.5")
    assert main(STUDY, ["--size", "smoke", *changes, "--workdir", str(tmp_path / "run")]) == 2
    assert "try physics.residual_target=zero" in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "argument",
    [
        "network.unet.channels=12",
        "network.unet.channels=0",
        "training.ema_decay=2",
        "data.num_points=4",
        "system.stress=foo",
        "structure.order=3",
        "physics.residual_target=rollout",
        "network.prediction=noise",
    ],
)
def test_what_cannot_be_built_is_refused_before_a_folder_is_made(argument, tmp_path, capsys):
    folder = tmp_path / "run"
    code = main(STUDY, ["--size", "smoke", f"--config.{argument}", "--workdir", str(folder)])
    error = capsys.readouterr().err
    assert code == 2 and not folder.exists()
    assert error.startswith("error: ") and error.count("\n") == 1
