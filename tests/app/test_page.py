"""Tables and the page: numbers by hand, nothing hidden, nothing loaded from elsewhere, the same bytes again."""

import base64
import dataclasses
import html.parser
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from phdme_jax.app.page import Picture, Section, build_report, main
from phdme_jax.app.rows import ResultRow, append_rows, read_rows
from phdme_jax.app.tables import format_value, make_tables, print_table, render_html, render_markdown, render_text
from phdme_jax.files import InputError, RunFailed
from tests.disk import full_disk

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def rows_of(system, method, metric, values, unit="m²", split="test", n=8):
    return [
        ResultRow("demo", system, method, seed, split, metric, value, None, n, unit)
        for seed, value in enumerate(values)
    ]


ROWS = [
    *rows_of("oscillator", "reference", "residual_mae", [1e-9], unit="m/s²"),
    *rows_of("oscillator", "phdme", "mse", [0.4, 0.5, 0.6]),
    *rows_of("oscillator", "phdme", "coverage", [0.9, 0.92, 0.94], unit="1"),
    *rows_of("oscillator", "phdme", "residual_mae", [2e-6, 3e-6, 4e-6], unit="m/s²", n=16),
    *rows_of("oscillator", "gp_rollout", "mse", [0.04, 0.05, 0.06]),
    *rows_of("oscillator", "hnn", "mse", [0.001, None, 0.003]),
    *rows_of("oscillator", "neural_ode", "mse", [None, None, None]),
    *rows_of("oscillator", "phdme", "mse", [7.0, 8.0, 9.0], split="shifted"),
]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "run"
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "energy_a.png").write_bytes(PIXEL)
    append_rows(folder / "results.jsonl", ROWS)
    (folder / "config.json").write_text('{"experiment": "demo", "size": "smoke", "config": {"gp": {"sites": 40}}}')
    (folder / "environment.json").write_text('{"command": "python -m experiments.demo <b>", "versions": {"jax": "0"}}')
    return folder


def cell(table, method, metric, split="test"):
    (line,) = [line for line in table.rows if line[1:3] == (split, method)]
    return line[table.header.index(metric)]


@pytest.mark.parametrize(
    ("mean", "deviation", "text"),
    [
        (0.5, 0.1, "0.50 ± 0.10"),
        (0.012345, 0.00213, "0.0123 ± 0.0021"),
        (1.2345e-6, 2.1e-7, "(1.23 ± 0.21)e-06"),
        (-1.2345e6, 2.1e5, "(-1.23 ± 0.21)e+06"),
        (123.4, 56.7, "123 ± 57"),
        (0.5, 1e-9, "0.5000 ± 1e-09"),
        (0.0, 0.02, "0.000 ± 0.020"),
        (0.001, 3.0, "0.0 ± 3.0"),
        (0.25, 0.0, "0.25 ± 0"),
        (0.0, 0.0, "0 ± 0"),
        (40.0, None, "40"),
        (123456.0, None, "123456"),
        (0.0123456, None, "0.0123"),
        (1.5e-9, None, "1.5e-09"),
    ],
)
def test_digits_follow_the_spread(mean, deviation, text):
    assert format_value(mean, deviation) == text


def test_table_by_hand():
    (table,) = make_tables(ROWS)
    assert table.header == ("system", "split", "method", "mse", "coverage", "residual_mae")
    assert table.details == ("", "", "", "[m²] n=8", "[1] n=8", "[m/s²] n=8–16")
    assert [line[1:3] for line in table.rows] == [
        ("test", "reference"),
        ("test", "phdme"),
        ("test", "gp_rollout"),
        ("test", "hnn"),
        ("test", "neural_ode"),
        ("shifted", "phdme"),
    ]
    assert cell(table, "phdme", "mse") == "0.50 ± 0.10"
    assert cell(table, "phdme", "residual_mae") == "(3.0 ± 1.0)e-06"
    assert cell(table, "reference", "residual_mae") == "1e-09 (1 seed)"
    assert cell(table, "reference", "mse") == "–"
    assert cell(table, "hnn", "mse") == "0.0020 ± 0.0014 (1 of 3 failed)"
    assert cell(table, "neural_ode", "mse") == "failed (3 of 3)"
    assert table.caption == "demo: mean ± standard deviation over 3 seeds"


