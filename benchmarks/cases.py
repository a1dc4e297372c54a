"""What is timed: the fit of the energy, its samples and rollouts, and the string's vector field against diffrax."""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

from benchmarks import energies, equations, forecasts, particles
from benchmarks.harness import measure, measure_in_turn, record, times_peer
from phdme_jax.gp import basis as gp_basis
from phdme_jax.gp import compression, fit, observations, sampling
from phdme_jax.numerics import rollout, solve_reference
from phdme_jax.numerics.batching import for_many, in_chunks, num_workers, thread_slice
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
    """Draw 256 energies and roll each out over 64 frames on 64 points, beside vmapped Tsit5 of the same energies.

    Errors are those of 16 trajectories, relative, against Dopri8 at 1e-10.
    """
    system = _string(64, 8)
    structure = system.structure
    keys = jax.random.split(jax.random.key(3), 256)
    states = jax.vmap(lambda key: structure.constrain(system.initial_state("random_smooth")(key)))(keys)
    weights, times = jnp.asarray(structure.weights()), jnp.asarray(TIMES)
    for pair in (0, 8):
        basis, posterior = _posterior(pair)

        def field(state: jax.Array, energy: gp_basis.Energy, basis: gp_basis.Basis = basis, **values: Any) -> jax.Array:
            return structure.flow(gp_basis.efforts(basis, energy, state), values)

        def ours(posterior: fit.EnergyPosterior, states: jax.Array, keys: jax.Array, basis: Any = basis) -> Any:
            roll = partial(sampling.sample_rollout, basis, structure.flow, weights, posterior)
            return jax.vmap(lambda state, key: roll(state, times, key, 4))(states, keys)

        def tsit(steps: int, posterior: Any, states: Any, keys: Any, field: Any = field) -> Any:
            def solve(state: jax.Array, key: jax.Array) -> jax.Array:
                energy, parameters = sampling.sample_system(posterior, key)
                drawn = partial(field, energy=energy, **parameters)
                return _fixed_steps(drawn, state, times, steps)

            return jax.vmap(solve)(states, keys)

        def exact(example: tuple[jax.Array, jax.Array], posterior: Any = posterior, field: Any = field) -> jax.Array:
            state, key = example
            energy, parameters = sampling.sample_system(posterior, key)
            drawn = partial(field, energy=energy, **parameters)
            return solve_reference(lambda x, _: drawn(x), state, times, None, rtol=1e-10, atol=1e-11)[0]

        truth = jax.jit(lambda *examples: jax.lax.map(exact, examples))(states[:16], keys[:16])
        solvers: dict[str, Callable[..., Any]] = {
            "ours": ours,
            "Tsit5, 2 steps": partial(tsit, 2),
            "Tsit5, 3 steps": partial(tsit, 3),
        }
        timed = measure_in_turn(solvers, posterior, states, keys)
        for name, (timing, found) in timed.items():
            path = found.trajectory if name == "ours" else found
            error = jnp.sqrt(jnp.mean((path[:16] - truth) ** 2) / jnp.mean(truth**2))
            facts = {"relative_error": float(error), "seconds_per_sample": timing.median / 256}
            facts |= times_peer(timing, timed["Tsit5, 3 steps"][0])
            if name == "ours":
                growth = jnp.max(jnp.diff(found.energy, axis=1) / found.energy[:, :1])
                facts |= {"ok": float(jnp.mean(found.ok)), "energy_growth": float(growth)}
            yield record("rollout256", f"pair {pair}: {name}", timing, **facts)


def _fixed_steps(field: Callable[[jax.Array], jax.Array], state: jax.Array, times: jax.Array, steps: int) -> jax.Array:
    return diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, x, _: field(x)),
        diffrax.Tsit5(),
        times[0],
        times[-1],
        (times[1] - times[0]) / steps,
        state,
        saveat=diffrax.SaveAt(ts=times),
    ).ys


def references() -> Iterator[Row]:
    """Sixteen reference solves on 253 points: on every thread as studies do it, in turn, side by side, and by scipy."""
    for name, duration in (("vibrating_string", 20.0), ("shallow_water_1d", 2.0)):
        system = make_system(name, num_points=253, order=6)
        values = parameter_values(system, jnp.float64)
        field = partial(vector_field, system.structure, system.density)
        times = np.linspace(0.0, duration, 64)

        def solve(state: jax.Array, field: Any = field, times: Any = times, values: Any = values) -> jax.Array:
            return solve_reference(field, state, jnp.asarray(times), values, rtol=1e-8, atol=1e-9)[0]

        draw = jax.vmap(
            lambda key, system=system: system.structure.constrain(system.initial_state("random_smooth")(key))
        )
        states = draw(jax.random.split(jax.random.key(0), 16))
        many, rate = (
            for_many(solve),
            jax.jit(lambda t, x, f=field, v=values, s=states[0].shape: f(x.reshape(s), v).ravel()),
        )

        def threads(states: jax.Array, many: Any = many) -> np.ndarray:
            return in_chunks(many, thread_slice(len(states)), states, workers=num_workers())

        def peer(states: jax.Array, rate: Any = rate, times: Any = times) -> np.ndarray:
            state = np.ravel(states[0])
            options = {"method": "DOP853", "t_eval": times, "rtol": 1e-8, "atol": 1e-9}
            return solve_ivp(lambda t, x: np.asarray(rate(t, x)), (0.0, times[-1]), state, **options).y.T

        solvers: dict[str, Callable[..., Any]] = {
            "threads": threads,
            "in turn": many,
            "side by side": jax.vmap(solve),
            "scipy, one of them": peer,
        }
        timed = measure_in_turn(solvers, states, host=("threads", "scipy, one of them"), runs=3)
        for part, (timing, path) in timed.items():
            solves = 1 if path.ndim == 2 else len(path)
            facts = {"seconds_per_solve": timing.median / solves, **times_peer(timing, timed["in turn"][0])}
            apart = np.max(np.abs(np.reshape(path, (solves, -1)) - np.reshape(timed["in turn"][1], (16, -1))[:solves]))
            yield record("references", f"{name}: {part}", timing, apart=float(apart), **facts)


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
        return jax.vmap(lambda x: _fixed_steps(field, x, times, 4))(states)

    def exact(states: jax.Array) -> jax.Array:
        return jax.lax.map(lambda x: solve_reference(lambda y, _: field(y), x, times, None)[0], states)

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
    "energy_rows": energies.energy_rows,
    "sample_draw": sample_draw,
    "rollout256": rollout256,
    "references": references,
    "string_field": string_field,
    "one_state": forecasts.one_state,
    "resident": forecasts.resident,
    "processes": forecasts.processes,
    "darcy_data": equations.darcy_data,
    "elasticity": equations.elasticity_residual,
    "bodies": equations.bodies,
    "unet_step": equations.unet_step,
    "gradient_loop": equations.gradient_loop,
    "springs_data": particles.springs_data,
    "equivariant_step": particles.equivariant_step,
}
