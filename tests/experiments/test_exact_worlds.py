"""Worlds with exact answers: what samplers are compared with, and samplers that must be exact there."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import exact_worlds
from experiments.exact_worlds import AXES, STUDY, moment_errors, on_ellipse, onto_ellipse, world_bench
from phdme_jax.methods.draws import draw_forecasts
from phdme_jax.methods.table import METHODS
from phdme_jax.training.stages import Trainer


@pytest.mark.slow
def test_the_nearest_point_of_the_ellipse_is_that_of_a_fine_search():
    angle = np.linspace(-np.pi, np.pi, 200001)
    curve = np.stack([AXES[0] * np.cos(angle), AXES[1] * np.sin(angle)], axis=-1)
    for point in np.random.default_rng(0).normal(size=(8, 2)):
        found = onto_ellipse(jnp.asarray(point), None)
        expected = curve[np.argmin(np.sum((curve - point) ** 2, axis=1))]
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert float(jnp.sum((found / jnp.asarray(AXES)) ** 2)) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.slow
def test_the_law_on_the_ellipse_is_that_of_points_with_a_small_residual():
    """Of four million points those with |R| < 0.02: the factor of the slope is in them, and not in the length."""
    world = exact_worlds.make_world("ellipse", 0)
    points = exact_worlds.draws(world, 4_000_000, jax.random.key(0))
    near = points[np.abs(np.sum((points / AXES) ** 2, axis=1) - 1.0) < 0.02]
    angle = np.arctan2(near[:, 1] / AXES[1], near[:, 0] / AXES[0])
    share = np.histogram(angle, exact_worlds.BINS, (-np.pi, np.pi))[0] / len(angle)
    errors = {name: 0.5 * np.abs(share - expected).sum() for name, expected in on_ellipse(world).items()}
    assert errors[""] < 0.02 and errors["_surface"] > 3 * errors[""], errors


@pytest.fixture(scope="module")
def bench():
    config = STUDY.get_config("laptop")
    return world_bench(SimpleNamespace(asked="test"), config, "gaussian", 0), config


def errors_of(bench, method, split):
    """Of mean and covariance, against the observation and against the equation beside it."""
    (bench, config), fitted = bench, None
    for name in filter(None, (METHODS[method].teacher, method)):
        fitted = METHODS[name].fit(bench.task, bench.options, Trainer(), fitted, bench.key)
        fitted = bench.adapted(METHODS[name], fitted)
    drawn = draw_forecasts(fitted, bench.splits[split].condition, config.samples.count, jax.random.key(1))
    samples = drawn.finished(fitted.model, bench.splits[split].condition).samples[0]
    laws = exact_worlds.laws_of(SimpleNamespace(bench=bench, config=config), split)
    return {
        suffix: [row.value for row in moment_errors(samples.reshape(len(samples), -1), law).values()]
        for suffix, law in laws.items()
    }


@pytest.mark.slow
def test_exact_networks_are_in_the_place_of_trained_ones(bench):
    """5,000 samples leave errors of a few hundredths."""
    plain = errors_of(bench, "diffusion", "test")
    assert max(plain[""]) < 0.06 < max(plain["_obeying"]), plain
    matched = errors_of(bench, "moment_matched", "noisy")
    assert max(matched[""]) < 0.06 < max(matched["_obeying"]), matched
