"""`python -m experiments`: the catalogue of studies and commands, each with what its file says of it."""

import ast
from collections.abc import Iterator
from pathlib import Path

from phdme_jax.app.streams import tolerant_streams

ROOT = Path(__file__).parent


def catalogue() -> Iterator[tuple[str, str]]:
    """Name and first sentence of every module that `python -m experiments.NAME` runs, none of them imported."""
    files = [*ROOT.glob("*.py"), *ROOT.glob("*/__main__.py")]
    for path in sorted(files, key=lambda path: path.relative_to(ROOT).as_posix()):
        text = path.read_text(encoding="utf-8")
        if "__main__" in text and path != Path(__file__):
            name = path.parent.name if path.name == "__main__.py" else path.stem
            yield name, (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]


if __name__ == "__main__":
    with tolerant_streams():
        for name, summary in catalogue():
            print(f"python -m experiments.{name:20s} {summary}")
