"""What is timed: the fit of the energy, its samples and rollouts, and the string's vector field against diffrax."""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import equations, forecasts
from benchmarks.harness import measure, record
from phdme_jax.gp import basis as gp_basis
from phdme_jax.gp import compression, fit, observations, sampling
from phdme_jax.numerics import rollout, solve_reference
from phdme_jax.numerics.stepping import rk4_step
from phdme_jax.systems import make_system
from phdme_jax.systems.energy.base import System, parameter_values, vector_field

TIMES = tuple(np.linspace(0.0, 20.0, 64).tolist())
Row = dict[str, Any]


@lru_cache
def _string(num_points: int, order: int) -> System:
    return make_system("vibrating_string", num_points=num_points, order=order)


@lru_cache
def _trajectories() -> jax.Array:
    """Four random smooth trajectories of the string, 64 frames and points, one per cent of noise."""
    fine = _string(253, 6)

    def solve(key: jax.Array) -> jax.Array:
        field = partial(vector_field, fine.structure, fine.density)
        state = fine.structure.constrain(fine.initial_state("random_smooth")(key))
        values = parameter_values(fine, state.dtype)
        return solve_reference(field, state, jnp.asarray(TIMES), values, rtol=1e-7, atol=1e-8)[0][:, ::4]

    clean = jax.jit(jax.vmap(solve))(jax.random.split(jax.random.key(0), 4))
    noise = jax.random.normal(jax.random.key(5), clean.shape, clean.dtype)
    return clean + 0.01 * jnp.std(clean, axis=(0, 1, 2)) * noise


def _weak_rows(basis: gp_basis.Basis, states: jax.Array) -> tuple[gp_basis.Box, Callable[..., Any]]:
    structure = _string(64, 8).structure
    box = gp_basis.make_box(states, jnp.zeros(2), 2.0)
    tests = observations.interval_tests(TIMES, states, 63)

    def build(states: jax.Array, box: gp_basis.Box) -> observations.Observations:
        rows = partial(observations.integral_rows, basis, box, structure.flow, structure.parameters)
        parts = [rows(trajectory, tests, 24) for trajectory in states]
        return observations.concatenate([*parts, observations.anchor_rows(basis, box, len(structure.parameters))])

    return box, build


@lru_cache
def _posterior(pair: int) -> tuple[gp_basis.Basis, fit.EnergyPosterior]:
    basis, structure = gp_basis.Basis(2, 32, pair), _string(64, 8).structure
    box, build = _weak_rows(basis, _trajectories())
    rows = compression.compress(jax.jit(build)(_trajectories(), box))
    start = fit.initial_hyperparameters(basis, box, len(structure.parameters))
    return basis, jax.jit(lambda rows, start: fit.fit(basis, box, rows, start, structure.parameters))(rows, start)


def fit150() -> Iterator[Row]:
    """Fit, hyperparameters included, to exact rates at 150 sites of one trajectory of a pulse."""
    system = _string(100, 2)
    structure, times = system.structure, jnp.linspace(0.0, 20.0, 201)
    field = partial(vector_field, structure, system.density)
    values = parameter_values(system, times.dtype)
    pulse = structure.constrain(system.initial_state("pulse")(jax.random.key(0)))
    states = jax.jit(lambda state: solve_reference(field, state, times, values)[0])(pulse)
    rates = jax.jit(jax.vmap(lambda state: field(state, values)))(states)
    generator = np.random.default_rng(0)
    sites = jnp.asarray(np.stack([generator.integers(0, 201, 150), generator.integers(1, 99, 150)], axis=1))
    for main, pair in ((32, 0), (32, 8)):
        basis = gp_basis.Basis(2, main, pair)
        box = gp_basis.make_box(states, jnp.zeros(2), 2.0)
        arguments = (basis, box, structure.flow, structure.parameters)
        rows = observations.concatenate(
            [
                jax.jit(partial(observations.derivative_rows, *arguments))(states, rates, sites),
                observations.anchor_rows(basis, box, len(structure.parameters)),
            ]
        )
        start = fit.initial_hyperparameters(basis, box, len(structure.parameters))
        learn = partial(lambda basis, rows, box, start: fit.fit(basis, box, rows, start, structure.parameters), basis)
        timing, posterior = measure(learn, rows, box, start)
        yield record("fit150", f"main {main} pair {pair}", timing, rows=rows.target.size, **_found(posterior))


def _found(posterior: fit.EnergyPosterior) -> Row:
    damping = {name: float(value) for name, value in posterior.parameters.items()}
    return {"objective": float(posterior.objective), "ok": bool(posterior.ok), **damping}


