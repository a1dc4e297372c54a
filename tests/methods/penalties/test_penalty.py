"""Penalties by themselves: which levels they are asked at, what they ask, and their bias where it is known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion.preconditioning import noise_from_x0
from phdme_jax.diffusion.schedule import EdmSchedule
from phdme_jax.methods.base import Examples, Task
from phdme_jax.methods.equations.encoding import Encoding
from phdme_jax.methods.equations.network import EncodedExample, Given, network_of
from phdme_jax.methods.penalties.penalty import PenaltyOptions, level_weight, penalty_of
from phdme_jax.methods.presets import FEW_CALLS, MLP, equation_groups
from phdme_jax.systems import make_equations


def test_the_weight_of_a_level_is_one_over_the_square_of_the_noise_and_gated():
    schedule, options = EdmSchedule(sigma_min=0.004, sigma_max=160.0), PenaltyOptions({})
    times = np.linspace(0.0, 1.0, 400)
    ratio = np.exp(-0.5 * np.asarray(jax.vmap(schedule.log_snr)(times)))
    linear = np.asarray(jax.vmap(lambda t: level_weight(schedule, "linear", options, t))(times))
    other = np.asarray(jax.vmap(lambda t: level_weight(schedule, "convex", options, t))(times))
    general = np.asarray(jax.vmap(lambda t: level_weight(schedule, "general", options, t))(times))
    np.testing.assert_allclose(linear, np.minimum(ratio**-2.0, 1e4), rtol=1e-6)
    np.testing.assert_allclose(general, 1.0 / (1.0 + ratio**2), rtol=1e-6)
    np.testing.assert_allclose(other, np.where(ratio <= 0.5, linear, 0.0), rtol=1e-6)
    assert (other == 0).any() and (other > 0).any()


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("advection", {"num_points": 16, "num_frames": 8, "highest_wave": 4}),
        ("viscous_burgers", {"num_points": 16, "num_frames": 8}),
        ("dam_break", {"num_points": 8, "num_frames": 4}),
    ],
)
def test_a_true_example_has_no_penalty_whatever_its_scheme_leaves(name, sizes):
    """The residual of another scheme is no error of a denoiser: the example itself, not a blurred one, is best."""
    equations = make_equations(name, **sizes)
    sample = equations.draw(jax.random.key(3))
    kinds = ("linear",) * len(equations.fields)
    encoding = Encoding(jnp.zeros(len(kinds)), jnp.ones(len(kinds)))
    example = EncodedExample(sample.fields, Given(sample.condition, sample.condition, encoding))
    task = Task(
        equations,
        lambda: Examples(np.asarray(sample.fields)[None], np.asarray(sample.condition)[None]),
        lambda key, count: None,
        jax.random.key(0),
    )
    groups = equation_groups("edm", FEW_CALLS, noise="edm")
    net = network_of(task, {"data": {"kinds": kinds}, "network": MLP, **groups})
    for one in equations.priors.feasibilities:
        asked = penalty_of(net, one, None)
        assert float(asked(sample.fields, None, example)) == 0.0
        assert float(jnp.mean(one.terms(sample.fields, sample.fields, sample.condition) ** 2)) > 1e-6
        assert float(asked(0.99 * sample.fields, None, example)) > 0.0


def test_a_linear_penalty_is_the_error_of_the_noise_along_its_directions():
    # R(x0_hat) = W (x0_hat - x0) = sigma / alpha W (noise - noise_hat): no gap, directions alone weigh more
    equations = make_equations("five_springs", num_frames=5)
    (linear,) = (one for one in equations.priors.feasibilities if one.form == "linear")
    sample = equations.draw(jax.random.key(4))
    noise, wrong = jax.random.normal(jax.random.key(5), (2, *sample.fields.shape))
    alpha, sigma = jnp.asarray(0.8), jnp.asarray(0.6)
    noisy, predicted = alpha * sample.fields + sigma * noise, sample.fields + 0.1 * wrong
    found = linear.terms(predicted, sample.fields, sample.condition)
    said = noise_from_x0(noisy, predicted, alpha, sigma)
    other = sigma / alpha * linear.terms(noise - said, sample.fields, sample.condition)
    np.testing.assert_allclose(found, other, atol=1e-12)


def test_the_energy_of_a_spring_is_asked_for_as_it_is_and_in_parts():
    equations = make_equations("five_springs", num_frames=5)
    sample = equations.draw(jax.random.key(4))
    asked = {
        (one.form, one.name): one.terms(1.1 * sample.fields, sample.fields, sample.condition)
        for one in equations.priors.feasibilities
        if one.form in ("convex", "reducible")
    }
    (energy,) = (of for name, of in equations.priors.invariants if name == "energy")
    # both halves of the energy are quadratic: terms are squares that are missed, positive where fields are too large
    speed = jnp.sum(sample.fields[..., 2:] ** 2, axis=-1)
    np.testing.assert_allclose(asked["convex", "energy"], 0.21 * energy(sample.fields, sample.condition), rtol=1e-9)
    np.testing.assert_allclose(asked["reducible", "kinetic"], 0.21 * speed, rtol=1e-9)
    pairs = asked["reducible", "potential"]
    assert pairs.shape == (5, 5, 5)
    # k = 0.1, each pair twice
    whole = 0.5 * asked["reducible", "kinetic"].sum(axis=1) + 0.025 * pairs.sum(axis=(1, 2))
    np.testing.assert_allclose(whole, asked["convex", "energy"], rtol=1e-9)


def posterior(points, noisy, sigma):
    """Weights of the points, as likely as each other, given one of them with noise."""
    square = ((points - noisy) ** 2).sum(axis=-1)
    weight = np.exp(-0.5 * (square - square.min()) / sigma**2)
    return weight / weight.sum()


@pytest.mark.parametrize("sigma", [0.1, 0.2, 0.44, 0.71])
def test_the_gap_of_a_convex_feasibility_is_the_variance(sigma):
    # x^2 + v^2 = 1 for every example; of the mean 1 - |E x|^2 = Var x exactly, which a penalty takes for an error
    angle = 2 * np.pi * np.arange(400) / 400
    points = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    for noisy in points[0] + sigma * np.random.default_rng(0).normal(size=(20, 2)):
        weight = posterior(points, noisy, sigma)
        mean = weight @ points
        variance = weight @ ((points - mean) ** 2).sum(axis=-1)
        assert 1 - mean @ mean == pytest.approx(variance, abs=1e-12)
        assert variance > 0.5 * sigma**2 / (1 + sigma**2)


def test_a_multilinear_penalty_moves_the_minimum_where_the_frozen_part_depends_on_the_rest():
    # R = x y - 1, x frozen: the minimiser of E (x0 y - 1)^2 is E[x0] / E[x0^2], not E[y]
    x = np.linspace(0.5, 2.0, 401)
    points = np.stack([x, 1 / x], axis=-1)
    biases = []
    for sigma in (0.05, 0.1, 0.2, 0.4):
        weight = posterior(points, np.array([1.0, 1.0]), sigma)
        frozen, mean = weight @ x / (weight @ x**2), weight @ points[:, 1]
        biases.append(abs(frozen - mean) / mean)
    assert all(small < large for small, large in itertools.pairwise(biases))
    # Var x / E[x]^2 and Var y / E[y]^2 to the second order: the bias is quadratic in the noise
    assert biases[1] / biases[0] == pytest.approx(4.0, rel=0.15)
    # where x says nothing of y, the frozen part is a constant and there is no bias
    weight = posterior(points, np.array([1.0, 1.0]), 0.4)
    assert weight @ (np.full_like(x, 1.3) * points[:, 1]) / 1.3 == pytest.approx(weight @ points[:, 1])
