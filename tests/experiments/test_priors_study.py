"""The page of priors: from rows alone, ratios within a seed, floors of the data taken off."""

import pytest

from experiments.priors_study import PARTS, main, main_finding, make_page
from experiments.report.parts import Rows
from experiments.report.prior_ratios import derived_rows, finding, ratio_picture, ratios_of
from phdme_jax.app.rows import ResultRow, append_rows, read_rows

PARTICLES, FIELDS = "priors_particles", "priors_fields"


def row(method, metric, value, seed=0, experiment=PARTICLES, system="five_springs", settings=None):
    return ResultRow(experiment, system, method, seed, "test", metric, value, None, 8, "1", settings or {})


def particles():
    for seed in range(3):
        scale = 1.0 + seed
        for method, energy, momentum in (("diffusion", 0.1, 0.2), ("equivariant", 0.04, 0.1), ("priors", 0.05, 1e-7)):
            yield row(method, "energy_error", energy * scale, seed)
            yield row(method, "momentum_error", momentum * scale, seed)
        yield row("priors", "energy_error", 1e-9, seed, settings={"projected": True})
        yield row("reference", "energy_error", 1e-4, seed)


def fields():
    for method, value in (("diffusion", 0.5), ("priors", 0.3), ("reference", 0.1)):
        yield row(method, "residual_rms", value, experiment=FIELDS, system="advection")


def part_of(name, rows):
    part, known = Rows(name, rows), PARTS[name]
    return Rows(name, [*part.rows, *derived_rows(part, known.errors, known.floored)])


def test_ratios_are_within_a_seed_and_of_no_reference():
    part = part_of(PARTICLES, particles())
    ratios = ratios_of(part, "five_springs", "energy_error")
    assert ratios["equivariant"] == pytest.approx([0.4] * 3) and ratios["priors"] == pytest.approx([0.5] * 3)
    assert not {"diffusion", "reference"} & set(ratios)
    assert any("projected" in name for name in ratios)


def test_what_the_scheme_leaves_of_the_truth_is_taken_off():
    part = part_of(FIELDS, fields())
    # (0.3 - 0.1) / (0.5 - 0.1)
    assert ratios_of(part, "advection", "residual_rms") == {"priors": pytest.approx([0.5])}


def test_less_of_a_residual_than_the_data_is_an_error_too():
    found = {"diffusion": 0.5, "reference": 0.1, "priors": 0.0, "augmented": 0.14}
    part = part_of(FIELDS, [row(method, "residual_rms", value, experiment=FIELDS) for method, value in found.items()])
    ratios = ratios_of(part, "five_springs", "residual_rms")
    assert ratios == {"priors": pytest.approx([0.25]), "augmented": pytest.approx([0.1])}
    assert "least of all augmented" in finding(part, "five_springs", ("residual_rms",))


def test_a_baseline_as_good_as_the_data_has_no_ratio():
    rows = [row("diffusion", "residual_rms", 0.1, experiment=FIELDS), *fields()]
    rows = [row("priors", "residual_rms", 0.2, experiment=FIELDS), *rows[:1]]
    rows.append(row("reference", "residual_rms", 0.1, experiment=FIELDS))
    assert not ratios_of(part_of(FIELDS, rows), "five_springs", "residual_rms")


def test_the_finding_names_priors_and_what_is_better():
    words = finding(part_of(PARTICLES, particles()), "five_springs", ("energy_error", "momentum_error", "mmd"))
    assert "energy error: priors 0.5" in words and "least of all priors" in words and "projected" in words
    # of the momentum priors themselves are best, and named once
    assert words.split("momentum")[1].count("priors") == 1 and "5e-07 ± 0" in words
    assert "mmd" not in words
    text = main_finding({PARTICLES: part_of(PARTICLES, particles()), FIELDS: part_of(FIELDS, fields())}).text
    assert "five_springs" in text and "advection" in text


def test_the_same_rows_make_the_same_page(tmp_path):
    append_rows(tmp_path / "run" / "results.jsonl", [*particles(), *fields()])
    first = make_page([tmp_path / "run"], tmp_path / "page").read_bytes()
    assert make_page([tmp_path / "run"], tmp_path / "page").read_bytes() == first
    names = {row.metric for row in read_rows(tmp_path / "page" / "results.jsonl")}
    assert {"energy_error", "energy_error_ratio", "residual_rms_ratio"} <= names
    assert (tmp_path / "page" / "figures" / "ratios_priors_particles_five_springs.png").exists()


def test_a_picture_of_one_error_and_one_method_is_drawn(tmp_path):
    path = ratio_picture(tmp_path / "one.png", {"energy_error": {"priors": [0.0, 1e-9]}}, "one")
    assert path.exists()


def test_nothing_to_read_is_told(tmp_path, capsys):
    assert main(["--workdir", str(tmp_path / "page"), str(tmp_path)]) == 2
    assert "no results of priors_particles" in capsys.readouterr().err
