"""The published residuals have the faults that are said of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.systems import make_equations

NOTHING = jnp.zeros(())


def inner(values):
    return np.asarray(values)[2:-2, 2:-2]


@pytest.mark.slow
def test_of_darcy_data_next_to_nothing_balances_the_source():
    equations = make_equations("darcy_binary", num_points=48)
    sample = jax.jit(equations.draw)(jax.random.key(1))
    assert float(jnp.abs(equations.residual(*sample[:2])["balance"]).max()) < 1e-9
    missing = inner(equations.published(*sample[:2])["balance"])
    np.testing.assert_allclose(missing, 1.0, atol=0.05)
    # of fields that are smooth it is one less the divergence times the square of the spacing
    x, y = np.meshgrid(*[np.linspace(0, 1, 48)] * 2, indexing="ij")
    fields = jnp.asarray(np.stack([x**2 + 3 * y**2, np.full_like(x, 2.0)], axis=-1))
    found = inner(equations.published(fields, NOTHING)["balance"])
    np.testing.assert_allclose(found, 1.0 + 16.0 / 47**2, rtol=1e-12)


def test_of_burgers_waves_the_viscosity_is_negative():
    equations = make_equations("burgers", num_points=64, num_frames=64, viscosity=0.5)
    place, time = np.meshgrid(np.arange(64) / 64, np.linspace(0, 1, 64), indexing="ij")
    # u = x^2 + 3 t: u_t + u u_x - nu u_xx = 3 + 2 x u - 2 nu
    field = place**2 + 3 * time
    expected = -(3.0 / 63 + 2 * place * field / 64 + 0.5 * 2.0 / 64**2)
    found = equations.published(jnp.asarray(field)[..., None], NOTHING)["balance"]
    np.testing.assert_allclose(inner(found), inner(expected), rtol=1e-10)
