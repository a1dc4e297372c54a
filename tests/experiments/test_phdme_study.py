"""The page of the whole study: from rows alone, nothing lost, and drawn by a real browser where there is one."""

import json
import os
import re
import shutil
import subprocess

import pytest

from experiments.phdme_study import PARTS, Ratio, cost_points, main, make_page, read_results
from experiments.report.parts import Rows
from phdme_jax.app.rows import ResultRow, append_rows, read_rows

# set PHDME_BROWSER to a Chromium that has another name
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless_shell")
PROBE = """<script>addEventListener("load", () => {
  const images = [...document.images], drawn = images.filter(image => image.complete && image.naturalWidth > 0);
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  console.log("probe " + JSON.stringify([images.length, drawn.length, wide]));
})</script>"""


def row(experiment, system, method, metric, value, seed=0, **settings):
    changes = {key.replace("__", "."): value for key, value in settings.items()}
    return ResultRow(experiment, system, method, seed, "test", metric, value, None, 4, "1", changes)


COSTS = (
    ("gp_rollout", {"forecast": "mean"}, 0.02),
    ("phdme", {"sampling__num_steps": 50}, 0.4),
    ("phdme", {"sampling__num_steps": 8}, 0.01),
)
ABLATIONS = (
    ("gp_rollout", {}),
    ("gp_rollout", {"data__num_observed": 16}),
    ("gp_rollout", {"data__num_observed": 1}),
    ("gp_rollout", {"data__noise": 0.0}),
    ("gp_rollout", {"structure__alternative": "undamped"}),
)


def study_rows():
    name = "shallow_water_1d"
    for seed in range(3):
        for method, nmse, crps in (("phdme", 2e-5, 2.0), ("diffusion", 1e-3, 9.0), ("gp_rollout", 1e-5, 1.6)):
            yield row(name, name, method, "nmse", nmse * (1 + seed), seed)
            yield row(name, name, method, "crps", crps, seed)
        yield row(name, name, "reference", "nmse", 1e-8, seed)
        for method, settings, seconds in COSTS:
            yield row(name, name, method, "seconds_per_forecast", seconds, seed, **settings)
            yield row(name, name, method, "nmse", 1e-5 / seconds, seed, **settings)
            yield row(name, name, method, "crps", 2.0, seed, **settings)
    for method, settings in ABLATIONS:
        for seed in range(3):
            yield row("ablations", "vibrating_string", method, "nmse", 1e-5 * (1 + seed), seed, **settings)


@pytest.fixture
def results(tmp_path):
    rows = list(study_rows())
    for experiment in {one.experiment for one in rows}:
        folder = tmp_path / "results" / experiment
        folder.mkdir(parents=True)
        append_rows(folder / "results.jsonl", [one for one in rows if one.experiment == experiment])
    return tmp_path / "results"


def test_ratios_are_those_within_a_seed(results):
    rows = Rows("shallow_water_1d", read_rows(results / "shallow_water_1d" / "results.jsonl"))
    # 2e-5 (1 + s) / 1e-3 (1 + s) is the same for every seed, though both errors vary threefold
    found = Ratio("nmse", "phdme", "diffusion").sentence(rows, "shallow_water_1d")
    assert found is not None and found.startswith("normalised MSE of phdme / diffusion: 0.02")
    assert Ratio("crps", "phdme", "gp_rollout").sentence(rows, "shallow_water_1d").startswith("CRPS of phdme")
    assert Ratio("nmse", "phdme", "phdme_oracle").sentence(rows, "shallow_water_1d") is None


