"""The porous medium equation: its exponent is read off the field, its balance is that of a wave of speed one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.porous_medium import fitted_exponent

NOTHING = jnp.zeros(())


def drawn(count, exponent, frames=None):
    equations = make_equations("porous_medium", num_points=count, num_frames=frames or count, exponent=exponent)
    return equations, equations.draw(jax.random.key(0)).fields


@pytest.mark.parametrize("exponent", [1.0, 2.5, 6.0])
def test_residual_and_balance_vanish_whatever_the_exponent_is_and_it_is_found(exponent):
    equations, fields = drawn(33, exponent)
    np.testing.assert_allclose(fitted_exponent(fields[..., 0]), exponent, rtol=1e-9)
    np.testing.assert_allclose(equations.residual(fields, NOTHING)["balance"], 0.0, atol=1e-10)
    np.testing.assert_allclose(equations.conserved(fields, NOTHING), 0.0, atol=1e-13)
    lost = equations.conserved(fields.at[4:12, 20].add(-0.1), NOTHING)
    np.testing.assert_allclose(lost[19], -0.1 * 8 / 32, atol=1e-13)


def test_integral_is_that_of_the_exact_solution():
    """int_0^t (m (t - x))^(1/m) dx = (m t)^(1/m + 1) / (m + 1)."""
    _, fields = drawn(401, 2.0)
    times = np.linspace(0.0, 1.0, 401)
    found = np.trapezoid(fields[..., 0], dx=1 / 400, axis=0)
    np.testing.assert_allclose(found, (2.0 * times) ** 1.5 / 3.0, atol=1e-3)


def test_a_parabola_of_pressure_grows_as_its_exponent_says():
    """v = A x^2 has A' = (2 m + 4) A^2: A = 1 / (20 - 16 t) for the m of six that a dry left end counts as."""
    count = 129
    equations = make_equations("porous_medium", num_points=count, num_frames=count)
    place, time = np.linspace(0.0, 1.0, count)[:, None], np.linspace(0.0, 1.0, count)
    fields = jnp.asarray((6.0 * place**2 / (20.0 - 16.0 * time)) ** (1 / 6))[..., None]
    assert float(fitted_exponent(fields[..., 0])) == 6.0
    found = equations.residual(fields, NOTHING)["balance"]
    # differences to one side, of terms up to one
    assert float(jnp.abs(found).max()) < 0.1


def test_another_exponent_at_the_wall_and_another_front_are_seen():
    equations, fields = drawn(33, 3.0)
    wrong = jnp.concatenate([drawn(33, 2.0)[1][:1], fields[1:]])
    assert np.abs(equations.residual(wrong, NOTHING)["balance"]).max() > 0.1
    assert np.abs(equations.residual(1.2 * fields, NOTHING)["balance"]).max() > 0.1


def test_away_from_the_front_the_other_stencil_has_order_two():
    def largest(count):
        equations, fields = drawn(count, 3.0)
        found = equations.unseen(fields, NOTHING)["balance"]
        quarter = count // 4
        return float(jnp.abs(found[1:quarter, 2 * quarter :]).max())

    assert abs(np.log2(largest(65) / largest(129)) - 2.0) < 0.2


def test_the_first_frame_is_dry_and_few_places_are_refused():
    assert not drawn(16, 2.0)[1][:, 0].any()
    with pytest.raises(ValueError, match="expected at least 4 points"):
        make_equations("porous_medium", num_points=3)
