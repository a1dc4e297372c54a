"""Trajectories of fields on a grid, all from a finer grid than any learner sees, and the bench made of them."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.study.study import Bench, Context, Split
from phdme_jax.calibration import minimum_calibration_size
from phdme_jax.files import RunFailed, kept_arrays, require_memory
from phdme_jax.methods.base import Examples, Method, Start, Task, Times, fit_normaliser, stage_key
from phdme_jax.methods.energy.initial_states import FrameMixture, draw_initial_states
from phdme_jax.methods.energy.options import read_options
from phdme_jax.numerics import solve_reference
from phdme_jax.numerics.batching import for_many, in_chunks, num_workers, thread_slice
from phdme_jax.numerics.parity import Parity
from phdme_jax.numerics.resampling import resample
from phdme_jax.systems import make_system
from phdme_jax.systems.energy.alternatives import with_opposite_sign, without_dissipation
from phdme_jax.systems.energy.base import Structure, System, parameter_values, vector_field

# numbers that keys of data and of samples are made from; 2 was the test before there was a validation split, and
# choices were made on it; 3 was the shifted set then, and is not used again
SPLITS = {"calibration": 1, "validation": 2, "test": 4, "shifted": 5}
# structures that are wrong, to learn with
ALTERNATIVES: dict[str, Callable[[Structure], Structure]] = {
    "undamped": without_dissipation,
    "opposite_sign": with_opposite_sign,
    "one_row_opposite": partial(with_opposite_sign, field=0),
}


class FieldData(NamedTuple):
    """Trajectories in physical units, (sample, time, *grid, field), float64, on the learner's grid.

    Attributes:
      observed: what a method may learn from, noise included.
      observed_clean: the same without noise; never used for learning.
      asked: by split: "calibration", for conformal calibration, and either "validation", for choices, or "test", for
        the numbers, and "shifted", of another family of initial states.
    """

    observed: np.ndarray
    observed_clean: np.ndarray
    asked: dict[str, np.ndarray]


def frame_times(data: Any) -> Times:
    """Times of the frames, as static floats."""
    return tuple(np.linspace(0.0, data.duration, data.num_frames).tolist())


def reference_trajectories(fine: System, family: str, times: Times, stride: int, keys: Any) -> np.ndarray:
    """Reference solutions from drawn initial states, every `stride`-th grid point along each axis kept.

    Solved by diffrax Dopri8 at relative and absolute tolerance 1e-8 / 1e-9 on the fine grid; on a CPU one after the
    other on every thread, as side by side each step of a batch would copy all that is saved of every member.

    Raises:
      RunFailed: a reference solution failed.
    """
    draw = fine.initial_state(family)
    kept = (slice(None), *(slice(None, None, stride) for _ in fine.structure.grid.points))

    def solve(key: Any) -> Any:
        values = parameter_values(fine, jnp.float64)
        field = partial(vector_field, fine.structure, fine.density)
        state = fine.structure.constrain(draw(key))
        trajectory, ok = solve_reference(field, state, jnp.asarray(times), values, rtol=1e-8, atol=1e-9)
        return trajectory[kept], ok

    trajectories, ok = in_chunks(for_many(solve), thread_slice(len(keys)), keys, workers=num_workers(), fixed=True)
    if not ok.all():
        raise RunFailed(f"{int((~ok).sum())} of {ok.size} reference solutions failed; try a looser tolerance")
    return trajectories


def fine_system(system: str, config: Any) -> System:
    """The true system on the grid of the truth, finer than any learner's and with another stencil."""
    num_points = (config.data.num_points - 1) * config.data.truth_refinement + 1
    return make_system(system, **config.system, num_points=num_points, order=6, closure="mirror")


