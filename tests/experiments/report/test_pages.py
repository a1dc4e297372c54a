"""Tables and numbers of the results pages are those of the committed rows."""

import dataclasses
import json
import re
import types
from pathlib import Path

import pytest

import experiments
from experiments.report import pages as results_pages
from phdme_jax.app.rows import ResultRow
from phdme_jax.files import InputError

RESULTS = Path(experiments.__file__).parent / "results"
PAGES = results_pages.find_pages(RESULTS)
ROWS_OF = results_pages.make_reader(RESULTS)
MARKER = re.compile(r"<!--\s*(?:table|n)\s*(\{.*?\})\s*-->", re.DOTALL)


def name_of(page):
    return str(page.relative_to(RESULTS.parent.parent))


def study_of(page):
    return page.parent.name if page.parent.parent == RESULTS else None


def cells_of(page):
    """Every cell that a page declares, one a metric."""
    for text in MARKER.findall(page.read_text()):
        declaration = json.loads(text)
        shared = {key: value for key, value in declaration.items() if key not in ("methods", "columns")}
        lines = [{"method": line} if isinstance(line, str) else line for line in declaration.get("methods", [{}])]
        for line in lines:
            for column in declaration.get("columns", [{}]):
                cell = {"study": study_of(page), **shared, **line, **column}
                for metric in cell["metric"] if isinstance(cell["metric"], list) else [cell["metric"]]:
                    yield {**cell, "metric": metric}


def changed(found):
    """A reader whose rows differ from the committed ones in the values of those found."""
    others = {id(row): dataclasses.replace(row, value=3 * row.value + 1) for row in found if row.value is not None}
    return lambda study: [others.get(id(row), row) for row in ROWS_OF(study)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_making_a_page_anew_changes_nothing(page):
    assert results_pages.remake(page, ROWS_OF) == page.read_text()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_number_of_a_page_follows_its_rows(page):
    for cell in cells_of(page):
        found = results_pages.measure(ROWS_OF, {key: value for key, value in cell.items() if key != "over"})
        assert found or cell.get("optional"), cell
        over = cell.get("over")
        divisor = {"method": over} if isinstance(over, str) else dict(over or {})
        of_itself = divisor.get("method") == cell["method"] and divisor.get("settings") == cell.get("settings")
        if found and not of_itself:
            before, _ = results_pages.fill_cell(ROWS_OF, cell)
            assert results_pages.fill_cell(changed(found), cell)[0] != before, cell


@pytest.mark.parametrize("page", [page for page in PAGES if study_of(page)], ids=name_of)
def test_a_changed_row_changes_the_page(page):
    text, cell = page.read_text(), next(cells_of(page))
    found = results_pages.measure(ROWS_OF, {key: value for key, value in cell.items() if key != "over"})
    assert results_pages.fill(text, changed(found[-1:]), study_of(page)) != text


def test_every_study_with_rows_has_a_page_with_a_table_and_stands_in_the_index():
    index = (RESULTS / "README.md").read_text()
    for folder in sorted(path.parent for path in RESULTS.glob("*/results.jsonl")):
        assert "<!-- table" in (folder / "README.md").read_text(), folder
        assert f"]({folder.name}/README.md)" in index


@pytest.mark.parametrize("page", [page for page in PAGES if RESULTS in page.parents], ids=name_of)
def test_lines_are_short_but_for_tables(page):
    for line in page.read_text().splitlines():
        assert line.startswith("|") or len(re.sub(r"-->[^<]+<!-- /n", "--><!-- /n", line)) <= 100, line


def row(method, seed, value, metric="nmse", split="test", system="circle"):
    return ResultRow(
        experiment="study",
        system=system,
        method=method,
        seed=seed,
        split=split,
        metric=metric,
        value=value,
        stderr=None,
        n=4,
        unit="1",
    )


def shown(rows, **cell):
    text, _ = results_pages.fill_cell(lambda study: rows, {"study": "study", "metric": "nmse", **cell})
    return text


HAND = [row("a", 1, 4.0), row("b", 0, 1.0), row("a", 0, 1.0), row("b", 1, 2.0), row("c", 0, 5.0)]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        # within seeds 1/1 and 4/2; the ratio of the means would be 1.67
        ({"method": "a", "over": "b"}, "1.50 ± 0.71"),
        ({"method": "a", "over": "b", "show": "values"}, "1 / 2"),
        ({"method": "b", "over": "a", "show": "values", "digits": 3}, "1 / 0.500"),
        ({"method": "b", "over": "a", "show": "change"}, "0 / -50"),
        ({"method": "a", "over": {"method": "c", "seed": 0}, "show": "values"}, "0.20 / 0.80"),
        ({"method": "a", "over": {"method": "b"}, "seed": 1, "show": "mean"}, "2"),
        ({"method": "a", "over": "a"}, "1"),
        ({"method": "a"}, "2.5 ± 2.1"),
        ({"method": "a", "scale": 100, "show": "range"}, "100 to 400"),
        ({"method": "a", "show": "median", "digits": 1}, "2"),
        ({"method": "c"}, "5"),
    ],
)
def test_ratios_are_taken_within_seeds(cell, text):
    assert shown(HAND, **cell) == text


