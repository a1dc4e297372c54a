"""Forecasts from an initial state.

phdme forecast --run DIR --initial state.npz --samples 100 --out forecast.npz [--seed 0]
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from phdme_jax.app.command import CommandParser, command_line, run_main, whole_number
from phdme_jax.app.process import prepare_process
from phdme_jax.app.progress import shown
from phdme_jax.files import InputError
from phdme_jax.forecasting.forecast import forecast
from phdme_jax.forecasting.forecast_file import write_forecast
from phdme_jax.forecasting.saved import load


def main(arguments: Sequence[str] | None = None, program: str = "phdme forecast") -> int:
    """Runs the command under the name `program`; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return run_main(lambda: _forecast(_parse(given, program)), command_line(program, given))


def _forecast(options: argparse.Namespace) -> None:
    prepare_process()
    forecaster = load(options.run)
    made = forecast(forecaster, options.initial, options.samples, seed=options.seed, watch=shown)
    path = write_forecast(options.out, made)
    for note in made.notes:
        print(f"note: {note}")
    kind = "calibrated" if made.calibrated else "uncalibrated"
    print(f"forecast: {path} ({len(made.samples)} samples, {kind} {100 * made.level:g} % band)")


def _parse(arguments: Sequence[str], program: str) -> argparse.Namespace:
    parser = CommandParser(prog=program, description="Forecasts from an initial state.")
    parser.add_argument("--run", type=Path, required=True, help="run folder of a finished fit")
    parser.add_argument("--initial", type=Path, required=True, help="state.npz: state, grid, optional time")
    parser.add_argument("--samples", type=whole_number(1), help="samples to draw (as many as calibration)")
    parser.add_argument("--out", type=Path, required=True, help="forecast.npz to write")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="seed of the draws (%(default)s)")
    options = parser.parse_args(list(arguments))
    if options.out.is_dir():
        raise InputError(f"{options.out}: is a folder; expected a file name such as {options.out}/forecast.npz")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
