"""Shallow water against linear standing waves, a finer basin, and what a closed basin keeps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.numerics.stepping import Pieces, relaxed_step, rk4_step, rollout
from phdme_jax.systems import make_system
from phdme_jax.systems.energy.base import (
    at_points,
    inner,
    parameter_values,
    total_energy,
    vector_field,
    zero_parameters,
)

GRAVITY, TINY, VISCOSITY = 1.7, 1e-9, 0.02


def standing_wave(lines, wavenumbers, t):
    """Linear wave of a basin of rest depth one: elevation a c(t) prod cos(k z), velocity along its gradient."""
    square = sum(k**2 for k in wavenumbers)
    decay = 0.5 * VISCOSITY * square
    frequency = np.sqrt(GRAVITY * square - decay**2)
    envelope = np.exp(-decay * t)
    size = envelope * (np.cos(frequency * t) + decay / frequency * np.sin(frequency * t))
    speed = envelope * GRAVITY / frequency * np.sin(frequency * t)
    mesh = np.meshgrid(*lines, indexing="ij")
    cosines = [np.cos(k * z) for k, z in zip(wavenumbers, mesh, strict=True)]
    fields = [TINY * size * np.prod(cosines, axis=0)]
    for axis, (k, z) in enumerate(zip(wavenumbers, mesh, strict=True)):
        others = [c for other, c in enumerate(cosines) if other != axis]
        fields.append(TINY * speed * k * np.sin(k * z) * np.prod(others, axis=0))
    return np.stack(fields, axis=-1)


def simulate(system, state, times, substeps):
    values = parameter_values(system, state.dtype)
    step = partial(rk4_step, lambda x: vector_field(system.structure, system.density, x, values))
    return jax.jit(lambda x: rollout(lambda y, dt: (step(y, dt), dt), x, times, substeps))(state)


@pytest.mark.parametrize(
    ("dimension", "order", "closure", "expected"),
    [(1, 2, "mirror", 2), (1, 4, "mirror", 4), (1, 8, "mirror", 8), (1, 2, "sbp", 2), (2, 4, "mirror", 4)],
)
def test_standing_wave_at_the_declared_order(dimension, order, closure, expected):
    # a wave short enough that the error in space is above that of the steps in time
    lengths, modes = (1.0, 1.3)[:dimension], (4, 2) if order == 8 else (2, 1)
    wavenumbers = [mode * np.pi / length for mode, length in zip(modes, lengths, strict=False)]

    def error(num_points):
        system = make_system(
            f"shallow_water_{dimension}d",
            gravity=GRAVITY,
            viscosity=VISCOSITY,
            num_points=(num_points,) * dimension,
            lengths=lengths,
            order=order,
            closure=closure,
        )
        lines = [system.structure.grid.coordinates(axis) for axis in range(dimension)]
        state = jnp.asarray(standing_wave(lines, wavenumbers, 0.0))
        final = simulate(system, state, jnp.array([0.0, 1.0]), 500)[-1]
        error = final - standing_wave(lines, wavenumbers, 1.0)
        return float(jnp.sqrt(inner(system.structure, error, error))) / TINY

    coarse, fine = error(17), error(33)
    assert fine > 10 * TINY
    assert np.log2(coarse / fine) == pytest.approx(expected, abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("shallow_water_1d", {}),
        ("shallow_water_1d", {"closure": "sbp"}),
        ("shallow_water_2d", {"num_points": (17, 20)}),
    ],
)
def test_mass_is_kept_and_energy_without_viscosity(name, options):
    system = make_system(name, **options)
    structure, state = system.structure, system.initial_state("random_smooth")(jax.random.key(3))
    weights = structure.weights()
    times = jnp.linspace(0.0, 2.0, 11)

    @partial(jax.jit, static_argnums=1)
    def run(state, conservative):
        values = (zero_parameters if conservative else lambda *_: parameter_values(system, state.dtype))(
            structure, state.dtype
        )
        energy = partial(total_energy, structure, system.density)
        effort, flow = partial(at_points, jax.grad(system.density)), lambda e: structure.flow(e, values)
        pieces = Pieces(effort, flow, energy, partial(inner, structure))
        path = rollout(lambda x, dt: relaxed_step(pieces, x, energy(x), dt)[:2], state, times, 10)
        return path, jax.vmap(energy)(path)

    kept, level = run(state, True)
    mass = np.sum(weights * np.asarray(kept[..., 0]), axis=tuple(range(1, 1 + weights.ndim)))
    np.testing.assert_allclose(mass, mass[0], atol=1e-15)
    np.testing.assert_allclose(level, level[0], rtol=1e-9)
    assert float(jnp.max(jnp.abs(kept - kept[0]))) > 0.02
    damped, level = run(state, False)
    mass = np.sum(weights * np.asarray(damped[..., 0]), axis=tuple(range(1, 1 + weights.ndim)))
    np.testing.assert_allclose(mass, mass[0], atol=1e-15)
    assert np.all(np.diff(level) < 0)


def test_two_dimensions_contain_one_and_do_not_prefer_an_axis():
    line = make_system("shallow_water_1d", num_points=(24,))
    plane = make_system("shallow_water_2d", num_points=(24, 24))
    state = line.initial_state("random_smooth")(jax.random.key(0))
    wide = jnp.stack([jnp.repeat(state[:, None, f], 24, axis=1) for f in range(2)] + [jnp.zeros((24, 24))], axis=-1)
    values = parameter_values(line, state.dtype)
    rates = vector_field(plane.structure, plane.density, wide, values)
    expected = vector_field(line.structure, line.density, state, values)
    np.testing.assert_allclose(rates[:, 7, :2], expected, atol=1e-13)
    np.testing.assert_allclose(rates[..., 2], 0.0, atol=1e-13)

    def turned(field):
        return jnp.swapaxes(field, 0, 1)[..., jnp.array([0, 2, 1])]

    state = plane.initial_state("random_smooth")(jax.random.key(1))
    rates = vector_field(plane.structure, plane.density, state, values)
    np.testing.assert_allclose(
        vector_field(plane.structure, plane.density, turned(state), values), turned(rates), atol=1e-13
    )


def test_random_velocities_have_no_vorticity_and_bumps_are_smooth_at_the_walls():
    plane = make_system("shallow_water_2d", num_points=(65, 65))
    x, y = (plane.structure.grid.spacing[axis] for axis in (0, 1))
    state = np.asarray(plane.initial_state("random_smooth")(jax.random.key(1)))
    across = np.gradient(state[..., 2], x, axis=0, edge_order=2) - np.gradient(state[..., 1], y, axis=1, edge_order=2)
    assert np.abs(across[2:-2, 2:-2]).max() < 0.03 * np.abs(np.gradient(state[..., 1], x, axis=0)).max()
    bump = np.asarray(plane.initial_state("bump")(jax.random.key(2)))[..., 0]
    # the mirrored bump has no slope at the walls: to second order, neighbours there differ by the curvature alone
    edge = np.abs(-1.5 * bump[0] + 2 * bump[1] - 0.5 * bump[2]) / x
    assert edge.max() < 0.05 * np.abs(np.gradient(bump, x, axis=0)).max()


def test_a_weak_wall_lets_nothing_through_at_its_order():
    def leak(num_points):
        system = make_system("shallow_water_1d", num_points=(num_points,), closure="sbp", order=4, viscosity=0.0)
        state = system.initial_state("bump")(jax.random.key(2))
        path = simulate(system, state, jnp.linspace(0.0, 1.0, 9), 60)
        return float(jnp.max(jnp.abs(jax.vmap(system.structure.boundary)(path))))

    assert np.log2(leak(33) / leak(65)) > 1.8


@pytest.mark.parametrize(
    "options", [{"closure": "nonsense"}, {"num_points": (8, 8, 8)}, {"num_points": (8, 8), "closure": "sbp"}]
)
def test_unknown_basins_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        make_system("shallow_water_2d" if len(options.get("num_points", ())) > 1 else "shallow_water_1d", **options)
