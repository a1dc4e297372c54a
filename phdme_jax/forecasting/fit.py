"""Your own measurements in; a learned energy, a calibrated forecaster and a report out.

    python -m experiments.fit --data trajectories.npz --structure vibrating_string --workdir DIR
        [--calibration other.npz] [--level 0.9] [--size smoke|laptop|accelerator] [--method phdme|phdme_rollout]
        [--seed 0] [--config.group.key=value]

Then `python -m experiments.forecast --run DIR ...` forecasts from new initial states. A fit that was killed goes on
with the same command; another configuration or another file in the same folder is refused.
"""

import argparse
import dataclasses
import math
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.configs.fit import SIZES, get_config
from experiments.evaluation import forecasts as evaluation
from phdme_jax.app.command import CommandParser, run_main, split_overrides, user_input
from phdme_jax.app.fit_page import Fitted, record_rows, report_sections
from phdme_jax.app.folder import command_line, prepare_run_folder
from phdme_jax.app.overrides import apply_overrides
from phdme_jax.app.page import build_report
from phdme_jax.app.process import prepare_process
from phdme_jax.app.rows import ResultsWriter
from phdme_jax.app.tables import print_table
from phdme_jax.calibration import minimum_calibration_size
from phdme_jax.files import InputError, RunFailed, config_digest, file_digest
from phdme_jax.forecasting.bands import Forecasts
from phdme_jax.forecasting.forecast import as_forecasts, centre, draw, whole_number
from phdme_jax.forecasting.inputs import FitInputs, draw_initial_states, known_structure, read_inputs
from phdme_jax.forecasting.saved import (
    Forecaster,
    flatten,
    is_calibrated,
    load_forecaster,
    posterior_arrays,
    posterior_from,
    save_forecaster,
    unflatten,
)
from phdme_jax.forecasting.structure_check import check_structure
from phdme_jax.gp.basis import Basis
from phdme_jax.methods.base import fit_normaliser
from phdme_jax.methods.energy import generator as generators
from phdme_jax.methods.energy import prior as priors
from phdme_jax.methods.energy.losses import Example
from phdme_jax.methods.energy.physics import learned_rate
from phdme_jax.methods.legacy import make_method
from phdme_jax.systems.energy.base import Structure

METHODS = ("phdme", "phdme_rollout")
LARGEST_STAGE = 8e9
# a Runge-Kutta step of one over the fastest rate is far inside its stability region and accurate to some 1e-3 there
STEP = 1.0
MUCH_WORSE = 10.0


