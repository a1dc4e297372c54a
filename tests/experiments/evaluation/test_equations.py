"""Scores of generated fields: one that failed is no field, and leaves no score a number."""

from types import SimpleNamespace

import numpy as np

from experiments.data.equations import FieldSet
from experiments.evaluation.equations import distance_scores, drawn_fields, physics_scores
from phdme_jax.forecasting.bands import Forecasts
from phdme_jax.systems import make_equations


def test_a_sample_that_failed_leaves_no_score_a_number():
    """Draws that failed come as zeros, which obey many equations."""
    equations = make_equations("poisson_2d", num_points=9)
    samples = np.random.default_rng(0).normal(size=(4, 1, 9, 9, 2))
    samples[2] = 0.0
    ok = np.array([True, True, False, True])
    drawn = drawn_fields(SimpleNamespace(forecasts=Forecasts(None, samples, ok, 0.0)))
    assert np.isnan(drawn[2]).all()
    np.testing.assert_array_equal(drawn[ok], samples[ok, 0])
    generated, reference = FieldSet(drawn, drawn[..., :0]), FieldSet(samples[:, 0], drawn[..., :0])
    rows = physics_scores(equations, generated) | distance_scores(equations, generated, reference)
    assert all(row.value is None for row in rows.values()) and len(rows) > 8
    whole = drawn_fields(SimpleNamespace(forecasts=Forecasts(samples[:, 0], None, np.ones(4, bool), 0.0)))
    np.testing.assert_array_equal(whole, samples[:, 0])