def test_the_best_is_marked_even_where_it_is_a_baseline_and_failures_do_not_win():
    (table,) = make_tables(ROWS)
    best = {(table.rows[row][2], table.header[column]) for row, column in table.best}
    assert best == {("gp_rollout", "mse")}, "hnn lost a seed, the shifted block has one method, coverage has no best"
    text = render_text(table)
    assert "0.050 ± 0.010*" in text and text.count("*") == 2 and "* the best" in text
    assert "**0.050 ± 0.010**" in render_markdown(table)
    assert '<td class="best">0.050 ± 0.010</td>' in render_html(table)


def test_columns_can_be_chosen_and_units_are_never_mixed():
    rows = [*ROWS, *rows_of("circle", "phdme", "mse", [1.0, 2.0, 3.0], unit="1")]
    (table,) = make_tables(rows, ["mse"])
    assert list(zip(table.header, table.details, strict=True))[3:] == [("mse", "[1] n=8"), ("mse", "[m²] n=8")]
    assert ("oscillator", "test", "reference") not in [line[:3] for line in table.rows]
    (table,) = make_tables(rows, ["residual", "coverage"])
    assert table.header[3:] == ("residual_mae", "coverage")
    assert make_tables(rows, ["crps"]) == []


def test_wide_tables_are_broken_and_lose_nothing():
    metrics = ["mse", "nmse", "rmse", "mae", "crps", "loss", "nfe", "energy_drift", "mass_drift", "spectrum_error"]
    rows = [row for metric in metrics for row in rows_of("oscillator", "phdme", metric, [1.0, 2.0, 3.0])]
    text = render_text(make_tables(rows)[0], width=80)
    assert max(len(line) for line in text.split("\n")) <= 80
    assert text.count("2.0 ± 1.0") == len(metrics) and all(f" {metric}" in text for metric in metrics)


def test_a_terminal_without_the_sign_gets_ascii():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_table(ROWS, file=stream)
    stream.flush()
    printed = stream.buffer.getvalue()
    assert b"0.50 +- 0.10" in printed


