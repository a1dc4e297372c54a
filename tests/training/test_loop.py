"""The host loop: exact resumption after SIGKILL, divergence, finished runs, events, refusals."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tensorboardX import record_writer
from tensorboardX.proto.event_pb2 import Event

from phdme_jax.app.progress import shown
from phdme_jax.files import RunFailed
from phdme_jax.training import (
    MixedData,
    draw_batch,
    init_train_state,
    latest_checkpoint,
    loop,
    make_train_step,
    step_inputs,
)
from phdme_jax.training.loop import LoopOptions, TrainingDiverged, train

OPTIMIZER = optax.adam(1e-2)


def noisy_loss(params, example, key):
    noise = 0.1 * jax.random.uniform(key, example["x"].shape, example["x"].dtype)
    error = jnp.tanh((example["x"] + noise) @ params["first"]) @ params["second"] - example["y"]
    return jnp.mean(error**2), {"largest": jnp.max(jnp.abs(error))}


def network():
    return {"first": 0.1 + jnp.zeros((3, 4), jnp.float32), "second": 0.1 * jnp.arange(4, dtype=jnp.float32)[:, None]}


def regression_data():
    inputs = jax.random.normal(jax.random.key(1), (30, 3), jnp.float32)
    return {"x": inputs, "y": inputs[:, :1] ** 2}


def options(**changes):
    return LoopOptions(**({"batch_size": 8, "num_steps": 22, "config_digest": "d", "chunk_steps": 5} | changes))


def run(workdir, loss=noisy_loss, dataset=None, key=0, params=None, **changes):
    data = regression_data() if dataset is None else dataset
    start = network() if params is None else params
    return train(
        loss,
        start,
        data,
        jax.random.key(key),
        optimizer=OPTIMIZER,
        options=options(**changes),
        workdir=workdir,
        watch=shown,
    )


def state_bytes(state):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, *run(workdir)


def test_run_equals_single_steps(finished):
    """The loop adds nothing to the mathematics: twenty-two jitted steps give the same bits."""
    _, state, report = finished
    step = jax.jit(make_train_step(noisy_loss, OPTIMIZER, 0.999))
    inputs = jax.jit(step_inputs, static_argnums=(0, 4))
    expected, losses = init_train_state(network(), OPTIMIZER), []
    for _ in range(22):
        expected, metrics = step(expected, *inputs(draw_batch, regression_data(), jax.random.key(0), expected.step, 8))
        losses.append(float(metrics["loss"]))
    assert state_bytes(state) == state_bytes(expected)
    assert report.steps.tolist() == [5, 10, 15, 20, 22]
    np.testing.assert_allclose(report.losses, [np.mean(losses[at : at + 5]) for at in range(0, 22, 5)], rtol=1e-6)
    assert report.seconds_per_step > 0 and report.compile_seconds > 0 and report.resumed_at == 0
    assert report.checkpoint == latest_checkpoint(report.checkpoint.parent) and report.checkpoint.name == "22"


def test_finished_run_returns_at_once(finished, monkeypatch):
    workdir, state, report = finished
    monkeypatch.setattr(loop, "_compile", lambda *arguments: pytest.fail("a finished run compiled something"))
    again, second = run(workdir)
    assert state_bytes(again) == state_bytes(state)
    assert second.losses.tolist() == report.losses.tolist() and second.seconds_per_step == report.seconds_per_step
    assert second.resumed_at == 22 and second.compile_seconds == 0


@pytest.mark.parametrize("scan", [False, True])
def test_interrupted_run_ends_with_the_same_bits(tmp_path, monkeypatch, scan, finished):
    """Interrupted after its third chunk, past the second checkpoint; the last chunk is a short one."""
    save = loop.checkpoint.save_checkpoint

    def save_two(folder, step, *rest):
        if step > 10:
            raise KeyboardInterrupt
        return save(folder, step, *rest)

    monkeypatch.setattr(loop.checkpoint, "save_checkpoint", save_two)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, scan=scan, checkpoint_seconds=0.0)
    monkeypatch.setattr(loop.checkpoint, "save_checkpoint", save)
    state, report = run(tmp_path, scan=scan, checkpoint_seconds=1e9)
    _, whole, whole_report = finished
    assert report.resumed_at == 10
    assert state_bytes(state) == state_bytes(whole)
    assert report.losses.tolist() == whole_report.losses.tolist()


def test_events_hold_every_chunk_once(finished):
    """Read as TensorBoard reads them: length, checksum, protocol buffer, checksum."""
    values = {}
    for path in (finished[0] / "events").iterdir():
        content, at = path.read_bytes(), 0
        while at < len(content):
            length = int.from_bytes(content[at : at + 8], "little")
            event = Event.FromString(content[at + 12 : at + 12 + length])
            for value in event.summary.value:
                values.setdefault(value.tag, []).append((event.step, value.simple_value))
            at += 16 + length
    assert set(values) == {"train/loss", "train/grad_norm", "train/largest"}
    assert [step for step, _ in values["train/loss"]] == [5, 10, 15, 20, 22]
    np.testing.assert_allclose([value for _, value in values["train/loss"]], finished[2].losses, rtol=1e-6)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_events_that_cannot_be_written_end_the_training(tmp_path, monkeypatch, capsys):
    writer = record_writer.RecordWriter
    monkeypatch.setattr(record_writer, "RecordWriter", lambda path: writer("/dev/full"))
    with pytest.raises(RunFailed, match=r"events: cannot be written \(No space left on device\)"):
        run(tmp_path)
    told = []
    with pytest.raises(RunFailed), shown(tmp_path, "", 0, 10_000) as tell:
        for step in range(10_000):
            tell(step, {"loss": 1.0})
            told.append(step)
    assert 0 < len(told) < 1000


def test_divergence_names_step_and_checkpoint(tmp_path):
    """The loss turns NaN once the parameter, moved by 0.01 a step, is below 0.875: at step 13, in the third chunk."""

    def loss(params, example, key):
        return jnp.where(params["w"] < 0.875, jnp.nan, params["w"]) * example, {}

    arguments = {"loss": loss, "dataset": jnp.ones(4), "params": {"w": jnp.array(1.0)}, "checkpoint_seconds": 0.0}
    for _ in range(2):  # the second time from the checkpoint: it fails in the same place
        with pytest.raises(TrainingDiverged, match=r"at step 13: loss nan") as caught:
            run(tmp_path, **arguments)
        assert str(tmp_path / "checkpoints" / "10") in str(caught.value)
    with pytest.raises(TrainingDiverged, match=r"at step 0: .* checkpoint: none yet"):
        run(tmp_path / "other", **(arguments | {"params": {"w": jnp.array(jnp.nan)}}))


def test_caller_keeps_its_arrays(tmp_path):
    params, data = network(), regression_data()
    run(tmp_path, params=params, dataset=data, num_steps=2, chunk_steps=2)
    assert state_bytes(params) == state_bytes(network()) and state_bytes(data) == state_bytes(regression_data())


@pytest.mark.parametrize("change", [{"config_digest": "e"}, {"key": 1}, {"num_steps": 30}, {"chunk_steps": 6}])
def test_another_configuration_is_refused(finished, change):
    with pytest.raises(ValueError, match="another configuration"):
        run(finished[0], **change)


def test_slices_of_two_train_to_the_same_parameters_but_for_rounding(finished, monkeypatch):
    seen = []
    made = loop.make_train_step
    monkeypatch.setattr(loop, "make_train_step", lambda *args, **more: seen.append(more) or made(*args, **more))
    state, report = run(None, slice_size=2)
    assert seen == [{"slices": 4}]
    jax.tree.map(lambda one, whole: np.testing.assert_allclose(one, whole, rtol=1e-5), state.params, finished[1].params)
    np.testing.assert_allclose(report.losses, finished[2].losses, rtol=1e-5)


def test_mixed_data_reaches_the_loss(tmp_path):
    def loss(params, example, key):
        return params["w"] ** 2, {"real_share": example}

    mixed = MixedData(synthetic=jnp.zeros(50), real=jnp.ones(2))
    arguments = {"loss": loss, "params": {"w": jnp.array(1.0)}, "num_steps": 2, "chunk_steps": 1}
    with pytest.raises(ValueError, match="MixedData exactly where real_fraction > 0"):
        run(tmp_path, dataset=mixed, **arguments)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_require_finite", lambda metrics, *rest: seen.append(metrics["real_share"]))
        run(tmp_path, dataset=mixed, real_fraction=0.25, **arguments)
    np.testing.assert_allclose(np.concatenate(seen), [0.25, 0.25])


@pytest.mark.parametrize(
    "change",
    [{"batch_size": 0}, {"chunk_steps": 0}, {"real_fraction": 1.0}, {"ema_decay": 1.0}, {"slice_size": 3}],
)
def test_options_refuse_impossible_numbers(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        options(**change)


SCRIPT = """
import sys
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
from phdme_jax.training.loop import LoopOptions, train
from phdme_jax.training import make_optimizer

