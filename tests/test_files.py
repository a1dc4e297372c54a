"""Files of a run: whole or not at all, checked on reading, one process at a time, nobody else's."""

import subprocess
import sys

import numpy as np
import pytest

from phdme_jax.files import InputError, RunFailed, atomic_write, claimed_folder, kept_arrays, read_json, save_arrays
from tests.disk import full_disk

ARRAYS = {
    "states": np.linspace(0, 1, 36, dtype=np.float32).reshape(4, 9),
    "rejected": np.array(0.1),
    "words": np.array(["a", "bcd"]),
    "none": np.array([], dtype=str),
}


class Made(Exception):
    pass


def never():
    raise Made


def same(found) -> bool:
    return found.keys() == ARRAYS.keys() and all(
        found[name].dtype == array.dtype and np.array_equal(found[name], array) for name, array in ARRAYS.items()
    )


def test_kept_arrays_with_one_bit_changed_are_the_same_or_made_again(tmp_path):
    path = tmp_path / "kept.npz"
    kept_arrays(path, {"a": 1}, lambda: ARRAYS)
    whole, anew = path.read_bytes(), 0
    for position in range(0, len(whole), 3):
        content = bytearray(whole)
        content[position] ^= 1 << position % 8
        path.write_bytes(content)
        try:
            assert same(kept_arrays(path, {"a": 1}, never)), position
        except Made:
            anew += 1
    assert 2 * anew > len(whole) / 3


def test_arrays_made_from_something_else_are_made_again(tmp_path):
    path = tmp_path / "kept.npz"
    kept_arrays(path, {"a": 1}, lambda: ARRAYS)
    assert same(kept_arrays(path, {"a": 1}, never))
    with pytest.raises(Made):
        kept_arrays(path, {"a": 2}, never)
    other = {name: array[:1] if array.ndim else array for name, array in ARRAYS.items()}
    assert kept_arrays(path, {"a": 2}, lambda: other) == other
    np.testing.assert_array_equal(kept_arrays(path, {"a": 2}, never)["states"], ARRAYS["states"][:1])


def test_a_file_of_the_user_is_not_taken_and_not_replaced(tmp_path):
    path = tmp_path / "rollouts.npz"
    np.savez(path, **ARRAYS)
    before = path.read_bytes()
    with pytest.raises(InputError, match="was not written by this run"):
        kept_arrays(path, {"a": 1}, lambda: ARRAYS)
    assert path.read_bytes() == before


def test_without_space_a_write_is_a_sentence_and_what_was_there_stays(tmp_path):
    path = tmp_path / "arrays.npz"
    save_arrays(path, ARRAYS)
    before = path.read_bytes()
    with full_disk(), pytest.raises(RunFailed, match=r"arrays\.npz: cannot be written \(File too large\); once"):
        save_arrays(path, {"states": np.zeros(1000)})
    with full_disk(), pytest.raises(RunFailed, match="cannot be written"), atomic_write(path) as file:
        file.write(bytes(1000))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose another path"):
        save_arrays(tmp_path / "file" / "arrays.npz", ARRAYS)


@pytest.mark.parametrize("text", ["[1]", "null", "3", '"a"', '{"a": ', "", "\x00", "[" * 100_000])
def test_json_of_another_shape_is_a_sentence(text, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"config\.json: is not the JSON object that a run keeps there"):
        read_json(path)
    with pytest.raises(InputError, match="is not the JSON object"), claimed_folder(tmp_path, {"a": 1}, "config.json"):
        pass
    assert path.read_text() == text and list(tmp_path.iterdir()) == [path]
    assert read_json(tmp_path / "none.json") == {}


HOLD = """
import sys, time
from pathlib import Path
from phdme_jax.files import claimed_folder
with claimed_folder(Path(sys.argv[1]), {"a": 1}, "config.json"):
    print("in", flush=True)
    time.sleep(60)
"""


def test_one_process_at_a_time_and_a_dead_one_does_not_block(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout.read(2) == b"in"
    with (
        pytest.raises(InputError, match=rf"process {process.pid} on .* works in it; wait"),
        claimed_folder(tmp_path, {"a": 1}, "config.json"),
    ):
        pass
    process.kill()
    process.communicate()
    with claimed_folder(tmp_path, {"a": 1}, "config.json"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_process_on_another_machine_may_still_run(tmp_path):
    (tmp_path / ".lock").write_text("17 elsewhere")
    words = r"process 17 on elsewhere works in it.*remove .*\.lock"
    with pytest.raises(InputError, match=words), claimed_folder(tmp_path, {"a": 1}, "config.json"):
        pass
    assert (tmp_path / ".lock").read_text() == "17 elsewhere" and not (tmp_path / "config.json").exists()


def test_a_folder_removed_meanwhile_is_told(tmp_path):
    folder = tmp_path / "run"
    with (
        pytest.raises(RunFailed, match="was removed while this run worked in it"),
        claimed_folder(folder, {"a": 1}, "config.json"),
    ):
        folder.rename(tmp_path / "moved")
        folder.mkdir()
