"""A command does its work whatever becomes of its standard streams."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORK = """
import sys
from pathlib import Path
from tqdm import tqdm
from phdme_jax.app.command import run_main
from phdme_jax.files import InputError

def work():
    for _ in tqdm(range(3), desc="läufe"):
        print("läufe \\udce9 " + 100_000 * "x", flush=True)
    print("half a line", end="")
    Path("done").write_text("done")
    if len(sys.argv) > 1:
        raise InputError("läufe: no such run")

raise SystemExit(run_main(work))
"""


def shell(folder: Path, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "work.py").write_text(WORK, encoding="utf-8")
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "PYTHONPATH": str(ROOT), "PYTHON": sys.executable, **environment}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    "command",
    [
        "$PYTHON work.py | head -c 10",
        "$PYTHON work.py 2>&1 | true",
        "$PYTHON work.py > /dev/full",
        "$PYTHON work.py >&-",
        "$PYTHON work.py 2>&-",
        "$PYTHON work.py <&- >&- 2>&-",
    ],
)
def test_the_work_is_done_where_nobody_listens(command, tmp_path):
    done = shell(tmp_path, f"{command}; (( PIPESTATUS[0] == 0 ))")
    assert done.returncode == 0 and "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert (tmp_path / "done").read_text() == "done", "and no message went into the file"


def test_what_cannot_be_printed_is_escaped(tmp_path):
    done = shell(tmp_path, "$PYTHON work.py", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and done.stdout.startswith(r"l\xe4ufe \udce9 xxx")
    assert "Traceback" not in done.stderr and r"l\xe4ufe: 100%" in done.stderr
    done = shell(tmp_path, "$PYTHON work.py wrong", PYTHONIOENCODING="ascii")
    assert done.returncode == 2 and done.stderr.endswith("error: l\\xe4ufe: no such run\n")
    done = shell(tmp_path, "$PYTHON work.py wrong")
    assert done.stdout.startswith(r"läufe \udce9 xxx") and done.stderr.endswith("error: läufe: no such run\n")


def test_so_are_the_catalogue_and_the_help(tmp_path):
    for program in ("-m experiments", "-c 'from phdme_jax.app.main import main; raise SystemExit(main([\"--help\"]))'"):
        done = shell(tmp_path, f"$PYTHON {program} > /dev/full")
        assert done.returncode == 0 and done.stderr == ""
