"""Flow in two dimensions: vortices in closed form, energy and enstrophy, the order of solver and residuals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.navier_stokes import advance, forcing_of, random_vorticity

NOTHING, NU = jnp.zeros(()), 0.01
PLACE = np.arange(24) / 24
X, Y = 2 * np.pi * PLACE[:, None], 2 * np.pi * PLACE
solve = jax.jit(advance, static_argnums=(1, 2, 3, 4))


def energies(vorticity):
    """Means of u^2 / 2 and w^2 / 2, by Parseval: |u_k|^2 = |w_k|^2 / k^2."""
    spectrum = np.abs(np.fft.fft2(vorticity, axes=(-2, -1)) / vorticity.shape[-1] ** 2) ** 2
    wave = 2 * np.pi * np.fft.fftfreq(vorticity.shape[-1], 1 / vorticity.shape[-1])
    square = wave[:, None] ** 2 + wave**2
    inverse = np.where(square > 0, 1 / np.where(square > 0, square, 1), 0)
    return 0.5 * np.sum(spectrum * inverse, axis=(-2, -1)), 0.5 * np.sum(spectrum, axis=(-2, -1))


def test_vortices_of_one_wave_length_decay_and_the_force_feeds_its_own_wave():
    """w of waves with one k^2 is not advected by its own flow: w_t = -nu k^2 w, and a' = 0.1 - nu 8 pi^2 a of f's."""
    taylor_green = np.cos(X) * np.cos(Y)
    found = solve(jnp.asarray(taylor_green), 1.5, 20, NU, 0.0)
    np.testing.assert_allclose(found, taylor_green * np.exp(-NU * 8 * np.pi**2 * 1.5), atol=1e-14)
    wheel = np.cos(3 * X + 4 * Y) - 2 * np.sin(5 * X) + np.cos(4 * X - 3 * Y)
    found = solve(jnp.asarray(wheel), 0.4, 40, NU, 0.0)
    np.testing.assert_allclose(found, wheel * np.exp(-NU * 25 * 4 * np.pi**2 * 0.4), atol=1e-13)
    rate = NU * 8 * np.pi**2
    fed = solve(jnp.zeros((24, 24)), 2.0, 40, NU, 0.1)
    np.testing.assert_allclose(fed, forcing_of(24, 1.0) * 0.1 * (1 - np.exp(-2 * rate)) / rate, atol=1e-9)


def test_waves_of_two_lengths_advect_each_other_as_written():
    """w = cos x + cos 2 y: psi = (cos x + cos(2 y) / 4) / 4 pi^2, so that -u . grad w = 3/2 sin x sin 2 y."""
    start = np.cos(X) + np.cos(2 * Y)
    ahead, before = (solve(jnp.asarray(start), step, 1, NU, 0.0) for step in (1e-4, -1e-4))
    decay = -NU * 4 * np.pi**2 * (np.cos(X) + 4 * np.cos(2 * Y))
    np.testing.assert_allclose((ahead - before) / 2e-4, 1.5 * np.sin(X) * np.sin(2 * Y) + decay, atol=1e-6)


@pytest.fixture(scope="module")
def strong():
    return 8.0 * random_vorticity(24, jax.random.key(0))


def test_the_solver_has_order_four_in_time(strong):
    exact = solve(strong, 1.0, 256, 1e-3, 0.1)
    coarse, fine = (np.abs(solve(strong, 1.0, steps, 1e-3, 0.1) - exact).max() for steps in (16, 32))
    assert coarse < 0.05 and abs(np.log2(coarse / fine) - 4.0) < 0.2, (coarse, fine)


def test_without_force_energy_and_enstrophy_are_kept_and_viscosity_takes_what_it_should(strong):
    """d/dt mean u^2 / 2 = -nu mean w^2; without viscosity both are constant though the flow changes."""
    ideal = solve(strong, 1.0, 128, 1e-12, 0.0)
    assert np.abs(ideal - strong).max() > np.abs(strong).std()
    np.testing.assert_allclose(energies(ideal), energies(strong), rtol=1e-6)
    frames, interval = [strong], 1 / 64
    for _ in range(8):
        frames.append(solve(frames[-1], interval, 2, NU, 0.0))
    energy, enstrophy = energies(np.stack(frames))
    simpson = np.array([1, 4, 2, 4, 2, 4, 2, 4, 1]) * interval / 3
    lost = 2 * NU * simpson @ enstrophy
    np.testing.assert_allclose(energy[0] - energy[-1], lost, rtol=1e-5)
    assert energy[-1] < 0.9 * energy[0]


def test_initial_states_have_the_covariance_that_is_written():
    """E |w_k|^2 = 7^3 (4 pi^2 k^2 + 49)^-2.5 below a third of the points."""
    fields = jax.vmap(lambda key: random_vorticity(12, key))(jax.random.split(jax.random.key(1), 4000))
    power = np.mean(np.abs(np.fft.fft2(fields, axes=(1, 2)) / 144) ** 2, axis=0)
    for wave in ((1, 0), (1, 2), (3, 3)):
        expected = 7.0**3 * (4 * np.pi**2 * (wave[0] ** 2 + wave[1] ** 2) + 49) ** -2.5
        np.testing.assert_allclose(power[wave], expected, rtol=0.1)
    assert power[0, 0] < 1e-25 and power[4].max() < 1e-25


def test_frames_in_order_their_mean_and_what_misses_a_frame():
    equations = make_equations("navier_stokes", num_points=24, num_frames=4, duration=1.5)
    fields = jax.jit(equations.draw)(jax.random.key(2)).fields
    assert equations.fields == ("vorticity 1", "vorticity 2", "vorticity 3", "initial vorticity")
    for frame, time in enumerate((0.5, 1.0, 1.5)):
        exact = solve(fields[..., -1], time, 64, 1e-3, 0.1)
        np.testing.assert_allclose(fields[..., frame], exact, atol=2e-5 * np.abs(exact).max())
    np.testing.assert_allclose(equations.conserved(fields.at[..., 1].add(0.2), NOTHING), [0, 0.2, 0, 0], atol=1e-15)
    wrong = equations.residual(fields.at[..., 1].add(0.2), NOTHING)
    assert list(wrong) == ["interval 1", "interval 2", "interval 3"]
    assert not np.abs(wrong["interval 1"]).max() > 1e-12
    # a mean is neither advected nor does it decay: over half a unit of time
    np.testing.assert_allclose(wrong["interval 2"], 0.4, atol=1e-12)
    np.testing.assert_allclose(wrong["interval 3"], -0.4, atol=1e-12)


def test_the_other_stencil_has_order_two():
    """On the same smooth flow, with intervals that shrink as the spacing does."""

    def largest(count, num_frames):
        equations = make_equations("navier_stokes", num_points=count, num_frames=num_frames, viscosity=NU)
        place = 2 * np.pi * np.arange(count) / count
        start = np.cos(place)[:, None] + 0.5 * np.sin(2 * place - 1.0) + 0.5 * np.cos(place[:, None] + place)
        fields = jnp.zeros((count, count, num_frames)).at[..., -1].set(start)
        solved = jax.jit(equations.resolve)(fields, NOTHING)
        found = equations.unseen(solved, NOTHING)
        return max(float(jnp.abs(one).max()) for one in found.values())

    assert abs(np.log2(largest(24, 7) / largest(48, 13)) - 2.0) < 0.25


def test_no_viscosity_is_refused():
    with pytest.raises(ValueError, match="expected at least 8 points, 2 frames, a positive duration"):
        make_equations("navier_stokes", viscosity=0.0)
