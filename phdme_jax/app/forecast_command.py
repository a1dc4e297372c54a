"""Forecasts from an initial state, or from what a few sensors read.

phdme forecast --run DIR --initial state.npz --samples 100 --out forecast.npz [--seed 0]
phdme forecast --run DIR --sensors sensors.npz --samples 100 --out forecast.npz [--seed 0]
"""

import argparse
import sys
from collections.abc import Sequence

from phdme_jax.app.command import CommandParser, command_line, folder, path, run_main, whole_number
from phdme_jax.app.process import prepare_process
from phdme_jax.app.progress import shown
from phdme_jax.files import InputError, output_file
from phdme_jax.forecasting.forecast import MOST_SAMPLES, forecast
from phdme_jax.forecasting.forecast_file import write_forecast
from phdme_jax.forecasting.options import LARGEST_SEED
from phdme_jax.forecasting.saved import load


def main(arguments: Sequence[str] | None = None, program: str = "phdme forecast") -> int:
    """Runs the command under the name `program`; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return run_main(lambda: _forecast(_parse(given, program)), command_line(program, given))


def _forecast(options: argparse.Namespace) -> None:
    prepare_process()
    forecaster = load(options.run)
    _check_out(options)
    told = {"sensors": options.sensors, "seed": options.seed, "watch": shown}
    made = forecast(forecaster, options.initial, options.samples, **told)
    written = write_forecast(options.out, made)
    for note in made.notes:
        print(f"note: {note}")
    kind = "calibrated" if made.calibrated else "uncalibrated"
    print(f"forecast: {written} ({len(made.samples)} samples, {kind} {100 * made.level:g} % band)")


def _check_out(options: argparse.Namespace) -> None:
    """Refuses to write over what was given or what the run keeps, whatever the names; its own forecasts may go."""
    if not options.out.exists():
        return
    kept = [file for file in options.run.rglob("*") if file.parent != options.run or file.suffix != ".npz"]
    for file in (options.initial or options.sensors, *kept):
        if file.is_file() and options.out.samefile(file):
            raise InputError(f"{options.out}: is {file}, which would be lost; choose another --out")


def _parse(arguments: Sequence[str], program: str) -> argparse.Namespace:
    parser = CommandParser(prog=program, description="Forecasts from an initial state or sensors.")
    parser.add_argument("--run", type=folder, required=True, help="run folder of a finished fit")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--initial", type=path, help="state.npz: state, grid, optional time")
    source.add_argument(
        "--sensors", type=path, help="sensors.npz: readings, time, noise, position or index, optional field"
    )
    parser.add_argument(
        "--samples", type=whole_number(1, MOST_SAMPLES), help="samples to draw (as many as calibration)"
    )
    parser.add_argument("--out", type=path, required=True, help="forecast.npz to write")
    parser.add_argument("--seed", type=whole_number(0, LARGEST_SEED), default=0, help="seed of the draws (%(default)s)")
    options = parser.parse_args(list(arguments))
    output_file(options.out)
    return options


if __name__ == "__main__":
    raise SystemExit(main())