def observe_anew(system: str, config: Any, key: Any) -> Examples:
    """Observed trajectories and noise of other draws than those of any seed."""
    data, times, fine = config.data, frame_times(config.data), fine_system(system, config)
    keys = jax.random.split(jax.random.fold_in(key, 0), data.num_observed)
    clean = reference_trajectories(fine, data.family, times, data.truth_refinement, keys)
    observed = measured(clean, fine.structure.parity, data, jax.random.fold_in(key, 1))
    return Examples(observed, starts_at(observed[:, 0], len(times)), times)


def load_or_make(system: str, config: Any, seed: int, workdir: Path, validates: bool = False) -> FieldData:
    """The study's trajectories; all but the observed ones are the same for every seed.

    Args:
      system: name of the system.
      config: the study's configuration.
      seed: draws the observed trajectories and their noise.
      workdir: folder where the trajectories are kept; shared by runs that differ in noise, sites or count.
      validates: whether to make the validation split in the place of the test sets.
    Returns:
      the data.
    """
    data = config.data
    times, stride, fine = frame_times(data), data.truth_refinement, fine_system(system, config)
    num_points, root = fine.structure.grid.points[0], jax.random.key(20260121)

    def cached(name: str, family: str, count: int, key: Any) -> np.ndarray:
        source = {"system": [system, config.system.to_dict(), num_points, stride], "times": times}
        source["draws"] = [family, count, jax.random.key_data(key).tolist()]

        def make() -> dict[str, np.ndarray]:
            return {"state": reference_trajectories(fine, family, times, stride, jax.random.split(key, count))}

        return kept_arrays(workdir / "data" / f"{name}.npz", source, make)["state"]

    counts = {"calibration": (data.family, data.num_calibration)}
    if validates:
        counts["validation"] = (data.family, data.num_test)
    else:
        counts |= {"test": (data.family, data.num_test), "shifted": (data.shifted_family, max(8, data.num_test // 4))}
    seed_key = jax.random.fold_in(root, 1000 + seed)
    clean = cached(f"observed_{seed}_{data.num_observed}", data.family, data.num_observed, seed_key)
    return FieldData(
        observed=measured(clean, fine.structure.parity, data, jax.random.fold_in(seed_key, 1)),
        observed_clean=clean,
        asked={
            split: cached(split, family, count, jax.random.fold_in(root, SPLITS[split]))
            for split, (family, count) in counts.items()
        },
    )


def measured(clean: np.ndarray, parity: Parity, data: Any, key: Any) -> np.ndarray:
    """What is observed of trajectories: white noise at the sites, which may be fewer than the learner's grid points.

    Values between sites are interpolated by sines and cosines.

    Args:
      clean: trajectories on the learner's grid, (sample, time, *grid, field).
      parity: of the fields.
      data: the group of the configuration: noise in units of each field's deviation, num_sites along each axis, 0 for
        every grid point.
      key: random key.
    Returns:
      observed trajectories on the learner's grid.
    """
    deviation = clean.std(axis=tuple(range(clean.ndim - 1)))
    grid = clean.shape[2]
    sites = data.num_sites or grid
    change = jax.jit(jax.vmap(jax.vmap(resample, (0, None, None)), (0, None, None)), static_argnums=(1, 2))
    at_sites = clean if sites == grid else np.asarray(change(jnp.asarray(clean), parity, sites))
    noise = np.asarray(jax.random.normal(key, at_sites.shape, at_sites.dtype))
    noisy = at_sites + data.noise * deviation * noise
    return noisy if sites == grid else np.asarray(change(jnp.asarray(noisy), parity, grid))


@dataclass(frozen=True, eq=False)
class FieldWorld:
    """The truth behind a bench of fields.

    Attributes:
      data: all trajectories.
      system: the true energy on the learner's grid with the learner's stencil.
      unseen: the same with a stencil that no method has seen.
      substeps: integration steps between frames.
      observe_anew: key -> examples of other draws than those of any seed.
    """

    data: FieldData
    system: System
    unseen: System
    substeps: int
    observe_anew: Callable[[Any], Examples]


def learner_system(config: ConfigDict, case: str, **changes: Any) -> System:
    """The true energy on the learner's grid, of which learners use the structure only."""
    options = {**config.system, "num_points": config.data.num_points, **config.structure, **changes}
    options.pop("alternative", None)
    return make_system(case, **options)


def _check_size(config: ConfigDict, cases: Iterable[str]) -> None:
    counts = config.data.num_observed, config.data.num_calibration, config.data.num_test, config.rollouts.count
    for case in cases:
        structure = learner_system(config, case).structure
        one = 8.0 * config.data.num_frames * math.prod(structure.grid.points) * len(structure.fields)
        require_memory(f"{sum(counts)} trajectories", one * sum(counts), "lower data.num_* or rollouts.count")


def check_fields(context: Context) -> None:
    """Refuses a configuration that cannot be built or calibrated.

    Raises:
      ValueError: what is wrong.
    """
    config = context.config
    read_options(config.to_dict())
    _check_size(config, context.systems)
    for case in context.systems:
        for changes in ({}, {"order": 4}):
            system = learner_system(config, case, **changes)
            state = jnp.zeros((*system.structure.grid.points, len(system.structure.fields)))
            jax.eval_shape(system.structure.flow, state, parameter_values(system, state.dtype))
        for family in (config.data.family, config.data.shifted_family):
            system.initial_state(family)
    sites, points = config.data.num_sites, config.data.num_points
    if sites and not 3 <= sites <= points:
        raise ValueError(f"expected data.num_sites from 3 to {points}, or 0 for every grid point, got {sites}")
    least, given = minimum_calibration_size(config.level), config.data.num_calibration
    if given < least:
        raise ValueError(
            f"expected at least {least} calibration trajectories for level {config.level}, got {given}; "
            f"raise --config.data.num_calibration or lower --config.level"
        )
    if config.rollouts.initial not in ("family", "observed"):
        raise ValueError(f"expected rollouts.initial family or observed, got {config.rollouts.initial!r}")


def starts_at(states: np.ndarray, num_frames: int) -> Start:
    """Conditions from initial states (n, *grid, field) of a system without ports."""
    return Start(np.asarray(states, np.float64), np.zeros((len(states), num_frames, 0)))


def field_bench(context: Context, config: ConfigDict, case: str, seed: int) -> Bench:
    """One seed of a study of fields; all sets but that of observed trajectories are the same for every seed."""
    times = frame_times(config.data)
    system = learner_system(config, case)
    world = FieldWorld(
        load_or_make(case, config, seed, context.workdir, context.validates),
        system,
        learner_system(config, case, order=4),
        config.prior.substeps,
        partial(observe_anew, case, config),
    )
    observed, frames = world.data.observed, len(times)
    alternative = config.structure.get("alternative")
    problem = replace(system, structure=ALTERNATIVES[alternative](system.structure)) if alternative else system
    key = jax.random.fold_in(jax.random.key(7), seed)

    def starts(key: Any, count: int) -> Start:
        if config.rollouts.initial == "observed":
            states = draw_initial_states(problem.structure, observed, count, FrameMixture(), key)
        else:
            states = jax.jit(jax.vmap(system.initial_state(config.data.family)))(jax.random.split(key, count))
        return starts_at(states, frames)

    def sample_key(split: str, method: Method) -> Any:
        # the splits share no draws, as exchangeable scores must not; methods share them
        del method
        return jax.random.fold_in(stage_key(key, "samples"), SPLITS[split])

    train = Examples(observed, starts_at(observed[:, 0], frames), times)
    return Bench(
        task=Task(problem, lambda: train, starts, key, times),
        options=config.to_dict(),
        splits={split: Split(truth, starts_at(truth[:, 0], frames)) for split, truth in world.data.asked.items()},
        key=key,
        sample_key=sample_key,
        num_samples=config.sampling.num_samples,
        scale=np.asarray(fit_normaliser(jnp.asarray(observed, jnp.float32), system.structure).scale),
        level=config.level,
        world=world,
    )
