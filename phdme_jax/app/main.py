"""The command `phdme`: what a person does at a terminal with measurements of their own."""

import importlib
import sys
from collections.abc import Sequence

from phdme_jax import __version__
from phdme_jax.app.streams import tolerant_streams

COMMANDS = {
    "fit": ("phdme_jax.app.fit_command", "learn a forecaster from your own trajectories"),
    "forecast": ("phdme_jax.app.forecast_command", "forecast from an initial state or a few sensors"),
    "report": ("phdme_jax.app.page", "rebuild the page and the tables of a run folder"),
}


@tolerant_streams()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one of the commands; returns its exit code."""
    name, *given = [*(sys.argv[1:] if arguments is None else arguments)] or [""]
    if name == "--version":
        print(f"phdme {__version__}")
        return 0
    if name in ("", "-h", "--help"):
        lines = [f"  {command:10}{summary}" for command, (_, summary) in COMMANDS.items()]
        print("usage: phdme COMMAND [arguments], phdme COMMAND --help, phdme --version", "", *lines, sep="\n")
        return 0 if name else 2
    if name not in COMMANDS:
        print(f"error: unknown command {name!r}; phdme has {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return importlib.import_module(COMMANDS[name][0]).main(given, f"phdme {name}")