def fit_weak() -> Iterator[Row]:
    """Fit to four trajectories of 64 frames and points by weak-form rows: build, compress, fit."""
    states, structure = _trajectories(), _string(64, 8).structure
    for pair in (0, 8, 12):
        basis = gp_basis.Basis(2, 32, pair)
        box, build = _weak_rows(basis, states)
        timing, rows = measure(build, states, box)
        facts = {"rows": rows.target.size, "features": rows.design.shape[-1]}
        yield record("fit_weak", f"build, pair {pair}", timing, **facts)
        timing, compressed = measure(compression.compress, rows, compiled=False)
        yield record("fit_weak", f"compress, pair {pair}", timing, **facts)
        start = fit.initial_hyperparameters(basis, box, len(structure.parameters))
        learn = partial(lambda basis, rows, box, start: fit.fit(basis, box, rows, start, structure.parameters), basis)
        timing, posterior = measure(learn, compressed, box, start)
        yield record("fit_weak", f"fit, pair {pair}", timing, **facts, **_found(posterior))


def sample_draw() -> Iterator[Row]:
    """Draw 256 energies from the posterior."""
    for pair in (0, 8):
        _, posterior = _posterior(pair)
        keys = jax.random.split(jax.random.key(3), 256)
        timing, _ = measure(jax.vmap(sampling.sample_energy, (None, 0)), posterior, keys)
        yield record("sample_draw", f"pair {pair}", timing, samples=256)


def rollout256() -> Iterator[Row]:
    """Draw 256 energies and roll each out over 64 frames on 64 points, 3 substeps a frame."""
    system = _string(64, 8)
    structure = system.structure
    keys = jax.random.split(jax.random.key(3), 256)
    states = jax.vmap(lambda key: structure.constrain(system.initial_state("random_smooth")(key)))(keys)
    weights, times = jnp.asarray(structure.weights()), jnp.asarray(TIMES)
    for pair in (0, 8, 12):
        basis, posterior = _posterior(pair)

        def roll(
            basis: gp_basis.Basis, posterior: fit.EnergyPosterior, states: jax.Array, keys: jax.Array
        ) -> sampling.Rollout:
            def one(state: jax.Array, key: jax.Array) -> sampling.Rollout:
                return sampling.sample_rollout(basis, structure.flow, weights, posterior, state, times, key, 3)

            return jax.vmap(one)(states, keys)

        timing, rolled = measure(partial(roll, basis), posterior, states, keys)
        growth = float(jnp.max(jnp.diff(rolled.energy, axis=1) / rolled.energy[:, :1]))
        facts = {"ok": float(jnp.mean(rolled.ok)), "energy_growth": growth, "seconds_per_sample": timing.median / 256}
        yield record("rollout256", f"pair {pair}", timing, **facts)


def string_field() -> Iterator[Row]:
    """Throughput of the string's vector field, and a fixed-step rollout against diffrax with as many evaluations."""
    system = _string(64, 8)
    structure, times = system.structure, jnp.asarray(TIMES)
    values = parameter_values(system, times.dtype)
    field = partial(vector_field, structure, system.density, parameters=values)
    keys = jax.random.split(jax.random.key(4), 64)
    states = jax.vmap(lambda key: structure.constrain(system.initial_state("random_smooth")(key)))(keys)

    def repeated(states: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 1000, lambda _, x: x + 1e-6 * jax.vmap(field)(x), states)

    timing, _ = measure(repeated, states)
    yield record("string_field", "vector field", timing, evaluations_per_second=1000 * len(keys) / timing.median)

    def ours(states: jax.Array) -> jax.Array:
        return jax.vmap(lambda x: rollout(lambda y, dt: (rk4_step(field, y, dt), dt), x, times, 6))(states)

    def peer(states: jax.Array) -> jax.Array:
        def solve(state: jax.Array) -> jax.Array:
            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(lambda t, x, _: field(x)),
                diffrax.Tsit5(),
                times[0],
                times[-1],
                (times[1] - times[0]) / 4,
                state,
                saveat=diffrax.SaveAt(ts=times),
            )
            return solution.ys

        return jax.vmap(solve)(states)

    def exact(states: jax.Array) -> jax.Array:
        return jax.vmap(lambda x: solve_reference(lambda y, _: field(y), x, times, None)[0])(states)

    truth = jax.jit(exact)(states)
    medians = []
    for name, solve in (("rk4 rollout, 24 evaluations a frame", ours), ("diffrax Tsit5, 24 evaluations a frame", peer)):
        timing, path = measure(solve, states)
        medians.append(timing.median)
        error = float(jnp.sqrt(jnp.mean((path - truth) ** 2) / jnp.mean(truth**2)))
        ratio = {} if len(medians) < 2 else {"times_our_rollout": medians[1] / medians[0]}
        yield record("string_field", name, timing, relative_error=error, **ratio)


CASES: dict[str, Callable[[], Iterator[Row]]] = {
    "fit150": fit150,
    "fit_weak": fit_weak,
    "sample_draw": sample_draw,
    "rollout256": rollout256,
    "string_field": string_field,
    "one_state": forecasts.one_state,
    "resident": forecasts.resident,
    "processes": forecasts.processes,
    "darcy_data": equations.darcy_data,
    "elasticity": equations.elasticity_residual,
    "unet_step": equations.unet_step,
}
