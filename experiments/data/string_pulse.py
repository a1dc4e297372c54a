"""The string of the published study of GP-dPHS: one pulse is observed, unseen motions are asked for.

The published question, a sine, is the validation split: choices were made on it. The test asks for drawn smooth states.

Source: Tan et al. (2024), arXiv 2406.11809, and the code published with it.
"""

from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from experiments.data.fields import frame_times, starts_at
from experiments.study.study import Bench, Context, Split
from phdme_jax.files import RunFailed
from phdme_jax.gp import fit as gp_fit
from phdme_jax.gp import independent
from phdme_jax.gp.basis import Basis, Box, make_box, prior_deviations
from phdme_jax.gp.observations import Observations, anchor_rows, concatenate, derivative_rows
from phdme_jax.gp.sites import select_sites
from phdme_jax.methods.base import Examples, Fitted, Options, Start, Task, Times, stage_key
from phdme_jax.methods.energy.gp_rollout import fitted_rollout
from phdme_jax.methods.energy.posterior import PriorOptions, fit_rows, make_basis
from phdme_jax.numerics import solve_reference
from phdme_jax.systems import make_system
from phdme_jax.systems.energy.base import Structure, System, parameter_values, vector_field, zero_parameters
from phdme_jax.systems.energy.vibrating_string import deflection, modes_state, pulse_state


class PulseWorld(NamedTuple):
    """What one seed observes, and the truth.

    Attributes:
      system: structure and true energy on the learner's grid.
      pulse: observed trajectory, (time, grid, field).
      asked: true trajectories that are asked for, (sample, time, grid, field).
      heights: their deflections, (sample, time, grid).
      exact: rates of the pulse by the truth's own operator; None where states alone are observed.
      noisy: rates with white noise in units of each field's deviation.
      drawn: number of sites -> (frame, grid) indices of sites drawn at random, interior points.
    """

    system: System
    pulse: np.ndarray
    asked: np.ndarray
    heights: np.ndarray
    exact: np.ndarray | None = None
    noisy: np.ndarray | None = None
    drawn: dict[int, np.ndarray] | None = None


def published_system(config: ConfigDict, case: str) -> System:
    """The semi-discretisation that truth and learner share in the published study."""
    return make_system(case, damping=config.damping, num_points=config.published.num_points, order=2)


def check_pulse(context: Context) -> None:
    """Refuses more sites than there are to choose from, and orders of stencils that are not there.

    Raises:
      ValueError: what is wrong.
    """
    config = context.config
    most = len(range(0, config.num_frames, 4)) * (config.published.num_points - 2)
    if max(config.published.num_sites) > most:
        raise ValueError(f"expected published.num_sites of at most {most}, got {max(config.published.num_sites)}")
    for case in context.systems:
        for order in config.independent.orders:
            system = make_system(case, num_points=config.independent.num_points, order=order)
            state = jnp.zeros((*system.structure.grid.points, len(system.structure.fields)))
            jax.eval_shape(system.structure.flow, state, parameter_values(system, state.dtype))


def published_states(system: System) -> tuple[Float[Array, "grid field"], Float[Array, "grid field"]]:
    """Training and test initial state of the published study: a pulse, and the first sine mode with amplitude 4."""
    points = jnp.asarray(system.structure.grid.coordinates())
    sine = modes_state(points, jnp.array([4.0]), jnp.array([0.0]))
    return system.structure.constrain(pulse_state(points)), sine


def drawn_states(system: System, count: int) -> Float[Array, "sample grid field"]:
    """Smooth states of the test, the same motions on every grid."""
    keys = jax.random.split(jax.random.key(20261128), count)
    return jax.vmap(lambda key: system.structure.constrain(system.initial_state("random_smooth")(key)))(keys)


