"""Your own measurements in; a learned energy, a calibrated forecaster and a report out.

    phdme fit --data trajectories.npz --structure vibrating_string --workdir DIR
        [--calibration other.npz] [--level 0.9] [--size smoke|laptop|accelerator] [--method phdme|phdme_rollout]
        [--seed 0] [--config.group.key=value]

Then `phdme forecast --run DIR ...` forecasts from new initial states. A fit that was killed goes on with the same
command; another configuration or another file in the same folder is refused.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from phdme_jax.app.command import CommandParser, command_line, path, run_folder, run_main, split_overrides, whole_number
from phdme_jax.app.fit_page import Evaluation, evaluate, headline, record_rows, report_sections
from phdme_jax.app.folder import claimed_run
from phdme_jax.app.headline import print_headline
from phdme_jax.app.overrides import apply_overrides
from phdme_jax.app.page import build_report
from phdme_jax.app.process import prepare_process
from phdme_jax.app.progress import shown
from phdme_jax.app.rows import ResultsWriter
from phdme_jax.files import InputError, file_digest
from phdme_jax.forecasting.conformalize import check_level
from phdme_jax.forecasting.files import Trajectories
from phdme_jax.forecasting.fit import check_fit, fit_inputs
from phdme_jax.forecasting.forecaster import Forecaster
from phdme_jax.forecasting.inputs import FitInputs, check_memory, read_calibration, read_inputs
from phdme_jax.forecasting.offers import offered_methods
from phdme_jax.forecasting.options import LARGEST_SEED, RANGES, SIZES, make_options
from phdme_jax.forecasting.saved import load, save
from phdme_jax.forecasting.structures import STRUCTURES, known_structure

METRICS = ("nmse", "crps", "coverage", "band_width", "seconds_per_sample")


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    data: Path
    structure: str
    workdir: Path
    calibration: Path | None
    level: float
    size: str
    method: str
    seed: int
    options: dict[str, Any]

    def record(self, inputs: FitInputs) -> dict[str, Any]:
        """Everything the numbers depend on, as it runs; files by their content, so that another file is another run."""
        files = {"data": file_digest(self.data), "calibration": None}
        if self.calibration is not None:
            files["calibration"] = file_digest(self.calibration)
        names = {name: getattr(self, name) for name in ("structure", "size", "method", "seed", "level")}
        return {"experiment": "fit", **names, "files": files, "config": inputs.options}


def main(arguments: Sequence[str] | None = None, program: str = "phdme fit") -> int:
    """Runs the command under the name `program`; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = command_line(program, given)
    return run_main(lambda: _fit(given, program, command), command)


def _fit(arguments: Sequence[str], program: str, command: str) -> None:
    request = _parse(arguments, program)
    prepare_process()
    inputs = read_inputs(request.data, request.structure, request.options)
    check_fit(inputs, request.method)
    calibration: Trajectories | None = None
    if request.calibration is not None:
        calibration, notes = read_calibration(
            request.calibration, known_structure(request.structure).layout, inputs.structure, inputs.observed
        )
        check_memory(calibration.state.shape, inputs.options, len(calibration.state))
        inputs = replace(inputs, notes=(*inputs.notes, *notes))
    with claimed_run(request.workdir, request.record(inputs), command):
        _work(request, inputs, calibration)


def _work(request: Request, inputs: FitInputs, calibration: Trajectories | None) -> None:
    """What the command does in its run folder, up to the headline."""
    _print_notes(inputs.notes)
    results = ResultsWriter(request.workdir / "results.jsonl", "fit")
    forecaster = _finished(request, inputs)
    if forecaster is None:
        (request.workdir / "sections.json").unlink(missing_ok=True)  # its being there says that all rows are
        evaluation = _run(request, inputs, calibration)
        forecaster = evaluation.forecaster
        record_rows(results, evaluation)
        sections = report_sections(request.workdir, evaluation)
        page = build_report(request.workdir, f"Fit of {request.data.name} as {request.structure}", sections)
    else:
        page = build_report(request.workdir)
    lines = headline(forecaster, results.rows(), 0 if calibration is None else len(calibration.state))
    following = f"phdme forecast --run {request.workdir} --initial state.npz --out forecast.npz"
    print_headline([*lines, f"Forecast with: {following}", f"report: {page}"], results.rows(), METRICS)


def _run(request: Request, inputs: FitInputs, calibration: Trajectories | None) -> Evaluation:
    """Fit, evaluate, calibrate and save; what takes long is kept in the run folder."""
    forecaster = fit_inputs(inputs, request.method, request.seed, request.workdir / "fit", shown)
    forecaster = replace(forecaster, level=request.level)
    evaluation = evaluate(forecaster, inputs, calibration, shown)
    _print_notes(evaluation.forecaster.notes[len(inputs.notes) :])
    save(evaluation.forecaster, request.workdir)
    return evaluation


def _print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"note: {note}", flush=True)


def _finished(request: Request, inputs: FitInputs) -> Forecaster | None:
    """The forecaster of a run that has ended, or None."""
    if not (request.workdir / "sections.json").exists() or not (request.workdir / "results.jsonl").exists():
        return None
    try:
        forecaster = load(request.workdir)
    except InputError:
        return None
    return forecaster if forecaster.observed.digests == inputs.observed.digests else None


def _parse(arguments: Sequence[str], program: str) -> Request:
    summary, _, usage = (__doc__ or "").partition("\n")
    parser = CommandParser(
        prog=program,
        description=summary,
        epilog=usage.replace("phdme fit", program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    methods = ", ".join(offered_methods())
    parser.add_argument("--data", type=path, required=True, help="trajectories.npz: state, time, grid")
    parser.add_argument("--structure", required=True, help=f"physical structure: {', '.join(STRUCTURES)}")
    parser.add_argument("--workdir", type=run_folder, required=True, help="run folder, made if missing")
    parser.add_argument("--calibration", type=path, help="trajectories to calibrate on; they train nothing")
    parser.add_argument("--level", type=float, default=0.9, help="coverage asked of the band (%(default)s)")
    parser.add_argument("--size", default="laptop", help=f"{', '.join(SIZES)} (%(default)s)")
    parser.add_argument("--method", default="phdme", help=f"{methods} (%(default)s)")
    parser.add_argument("--seed", type=whole_number(0, LARGEST_SEED), default=0, help="seed of all draws (%(default)s)")
    options, rest = parser.parse_known_args(list(arguments))
    overrides = split_overrides(rest)
    known_structure(options.structure)
    if options.method not in offered_methods():
        raise InputError(f"unknown method {options.method!r}; fit has {methods}")
    check_level(options.level)
    config = make_options(options.size)
    apply_overrides(config, overrides, RANGES)
    return Request(**vars(options), options=config)


if __name__ == "__main__":
    raise SystemExit(main())