@dataclasses.dataclass(frozen=True)
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
    config: Any

    def record(self) -> dict[str, Any]:
        """Everything the numbers depend on; the files by their content, so that another file is another run."""
        files = {"data": file_digest(self.data), "calibration": None}
        if self.calibration is not None:
            files["calibration"] = file_digest(self.calibration)
        names = {name: getattr(self, name) for name in ("structure", "size", "method", "seed", "level")}
        return {"experiment": "fit", **names, "files": files, "config": self.config.to_dict()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = command_line() if arguments is None else shlex.join(["python", "-m", "experiments.fit", *given])
    return run_main(lambda: _fit(given, command), command)


def _fit(arguments: Sequence[str], command: str) -> None:
    request = _parse(arguments)
    prepare_process()
    with user_input():
        structure = request.config.structure.to_dict()
        inputs = read_inputs(request.structure, request.data, request.calibration, request.method, structure)
        _check_sizes(request, inputs)
    record = request.record()
    digest, results = config_digest(record), ResultsWriter(request.workdir / "results.jsonl", "fit")
    prepare_run_folder(request.workdir, record, command)
    for note in inputs.notes:
        print(f"note: {note}", flush=True)
    if _is_finished(request.workdir, digest):
        path = build_report(request.workdir)
    else:
        fitted = run_fit(request, inputs, digest)
        record_rows(results, fitted, request.seed)
        sections = report_sections(request.workdir, fitted)
        path = build_report(request.workdir, f"Fit of {request.data.name} as {request.structure}", sections)
    print_table(results.rows())
    print(calibration_sentence(load_forecaster(request.workdir), inputs))
    print(f"report: {path}")


def run_fit(request: Request, inputs: FitInputs, digest: str) -> Fitted:
    """Fit, train, calibrate and save; what takes long is kept in the run folder.

    Args:
      request: what the user asked for.
      inputs: the checked files.
      digest: of the run's record.
    Returns:
      what the report needs.
    """
    config, units, workdir = request.config, inputs.units, request.workdir
    key = jax.random.fold_in(jax.random.key(11), request.seed)
    scale = np.asarray(units.fields)
    states, times = inputs.observed.state / scale, units.frames(inputs.observed.time)
    prior, reach, warnings = fitted_prior(request, inputs, states, times)
    inputs = dataclasses.replace(inputs, notes=(*inputs.notes, *warnings))
    rolled = _rollouts(request, prior, states, times, key)
    print(f"prior fitted; {100 * rolled.rejected:.3g} % of the rollouts of its energies were rejected", flush=True)
    network = config.network.to_dict()
    network["propagator"]["radius"] = _radius(network["propagator"]["radius"], reach, states.shape[2])
    generator = _train(request, inputs, prior, rolled, network, key, digest)
    forecaster = Forecaster(
        name=inputs.name,
        options=inputs.options,
        units=units,
        time=inputs.observed.time,
        grid=inputs.observed.grid[0],
        generator=generator,
        network=network,
        num_samples=config.sampling.num_samples,
        modes=config.initial.modes,
        scale=np.sqrt(np.mean(inputs.observed.state**2, axis=(0, 1, 2))),
        excursion=np.abs(inputs.observed.state).max(axis=(0, 1, 2)),
        level=request.level,
        calibration=None,
        digest=digest,
    )
    seen = _timed_forecasts(forecaster, inputs.observed.state[:8, 0], jax.random.fold_in(key, 4))
    unseen, scores = None, None
    if inputs.calibration is not None:
        truth = inputs.calibration.state
        unseen = _timed_forecasts(forecaster, truth[:, 0], jax.random.fold_in(key, 5))
        residual = np.sqrt(np.mean(np.asarray(generator.arrays["scale"]) ** 2))
        floor = residual * np.asarray(generator.arrays["normaliser"].scale, np.float64) * scale
        scores = evaluation.band_scores(truth, unseen, floor)
        if evaluation.supported(len(truth), request.level):
            calibration = evaluation.calibrate(truth, unseen, floor, request.level)
            forecaster = dataclasses.replace(forecaster, calibration=calibration)
        _compare_with_rollouts(prior, truth / scale, unseen.mean / scale, times)
    save_forecaster(workdir, forecaster)
    return Fitted(inputs, forecaster, rolled.rejected, seen, unseen, scores)


def _compare_with_rollouts(prior: priors.Prior, truth: np.ndarray, mean: np.ndarray, times: priors.Times) -> None:
    """Say so where integrating the learned energy forecasts the calibration trajectories far better."""
    rolled = np.nan_to_num(priors.mean_rollouts(prior, truth[:, 0], times).trajectory, nan=np.inf)
    errors = [float(np.mean((forecast - truth) ** 2)) for forecast in (mean, rolled)]
    if errors[0] > MUCH_WORSE * errors[1]:
        print(
            f"note: on the calibration trajectories the generator's mean squared error is {errors[0] / errors[1]:.2g} "
            "times that of the learned energy integrated in time; try --method phdme_rollout, which starts from the "
            "latter",
            flush=True,
        )


def fitted_prior(
    request: Request, inputs: FitInputs, states: np.ndarray, times: priors.Times
) -> tuple[priors.Prior, float, tuple[str, ...]]:
    """The energy, kept in the run folder, with as many integration steps between frames as its fastest wave needs.

    Args:
      request: what the user asked for.
      inputs: the checked files.
      states: observed trajectories, internal units.
      times: their times, internal units.
    Returns:
      the prior, how far its waves travel between frames in grid points, and what the data say against the structure.
    Raises:
      RunFailed: the posterior is not finite.
    """
    options, path = request.config.prior.to_dict(), request.workdir / "data" / "prior.npz"
    arrays = priors.load_arrays(path)
    if arrays is not None:
        kept = unflatten(arrays)
        basis = Basis(len(inputs.structure.fields), options["main"], options["pair"])
        posterior = posterior_from(kept["posterior"])
        prior = priors.Prior(inputs.structure, basis, posterior, options["substeps"], float(kept["seconds"]))
    else:
        few = min(len(states), request.config.prior_trajectories)
        chosen = np.unique(np.linspace(0, len(states) - 1, few).astype(int))
        if few < len(states):
            print(f"note: the energy is learned from {few} of the {len(states)} trajectories", flush=True)

        def learn(structure: Structure) -> priors.Prior:
            return priors.fit_prior(structure, states[chosen], times, **options)

        prior = learn(inputs.structure)
        kept = {"posterior": posterior_arrays(prior.posterior), "seconds": prior.seconds}
        if request.config.check_structure and bool(prior.posterior.ok):
            kept["warnings"] = np.array(check_structure(prior, learn).warnings, dtype=str)
        priors.save_arrays(path, flatten(kept))
    warnings = tuple(str(warning) for warning in kept.get("warnings", ()))
    for warning in warnings:
        print(f"warning: {warning}", flush=True)
    if not bool(prior.posterior.ok):
        raise RunFailed("the fitted energy is not finite; give more trajectories or more frames")
    step = float(np.max(np.diff(times)))
    fastest, wave = fastest_rates(prior, states)
    substeps = max(prior.substeps, math.ceil(fastest * step / STEP))
    if substeps > prior.substeps:
        print(f"note: {substeps} integration steps between frames, as the fastest waves need", flush=True)
    return dataclasses.replace(prior, substeps=substeps), wave * step, warnings


def fastest_rates(prior: priors.Prior, states: np.ndarray, count: int = 3) -> tuple[float, float]:
    """Largest modulus and largest imaginary part of the rates of the learned dynamics, linearised.

    Args:
      prior: the fitted energy.
      states: observed states; linearised at rest and at the `count` largest of them.
      count: how many.
    Returns:
      both, per internal unit of time; for waves on a grid the second is at least the wave speed over the spacing.
    """
    frames = states.reshape(-1, *states.shape[-2:])
    largest = np.argsort(np.abs(frames).max(axis=(1, 2)))[-count:]
    points = [np.zeros_like(frames[0]), *frames[largest]]
    mean, parameters = prior.posterior.mean, prior.posterior.parameters
    jacobian = jax.jit(jax.jacfwd(learned_rate(prior.basis, prior.structure.flow, mean, parameters)))
    size = frames[0].size
    matrices = [np.asarray(jacobian(jnp.asarray(point))).reshape(size, size) for point in points]
    rates = np.concatenate([np.linalg.eigvals(matrix) for matrix in matrices])
    return float(np.abs(rates).max()), float(np.abs(rates.imag).max())


def _radius(asked: int, reach: float, num_points: int) -> int:
    """Reach of the propagator's step: what was asked for or what waves need, but no more than the grid mirrors."""
    radius = min(max(asked, math.ceil(reach) + 2), num_points - 1)
    if radius < math.ceil(reach):
        print(
            "note: waves cross the whole grid between frames; the learned time step may not follow them, try --method "
            "phdme_rollout or closer frames",
            flush=True,
        )
    return radius


def _rollouts(
    request: Request, prior: priors.Prior, states: np.ndarray, times: priors.Times, key: Any
) -> priors.Rollouts:
    path = request.workdir / "data" / "rollouts.npz"
    kept = priors.load_rollouts(path)
    if kept is not None:
        return kept
    initial = draw_initial_states(
        prior.structure, states, request.config.rollouts.count, jax.random.fold_in(key, 1),
        **request.config.initial.to_dict(),
    )  # fmt: skip
    rolled = priors.make_rollouts(prior, initial, times, jax.random.fold_in(key, 2))
    priors.save_arrays(path, rolled._asdict())
    return rolled


def _train(
    request: Request, inputs: FitInputs, prior: priors.Prior, rolled: priors.Rollouts, network: dict[str, Any],
    key: Any, digest: str,
) -> generators.Generator:  # fmt: skip
    config, method = request.config, make_method(request.method)
    scale, times = np.asarray(inputs.units.fields), inputs.units.frames(inputs.observed.time)
    generator = generators.make_generator(method, prior, prior.structure, times, network, config.sampling.to_dict())
    normaliser = fit_normaliser(jnp.asarray(inputs.observed.state / scale, jnp.float32))
    unit = np.asarray(normaliser.scale)
    synthetic = jax.tree.map(jnp.asarray, Example(rolled.states / unit, rolled.weights, rolled.means / unit))  # type: ignore[arg-type]
    training = config.training.to_dict()
    # the same window twice would be the same training folder twice
    windows: dict[int, tuple] = {}
    for window, *rest in training["propagator_stages"]:
        windows.setdefault(min(window, len(times) - 1), tuple(rest))
    training["propagator_stages"] = tuple((window, *rest) for window, rest in windows.items())
    training["real_fraction"] = 0.0
    return generators.train_generator(
        generator, prior.structure, synthetic, None, normaliser, training=training, physics=config.physics.to_dict(),
        key=jax.random.fold_in(key, 3), digest=digest, workdir=request.workdir / "training",
    )  # fmt: skip


def _timed_forecasts(forecaster: Forecaster, initial: np.ndarray, key: Any) -> Forecasts:
    began = time.perf_counter()
    samples = draw(forecaster, initial, forecaster.num_samples, key, show=len(initial) > 8)
    mean = centre(forecaster, initial)
    return as_forecasts(mean, samples, (time.perf_counter() - began) / (len(initial) * forecaster.num_samples))


def calibration_sentence(forecaster: Forecaster, inputs: FitInputs) -> str:
    """What was calibrated and how well, in one sentence."""
    share = f"{100 * forecaster.level:g} %"
    if inputs.calibration is None:
        return f"not calibrated: no --calibration file was given, so bands of {share} promise no coverage"
    given, least = len(inputs.calibration.state), minimum_calibration_size(forecaster.level)
    if forecaster.calibration is None:
        return f"not calibrated: {given} calibration trajectories are too few for {share}, which takes at least {least}"
    if not is_calibrated(forecaster.calibration):
        return f"not calibrated: too many forecasts of the {given} calibration trajectories diverged for a {share} band"
    return f"calibrated: bands of {share} on {given} trajectories, whole trajectories at a time"


def _is_finished(workdir: Path, digest: str) -> bool:
    if not (workdir / "sections.json").exists() or not (workdir / "results.jsonl").exists():
        return False
    try:
        return load_forecaster(workdir).digest == digest
    except InputError:
        return False


def _check_sizes(request: Request, inputs: FitInputs) -> None:
    """Refuses what would not fit into memory."""
    _, frames, points, fields = inputs.observed.state.shape
    calibration = 0 if inputs.calibration is None else len(inputs.calibration.state)
    sizes = {
        "rollouts.count": 28.0 * request.config.rollouts.count * frames * points * fields,
        "sampling.num_samples": 16.0 * calibration * request.config.sampling.num_samples * frames * points * fields,
    }
    for name, size in sizes.items():
        if size > LARGEST_STAGE:
            raise InputError(
                f"{frames} frames of {points} points take {size * 1e-9:.0f} GB with --config.{name}="
                f"{request.config[name.split('.')[0]][name.split('.')[1]]}, expected at most {LARGEST_STAGE * 1e-9:g} "
                "GB; cut the trajectories, keep every other frame, or lower that number"
            )


def _parse(arguments: Sequence[str]) -> Request:
    summary, _, usage = (__doc__ or "").partition("\n")
    parser = CommandParser(
        prog="python -m experiments.fit", description=summary, epilog=usage,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--data", type=Path, required=True, help="trajectories.npz: state, time, grid")
    parser.add_argument("--structure", required=True, help="physical structure, such as vibrating_string")
    parser.add_argument("--workdir", type=Path, required=True, help="run folder, made if missing")
    parser.add_argument("--calibration", type=Path, help="trajectories to calibrate on; they train nothing")
    parser.add_argument("--level", type=float, default=0.9, help="coverage asked of the band (%(default)s)")
    parser.add_argument("--size", default="laptop", help=f"{', '.join(SIZES)} (%(default)s)")
    parser.add_argument("--method", default="phdme", help=f"{', '.join(METHODS)} (%(default)s)")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="seed of all draws (%(default)s)")
    options, rest = parser.parse_known_args(list(arguments))
    overrides = split_overrides(rest)
    known_structure(options.structure)
    if options.method not in METHODS:
        raise InputError(f"unknown method {options.method!r}; fit has {', '.join(METHODS)}")
    with user_input():
        minimum_calibration_size(options.level)
        config = get_config(options.size)
    config.lock()
    apply_overrides(config, overrides)
    with user_input():
        generators.check_options(config.network.to_dict(), config.training.to_dict(), config.physics.to_dict())
    if options.workdir.exists() and not options.workdir.is_dir():
        raise InputError(f"{options.workdir}: is a file; expected a folder, choose another --workdir")
    return Request(**vars(options), config=config)


if __name__ == "__main__":
    raise SystemExit(main())