@lru_cache
def reference_motions(system: System, times: Times, num_test: int) -> tuple[np.ndarray, np.ndarray]:
    """Reference trajectories of the pulse and of the motions that are asked for, by diffrax at 1e-9 / 1e-10.

    Args:
      system: on the grid of the truth.
      times: of the frames.
      num_test: how many drawn states are asked for; 0 for the published sine.
    Returns:
      the pulse, (time, grid, field), and what is asked for, (sample, time, grid, field).

    Raises:
      RunFailed: a reference solution failed.
    """
    values = parameter_values(system, jnp.float64)
    field = partial(vector_field, system.structure, system.density)
    solve = jax.jit(lambda state: solve_reference(field, state, jnp.asarray(times), values))
    pulse, sine = published_states(system)
    found = [solve(state) for state in (pulse, *(drawn_states(system, num_test) if num_test else [sine]))]
    if not all(bool(ok) for _, ok in found):
        raise RunFailed("the reference solution of the string failed; try a smaller grid")
    first, *others = (np.asarray(trajectory) for trajectory, _ in found)
    return first, np.stack(others)


def deflections(states: np.ndarray) -> np.ndarray:
    """Deflections (..., grid) of states (..., grid, field)."""
    strain = jnp.reshape(jnp.asarray(states[..., 1]), (-1, states.shape[-2]))
    return np.asarray(_deflections(strain)).reshape(states.shape[:-1])


_deflections = jax.jit(jax.vmap(deflection))


def world_of_rates(config: ConfigDict, case: str, seed: int, num_test: int) -> PulseWorld:
    """Truth and learner share a grid and a stencil, and rates are observed."""
    system, published = published_system(config, case), config.published
    pulse, asked = reference_motions(system, frame_times(config), num_test)
    rate = partial(vector_field, system.structure, system.density, parameters=parameter_values(system, jnp.float64))
    exact = np.asarray(jax.vmap(rate)(jnp.asarray(pulse)))
    random, (frames, points) = np.random.default_rng(seed), pulse.shape[:2]
    noisy = exact + published.derivative_noise * exact.std(axis=(0, 1)) * random.normal(size=exact.shape)
    drawn = {
        count: np.stack([random.integers(0, frames, count), random.integers(1, points - 1, count)], axis=1)
        for count in published.num_sites
    }
    return PulseWorld(system, pulse, asked, deflections(asked), exact, noisy, drawn)


def world_of_states(config: ConfigDict, case: str, seed: int, num_test: int) -> PulseWorld:
    """The truth lives on a finer grid with another stencil, and noisy states are observed."""
    points, stride = config.independent.num_points, config.independent.truth_refinement
    fine = make_system(case, damping=config.damping, num_points=(points - 1) * stride + 1, order=6)
    pulse, asked = reference_motions(fine, frame_times(config), num_test)
    heights, pulse, asked = deflections(asked)[..., ::stride], pulse[:, ::stride], asked[:, :, ::stride]
    noise = np.random.default_rng(1000 + seed).normal(size=pulse.shape)
    observed = pulse + config.independent.noise * pulse.std(axis=(0, 1)) * noise
    system = make_system(case, damping=config.damping, num_points=points, order=config.order)
    return PulseWorld(system, observed, asked, heights)


def pulse_bench(context: Context, config: ConfigDict, case: str, seed: int) -> Bench:
    """One seed: noisy states where the configuration has an `order`, else rates at `sites`, by `choice`."""
    of_states, num_test = "order" in config, 0 if context.validates else config.num_test
    world = (world_of_states if of_states else world_of_rates)(config, case, seed, num_test)
    times, key = frame_times(config), jax.random.fold_in(jax.random.key(7), seed)
    prior = {**config.prior, **config.tests, "substeps": config.substeps}

    def starts(key: Any, count: int) -> Start:
        states = jax.vmap(world.system.initial_state("random_smooth"))(jax.random.split(key, count))
        return starts_at(np.asarray(states), len(times))

    def energy(options: Options, key: Array, quadratic: bool) -> Fitted:
        del key, quadratic
        return fit_to_rates(config, world, task, PriorOptions(**options["prior"]))

    train = Examples(jnp.asarray(world.pulse)[None], starts_at(world.pulse[None, 0], len(times)), times)
    task = Task(world.system, lambda: train, starts, key, times, energy=None if of_states else energy)
    asked = starts_at(world.asked[:, 0], len(times))
    return Bench(
        task=task,
        options={"prior": prior},
        splits={context.asked: Split(world.heights, asked, lambda states, times: deflections(states))},
        key=key,
        sample_key=lambda split, method: stage_key(key, "samples"),
        world=world,
    )


