"""Measurements in, a forecaster out: the energy is learned first, then the method that learns from it."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from phdme_jax.files import InputError, RunFailed, claimed_folder, config_digest, flatten, unflatten
from phdme_jax.forecasting.files import TrajectorySource
from phdme_jax.forecasting.forecaster import Forecaster, Setup, starts_from
from phdme_jax.forecasting.inputs import FitInputs, check_memory, read_inputs
from phdme_jax.forecasting.offers import TEACHER, chosen_method, learns_step, measured_system, offered_methods
from phdme_jax.forecasting.options import check_seed, make_options
from phdme_jax.forecasting.precision import in_double_precision
from phdme_jax.forecasting.saved import nested, posterior_from
from phdme_jax.forecasting.sensed import task_background
from phdme_jax.forecasting.structure_check import check_structure
from phdme_jax.gp.sampling import num_steps
from phdme_jax.methods.base import Dynamics, Examples, Fitted, Host, Options, Task, unusual_draws
from phdme_jax.methods.energy.gp_rollout import fitted_rollout
from phdme_jax.methods.energy.initial_states import FrameMixture, draw_initial_states
from phdme_jax.methods.energy.options import read_options
from phdme_jax.methods.energy.posterior import PriorOptions, make_basis, state_at_rest
from phdme_jax.methods.table import METHODS
from phdme_jax.systems.energy.base import Structure, System
from phdme_jax.training.loop import Watch, unwatched
from phdme_jax.training.stages import Trainer

# two of these over the fastest rate are a step inside the stability region, accurate to some 1e-3 there
STEP = 0.8


@in_double_precision
def fit(
    trajectories: TrajectorySource,
    structure: str,
    *,
    method: str = "phdme",
    options: str | Options = "laptop",
    seed: int = 0,
    folder: Path | str | None = None,
    watch: Watch = unwatched,
) -> Forecaster:
    """Learn the energy of a structure from trajectories, and from that a generator of their futures.

    Args:
      trajectories: path of an `.npz`, mapping of arrays or `Trajectories`: `state` (sample, time, grid, field), `time`
        (time,), `grid` (grid,), in units of one's own.
      structure: name, such as "vibrating_string".
      method: name, such as "phdme" or "phdme_rollout".
      options: a size, "smoke", "laptop" or "accelerator", or nested options, see `make_options`.
      seed: of all random draws.
      folder: where what takes long is kept, so that the same call goes on where it was killed; None keeps nothing.
      watch: shows the progress, see `phdme_jax.training.loop` and `phdme_jax.app.progress`.
    Returns:
      a forecaster that is not calibrated yet; its `notes` are worth reading.
    Raises:
      InputError: any defect of what was given, in one sentence.
      RunFailed: nothing could be learned from the data.
    """
    seed = check_seed(seed)
    inputs = read_inputs(trajectories, structure, make_options(options) if isinstance(options, str) else options)
    return fit_inputs(inputs, method, seed, folder, watch)


def fit_inputs(
    inputs: FitInputs, method_name: str, seed: int, folder: Path | str | None = None, watch: Watch = unwatched
) -> Forecaster:
    """`fit` to inputs that were checked before."""
    check_fit(inputs, method_name)
    record = {
        "structure": inputs.name,
        "method": method_name,
        "seed": seed,
        "options": inputs.options,
        "trajectories": list(inputs.observed.digests),
        **unusual_draws(),
    }
    digest = config_digest(record)
    if folder is None:
        return _fit(inputs, method_name, seed, Trainer(None, digest, watch, method_name))
    folder = Path(folder)
    with claimed_folder(folder, record, "fit.json"):
        return _fit(inputs, method_name, seed, Trainer(folder / "training", digest, watch, method_name, folder))


def _fit(inputs: FitInputs, method_name: str, seed: int, host: Host) -> Forecaster:
    setup = Setup(inputs.name, method_name, seed, inputs.options, inputs.units)
    task = make_task(inputs, setup)
    energy, options, notes = fit_energy(inputs, task, host)
    fitted = METHODS[method_name].fit(task, options, host, energy, setup.key("training"))
    return Forecaster(
        setup=replace(setup, options=options),
        structure=inputs.structure,
        observed=inputs.observed,
        energy=energy,
        fitted=fitted,
        background=task_background(task),
        notes=(*inputs.notes, *notes, *fitted.notes),
    )


def check_fit(inputs: FitInputs, method_name: str) -> None:
    """Refuses, before anything is written, a method that does not fit, sizes that cannot be, and too large ones.

    Raises:
      InputError: the first defect.
    """
    chosen_method(method_name, inputs)
    check_memory(inputs.trajectories.state.shape, inputs.options, 0)
    try:
        read_options(as_method_reads(inputs.options, 1, 1))
    except ValueError as error:
        raise InputError(str(error)) from error


def as_method_reads(options: Options, substeps: int, radius: int) -> dict[str, Any]:
    """The options with what the learned energy decides: integration steps between frames, reach of a learned step."""
    prior, network = dict(options["prior"]), dict(options["network"])
    prior["substeps"] = max(prior.pop("least_substeps"), substeps)
    propagator = dict(network["propagator"])
    propagator["radius"] = max(propagator.pop("least_radius"), radius)
    return {**options, "prior": prior, "network": {**network, "propagator": propagator}}


def make_task(inputs: FitInputs, setup: Setup) -> Task:
    """All that methods may learn from, internal units; rollouts start in states made of the observed frames."""
    scale, times = inputs.units.scale, inputs.units.frames(inputs.observed.time)
    states = inputs.trajectories.state / scale
    mixture = FrameMixture(**inputs.options["initial"])

    def starts(key: jax.Array, count: int) -> PyTree:
        return starts_from(draw_initial_states(inputs.structure, states, count, mixture, key), times)

    examples = Examples(jnp.asarray(states), starts_from(states[:, 0], times), times)
    return Task(measured_system(inputs), lambda: examples, starts, setup.key(""), times)


def fit_energy(inputs: FitInputs, task: Task, host: Host) -> tuple[Fitted, Options, tuple[str, ...]]:
    """The energy, kept by the host; the options with what it decides; and what the user should read.

    Raises:
      RunFailed: the posterior is not finite.
    """
    options: Options = as_method_reads(inputs.options, 1, 1)
    few, notes = _few(task, options["prior_trajectories"])
    kept = unflatten(host.keep("energy", lambda: flatten(_learn_energy(few, options, host), "/")), "/")
    notes += [str(warning) for warning in kept.get("warnings", ())]
    posterior = posterior_from(kept["posterior"])
    if not bool(posterior.ok):
        raise RunFailed("the fitted energy is not finite; give more trajectories or more frames")
    basis = make_basis(inputs.structure, PriorOptions(**options["prior"]))

    def with_substeps(substeps: int) -> Fitted:
        return fitted_rollout(inputs.structure, basis, posterior, task.times, substeps, float(kept["seconds"]))

    options, found = _as_waves_need(inputs, task, with_substeps(options["prior"]["substeps"]))
    return with_substeps(options["prior"]["substeps"]), options, (*notes, *found)


def _as_waves_need(inputs: FitInputs, task: Task, energy: Fitted) -> tuple[Options, list[str]]:
    """The options with integration steps and a reach that the fastest learned waves need, and what to read of that."""
    fastest, wave = fastest_rates(energy, np.asarray(task.train().fields))
    step, num_points, notes = float(np.max(np.diff(task.times))), inputs.structure.grid.points[0], []
    substeps, reach = math.ceil(fastest * step / STEP), math.ceil(wave * step)
    options = as_method_reads(inputs.options, substeps, reach + 2)
    if substeps > inputs.options["prior"]["least_substeps"]:
        notes.append(f"{num_steps(substeps)} integration steps between frames, as the fastest waves need")
    propagator = options["network"]["propagator"]
    propagator["radius"] = min(propagator["radius"], num_points - 1)  # no more than the grid mirrors
    if propagator["radius"] < reach:
        others = " or ".join(name for name in offered_methods() if not learns_step(METHODS[name]))
        notes.append(
            "waves cross the whole grid between frames, and a learned time step may not follow them; try the method "
            f"{others}, or closer frames"
        )
    return options, notes


def _few(task: Task, most: int) -> tuple[Task, list[str]]:
    """The task with at most so many trajectories, spread over all of them."""
    examples = task.train()
    count = len(examples.fields)
    if count <= most:
        return task, []
    chosen = np.unique(np.linspace(0, count - 1, most).astype(int))
    few = jax.tree.map(lambda leaf: leaf[chosen], examples._replace(times=()))._replace(times=examples.times)
    return replace(task, train=lambda: few), [f"the energy is learned from {most} of the {count} trajectories"]


def _learn_energy(task: Task, options: Options, host: Host) -> Mapping[str, Any]:
    """The posterior, its seconds, and what the data say against the structure, as arrays; one rest for all of them."""
    rest = state_at_rest(task.problem.structure, task.train().fields, PriorOptions(**options["prior"]))
    options = {**options, "prior": {**options["prior"], "centre": tuple(rest.tolist())}}

    def learn(structure: Structure) -> Fitted:
        problem = System(structure, even_times=task.problem.even_times)
        return METHODS[TEACHER].fit(replace(task, problem=problem), options, host, None, task.key)

    fitted = learn(task.problem.structure)
    arrays = {"posterior": nested(fitted.params), "seconds": fitted.seconds["fit"]}
    if options["check_structure"] and bool(fitted.params.ok):
        checked = check_structure(task.problem.structure, fitted, learn)
        arrays["warnings"] = np.array(checked.warnings, dtype=str)
    return arrays


def fastest_rates(energy: Fitted, states: np.ndarray, count: int = 3) -> tuple[float, float]:
    """Largest modulus and largest imaginary part of the rates of the learned dynamics, linearised.

    Args:
      energy: the fitted energy.
      states: observed states; linearised at rest and at the `count` of them that are farthest from it.
      count: how many.
    Returns:
      both, per internal unit of time; for waves on a grid the second is at least the wave speed over the spacing.
    """
    dynamics: Dynamics | None = energy.model.dynamics
    assert dynamics is not None
    frames, rest = states.reshape(-1, *states.shape[-2:]), np.asarray(energy.params.mean.box.centre)
    largest = np.argsort(np.abs(frames - rest).max(axis=(1, 2)))[-count:]
    points = [np.broadcast_to(rest, frames[0].shape), *frames[largest]]
    jacobian = jax.jit(jax.jacfwd(dynamics.rate, argnums=1))
    size = frames[0].size
    matrices = [np.asarray(jacobian(energy.params, jnp.asarray(point))).reshape(size, size) for point in points]
    rates = np.concatenate([np.linalg.eigvals(matrix) for matrix in matrices])
    return float(np.abs(rates).max()), float(np.abs(rates.imag).max())
