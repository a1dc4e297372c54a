"""The string against analytic standing waves and against a finer string."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.numerics.reference import solve_reference
from phdme_jax.numerics.stepping import Pieces, relaxed_step, rk4_step, rollout
from phdme_jax.systems.energy import vibrating_string as string
from phdme_jax.systems.energy.base import inner, parameter_values, total_energy, vector_field

MODE, AMPLITUDE, STIFFNESS = 3, 0.4, 0.5


def standing_wave(z, t, viscous=0.0, kelvin_voigt=0.0):
    """State of a linear string released from one mode: s_tt = k s_zz - c s_t + d s_zzt."""
    wavenumber = MODE * np.pi / string.LENGTH
    decay = 0.5 * (viscous + kelvin_voigt * wavenumber**2)
    frequency = np.sqrt(STIFFNESS * wavenumber**2 - decay**2)
    size = AMPLITUDE * np.exp(-decay * t)
    deflection = size * (np.cos(frequency * t) + decay / frequency * np.sin(frequency * t))
    velocity = -size * (frequency + decay**2 / frequency) * np.sin(frequency * t)
    return np.stack([velocity * np.sin(wavenumber * z), deflection * wavenumber * np.cos(wavenumber * z)], axis=-1)


def simulate(system, state, times, substeps):
    """Runge-Kutta with steps so short that only the error in space is left."""
    values = parameter_values(system, state.dtype)
    step = partial(rk4_step, lambda x: vector_field(system.structure, system.density, x, values))
    return jax.jit(lambda x: rollout(lambda y, dt: (step(y, dt), dt), x, times, substeps))(state)


@pytest.mark.parametrize(
    ("order", "closure", "dissipation", "expected"),
    [
        (2, "mirror", ("viscous_damping",), 2),
        (4, "mirror", ("kelvin_voigt_damping",), 4),
        (6, "mirror", ("viscous_damping", "kelvin_voigt_damping"), 6),
        (8, "mirror", (), 8),
        (2, "sbp", ("viscous_damping",), 2),
        # second order at the ends, one more in the solution
        (4, "sbp", ("kelvin_voigt_damping",), 3),
    ],
)
def test_standing_wave_at_the_declared_order(order, closure, dissipation, expected):
    damping, end = 0.1, 5.0
    named = {"viscous": 0.0, "kelvin_voigt": 0.0} | {kind.removesuffix("_damping"): damping for kind in dissipation}

    def error(num_points):
        system = string.make_string("linear", damping, dissipation, num_points=num_points, order=order, closure=closure)
        z = system.structure.grid.coordinates()
        final = simulate(system, jnp.asarray(standing_wave(z, 0.0)), jnp.array([0.0, end]), 400)[-1]
        error = final - standing_wave(z, end, **named)
        return float(jnp.sqrt(inner(system.structure, error, error)))

    coarse, fine = (49, 97) if closure == "sbp" else (33, 65)
    assert abs(np.log2(error(coarse) / error(fine)) - expected) < 0.2


@pytest.fixture(scope="module")
def fine_solution():
    """States and rates of a softening string, exact for all that follows, every grid nested in this one."""
    system = string.make_string(damping=0.05, num_points=193, order=8)
    z = jnp.asarray(system.structure.grid.coordinates())
    start = string.modes_state(z, jnp.array([0.8, 0.0, 0.3]), jnp.array([0.2, -0.3, 0.0]))
    values = parameter_values(system, z.dtype)

    def field(x, parameters):
        return vector_field(system.structure, system.density, x, parameters)

    solve = jax.jit(partial(solve_reference, field, rtol=1e-10, atol=1e-11))
    trajectory, ok = solve(start, jnp.linspace(0.0, 3.0, 4), values)
    assert ok
    return np.asarray(trajectory), np.asarray(jax.jit(jax.vmap(lambda x: field(x, values)))(trajectory))


@pytest.mark.parametrize(
    ("order", "closure", "expected"),
    [(2, "mirror", 2), (4, "mirror", 4), (6, "mirror", 6), (2, "sbp", 2), (4, "sbp", 4)],
)
def test_residual_of_a_fine_solution_vanishes_at_the_declared_order(fine_solution, order, closure, expected):
    def residual(num_points, sign=1.0):
        system = string.make_string(damping=0.05, num_points=num_points, order=order, closure=closure)
        stride = 192 // (num_points - 1)
        states, rates = (array[:, ::stride] for array in fine_solution)
        values = parameter_values(system, states.dtype)
        field = jax.jit(jax.vmap(lambda x: vector_field(system.structure, system.density, x, values)))
        defect = np.asarray(field(states)) * np.array([1.0, sign]) - rates
        # one-sided closures are of half the order at the ends
        kept = defect if closure == "mirror" else defect[:, num_points // 4 : -(num_points // 4)]
        return np.sqrt(np.mean(kept**2))

    coarse, fine = residual(49), residual(97)
    assert abs(np.log2(coarse / fine) - expected) < 0.25
    # a sign flipped in one corner of J is not a matter of resolution
    assert residual(97, sign=-1.0) > 0.1 > 10 * fine


def test_energy_is_kept_or_falls_in_rollouts():
    system = string.make_string(num_points=33)
    structure, energy = system.structure, partial(total_energy, system.structure, system.density)

    @jax.jit
    def levels(damping):
        state = string.modes_state(jnp.asarray(structure.grid.coordinates()), jnp.array([0.5, 0.4]), jnp.zeros(2))
        gradient = jax.vmap(jax.grad(system.density))
        flow = partial(structure.flow, parameters={"kelvin_voigt_damping": damping})
        pieces = Pieces(gradient, flow, energy, partial(inner, structure))
        path = rollout(lambda x, dt: relaxed_step(pieces, x, energy(x), dt)[:2], state, jnp.linspace(0.0, 20.0, 41), 5)
        return jax.vmap(energy)(path)

    kept, damped = levels(jnp.asarray(0.0)), levels(jnp.asarray(0.05))
    np.testing.assert_allclose(kept, kept[0], rtol=1e-12)
    assert np.all(np.diff(damped) < 0)


def test_stress_law_and_energy_at_rest():
    strain = jnp.linspace(-4.0, 4.0, 41)
    states = jnp.stack([jnp.full_like(strain, 0.3), strain], axis=-1)
    efforts = jax.vmap(jax.grad(string.softening_density))(states)
    np.testing.assert_allclose(efforts[:, 0], 0.3)
    np.testing.assert_allclose(efforts[:, 1], 1 / (1 + jnp.exp(-2 * strain)) - 0.5, atol=1e-14)
    assert abs(float(string.softening_density(jnp.zeros(2)))) < 1e-16
    with pytest.raises(ValueError, match="stress law"):
        string.make_string("nonsense")


def test_deflection_is_the_integral_of_the_strain():
    z = jnp.linspace(0.0, string.LENGTH, 65)
    deflections = jnp.array([0.5, -0.2, 0.1])
    state = string.modes_state(z, deflections, jnp.zeros(3))
    exact = sum(a * jnp.sin((k + 1) * np.pi * z / string.LENGTH) for k, a in enumerate(deflections))
    np.testing.assert_allclose(string.deflection(state[:, 1]), exact, atol=1e-6)
    pulse = string.pulse_state(z, 2.0, 5.0, 1.5)
    np.testing.assert_allclose(string.deflection(pulse[:, 1]), 2 * jnp.exp(-(((z - 5) / 1.5) ** 2)), atol=1e-4)


def test_initial_strains_are_of_the_stated_size():
    system = string.make_string(num_points=129)
    keys = jax.random.split(jax.random.key(0), 200)
    families = ("sine", "pulse", "random_smooth")
    drawn = jax.jit(jax.vmap(lambda key: [system.initial_state(family)(key) for family in families]))(keys)
    for states in drawn:
        largest = np.max(np.abs(states), axis=(1, 2))
        assert 0.19 < largest.min() < 0.25 and 0.55 < largest.max() <= 0.6
    assert np.max(np.abs(drawn[1][:, [0, -1]])) < 1e-4


def test_unknown_closures_and_dampings_are_refused():
    with pytest.raises(ValueError, match="closure"):
        string.string_structure(closure="nonsense")
    with pytest.raises(ValueError, match="damping"):
        string.string_structure(damping=("nonsense",))
