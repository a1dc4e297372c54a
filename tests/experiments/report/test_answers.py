"""Pictures of answers: what was seen is what is shown, and colours mean the same in every row."""

from types import SimpleNamespace

import numpy as np
import pytest

from experiments.report import answers
from experiments.report.answers import Answered, Asked, answer_picture
from phdme_jax.app import drawing
from phdme_jax.app.rows import ResultRow
from phdme_jax.methods.equations.questions import Question
from phdme_jax.numerics.grid import Grid
from phdme_jax.systems import make_equations

EQUATIONS = make_equations("poisson_2d", num_points=10)


def asked(mask):
    fields = np.random.default_rng(0).standard_normal((1, 10, 10, 2))
    question = Question(fields[..., :0], mask[None], mask[None] * fields, np.zeros((1, 2)))
    split = SimpleNamespace(truth=fields, condition=question)
    return fields[0], [answers._asked(EQUATIONS, split, index) for index in (0, 1)]


def test_forward_shows_the_cause_and_asks_for_the_solution_alone():
    mask = np.zeros((10, 10, 2))
    mask[..., 1] = 1.0
    fields, (solution, source) = asked(mask)
    assert source is None
    np.testing.assert_array_equal(solution.truth, fields[..., 0])
    np.testing.assert_array_equal(solution.observed, fields[..., 1])
    assert solution.label == "observed: source" and not solution.same


def test_a_reconstruction_shows_the_places_seen_of_the_field_itself():
    mask = np.zeros((10, 10, 2))
    mask[3, 4, 0] = mask[5, 6, 1] = 1.0
    fields, found = asked(mask)
    for one, place, index in zip(found, ((3, 4), (5, 6)), (0, 1), strict=True):
        assert one.same and np.isfinite(one.observed).sum() == 1 and one.observed[place] == fields[(*place, index)]


def test_few_places_are_dots_where_they_are_and_the_ends_of_the_grid_are_told():
    axis = drawing.new_figure(2.0, 2.0).subplots()
    field = np.full((10, 12), np.nan)
    field[3, 8] = 0.5
    answers._draw(axis, field, drawing.value_scale(np.array([-1.0, 1.0])), "read")
    (dots,) = axis.collections
    np.testing.assert_array_equal(dots.get_offsets(), [[3, 8]])
    answers._measure(axis, Grid((10, 12), (2.0, 3.0)))
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "2"] and axis.get_xticks()[-1] == 9
    assert [label.get_text() for label in axis.get_yticklabels()] == ["0", "3"] and axis.get_yticks()[-1] == 11
    whole = drawing.new_figure(2.0, 2.0).subplots()
    answers._draw(whole, np.ones((10, 12)), drawing.value_scale(np.array([-1.0, 1.0])), "whole")
    assert not whole.collections


@pytest.mark.slow
def test_one_scale_for_all_rows_and_methods(tmp_path, monkeypatch):
    drawn, plain = [], answers._draw
    monkeypatch.setattr(
        answers,
        "_draw",
        lambda axis, field, scale, title: drawn.append(scale["norm"]) or plain(axis, field, scale, title),
    )
    truth = np.linspace(-1.0, 2.0, 100).reshape(10, 10)

    def answered(size):
        return Answered((size * truth,) * 3, size * abs(truth), size * abs(truth))

    seen = Asked(truth, 50.0 * truth, "observed: source", False)
    answer_picture(tmp_path / "a.png", seen, {"one": answered(1.0), "other": answered(3.0)}, "a title")
    shown, told, *rest = drawn
    assert (shown.vmin, shown.vmax) == (-2.0, 2.0) and (told.vmin, told.vmax) == (-100.0, 100.0)
    for row in (rest[:5], rest[5:]):
        assert all(norm is shown for norm in row[:3])
        assert (row[3].vmin, row[3].vmax) == (0.0, 6.0)
        assert row[4].vmax == 6.0 and row[4].vmin == pytest.approx(6e-4)


def test_the_best_answers_come_first_and_failed_ones_not_at_all():
    rows = [
        ResultRow("s", "case", method, seed, "inverse", "crps", value, None, 4, "1", settings)
        for method, values, settings in (
            ("dps", (0.3, 0.1), {}),
            ("eci", (0.1, None), {}),
            ("kriging", (0.1, 0.1), {}),
            ("pcfm", (0.0, 0.0), {"solved": True}),
        )
        for seed, value in enumerate(values)
    ]
    shown = SimpleNamespace(
        context=SimpleNamespace(results=SimpleNamespace(rows=lambda: rows)), run=SimpleNamespace(case="case")
    )
    assert answers._in_order(shown, "inverse") == ["kriging", "dps"]