class Page(html.parser.HTMLParser):
    """Collects tags and checks that they nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.words = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_needs_nothing_but_itself(folder):
    sections = [Section("Energy", "First.\n\nSecond.", (Picture("figures/energy_a.png", "The energy."),), ("mse",))]
    text = build_report(folder, "A demo", sections).read_text()
    page = Page(text)
    sources = [value for _, name, value in page.attributes if name in ("src", "href", "srcset", "data", "action")]
    assert len(sources) == 2 and all(source.startswith("data:") for source in sources)
    embedded = next(source for source in sources if "base64," in source)
    assert base64.b64decode(embedded.split("base64,")[1]) == PIXEL
    assert not {"script", "iframe", "object"} & {tag for tag, _, _ in page.attributes} and "<script" not in text
    assert not re.search(r"https?://|@import|url\(", text.replace(embedded, ""))
    words = " ".join(page.words)
    for part in ("A demo", "Second.", "The energy.", "0.50 ± 0.10", "failed (3 of 3)", "size smoke", "config.gp.sites"):
        assert part in words


def test_what_others_wrote_is_escaped(folder):
    evil = "<script>alert('x')</script> & \"y\""
    append_rows(folder / "results.jsonl", rows_of("oscillator", "fno", "mse", [1.0, 2.0, 3.0], unit="<i>"))
    with (folder / "results.jsonl").open("a") as file:  # a file from elsewhere, which no writer has checked
        line = {**dataclasses.asdict(ROWS[0]), "system": "<i>system</i>", "method": "<i>method</i>"}
        file.write(json.dumps(line) + "\n")
    picture = Picture("figures/energy_a.png", evil)
    text = build_report(folder, evil, [Section(evil, evil, (picture, Picture(evil, evil)))]).read_text()
    page = Page(text)
    assert "<script" not in text and "<i>" not in text and "<b>" not in text
    assert ("img", "alt", evil) in page.attributes
    assert "<i>system</i>" in page.words and "<i>method</i>" in page.words
    assert evil in page.words and "[<i>] n=8" in page.words
    assert any("missing picture" in words for words in page.words)


def test_a_name_that_is_not_utf8_is_escaped(folder):
    name = os.fsdecode(b"m\xe9tro.npz")
    text = build_report(folder, f"Fit of {name}", [Section("Data", name)]).read_text(encoding="utf-8")
    assert r"<h1>Fit of m\udce9tro.npz</h1>" in text
    assert build_report(folder).read_text(encoding="utf-8") == text


def test_only_pictures_below_the_run_folder_are_embedded(folder):
    secret = folder.parent / "secret.txt"
    secret.write_bytes(PIXEL)
    (folder / "link.png").symlink_to(secret)
    sections = [
        {"title": "x", "pictures": [{"file": name} for name in (str(secret), "../secret.txt", "link.png", "\0")]}
    ]
    (folder / "sections.json").write_text(json.dumps({"title": "x", "sections": sections}))
    assert (text := build_report(folder).read_text()).count("missing picture") == 4 and "<img" not in text
    (folder / "sections.json").unlink()
    text = build_report(folder).read_text()
    assert text.count("missing picture: link.png") == 1 and text.count("<img") == 1


def test_names_are_words_in_markdown_too(folder):
    title = "a\n<script>x</script> [b](javascript:c)"
    build_report(folder, title, [])
    assert (folder / "tables.md").read_text().startswith("# a \\<script>x\\</script> [b\\](javascript:c)\n\n")


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"sections": 3}',
        '{"sections": {"a": 1}}',
        '{"sections": ["a"]}',
        '{"sections": [{"title": "x"}]}',
        '{"sections": [{"title": 5, "pictures": []}]}',
        '{"sections": [{"title": "x", "pictures": [{"file": 5}]}]}',
        '{"sections": [{"title": "x", "pictures": [], "metrics": [1]}]}',
        '{"sections": [{"title": "x", "pictures": [], "metrics": null}]}',
    ],
)
def test_words_of_another_shape_are_a_sentence(folder, text, capsys):
    (folder / "sections.json").write_text(text)
    assert main([str(folder)]) == 2
    assert re.fullmatch(r"error: .*sections\.json: (is not|holds no) [^\n]*; remove [^\n]*\n", capsys.readouterr().err)
    (folder / "sections.json").write_text('{"title": 5}')
    (folder / "config.json").write_text('{"size": [1], "experiment": {"a": "<b>"}}')
    (folder / "environment.json").write_text('{"command": 5, "versions": null}')
    assert main([str(folder)]) == 0 and "<title>5</title>" in (folder / "report.html").read_text()


def test_without_space_the_old_page_stays(folder):
    page = build_report(folder).read_bytes()
    with full_disk(1000), pytest.raises(RunFailed, match="cannot be written"):
        build_report(folder, "Another title")
    assert (folder / "report.html").read_bytes() == page and not list(folder.glob(".*tmp"))


def test_rebuilding_gives_the_same_bytes(folder, tmp_path):
    picture = Picture(folder / "figures" / "energy_a.png", "The energy.")
    first = build_report(folder, "A demo", [Section("Energy", "Words.", (picture,), ("mse",))]).read_bytes()
    tables = (folder / "tables.md").read_bytes()
    assert build_report(folder).read_bytes() == first
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    (moved / "report.html").unlink()
    (moved / "results.jsonl").unlink()
    append_rows(moved / "results.jsonl", read_rows(folder / "results.jsonl")[::-1])
    assert build_report(moved).read_bytes() == first, "the order of the rows does not matter"
    assert (moved / "tables.md").read_bytes() == tables


def test_without_words_every_picture_is_shown(folder):
    text = build_report(folder).read_text()
    assert "<title>demo</title>" in text and "energy a" in text
    assert build_report(folder).read_text() == text


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no results\.jsonl"):
        build_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command(folder, tmp_path, capsys):
    build_report(folder, "A demo", [])
    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    assert main([str(folder)]) == 0
    assert (folder / "report.html").read_bytes() == page
    assert capsys.readouterr().out.strip().endswith(f"report: {folder / 'report.html'}")
    done = subprocess.run(
        [sys.executable, "-m", "experiments.report", str(tmp_path / "none")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(r"error: .*none: holds no results\.jsonl; [^\n]*\n", done.stderr)


def test_pictures_of_a_relative_run_folder_are_in_the_page_and_stay_when_it_moves(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    relative = pathlib.Path("run")
    sections = [Section("Energy", "", (Picture(relative / "figures" / "energy_a.png", "The energy."),))]
    page = build_report(relative, "Demo", sections).read_text()
    assert "missing picture" not in page and page.count("<img") == 1
    shutil.move(folder, folder.parent / "moved")
    assert build_report(folder.parent / "moved").read_text().count("<img") == 1