def loss(params, example, key):
    noise = jax.random.normal(key, example["x"].shape, example["x"].dtype)
    hidden = jnp.tanh((example["x"] + 0.1 * noise) @ params["first"])
    return jnp.mean((hidden @ params["second"] - example["y"]) ** 2), {}

first, second, third = jax.random.split(jax.random.key(0), 3)
shapes = {"first": (8, 32), "second": (32, 4)}
params = {name: jax.random.normal(key, shapes[name], jnp.float32) for name, key in zip(shapes, (first, second))}
inputs = jax.random.normal(third, (500, 8), jnp.float32)
options = LoopOptions(32, num_steps=202, config_digest="d", chunk_steps=4, checkpoint_seconds=float(sys.argv[2]))
state, report = train(loss, params, {"x": inputs, "y": jnp.sin(inputs[:, :4])}, jax.random.key(1),
                      optimizer=make_optimizer(1e-2, 10, 202), options=options, workdir=sys.argv[1])
np.savez(sys.argv[1] + "/final.npz", *jax.tree.leaves(state), losses=report.losses, resumed_at=report.resumed_at)
"""


def start_process(workdir, checkpoint_seconds):
    workdir.mkdir(exist_ok=True)
    command = [sys.executable, "-c", SCRIPT, str(workdir), str(checkpoint_seconds)]
    return subprocess.Popen(command, cwd=Path(loop.__file__).parents[2], stderr=subprocess.PIPE, text=True)


def wait(process):
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors[-3000:]


def test_killed_run_ends_with_the_same_bits(tmp_path):
    """SIGKILL at a random moment, while a checkpoint is being written as often as not; then the same command again."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process, uninterrupted = start_process(killed, 0.0), start_process(whole, 1e9)
    while process.poll() is None and latest_step(killed) == 0:
        time.sleep(0.01)
    delay = random.uniform(0.0, 1.0)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    reached = latest_step(killed)
    assert process.returncode == -signal.SIGKILL and 0 < reached < 202, f"killed {delay} s after the first checkpoint"
    wait(start_process(killed, 0.0))
    wait(uninterrupted)
    with np.load(whole / "final.npz") as expected, np.load(killed / "final.npz") as got:
        assert int(expected["resumed_at"]) == 0 and 0 < int(got["resumed_at"]) <= reached + 4
        for name in set(expected) - {"resumed_at"}:
            assert expected[name].tobytes() == got[name].tobytes(), f"{name}: killed {delay} s after step 4"


def latest_step(workdir):
    folder = workdir / "checkpoints"
    names = os.listdir(folder) if folder.is_dir() else []
    whole = (name for name in names if re.fullmatch(r"\d+", name) and (folder / name / "digest").exists())
    return max(map(int, whole), default=0)


def test_a_resumed_run_tells_the_memory_of_the_one_that_began(tmp_path):
    _, whole = run(tmp_path / "whole")
    assert whole.memory is not None and whole.memory > sum(leaf.nbytes for leaf in regression_data().values())
    _, again = run(tmp_path / "whole")
    assert again.compile_seconds == 0.0 and again.memory == whole.memory