def test_ratios_to_another_metric_and_split():
    rows = [row("a", 0, 6.0), row("a", 0, 2.0, metric="mse"), row("a", 0, 12.0, split="shifted")]
    assert shown(rows, method="a", over={"metric": "mse"}) == "3"
    assert shown(rows, method="a", split="shifted", over={"split": "test"}) == "2"
    assert shown(rows, method="a", metric=["nmse", "mse"], show="mean") == "6 / 2"


def test_failed_seeds_are_written_out():
    rows = [row("a", 0, 1.0), row("a", 1, None), row("a", 2, 3.0), row("b", 0, None)]
    assert shown(rows, method="a") == "2.0 ± 1.4 (1 of 3 failed)"
    assert shown(rows, method="a", show="values") == "1 / failed / 3"
    assert shown(rows, method="a", show="sorted") == "1 / 3 (1 of 3 failed)"
    assert shown(rows, method="b") == "1 of 1 failed"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (130.4, "130"),
        (2.77e-5, "2.8e-05"),
        (0.9, "0.90"),
        (20.0, "20"),
        (0.0, "0"),
        (0.0996, "0.10"),
        (-3e-8, "-3.0e-08"),
    ],
)
def test_numbers_have_the_digits_asked_for(value, text):
    assert results_pages.format_number(value, 2) == text


def test_a_table_says_which_line_has_fewer_seeds():
    table = results_pages.make_table(
        lambda study: HAND,
        {"study": "study", "methods": ["a", {"method": "c", "title": "C"}], "columns": [{"metric": "nmse"}]},
    )
    assert table.splitlines()[2:] == ["| `a` | 2.5 ± 2.1 |", "| C (one seed) | 5 |"]


def test_a_method_without_settings_is_the_method_as_it_is():
    plain = types.SimpleNamespace(method="phdme")
    none = types.SimpleNamespace(method="phdme", settings=None)
    eight = types.SimpleNamespace(method="phdme", settings={"sampling.num_steps": 8})
    rows = [plain, none, eight]
    assert results_pages.select(rows, "phdme") == [plain, none]
    assert results_pages.select(rows, "phdme", {"sampling.num_steps": 8}) == [eight]
    assert results_pages.select(rows, "phdme", {"sampling.num_steps": 4}) == []


TABLE = '<!-- table {"methods": ["%s"], "columns": [{"metric": "nmse"%s}]} -->\n<!-- end -->'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TABLE % ("d", ""), 'no row for .*"d"'),
        (TABLE % ("c", ', "over": "d"'), "no row of seed 0 to divide by"),
        (TABLE % ("a", ', "over": "c"'), "no row of seed 1 to divide by"),
        (TABLE % ("a", ', "shwo": "values"'), "unknown key 'shwo'"),
        (TABLE % ("a", ', "show": "all"'), "cannot show 'all'"),
        (TABLE % ("a", ', "show": "change"'), "cannot show 'change'"),
        ('<!-- table {"methods": ["a"]} --><!-- end -->', "needs"),
        ('is <!-- n {"method": "a"} --><!-- /n -->', "names no metric"),
        ('is <!-- n {"metric": "nmse", } --><!-- /n -->', "not JSON"),
        ('is <!-- n {"metric": "nmse", "method": "a"} -->1', "marker is broken"),
        ('text\n<!-- n {"metric": "nmse", "method": "a"} -->1<!-- /n -->', "must not begin a line"),
        ('is <!-- n {"metric": "nmse", "method": "two"} --><!-- /n -->', "add a system"),
    ],
)
def test_a_wrong_declaration_gets_a_sentence(text, message):
    rows = [*HAND, row("two", 0, 1.0), row("two", 0, 1.0, system="spring")]
    with pytest.raises(InputError, match=message):
        results_pages.fill(text, lambda study: rows, "study")


def test_an_optional_cell_without_rows_is_a_dash():
    filled = results_pages.fill(TABLE % ("d", ', "optional": true'), lambda study: HAND, "study")
    assert "| `d` | – |" in filled


def test_one_command_checks_and_rewrites(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "experiments" / "results" / "circle"
    folder.mkdir(parents=True)
    (folder / "results.jsonl").write_bytes((RESULTS / "circle" / "results.jsonl").read_bytes())
    page, text = folder / "README.md", (RESULTS / "circle" / "README.md").read_text()
    page.write_text(text.replace("| 100 |", "| 101 |"))
    monkeypatch.setattr(results_pages, "RESULTS", folder.parent)
    assert results_pages.main(["--check"]) == 1
    assert f"{page} is not what its rows make it" in capsys.readouterr().err
    assert results_pages.main([]) == 0
    assert page.read_text() == text
    assert results_pages.main(["--check"]) == 0
    page.write_text(text.replace('"pidm_me"', '"pidm_you"'))
    assert results_pages.main([]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{page}: no row") and "pidm_you" in error
