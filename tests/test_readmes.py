"""The code in the READMEs runs as it stands, and their lines are short."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import phdme_jax
from experiments.study.command import offered_methods
from phdme_jax.forecasting.options import make_options
from phdme_jax.systems.energy.vibrating_string import modes_state

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "phdme_jax" / "README.md", ROOT / "experiments" / "README.md"]


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def block(page: Path, word: str) -> str:
    (found,) = (text for text in blocks(page) if word in text)
    return found


def standing_waves(num_frames: int, num_points: int, count: int) -> np.ndarray:
    """Motion of a linear string ten long, (sample, time, grid, field)."""
    random, grid = np.random.default_rng(0), jnp.linspace(0.0, 10.0, num_points)
    times = 0.3 * np.arange(num_frames)
    states = []
    for _ in range(count):
        size, phase = 0.5 * random.normal(size=3) / np.arange(1, 4) ** 2, random.uniform(0, 6.28, 3)
        frequency = np.arange(1, 4) * np.pi / 10.0
        angles = frequency * times[:, None] + phase
        heights, speeds = size * np.cos(angles), -size * frequency * np.sin(angles)
        states.append(jax.vmap(modes_state, (None, 0, 0))(grid, jnp.asarray(heights), jnp.asarray(speeds)))
    return np.asarray(states)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_a_stranger_reads_to_the_end(page):
    lines = page.read_text(encoding="utf-8").split("\n")
    assert len(lines) <= 200
    assert all(len(line) <= 100 or line.startswith("|") or "](" in line or "phdme " in line for line in lines)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page}: {target} is not there"


@pytest.mark.slow
def test_composed_functions_give_futures():
    names = {"states": jnp.asarray(standing_waves(64, 64, 1)[0])}
    exec(block(ROOT / "README.md", "sample_rollout"), names)
    rolled = names["futures"]
    assert rolled.trajectory.shape == (32, 64, 64, 2) and np.asarray(rolled.ok).mean() > 0.9
    # every sampled energy loses what its dampings take, and gains nothing
    assert np.diff(np.asarray(rolled.energy)[np.asarray(rolled.ok)], axis=1).max() < 1e-6


def test_a_method_of_three_functions_keeps_the_protocol():
    from phdme_jax.methods.base import Examples, Task
    from phdme_jax.methods.draws import draw_forecasts

    names: dict = {}
    for text in blocks(ROOT / "phdme_jax" / "README.md"):
        exec(text, names)
    assert names["make_quartic"]().offers >= {"structure", "true_energy"}
    examples = Examples(np.arange(12.0).reshape(3, 2, 2), np.zeros((3, 0)))
    fitted = names["fit"](
        Task(None, lambda: examples, lambda key, count: examples.condition, jax.random.key(0)),
        {},
        None,
        None,
        jax.random.key(0),
    )
    drawn = draw_forecasts(fitted, examples.condition, 1, jax.random.key(1))
    np.testing.assert_array_equal(drawn.mean, np.broadcast_to(examples.fields.mean(axis=0), (3, 2, 2)))


def test_a_study_is_one_declaration():
    names: dict = {"__name__": "a_study"}
    exec(block(ROOT / "experiments" / "README.md", "Study("), names)
    study = names["STUDY"]
    assert study.get_config("smoke").data.num_train > 0
    assert "pidm_me" in offered_methods(study, "smoke") and "phdme" not in offered_methods(study, "smoke")


@pytest.mark.slow
def test_one_s_own_measurements_in_ten_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    states, grid, time = standing_waves(16, 12, 12), np.linspace(0.0, 10.0, 12), 0.3 * np.arange(16)
    np.savez("trajectories.npz", state=states[:3], time=time, grid=grid)
    np.savez("calibration.npz", state=states[3:], time=time, grid=grid)
    np.savez("state.npz", state=states[4, 0], grid=grid)
    whole = phdme_jax.fit
    monkeypatch.setattr(
        phdme_jax, "fit", lambda *sources: whole(*sources, options=make_options("smoke")), raising=False
    )
    names: dict = {}
    exec(block(ROOT / "README.md", "phdme_jax.conformalize"), names)
    future = names["future"]
    assert future.calibrated and future.samples.shape == (100, 16, 12, 2)
    assert (future.lower <= future.mean).all() and (future.mean <= future.upper).all()
    again = phdme_jax.forecast(names["forecaster"], "state.npz", num_samples=100)
    np.testing.assert_array_equal(again.samples, future.samples)
    places, noise = np.array([2, 5, 9]), 0.05 * states.std(axis=(0, 1, 2))
    read = states[4, :5, places].swapaxes(0, 1) + noise * np.random.default_rng(1).normal(size=(5, 3, 2))
    np.savez("sensors.npz", readings=read, time=time[:5], position=grid[places], noise=noise)
    exec(block(ROOT / "README.md", "phdme_jax.Sensors"), names)
    guessed = names["guessed"]
    assert guessed.calibrated and guessed.samples.shape == (100, 16, 12, 2)
    file = phdme_jax.forecast(names["forecaster"], sensors="sensors.npz", num_samples=100)
    np.testing.assert_array_equal(file.samples, guessed.samples)
