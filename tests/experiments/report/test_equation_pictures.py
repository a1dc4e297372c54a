"""Pictures of studies of known equations: what stands among the seeds of a method."""

from types import SimpleNamespace

import numpy as np

from experiments.report import equations
from phdme_jax.app.rows import ResultRow


def shown_of(tmp_path, rows, methods):
    results = SimpleNamespace(rows=lambda: rows)
    study = SimpleNamespace(systems=("case",))
    paths = lambda name: tmp_path / name  # noqa: E731
    context = SimpleNamespace(results=results, methods=methods, asked="test", figure_path=paths, study=study)
    return SimpleNamespace(context=context, run=SimpleNamespace(case="case"))


def row(method, value, seed=0, system="case", split="test", settings=None):
    return ResultRow("s", system, method, seed, split, "residual_mae", value, None, 4, "1", settings or {})


def test_residuals_are_of_methods_as_they_are_on_this_problem(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        equations.figures, "metric_by_method", lambda path, values, labels, floor: drawn.update(values, floor=floor)
    )
    rows = [row("reference", 1e-9), row("piddm", 0.1), row("piddm", 0.2, 1), row("dps", 3.0, split="inverse")]
    rows += [row("piddm", 1e-15, settings={"solved": True}), row("piddm", 5.0, system="other")]
    (section,) = equations.residual_section(shown_of(tmp_path, rows, ("piddm", "dps")))
    assert drawn == {"piddm": [0.1, 0.2], "floor": 1e-9} and len(section.pictures) == 1
    (section,) = equations.residual_section(shown_of(tmp_path, rows, ("dps",)))
    assert not section.pictures and np.isfinite(drawn["floor"])
