"""Series against direct sums and derivatives, and the prior against the kernel that it approximates."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.gp.basis import Basis, Box, Energy, Kernel, density, efforts, feature_efforts, make_box, prior_deviations
from phdme_jax.gp.kernels import additive_squared_exponential

BASES = [Basis(1, 9, 3), Basis(2, 8, 5), Basis(2, 5, 0), Basis(3, 4, 3), Basis(2, 3, 6)]


def an_energy(basis, seed=0, dtype=jnp.float64):
    generator = np.random.default_rng(seed)
    fields = basis.num_fields
    box = Box(0.3 * generator.standard_normal(fields), 1 + generator.uniform(size=fields))
    energy = Energy(Box(*map(jnp.asarray, box[:2])), jnp.ones(fields) * 0.7, generator.standard_normal(basis.size))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), energy)


def states_in(energy, shape, seed=1):
    span = np.random.default_rng(seed).uniform(-0.9, 0.9, (*shape, energy.stiffness.size))
    return jnp.asarray(energy.box.centre + span * energy.box.half_width, energy.weights.dtype)


def direct_sum(basis, energy, state):
    """The energy as it is defined: every sine evaluated on its own."""
    centre, half = np.asarray(energy.box.centre), np.asarray(energy.box.half_width)

    def sine(order, field, x):
        distance = x[field] - centre[field] + half[field]
        return np.sin(order * np.pi * distance / (2 * half[field])) / np.sqrt(half[field])

    def sines(x):
        weights, total = iter(np.asarray(energy.weights)), 0.0
        for field in range(basis.num_fields):
            for order in range(1, basis.main + 1):
                total += next(weights) * sine(order, field, x)
        for a, b in basis.pairs:
            for left in range(1, basis.pair + 1):
                for right in range(1, basis.pair + 1):
                    total += next(weights) * sine(left, a, x) * sine(right, b, x)
        return total

    quadratic = 0.5 * np.sum(np.asarray(energy.stiffness) * (state - centre) ** 2)
    return quadratic + sines(state) - sines(centre)


@pytest.mark.parametrize("basis", BASES)
def test_density_is_the_sum_that_defines_it(basis):
    energy = an_energy(basis)
    states = states_in(energy, (4,))
    expected = [direct_sum(basis, energy, np.asarray(state)) for state in states]
    np.testing.assert_allclose(jax.jit(partial(density, basis))(energy, states), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("basis", BASES)
def test_efforts_are_the_gradient_and_the_features_their_design(basis):
    energy = an_energy(basis)
    states = states_in(energy, (3, 2))

    @jax.jit
    def evaluate(states):
        gradient = jax.vmap(jax.vmap(jax.grad(lambda x: density(basis, energy, x))))(states)
        coefficients = jnp.concatenate([energy.weights, energy.stiffness])
        return gradient, efforts(basis, energy, states), feature_efforts(basis, energy.box, states) @ coefficients

    gradient, closed, designed = evaluate(states)
    assert float(jnp.max(jnp.abs(gradient))) > 1
    np.testing.assert_allclose(closed, gradient, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(designed, gradient, rtol=1e-10, atol=1e-10)


def test_the_energy_at_rest_is_zero_and_the_dtype_follows():
    basis = BASES[1]
    for dtype in (jnp.float32, jnp.float64):
        energy = an_energy(basis, dtype=dtype)
        state = states_in(energy, (5,))
        for function in (partial(density, basis), partial(efforts, basis)):
            assert jax.eval_shape(function, energy, state).dtype == dtype
        assert jax.eval_shape(partial(feature_efforts, basis), energy.box, state).dtype == dtype
        assert abs(float(jax.jit(partial(density, basis))(energy, energy.box.centre))) < 10 * jnp.finfo(dtype).eps


@pytest.mark.parametrize("shapes", [("even", "even"), ("free", "quadratic"), ("known", "even")])
def test_shapes_rule_out_what_they_say(shapes):
    basis = Basis(2, 8, 5, shapes)
    energy = an_energy(basis)
    kernel = Kernel(jnp.full(2, 0.3), jnp.ones(2), jnp.ones(len(basis.pairs)))
    energy = energy._replace(weights=prior_deviations(basis, energy.box, kernel) * energy.weights)
    offset = states_in(energy, (5,)) - energy.box.centre
    evaluate = jax.jit(partial(density, basis))
    for field, shape in enumerate(shapes):
        along = jnp.zeros(2).at[field].set(1.0) * offset
        forward, backward = (evaluate(energy, energy.box.centre + sign * along) for sign in (1, -1))
        if shape == "free":
            assert float(jnp.max(jnp.abs(forward - backward))) > 1e-2
        else:
            np.testing.assert_allclose(forward, backward, atol=1e-12)
        if shape in ("quadratic", "known"):
            np.testing.assert_allclose(forward, 0.35 * along[:, field] ** 2, atol=1e-12)


@pytest.mark.slow
def test_the_prior_becomes_the_additive_kernel_as_the_basis_grows():
    box = Box(jnp.array([0.2, -0.1]), jnp.array([1.0, 2.0]))
    kernel = Kernel(0.2 * box.half_width, jnp.array([0.7, 1.2]), jnp.array([0.5]))
    span = np.random.default_rng(0).uniform(-0.25, 0.25, (5, 2))
    states = box.centre + jnp.asarray(span) * box.half_width
    jets = jax.vmap(jax.vmap(additive_squared_exponential, (None, 0, None)), (0, None, None))(states, states, kernel)

    at_rest = jax.vmap(lambda x: additive_squared_exponential(x, box.centre, kernel).value)(states)
    variance = jnp.sum(kernel.amplitude**2) + jnp.sum(kernel.pair_amplitude**2)
    # the energy is counted from rest
    expected = jets.value - at_rest[:, None] - at_rest[None] + variance

    def errors(count):
        basis = Basis(2, count, count)

        @jax.jit
        def covariances():
            root = prior_deviations(basis, box, kernel)
            slopes = feature_efforts(basis, box, states)[..., : basis.size] * root
            values = jax.vmap(lambda w: density(basis, Energy(box, jnp.zeros(2), w), states))(jnp.diag(root))
            return values.T @ values, jnp.einsum("iam,jbm->ijab", slopes, slopes)

        values, slopes = covariances()
        return float(jnp.max(jnp.abs(values - expected))), float(jnp.max(jnp.abs(slopes - jets.cross)))

    coarse, medium, fine = errors(4), errors(9), errors(20)
    assert fine[0] < 1e-7 and fine[1] < 1e-5
    assert coarse[0] > 10 * medium[0] > 100 * fine[0] and coarse[1] > 10 * medium[1] > 100 * fine[1]


def test_box_holds_the_states_with_its_margin():
    states = jnp.asarray([[0.1, 2.0], [-0.3, 1.0]])
    box = make_box(states, jnp.array([0.0, 1.0]), 2.0)
    np.testing.assert_allclose(box.half_width, [0.6, 2.0])


def test_unknown_shapes_are_refused():
    with pytest.raises(ValueError, match="expected one shape among"):
        Basis(2, shapes=("even", "odd"))
    with pytest.raises(ValueError, match="per field"):
        Basis(2, shapes=("even",))
