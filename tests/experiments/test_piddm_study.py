"""The page of one-step models: from rows alone, by rule, and a collapse is no success."""

import pytest

from experiments.piddm_study import main, main_finding, make_page
from experiments.report.one_step import SOLVED, derived_rows, finding, method_picture, points_of
from experiments.report.parts import RESULTS, Rows, read_parts
from phdme_jax.app.drawing import Labels
from phdme_jax.app.rows import ResultRow, append_rows, read_rows

NAME = "poisson_2d"


def row(method, metric, value, seed=0, split="test", experiment=NAME, settings=None):
    return ResultRow(experiment, experiment, method, seed, split, metric, value, None, 8, "1", settings or {})


def drawn(method, residual, smse, calls, settings=None, experiment=NAME):
    """Three seeds whose numbers differ threefold, together with those of other methods."""
    for seed in range(3):
        scores = {
            "residual_rms": residual,
            "smse_solution": smse,
            "spectrum_error_solution": smse,
            "mmse_solution": 0.1,
        }
        for metric, value in {**scores, "seconds_per_sample": 1e-3 * calls}.items():
            yield row(method, metric, value * (1 + seed), seed, experiment=experiment, settings=settings)
        yield row(method, "nfe", calls, seed, experiment=experiment, settings=settings)


TEACHER = [*drawn("flow_matching", 0.1, 0.01, 24), *drawn("reference", 1e-15, 0.005, 0)]
COLLAPSED = [*drawn("distilled", 1e-4, 1.0, 1)]
GOOD = [*drawn("piddm", 0.02, 0.015, 1), *drawn("piddm", 1e-15, 0.015, 1, SOLVED)]
WORSE = [*drawn("flow_map", 0.3, 0.011, 1)]


def part_of(*rows, experiment=NAME):
    part = Rows(experiment, rows)
    return Rows(experiment, [*part.rows, *derived_rows(part)])


def test_ratios_are_to_the_teacher_within_a_seed():
    part = part_of(*TEACHER, *GOOD)
    # 0.02 (1 + s) / 0.1 (1 + s) is the same for every seed
    assert part.values(NAME, "residual_rms_ratio", "piddm") == pytest.approx(dict.fromkeys(range(3), 0.2))
    assert part.values(NAME, "smse_ratio_solution", "piddm", SOLVED) == pytest.approx(dict.fromkeys(range(3), 1.5))
    assert not part.values(NAME, "residual_rms_ratio", "flow_matching"), "a teacher is not its own student"
    assert not part.values(NAME, "residual_rms_ratio", "reference")


def test_seconds_of_training_stand_beside_the_test():
    part = part_of(*TEACHER, row("piddm", "train_seconds", 5.0, split="train"))
    assert part.values(NAME, "train_seconds", "piddm") == {0: 5.0}


def test_a_collapse_is_a_loss_however_small_its_residual():
    lowers, words = finding(part_of(*TEACHER, *COLLAPSED, *GOOD, *WORSE), NAME)
    assert lowers and words.startswith("piddm (1 call) leaves 0.2 ± 0 of")
    assert "of the residual of flow_matching (24 calls)" in words and "1.5 times as large" in words
    assert "distilled (0.001" in words and "is a loss" in words and "1e+02 times its teacher's" in words
    assert "others that keep them: flow_map (3" in words
    assert "Computing the solution anew leaves rounding" in words
    lowers, words = finding(part_of(*TEACHER, *COLLAPSED, *WORSE), NAME)
    assert lowers is False and words.startswith("No student lowers the residual of its teacher and keeps its spread")


def test_the_lead_counts_the_problems_that_were_judged():
    parts = {
        NAME: part_of(*TEACHER, *GOOD),
        "burgers": part_of(
            *drawn("flow_matching", 0.1, 0.01, 24, experiment="burgers"),
            *drawn("piddm", 0.2, 0.01, 1, experiment="burgers"),
            experiment="burgers",
        ),
        "helmholtz_2d": part_of(row("kriging", "nfe", 0.0, experiment="helmholtz_2d"), experiment="helmholtz_2d"),
    }
    assert main_finding(parts).text.startswith("On 1 of 2 problems")


QUESTIONS = [
    row(method, metric, value, seed, "inverse")
    for seed in range(2)
    for method, crps, covered in (("dps", 0.4, 0.7), ("kriging", 0.1, 0.95), ("prior_and_solver", 0.01, 0.9))
    for metric, value in (
        ("crps", crps),
        ("coverage", covered),
        ("relative_l2_source", 2 * crps),
        ("seconds_per_sample", 1.0),
    )
]


