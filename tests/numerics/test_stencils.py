"""Discrete integration by parts to rounding, and orders of accuracy as measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.numerics import stencils
from phdme_jax.numerics.quadrature import trapezoid_weights

SBP_ORDERS, MIRROR_ORDERS = (2, 4), (2, 4, 6, 8)


def even(z):
    """exp(cos(pi z)) with its first and second derivatives."""
    sine, cosine = np.sin(np.pi * z), np.cos(np.pi * z)
    value = np.exp(cosine)
    return value, -np.pi * sine * value, np.pi**2 * (sine**2 - cosine) * value


def odd(z):
    """sin(pi z) exp(cos(pi z)) with its first and second derivatives."""
    sine, cosine = np.sin(np.pi * z), np.cos(np.pi * z)
    _, first, second = even(z)
    return -first / np.pi, -second / np.pi, -(np.pi**2) * sine * (3 * cosine + cosine**2) * np.exp(cosine)


def measured_order(error, coarse, fine):
    """Order between two grids on the unit interval, given the error as a function of (points, spacing)."""
    errors = [np.max(np.abs(error(np.linspace(0.0, 1.0, n), 1 / (n - 1)))) for n in (coarse, fine)]
    return np.log(errors[0] / errors[1]) / np.log((fine - 1) / (coarse - 1))


def compiled(derivative, field, *arguments):
    return np.asarray(jax.jit(derivative, static_argnums=tuple(range(1, 1 + len(arguments))))(field, *arguments))


def matrix_of(derivative, num_points, *arguments):
    return compiled(derivative, np.eye(num_points), *arguments)


@pytest.mark.parametrize("order", SBP_ORDERS)
def test_sbp_derivative_integrates_by_parts(order):
    n, spacing = 21, 0.3
    derivative = matrix_of(stencils.sbp_derivative, n, spacing, order)
    norm = np.diag(stencils.sbp_weights(n, spacing, order))
    boundary = np.zeros((n, n))
    boundary[0, 0], boundary[-1, -1] = -1, 1
    np.testing.assert_allclose(norm @ derivative + (norm @ derivative).T, boundary, atol=1e-14)
    np.testing.assert_allclose(np.trace(norm), 0.3 * 20, rtol=1e-14)


@pytest.mark.parametrize("order", SBP_ORDERS)
def test_sbp_derivative_and_weights_are_exact_on_low_polynomials(order):
    n, spacing = 21, 0.1
    z = np.linspace(0.0, 2.0, n)
    weights = stencils.sbp_weights(n, spacing, order)
    derivative = matrix_of(stencils.sbp_derivative, n, spacing, order)
    for degree in range(order + 1):
        error = derivative @ z**degree - degree * z ** max(degree - 1, 0)
        kept = error if degree <= order // 2 else error[order:-order]
        np.testing.assert_allclose(kept, 0.0, atol=1e-12)
    for degree in range(order):
        np.testing.assert_allclose(weights @ z**degree, 2.0 ** (degree + 1) / (degree + 1), rtol=1e-13)


@pytest.mark.parametrize("order", SBP_ORDERS)
def test_sbp_derivative_has_its_order_inside_and_half_of_it_at_the_ends(order):
    def error(z, spacing):
        return compiled(stencils.sbp_derivative, np.sin(2 * z + 1), spacing, order) - 2 * np.cos(2 * z + 1)

    inside = measured_order(lambda z, spacing: error(z, spacing) * (np.abs(z - 0.5) < 0.3), 41, 81)
    anywhere = measured_order(error, 161, 321)
    assert abs(inside - order) < 0.2
    assert abs(anywhere - order / 2) < 0.2


@pytest.mark.parametrize("order", MIRROR_ORDERS)
def test_odd_and_even_mirror_derivatives_are_adjoint(order):
    n, spacing = 24, 0.3
    weights = trapezoid_weights(n, spacing)
    u, v = np.random.default_rng(0).standard_normal((2, n))
    u[[0, -1]] = 0.0
    left = weights @ (u * compiled(stencils.mirror_derivative, v, spacing, order, 1))
    right = weights @ (compiled(stencils.mirror_derivative, u, spacing, order, -1) * v)
    assert abs(left) > 0.1
    assert abs(left + right) < 1e-13


@pytest.mark.parametrize("order", MIRROR_ORDERS)
@pytest.mark.parametrize(("field", "parity"), [(even, 1), (odd, -1)])
def test_mirror_derivatives_have_full_order_up_to_the_ends(order, field, parity):
    def first(z, spacing):
        return compiled(stencils.mirror_derivative, field(z)[0], spacing, order, parity) - field(z)[1]

    def second(z, spacing):
        return compiled(stencils.mirror_second_derivative, field(z)[0], spacing, order, parity) - field(z)[2]

    assert abs(measured_order(first, 41, 65) - order) < 0.2
    assert abs(measured_order(second, 41, 65) - order) < 0.2


@pytest.mark.parametrize("order", MIRROR_ORDERS)
@pytest.mark.parametrize("parity", [1, -1])
def test_second_derivative_is_symmetric_and_negative_semidefinite(order, parity):
    n, spacing = 24, 0.3
    matrix = matrix_of(stencils.mirror_second_derivative, n, spacing, order, parity)
    form = trapezoid_weights(n, spacing)[:, None] * matrix
    kept = form[1:-1, 1:-1] if parity == -1 else form
    np.testing.assert_allclose(kept, kept.T, atol=1e-13)
    values = np.linalg.eigvalsh(kept)
    assert values.max() < 1e-12
    # constants are even and lie in the kernel; no odd field does
    assert np.sum(values > -1e-9) == (1 if parity == 1 else 0)


@pytest.mark.parametrize("parity", [1, -1])
def test_trailing_axes_are_independent_and_the_dtype_follows(parity):
    field = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    for derivative in (
        lambda f: stencils.mirror_derivative(f, 0.1, 4, parity),
        lambda f: stencils.mirror_second_derivative(f, 0.1, 4, parity),
        lambda f: stencils.sbp_derivative(f, 0.1, 4),
    ):
        whole = derivative(jnp.asarray(field))
        assert whole.dtype == jnp.float32
        np.testing.assert_allclose(whole[:, 1], derivative(jnp.asarray(field[:, 1])), rtol=1e-5, atol=1e-4)


def test_unknown_orders_and_short_grids_are_refused():
    with pytest.raises(ValueError, match="expected an order among"):
        stencils.sbp_derivative(jnp.ones(30), 0.1, 6)
    with pytest.raises(ValueError, match="expected at least 17 points"):
        stencils.mirror_derivative(jnp.ones(12), 0.1, 8, 1)


@pytest.mark.parametrize(("derivative", "degree"), [(1, 2), (2, 3)])
def test_closed_matrix_is_exact_on_polynomials(derivative, degree):
    line = np.linspace(0.0, 1.5, 16)
    matrix = stencils.closed_matrix(16, 0.1, derivative)

    def largest_error(power):
        monomial = np.poly1d([1.0] + [0.0] * power)
        return np.abs(matrix @ monomial(line) - np.polyder(monomial, derivative)(line)).max()

    assert max(largest_error(power) for power in range(degree + 1)) < 1e-10
    assert largest_error(degree + 1) > 1e-3


def test_closed_matrix_refuses_other_derivatives():
    with pytest.raises(ValueError, match="derivative 1 or 2"):
        stencils.closed_matrix(16, 0.1, 3)
