"""Checkpoints: exact round trip, the last two, refusal of foreign ones, silence about half-written ones."""

import hashlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.files import InputError, RunFailed, config_digest
from phdme_jax.training import (
    init_train_state,
    latest_checkpoint,
    make_optimizer,
    restore_latest,
    save_checkpoint,
)
from tests.disk import full_disk

DIGEST = config_digest({"name": "test"})


def make_state(value, dtype=jnp.float32):
    params = {"layer": [jnp.full((2, 3), value, dtype), jnp.full((3,), value, jnp.float64)]}
    return init_train_state(params, make_optimizer(1e-3, 2, 10))


def leaves_identical(first, second):
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return jax.tree.structure(first) == jax.tree.structure(second) and all(
        a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs
    )


def test_digest_is_sha256_of_sorted_json():
    assert config_digest({"b": [1, 2.5], "a": None}) == hashlib.sha256(b'{"a": null, "b": [1, 2.5]}').hexdigest()
    assert config_digest({"a": {"x": 1, "y": 2}}) == config_digest({"a": {"y": 2, "x": 1}})
    assert config_digest({"a": 1}) != config_digest({"a": 2})


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_round_trip_is_exact(tmp_path, capfd, dtype):
    state = make_state(1 / 3, dtype)
    metadata = {"losses": [0.1, 1e-300, 2.0], "name": "x"}
    path = save_checkpoint(tmp_path / "run", 7, state, DIGEST, metadata)
    found = restore_latest(tmp_path / "run", make_state(0.0, dtype), DIGEST)
    assert leaves_identical(found.tree, state)
    assert found.metadata == metadata and found.step == 7
    assert found.path == path == latest_checkpoint(tmp_path / "run") and path.is_dir()
    assert capfd.readouterr() == ("", "")


def test_numpy_and_abstract_templates(tmp_path):
    tree = {"numpy": np.arange(5.0), "device": jnp.arange(3, dtype=jnp.int32)}
    save_checkpoint(tmp_path, 0, tree, DIGEST)
    template = {"numpy": np.zeros(5), "device": jax.ShapeDtypeStruct((3,), jnp.int32)}
    found = restore_latest(tmp_path, template, DIGEST).tree
    assert isinstance(found["numpy"], np.ndarray) and isinstance(found["device"], jax.Array)
    assert leaves_identical(found, tree)


def test_keeps_the_last_two(tmp_path):
    for step in (10, 20, 30):
        save_checkpoint(tmp_path, step, make_state(step), DIGEST)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["20", "30"]
    assert float(restore_latest(tmp_path, make_state(0.0), DIGEST).tree.params["layer"][0][0, 0]) == 30


def test_nothing_to_restore(tmp_path):
    assert restore_latest(tmp_path / "absent", make_state(0.0), DIGEST) is None
    assert restore_latest(tmp_path, make_state(0.0), DIGEST) is None
    assert latest_checkpoint(tmp_path / "absent") is None and latest_checkpoint(tmp_path) is None
    assert not (tmp_path / "absent").exists()


def test_foreign_checkpoint_is_refused_in_one_sentence(tmp_path):
    save_checkpoint(tmp_path, 1, make_state(1.0), DIGEST)
    other = config_digest({"name": "other"})
    with pytest.raises(ValueError, match=f"expected digest {other[:12]}, got {DIGEST[:12]}; try") as caught:
        restore_latest(tmp_path, make_state(0.0), other)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax's threads on missing files
@pytest.mark.parametrize("damage", ["temporary", "no_record", "no_arrays", "empty"])
def test_half_written_checkpoints_are_passed_over(tmp_path, damage):
    """Whatever is left of step 20, step 10 is restored, and the run can write step 20 again."""
    for step in (10, 20):
        save_checkpoint(tmp_path, step, make_state(step), DIGEST)
    broken = tmp_path / "20"
    if damage == "temporary":
        broken.rename(tmp_path / "20.orbax-checkpoint-tmp-123")
    elif damage == "no_record":
        shutil.rmtree(broken / "record")
    elif damage == "no_arrays":
        shutil.rmtree(broken / "tree" / "d")
        shutil.rmtree(broken / "tree" / "ocdbt.process_0")
    else:
        shutil.rmtree(broken)
        broken.mkdir()
    found = restore_latest(tmp_path, make_state(0.0), DIGEST)
    assert found.step == 10 and leaves_identical(found.tree, make_state(10))
    save_checkpoint(tmp_path, 20, make_state(21), DIGEST)
    assert leaves_identical(restore_latest(tmp_path, make_state(0.0), DIGEST).tree, make_state(21))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "20"]


def test_a_checkpoint_with_one_bit_changed_is_passed_over(tmp_path):
    for step in (10, 20):
        save_checkpoint(tmp_path, step, {"a": jnp.arange(40.0)}, DIGEST, {"losses": [0.125] * 9})
    files = [path for path in (tmp_path / "20").rglob("*") if path.is_file()]
    found = []
    for path in files:
        whole = path.read_bytes()
        for position in np.linspace(0, len(whole) - 1, 4).astype(int):
            content = bytearray(whole)
            content[position] ^= 4
            path.write_bytes(content)
            restored = restore_latest(tmp_path, {"a": jnp.zeros(40)}, DIGEST)
            assert leaves_identical(restored.tree, {"a": jnp.arange(40.0)}), path
            assert restored.metadata == {"losses": [0.125] * 9}, path
            found.append(restored.step)
        path.write_bytes(whole)
    assert 10 in found
    shutil.rmtree(tmp_path / "10")
    (tmp_path / "20" / "tree" / "manifest.ocdbt").write_bytes(b"")
    assert restore_latest(tmp_path, {"a": jnp.zeros(40)}, DIGEST) is None, "trained anew"
    assert latest_checkpoint(tmp_path) is None


def test_without_space_a_checkpoint_is_a_sentence_and_the_one_before_stays(tmp_path, capfd):
    save_checkpoint(tmp_path, 10, make_state(10), DIGEST)
    with full_disk(), pytest.raises(RunFailed, match=r"cannot be written \(File too large\); once") as caught:
        save_checkpoint(tmp_path, 20, make_state(20), DIGEST)
    assert "\n" not in str(caught.value) and capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["10"]
    assert restore_latest(tmp_path, make_state(0.0), DIGEST).step == 10
    save_checkpoint(tmp_path, 20, make_state(20), DIGEST)
    assert leaves_identical(restore_latest(tmp_path, make_state(0.0), DIGEST).tree, make_state(20))


def test_another_network_is_an_error_not_a_fresh_start(tmp_path):
    save_checkpoint(tmp_path, 1, make_state(1.0), DIGEST)
    params = {"layer": [jnp.zeros((2, 3), jnp.float32)]}
    with pytest.raises(InputError, match=r"another network \(.*remove this folder") as caught:
        restore_latest(tmp_path, init_train_state(params, make_optimizer(1e-3, 2, 10)), DIGEST)
    assert "\n" not in str(caught.value)
