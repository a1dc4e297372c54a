"""A study as a process of its own: exit codes, a second process in the folder, a killed run that goes on."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from phdme_jax.app.folder import claimed_run

ROOT = Path(__file__).parents[3]
SCRIPT = textwrap.dedent(
    """
    import os
    from types import SimpleNamespace
    from experiments.study.command import main
    from experiments.study.study import Study
    from phdme_jax.app.rows import Measurement
    from phdme_jax.files import InputError

    def check(context):
        if context.data_dir is not None and not (context.data_dir / "data.npz").exists():
            raise InputError(f"{context.data_dir}: holds no data.npz")

    def run(study, context):
        for seed in context.seeds:
            print("seed", seed, flush=True)
            value = (seed + 1) * context.config.model.rate
            context.results.record("toy", "phdme", seed, "test", {"mse": Measurement(value)}, n=4)
            if os.environ.get("END_AFTER") == str(seed):
                os._exit(9)
            if os.environ.get("INTERRUPT_AFTER") == str(seed):
                raise KeyboardInterrupt
        return []

    problem = SimpleNamespace(name="toy", offers=frozenset({"structure", "even_times"}))
    sizes = {size: lambda: {"model": {"width": 4, "rate": 1e-3}} for size in ("smoke", "laptop")}
    study = Study("toy", "A toy", sizes, lambda *_: problem, None, (), (), ("mse",), methods=("phdme",), check=check)
    if __name__ == "__main__":
        raise SystemExit(main(study, run=run))
    """
)


def script(tmp_path, *arguments, **environment):
    path = tmp_path / "toy.py"
    path.write_text(SCRIPT)
    return subprocess.run(
        [sys.executable, str(path), *arguments],
        cwd=tmp_path,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_a_second_process_in_the_folder_is_refused(tmp_path):
    with claimed_run(tmp_path / "run", {"a": 1}, "toy"):
        second = script(tmp_path, "--workdir", "run")
    assert second.returncode == 2 and second.stdout == "" and not (tmp_path / "run" / "results.jsonl").exists()
    assert second.stderr.startswith(f"error: run: process {os.getpid()} on ") and second.stderr.count("\n") == 1


@pytest.mark.slow
def test_as_a_process_mistakes_exit_with_2(tmp_path):
    done = script(tmp_path, "--config.model.widht=3")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: unknown configuration key 'model.widht', did you mean model.width?; the group model has rate, width\n"
    )
    done = script(tmp_path, "--data_dir", ".", "--workdir", "run")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: .: holds no data.npz\n")
    assert [path.name for path in tmp_path.iterdir()] == ["toy.py"]


@pytest.mark.slow
def test_as_a_process_a_killed_run_goes_on_with_the_same_command(tmp_path):
    arguments = ("--size", "smoke", "--seeds", "3", "--workdir")
    assert script(tmp_path, *arguments, "whole").returncode == 0
    killed = script(tmp_path, *arguments, "killed", END_AFTER="1")
    assert killed.returncode == 9 and not (tmp_path / "killed" / "report.html").exists()
    interrupted = script(tmp_path, *arguments, "killed", INTERRUPT_AFTER="0")
    assert interrupted.returncode == 130 and "Traceback" not in interrupted.stderr
    command = "python toy.py --size smoke --seeds 3 --workdir killed"
    assert f"the same command goes on from here: {command}".replace("toy.py", str(tmp_path / "toy.py")) in (
        interrupted.stderr
    )
    done = script(tmp_path, *arguments, "killed")
    assert done.returncode == 0 and os.path.join("killed", "report.html") in done.stdout
    results = [(tmp_path / name / "results.jsonl").read_bytes() for name in ("whole", "killed")]
    assert results[0] == results[1]
