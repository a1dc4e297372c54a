"""Heat on a circle and Stokes' second problem: the strength of diffusion is found, residuals fall with their order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.heat import curvature, fitted_diffusivity

NOTHING, KEYS = jnp.zeros(()), jax.random.split(jax.random.key(0), 8)


def largest(equations, part="residual"):
    fields = jax.jit(jax.vmap(equations.draw))(KEYS).fields
    return float(jnp.abs(jax.vmap(lambda one: getattr(equations, part)(one, NOTHING)["balance"])(fields)).max())


def test_curvature_is_exact_for_polynomials_up_to_its_width_also_at_the_ends():
    places = np.linspace(0.0, 1.0, 14)
    found = curvature(jnp.asarray(places**8 - 2 * places**3), 1 / 13)
    np.testing.assert_allclose(found, 56 * places**6 - 12 * places, atol=1e-9)


def test_of_a_sum_of_waves_with_one_diffusivity_nothing_is_left_and_of_two_something_is():
    """The first frame may be any: residual, the solver and the mean do not know of single waves."""
    equations = make_equations("heat", num_points=24, num_frames=48)
    place, time = 2 * np.pi * np.arange(24)[:, None] / 24, np.linspace(0.0, 1.0, 48)

    def heat(first, second):
        waves = np.sin(place) * np.exp(-first * time) + np.cos(2 * place + 0.3) * np.exp(-4 * second * time)
        return jnp.asarray(1.5 + waves)[..., None]

    one, two = heat(1.3, 1.3), heat(1.3, 2.0)
    assert np.abs(equations.residual(one, NOTHING)["balance"]).max() < 1e-8
    assert np.abs(equations.residual(two, NOTHING)["balance"]).max() > 0.1
    changed = equations.resolve(two, NOTHING)
    assert np.abs(equations.residual(changed, NOTHING)["balance"]).max() < 1e-6
    np.testing.assert_allclose(equations.resolve(one, NOTHING), one, atol=1e-9)
    np.testing.assert_allclose(equations.conserved(two, NOTHING), 0.0, atol=1e-14)
    np.testing.assert_allclose(equations.conserved(two.at[:, 5].add(0.2), NOTHING)[4], 0.2, atol=1e-14)


@pytest.mark.parametrize("diffusivity", [0.0, 0.003, 1.0, 4.9, 60.0])
def test_solving_takes_the_diffusivity_of_least_squares_whatever_noise_the_field_has(diffusivity):
    """The sum of squares over a single wave's decay is least where an independent search says, and near the truth."""
    equations = make_equations("heat", num_points=32, num_frames=32)
    wave, time = np.sin(2 * np.pi * np.arange(32)[:, None] / 32 + 0.4), np.linspace(0.0, 1.0, 32)
    truth = wave * np.exp(-diffusivity * time)
    noisy = truth + 0.1 * np.asarray(jax.random.normal(jax.random.key(3), truth.shape).at[:, 0].set(0.0))
    solve = lambda field: np.asarray(equations.resolve(jnp.asarray(field)[..., None], NOTHING))[..., 0]  # noqa: E731
    np.testing.assert_allclose(solve(truth), truth, atol=1e-12)
    search = minimize_scalar(
        lambda nu: np.sum((noisy - wave * np.exp(-nu * time)) ** 2),
        bounds=(0.0, 2 * diffusivity + 0.1),
        method="bounded",
        options={"xatol": 1e-10},
    )
    np.testing.assert_allclose(solve(noisy), wave * np.exp(-search.x * time), atol=1e-4)
    np.testing.assert_allclose(solve(noisy), truth, atol=0.04)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_field_that_no_diffusivity_explains_is_solved_all_the_same(dtype):
    equations = make_equations("heat", num_points=32, num_frames=32)
    first = jnp.sin(2 * jnp.pi * jnp.arange(32.0) / 32 + 0.4)[:, None, None]
    noises = 3.0 * jax.random.normal(jax.random.key(1), (256, 32, 31, 1))
    fields = jax.vmap(lambda noise: jnp.concatenate([first, noise], 1))(noises)
    found = jax.vmap(equations.resolve, (0, None))(fields.astype(dtype), NOTHING)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:, :, 0], fields[:, :, 0], atol=1e-6)


def test_the_best_diffusivity_is_that_of_least_squares():
    change, integral = jax.random.normal(jax.random.key(1), (2, 5, 4))
    expected = np.linalg.lstsq(integral.reshape(-1, 1), change.ravel(), rcond=None)[0][0]
    np.testing.assert_allclose(fitted_diffusivity(change, integral), expected, rtol=1e-12)


def test_residual_beside_the_wall_falls_with_its_order_and_the_unseen_one_with_two():
    waves = {"wave_number": 5.0, "frequency": 4.0}
    grids = [{"num_points": count, "num_frames": count} for count in (33, 65)]
    coarse, fine = (make_equations("stokes", **waves, **grid) for grid in grids)
    # nine points one-sided: degree eight less two derivatives
    order = np.log2(largest(coarse) / largest(fine))
    assert abs(order - 7.0) < 0.5, order
    assert abs(np.log2(largest(coarse, "unseen") / largest(fine, "unseen")) - 2.0) < 0.25
    # the figure of the docstring
    hardest = make_equations("stokes", num_points=64, num_frames=64, wave_number=20.0, frequency=8.0)
    assert largest(hardest) < 1e-3


def test_what_first_frame_and_wall_depend_on_is_fixed():
    fields = jax.vmap(make_equations("stokes", num_points=16, num_frames=16, wave_number=5.0).draw)(KEYS).fields
    np.testing.assert_array_equal(np.ptp(fields[:, :, 0], axis=0), 0.0)
    fields = jax.vmap(make_equations("stokes", num_points=16, num_frames=16, frequency=5.0).draw)(KEYS).fields
    np.testing.assert_allclose(fields[:, 0, :, 0], np.tile(2 * np.cos(5 * np.linspace(0, 1, 16)), (8, 1)), atol=1e-14)
    fields = jax.vmap(make_equations("heat", num_points=16, num_frames=16, phase=0.5).draw)(KEYS).fields
    np.testing.assert_array_equal(np.ptp(fields[:, :, 0], axis=0), 0.0)


def test_few_frames_are_refused():
    for name in ("heat", "stokes"):
        with pytest.raises(ValueError, match="expected at least"):
            make_equations(name, num_frames=8)
