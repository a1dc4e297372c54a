"""State of a process that runs a command: where compiled programs are kept, and the device it runs on."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from phdme_jax.app import process
from phdme_jax.app.folder import claimed_run
from phdme_jax.files import InputError


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder for the length of a test, everything new in it open to everyone."""
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(process.CACHE_VARIABLE, raising=False)
    umask = os.umask(0)
    yield tmp_path
    os.umask(umask)
    jax.config.update("jax_compilation_cache_dir", before)


def test_compiled_programs_are_kept_where_nobody_else_may_write(home, capsys):
    process.prepare_process()
    folder = home / ".cache" / "phdme_jax"
    assert jax.config.jax_compilation_cache_dir == str(folder) and not capsys.readouterr().err
    assert [place.stat().st_mode & 0o777 for place in (folder, folder.parent)] == [0o700, 0o700]


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_may_write_to_is_not_used(mode, home, capsys, monkeypatch):
    folder = home / "programs"
    folder.mkdir(mode=mode)
    monkeypatch.setenv(process.CACHE_VARIABLE, str(folder))
    process.prepare_process()
    assert jax.config.jax_compilation_cache_dir is None
    assert f"others may write to {folder} (mode {mode:o}); name a folder of your own" in capsys.readouterr().err


def test_a_folder_of_another_user_is_not_used(home, capsys, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    process.prepare_process()
    assert jax.config.jax_compilation_cache_dir is None and "belongs to another user" in capsys.readouterr().err


def test_without_a_home_programs_are_not_kept(home, capsys, monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    process.prepare_process()
    lines = capsys.readouterr().err.splitlines()
    assert jax.config.jax_compilation_cache_dir is None
    assert len(lines) == 1 and lines[0].startswith("note: compiled programs are not kept")


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cuda", "cpuu"])
def test_a_platform_that_is_not_there_is_one_sentence(platform, tmp_path):
    arguments = ["--run", str(tmp_path), "--initial", "state.npz", "--out", "out.npz"]
    done = subprocess.run(
        [sys.executable, "-m", "phdme_jax.app.forecast_command", *arguments],
        env={**os.environ, "JAX_PLATFORMS": platform},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "") and "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: JAX_PLATFORMS={platform}: JAX finds no such device here")


def test_types_that_may_not_meet_are_one_sentence(home):
    try:
        jax.config.update("jax_numpy_dtype_promotion", "strict")
        with pytest.raises(InputError, match="JAX_NUMPY_DTYPE_PROMOTION=strict: expected standard"):
            process.prepare_process()
    finally:
        jax.config.update("jax_numpy_dtype_promotion", "standard")


def test_a_run_goes_on_with_the_draws_that_it_began_with(tmp_path):
    def enter(folder):
        with claimed_run(folder, {"a": 1}, "toy"):
            pass

    enter(tmp_path)
    enter(tmp_path)
    with jax.default_prng_impl("rbg"):
        with pytest.raises(InputError, match="JAX_DEFAULT_PRNG_IMPL is absent there and rbg now"):
            enter(tmp_path)
        enter(tmp_path / "other")
    with jax.threefry_partitionable(False), pytest.raises(InputError, match="JAX_THREEFRY_PARTITIONABLE is absent"):
        enter(tmp_path)
    with pytest.raises(InputError, match="JAX_DEFAULT_PRNG_IMPL is rbg there and absent now"):
        enter(tmp_path / "other")


_TOUCHED_AGAIN = """
import ctypes, resource
from phdme_jax.app.process import prepare_process

def use_and_free():
    blocks = [library.malloc(100_000) for _ in range(400)]
    for block in blocks:
        ctypes.memset(block, 1, 100_000)
    for block in blocks:
        library.free(block)

prepare_process()
library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
use_and_free()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use_and_free()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is of glibc")
def test_memory_that_was_freed_is_not_asked_for_again():
    """40 MB used twice: ten thousand pages of 4 kB, fetched anew by a process that had handed them back."""
    result = subprocess.run([sys.executable, "-c", _TOUCHED_AGAIN], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 1000