def test_questions_alone_make_a_page(tmp_path):
    folder = tmp_path / "run"
    append_rows(folder / "results.jsonl", QUESTIONS)
    text = make_page([folder], tmp_path / "page").read_text()
    assert "Inverse: kriging has the least CRPS of 2 methods, 0.1 ± 0; its bands hold 95 % of the examples. " in text
    assert "examples. prior_and_solver, which runs the solver, has 0.01 ± 0." in text
    assert "questions" in text and "nearness" not in text and text.count("data:image/png") == 1


def test_every_row_is_on_the_page_and_the_same_rows_give_the_same_page(tmp_path):
    rows, folders = [*TEACHER, *GOOD, *COLLAPSED, *QUESTIONS], [tmp_path / "one", tmp_path / "two"]
    for folder, some in zip(folders, (rows[::2], rows[1::2]), strict=True):
        append_rows(folder / "results.jsonl", some)
    page = make_page(folders, tmp_path / "page")
    assert {one.key for one in rows} <= {one.key for one in read_rows(tmp_path / "page" / "results.jsonl")}
    text = page.read_text()
    assert text.index("Main finding") < text.index("physics and spread") < text.index("All numbers")
    table = text[text.index("physics and spread") : text.index("nearness to the data")]
    assert "<td>test</td>" in table and "<td>inverse</td>" not in table
    before = page.read_bytes()
    assert make_page(folders, tmp_path / "page").read_bytes() == before


def test_points_are_means_over_seeds_and_fields_apart_from_the_ratios():
    both = [
        *TEACHER,
        *GOOD,
        *(row("piddm", "mmse_source", 0.4, seed, settings=how) for seed in range(3) for how in ({}, SOLVED)),
    ]
    (plain, solved) = points_of(part_of(*both), NAME, ("seconds_per_sample", "mmse"))["piddm"]
    assert plain.y == pytest.approx((0.1 + 0.2 + 0.3 + 3 * 0.4) / 6) and not plain.solved
    assert plain.x == pytest.approx(2e-3) and solved.solved
    assert points_of(part_of(*both), NAME, ("smse", "residual_rms"))["piddm"][1].y == pytest.approx(2e-15)


def test_variants_that_run_the_solver_are_told_apart_by_their_settings():
    few = {"answers.solver_iterations": 4}
    scores = [("kriging", 0.2, {}), ("prior_and_solver", 0.1, few), ("sda", 0.3, {"answers.langevin_corrections": 0})]
    rows = [
        row(method, metric, value, split="inverse", settings=settings)
        for method, value, settings in scores
        for metric in ("crps", "relative_l2_solution")
    ]
    _, words = finding(part_of(*TEACHER, *rows), NAME)
    assert "Inverse: kriging has the least CRPS of 2 methods, 0.2." in words
    assert "prior_and_solver (solver_iterations=4), which runs the solver, has 0.1." in words


def test_a_variant_is_a_point_of_its_own_by_its_settings():
    few = {"answers.solver_iterations": 4}
    rows = [*drawn("piddm", 0.02, 0.015, 1, few), *drawn("piddm", 1e-15, 0.015, 1, few | SOLVED)]
    points = points_of(part_of(*TEACHER, *rows), NAME, ("smse", "residual_rms"))
    assert list(points) == ["flow_matching", "piddm (solver_iterations=4)"]
    assert [point.solved for point in points["piddm (solver_iterations=4)"]] == [False, True]


def test_residuals_of_rounding_do_not_stretch_the_axis(tmp_path, monkeypatch):
    from phdme_jax.app import drawing

    seen = []
    monkeypatch.setattr(drawing, "log_if_positive", lambda axis, values, which: seen.append((which, values)))
    points = points_of(part_of(*TEACHER, *GOOD), NAME, ("smse", "residual_rms"))
    method_picture(tmp_path / "a.png", points, Labels(x="x", y="y"), (0.01, 1e-15))
    values = dict(seen)["y"]
    assert min(values) == pytest.approx(0.04 / 3) and max(values) == pytest.approx(0.2)


@pytest.mark.slow
def test_committed_results_are_enough(tmp_path, capsys):
    assert main(["--workdir", str(tmp_path / "page")]) == 0
    said = capsys.readouterr().out
    assert "piddm (1 call) leaves" in said and "residual of flow_matching (24 calls)" in said
    committed = read_parts([RESULTS / NAME], (NAME,))[NAME]
    kept = {one.key for one in read_rows(tmp_path / "page" / "results.jsonl")}
    assert {one.key for one in committed.rows} <= kept


def test_what_cannot_be_read_or_would_be_lost_is_refused(tmp_path, capsys):
    assert main(["--workdir", str(tmp_path / "page"), str(tmp_path)]) == 2
    assert "no results of poisson_2d" in capsys.readouterr().err and not (tmp_path / "page").exists()
    run = tmp_path / "run"
    append_rows(run / "results.jsonl", TEACHER)
    (run / "config.json").write_text("{}")
    assert main(["--workdir", str(run), str(run)]) == 2
    assert "holds a run whose results would be lost" in capsys.readouterr().err