def test_costs_join_the_settings_of_a_method_in_the_order_of_their_numbers(results):
    rows = Rows("shallow_water_1d", read_rows(results / "shallow_water_1d" / "results.jsonl"))
    points, calls = cost_points(rows, "shallow_water_1d", "nmse")
    assert calls == [8, 50]
    assert points["phdme"] == (pytest.approx([0.01, 0.4]), pytest.approx([1e-3, 2.5e-5]))
    assert points["gp_rollout (forecast=mean)"] == (pytest.approx([0.02]), pytest.approx([5e-4]))
    # the methods as they are do not mix with those of other settings
    assert set(rows.by_method("shallow_water_1d", "nmse")) == {"phdme", "diffusion", "gp_rollout"}
    assert rows.values("shallow_water_1d", "nmse", "phdme") == pytest.approx({0: 2e-5, 1: 4e-5, 2: 6e-5})


def test_a_curve_runs_over_one_setting_and_its_default_alone(results):
    rows = Rows("ablations", read_rows(results / "ablations" / "results.jsonl"))
    curve = rows.curve("vibrating_string", "nmse", "gp_rollout", "data.num_observed", 4)
    assert list(curve) == [1, 4, 16]
    assert curve[4] == pytest.approx([1e-5, 2e-5, 3e-5])


def test_the_page_holds_every_row_names_what_is_missing_and_is_the_same_again(results, tmp_path, capsys):
    page = tmp_path / "page"
    assert main(["--results", str(results), "--workdir", str(page)]) == 0
    assert "phdme" in capsys.readouterr().out
    assert {one.key for one in read_rows(page / "results.jsonl")} == {one.key for one in study_rows()}
    text = (page / "report.html").read_text()
    assert "No rows were found of" in text and PARTS["oscillators"] in text
    assert text.count("data:image/png") == len(list((page / "figures").glob("*.png")))
    before = (page / "report.html").read_bytes()
    make_page(results, page)
    assert (page / "report.html").read_bytes() == before


def test_results_of_a_run_are_not_written_over(results, tmp_path, capsys):
    (run,) = {path.parent for path in results.rglob("results.jsonl") if "ablations" in str(path)}
    (run / "config.json").write_text("{}")
    kept = (run / "results.jsonl").read_bytes()
    assert main(["--results", str(results), "--workdir", str(run)]) == 2
    assert "holds a run whose results would be lost" in capsys.readouterr().err
    assert (run / "results.jsonl").read_bytes() == kept
    assert main(["--results", str(results), "--workdir", ""]) == 2


def test_a_folder_without_rows_is_refused(tmp_path, capsys):
    assert main(["--results", str(tmp_path), "--workdir", str(tmp_path / "page")]) == 2
    assert "no folder in it holds results" in capsys.readouterr().err
    assert not (tmp_path / "page").exists()


def test_a_browser_draws_every_figure_without_complaint(results, tmp_path):
    browser = os.environ.get("PHDME_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium installed; set PHDME_BROWSER to one")
    page = make_page(results, tmp_path / "page")
    text = page.read_text()
    page.write_text(text.replace("</body>", PROBE + "</body>"))
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1200,900",
        "--enable-logging=stderr",
        "--v=0",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        page.as_uri(),
    ]
    try:
        said = subprocess.run(command, capture_output=True, timeout=30).stderr
    except subprocess.TimeoutExpired as late:
        # some builds do not end after the page is drawn
        said = late.stderr or b""
    lines = [line for line in said.decode(errors="replace").splitlines() if "CONSOLE" in line]
    probes = [match for line in lines if (match := re.search(r"probe (\[.*?\])", line))]
    assert len(probes) == 1 and len(lines) == 1, lines
    images, drawn, wide = json.loads(probes[0].group(1))
    assert images == drawn == text.count("data:image/png") > 0
    assert wide <= 0, "the page is wider than its window"


def test_runs_that_validate_are_left_out(results):
    folder = results / "shallow_water_1d_validation"
    folder.mkdir()
    rows = [row("shallow_water_1d", "shallow_water_1d", "phdme", "nmse", 7.0)]
    append_rows(folder / "results.jsonl", rows)
    (folder / "config.json").write_text('{"experiment": "shallow_water_1d", "validates": true}')
    values = read_results(results)["shallow_water_1d"].values("shallow_water_1d", "nmse", "phdme")
    assert len(values) == 3 and 7.0 not in values.values()