def fit_to_rates(config: ConfigDict, world: PulseWorld, task: Task, options: PriorOptions) -> Fitted:
    """The energy learned from rates at sites, exact or with `rate_noise`."""
    assert world.drawn is not None
    structure, states = world.system.structure, jnp.asarray(world.pulse)
    basis = make_basis(structure, options)
    box = make_box(states, jnp.zeros(basis.num_fields), options.margin)
    rates = world.noisy if "rate_noise" in config else world.exact
    chosen = config.choice == "chosen"
    sites = chosen_sites(structure, basis, box, states, config.sites) if chosen else world.drawn[config.sites]
    rows = rows_at_sites(structure, basis, box, states, jnp.asarray(rates), jnp.asarray(sites))
    posterior, seconds = fit_rows(basis, box, rows, structure.parameters)
    return fitted_rollout(structure, basis, posterior, task.times, options.substeps, seconds, task.companions)


def independent_forecast(world: PulseWorld, times: Times, substeps: int) -> Float[np.ndarray, "sample time grid field"]:
    """What is asked for by the published scheme: two processes on the efforts, 81 points, damping known.

    Returns:
      trajectories (sample, time, grid, field); nan where a rollout failed.
    """
    structure, values = world.system.structure, parameter_values(world.system, jnp.float64)
    sites = independent.published_sites(*world.pulse.shape[:2])
    learn = jax.jit(partial(independent.fit_independent, spacing=structure.grid.spacing[0]))
    fitted = learn(jnp.asarray(world.pulse), jnp.asarray(world.exact), sites)
    roll = jax.jit(partial(independent.roll_out_independent, structure.flow), static_argnames="substeps")
    rolled = [roll(fitted, values, jnp.asarray(one[0]), jnp.asarray(times), substeps=substeps) for one in world.asked]
    return np.stack([np.where(ok, np.asarray(trajectory), np.nan) for trajectory, ok in rolled])


def chosen_sites(
    structure: Structure, basis: Basis, box: Box, states: Float[Array, "frame grid field"], count: int
) -> Int[Array, "site index"]:
    """Sites picked by what the prior knows least, from states alone; every fourth frame, interior points."""
    kernel = gp_fit.kernel_of(gp_fit.initial_hyperparameters(basis, box, 1), box)
    frames, points = np.arange(0, states.shape[0], 4), np.arange(1, states.shape[1] - 1)
    candidates = np.stack(np.meshgrid(frames, points, indexing="ij"), axis=-1).reshape(-1, 2)
    still = zero_parameters(structure, states.dtype)

    def flow(efforts: Array, *_: Any) -> Array:
        return structure.flow(efforts, still)

    return select_sites(basis, box, flow, prior_deviations(basis, box, kernel), states, jnp.asarray(candidates), count)


@partial(jax.jit, static_argnums=(0, 1))
def rows_at_sites(
    structure: Structure,
    basis: Basis,
    box: Box,
    states: Float[Array, "frame grid field"],
    rates: Float[Array, "frame grid field"],
    sites: Int[Array, "site index"],
) -> Observations:
    """Derivative rows at the sites and the gauge anchor."""
    rows = derivative_rows(basis, box, structure.flow, structure.parameters, states, rates, sites)
    return concatenate([rows, anchor_rows(basis, box, len(structure.parameters))])
