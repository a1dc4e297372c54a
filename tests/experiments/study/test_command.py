"""The command line of a study: overrides, refusals with exit code 2, run folders, resuming."""

import dataclasses
import errno
import json
import shutil
from types import SimpleNamespace

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from experiments.study.command import main, parse
from experiments.study.runner import SeedRun
from experiments.study.study import Context, Study
from phdme_jax.app.command import CommandParser, run_main
from phdme_jax.app.folder import claimed_run
from phdme_jax.app.page import Section
from phdme_jax.app.rows import Measurement, read_rows
from phdme_jax.files import InputError, RunFailed, config_digest
from phdme_jax.methods.table import METHODS

PROBLEM = SimpleNamespace(name="toy", offers=frozenset({"structure", "even_times"}))


def groups(width: int) -> dict:
    return {
        "model": {"width": width, "rate": 1e-3, "name": "mlp", "residual": True},
        "grid": {"points": (16, 16), "extra": None, "stages": ((4, 0.1), (8, 0.2))},
    }


def toy_study(**changes) -> Study:
    study = Study(
        name="toy",
        title="A toy study",
        sizes={"smoke": lambda: groups(4), "laptop": lambda: groups(8)},
        problem=lambda config, case: PROBLEM,
        bench=lambda *_: None,
        scores=(),
        sections=(),
        metrics=("mse",),
        methods=("phdme", "diffusion"),
        default_size="smoke",
    )
    return dataclasses.replace(study, **changes)


def run_toy(study: Study, context: Context) -> list[Section]:
    for method in context.methods:
        for seed in context.seeds:
            value = context.config.model.width * (seed + 1.0)
            context.results.record("toy", method, seed, "test", {"mse": Measurement(value, "m²")}, n=4)
    return [Section("What came out", metrics=("mse",))]


def contexts(arguments, **changes):
    """The context a study gets from these arguments."""
    seen = []

    def run(study, context):
        seen.append(context)
        context.results.record("toy", "phdme", 0, "test", {"mse": Measurement(1.0)}, n=1)
        return []

    code = main(toy_study(**changes), arguments, run)
    return code, seen


def refusal(capsys, tmp_path, *arguments, **changes):
    """The sentence with which a study refuses these arguments; nothing may be left behind."""
    workdir = tmp_path / "run"
    code, seen = contexts(["--workdir", str(workdir), *arguments], **changes)
    printed = capsys.readouterr()
    assert code == 2 and seen == [] and printed.out == ""
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert not workdir.exists()
    return printed.err.strip()


def test_defaults_and_arguments_reach_the_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PHDME_DATA_DIR", raising=False)
    code, (context,) = contexts([])
    assert code == 0
    assert (context.size, context.seeds, context.methods) == ("smoke", (0,), ("phdme", "diffusion"))
    assert str(context.workdir) == "runs/toy_smoke" and context.data_dir is None

    _, (context,) = contexts(["--size", "laptop"])
    assert context.seeds == (0, 1, 2)

    monkeypatch.setenv("PHDME_DATA_DIR", str(tmp_path))
    arguments = ["--size", "laptop", "--seeds=5", "--methods", "diffusion", "--workdir", "elsewhere"]
    code, (context,) = contexts([*arguments, "--config.model.rate=2", "--config.model.residual", "false"])
    assert (context.size, context.seeds, context.methods) == ("laptop", (0, 1, 2, 3, 4), ("diffusion",))
    assert context.data_dir == tmp_path and context.config.is_locked
    assert context.config.model.width == 8 and context.config.model.residual is False
    assert context.config.model.rate == 2.0 and isinstance(context.config.model.rate, float)


def test_paths_of_the_home_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PHDME_DATA_DIR", "~/data")
    (tmp_path / "data").mkdir()
    _, (context,) = contexts(["--workdir=~/run"])
    assert (context.workdir, context.data_dir) == (tmp_path / "run", tmp_path / "data")
    _, (context,) = contexts(["--workdir=~/run", "--data_dir=~"])
    assert context.data_dir == tmp_path
    monkeypatch.setenv("PHDME_DATA_DIR", "~/none")
    capsys.readouterr()
    assert "none: there is no such folder; check --data_dir or $PHDME_DATA_DIR" in refusal(capsys, tmp_path / "other")


@pytest.mark.parametrize(
    ("argument", "place", "value"),
    [
        ("model.width=1e3", "width", 1000),
        ("model.width=3", "width", 3),
        ("model.rate=5e-4", "rate", 5e-4),
        ("model.name=fno", "name", "fno"),
        ("model.name=a=b", "name", "a=b"),
        ("grid.points=32,64", "points", (32, 64)),
        ("grid.points=(32,)", "points", (32,)),
        ("grid.extra=3", "extra", 3),
        ("grid.stages=((16,1e-3))", "stages", ((16, 1e-3),)),
        ("grid.stages=[[16, 1], [2, 3]]", "stages", ((16, 1.0), (2, 3.0))),
    ],
)
def test_overrides_keep_the_type_of_the_default(tmp_path, argument, place, value):
    code, (context,) = contexts(["--workdir", str(tmp_path / "run"), f"--config.{argument}"])
    changed = context.config[argument.split(".")[0]][place]
    assert code == 0 and changed == value and type(changed) is type(value)


def test_some_cases_of_several_are_run_in_the_order_of_the_study(tmp_path, capsys):
    three = ("first", "second", "third")
    code, (context,) = contexts(["--workdir", str(tmp_path / "run"), "--cases", "third, first"], cases=three)
    assert code == 0 and context.systems == ("first", "third")
    code, (context,) = contexts(["--workdir", str(tmp_path / "all")], cases=three)
    assert code == 0 and context.systems == three
    capsys.readouterr()
    assert "unknown case 'fourth'; toy has first, second, third" in refusal(
        capsys, tmp_path / "none", "--cases", "fourth", cases=three
    )
    # a study of one problem has no such option
    assert "unknown argument '--cases'" in refusal(capsys, tmp_path / "one", "--cases", "first", cases=("first",))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--size", "tiny"], ["unknown size 'tiny'", "toy has smoke, laptop"]),
        (["--methods", "phdme,difusion"], ["unknown method 'difusion'", "toy has phdme, diffusion"]),
        (["--seeds", "0"], ["argument --seeds: expected", "at least 1, got '0'"]),
        (["--seeds", "9" * 30], ["at most 10000, got '999"]),
        (["--workdir", ""], ["argument --workdir: expected a path, got ''"]),
        (["--data_dir", ""], ["argument --data_dir: expected a path, got ''"]),
        (["--seeds", "many"], ["got 'many'"]),
        (["--data_dir", "/no/such/folder"], ["/no/such/folder: there is no such folder", "--data_dir"]),
        (["--workdirs", "x"], ["unknown argument '--workdirs'"]),
        (["--size"], ["expected one argument"]),
        (["--config.model.widht=3"], ["'model.widht'", "did you mean model.width?", "name, rate, residual, width"]),
        (["--config.modle.width=3"], ["did you mean model.width?", "the configuration has grid, model"]),
        (["--config.model.width=2.5"], ["--config.model.width expects a whole number such as 4, got '2.5'"]),
        (["--config.model.width=wide"], ["a whole number such as 4, got 'wide'"]),
        (["--config.model.rate=nan"], ["a finite number such as 0.001"]),
        (["--config.model.rate=fast"], ["a number such as 0.001, got 'fast'"]),
        (["--config.model.residual=maybe"], ["true or false, got 'maybe'"]),
        (["--config.grid.points=16,x"], ["a whole number such as 16, got 'x'"]),
        (["--config.grid.stages=16,2"], ["a list of lists such as [[4, 0.1], [8, 0.2]], got '16,2'"]),
        (["--config.grid.stages=((16,2),5)"], ["a list of lists", "got '((16,2),5)'"]),
        (["--config.grid.stages=((16,))"], ["rows of 2 values such as [4, 0.1], got '16,'"]),
        (["--config.grid.stages=((1.5,2))"], ["a whole number such as 4, got '1.5'"]),
        (["--config.model=3"], ["--config.model is a group", "model.width"]),
        (["--config.model.width.x=3"], ["model.width is a value and has no keys"]),
        (["--config.model.width"], ["has no value"]),
    ],
)
def test_mistakes_are_one_sentence_with_the_alternatives(capsys, tmp_path, arguments, parts):
    sentence = refusal(capsys, tmp_path, *arguments)
    for part in parts:
        assert part in sentence


@pytest.mark.parametrize("kind", [InputError, ValueError])
def test_wrong_input_leaves_no_run_folder(capsys, tmp_path, kind):
    def check(context):
        raise kind("the data is\nwrong")

    assert refusal(capsys, tmp_path, check=check) == "error: the data is wrong"


def test_a_defect_of_the_program_keeps_its_traceback(tmp_path):
    def run(study, context):
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        main(toy_study(), ["--workdir", str(tmp_path / "run")], run)


def test_a_run_that_cannot_go_on_is_one_sentence_too(capsys, tmp_path):
    def run(study, context):
        raise RunFailed("the training\ndiverged")

    assert main(toy_study(), ["--workdir", str(tmp_path / "run")], run) == 1
    assert capsys.readouterr().err == "failed: the training diverged\n"

    def full(study, context):
        raise OSError(errno.ENOSPC, "No space left on device", "scratch")

    assert main(toy_study(), ["--workdir", str(tmp_path / "run")], full) == 1
    assert capsys.readouterr().err.startswith("failed: scratch: cannot be written (No space left on device); once")


@pytest.mark.parametrize("library", [np, jnp])
def test_a_full_memory_is_one_sentence(capsys, library):
    assert run_main(lambda: library.zeros(10**14).sum()) == 1
    error = capsys.readouterr().err
    assert error.startswith("failed: the memory is full (") and error.count("\n") == 1


def test_a_run_ends_with_its_table_and_its_report(capsys, tmp_path):
    workdir = tmp_path / "run"
    assert main(toy_study(), ["--workdir", str(workdir), "--seeds", "3"], run_toy) == 0
    lines = capsys.readouterr().out.strip().split("\n")
    report = workdir / "report.html"
    assert any(str(report) in line for line in lines)
    assert any("diffusion has the best mse, 8" in line or "phdme has the best mse, 8" in line for line in lines)
    assert any("phdme" in line and "8.0 ± 4.0" in line for line in lines), "mean and sd of 4, 8, 12"
    assert {path.name for path in workdir.iterdir()} == {
        "config.json",
        "environment.json",
        "results.digest",
        "results.jsonl",
        "report.html",
        "sections.json",
        "tables.md",
    }
    environment = json.loads((workdir / "environment.json").read_text())
    assert environment["command"] == f"python -m experiments.toy --workdir {workdir} --seeds 3"
    assert environment["versions"]["jax"] and environment["device"]


def test_a_folder_of_another_configuration_is_refused_untouched(capsys, tmp_path):
    workdir = tmp_path / "run"
    assert main(toy_study(), ["--workdir", str(workdir)], run_toy) == 0
    before = {path.name: path.read_bytes() for path in workdir.iterdir()}
    capsys.readouterr()
    assert main(toy_study(), ["--workdir", str(workdir), "--config.model.width=5"], run_toy) == 2
    sentence = capsys.readouterr().err
    assert "holds a run of another configuration (config.model.width is 4 there and 5 now)" in sentence
    assert {path.name: path.read_bytes() for path in workdir.iterdir()} == before


def test_the_same_configuration_goes_on_and_may_grow_in_seeds(tmp_path):
    workdir = tmp_path / "run"
    assert main(toy_study(), ["--workdir", str(workdir), "--seeds", "2"], run_toy) == 0
    page = (workdir / "report.html").read_bytes()
    environment = (workdir / "environment.json").read_bytes()
    assert main(toy_study(), ["--workdir", str(workdir), "--seeds", "2"], run_toy) == 0
    assert (workdir / "report.html").read_bytes() == page
    assert (workdir / "environment.json").read_bytes() == environment
    assert main(toy_study(), ["--workdir", str(workdir), "--seeds", "3"], run_toy) == 0
    assert len(read_rows(workdir / "results.jsonl")) == 6
    record = json.loads((workdir / "environment.json").read_text())
    assert [earlier["command"][-1] for earlier in record["earlier"]] == ["2"] and record["command"][-1] == "3"


def test_digest_is_that_of_the_sorted_json():
    # printf '%s' '{"a": [1, 2], "b": {"c": 0.5}}' | sha256sum
    digest = "67d53d0982d27339114bfef30da9b4eea239bc88dd2eb2160e69ffd7170bd520"
    assert config_digest({"b": {"c": 0.5}, "a": (1, 2)}) == digest
    assert config_digest(ml_collections.ConfigDict({"a": (1, 2), "b": {"c": 0.5}})) == digest
    assert config_digest({"a": (1, 2), "b": {"c": 0.25}}) != digest
    with pytest.raises(InputError, match="finite numbers"):
        config_digest({"a": float("nan")})


def test_folders_that_cannot_be_run_folders(tmp_path):
    (tmp_path / "file").write_text("")

    def enter(folder):
        with claimed_run(folder, {}, "toy"):
            pass

    with pytest.raises(InputError, match="cannot be written"):
        enter(tmp_path / "file" / "run")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json: is not the JSON object"):
        enter(tmp_path)
    for text in ('["numpy"]', "null"):
        (tmp_path / "conda").mkdir(exist_ok=True)
        (tmp_path / "conda" / "environment.json").write_text(text)
        with pytest.raises(InputError, match=r"environment\.json: is not the JSON object"):
            enter(tmp_path / "conda")
        assert (tmp_path / "conda" / "environment.json").read_text() == text
        assert not (tmp_path / "conda" / "config.json").exists()
    (tmp_path / "conda" / "environment.json").write_text('{"earlier": 3}')
    enter(tmp_path / "conda")
    orphan = tmp_path / "orphan"
    orphan.mkdir()
    (orphan / "results.jsonl").write_text("")
    with pytest.raises(InputError, match=r"no config\.json that says whose"):
        enter(orphan)


def test_a_folder_removed_while_a_study_runs_ends_it(capsys, tmp_path):
    workdir = tmp_path / "run"

    def run(study, context):
        run_toy(study, dataclasses.replace(context, methods=("phdme",)))
        shutil.rmtree(workdir)
        return run_toy(study, dataclasses.replace(context, methods=("diffusion",)))

    assert main(toy_study(), ["--workdir", str(workdir)], run) == 1
    error = capsys.readouterr().err
    assert error.startswith("failed: ") and "rows written a moment ago are gone" in error and error.count("\n") == 1
    assert not workdir.exists()
    assert main(toy_study(), ["--workdir", str(workdir)], run_toy) == 0
    assert {row.method for row in read_rows(workdir / "results.jsonl")} == {"phdme", "diffusion"}


def test_measured_files_are_part_of_the_configuration(capsys, tmp_path):
    study, arguments = toy_study(files=lambda config: ["a.txt"]), ["--workdir", str(tmp_path / "run")]
    (tmp_path / "a.txt").write_text("1")
    assert main(study, [*arguments, "--data_dir", str(tmp_path)], run_toy) == 0
    (tmp_path / "a.txt").write_text("2")
    assert main(study, [*arguments, "--data_dir", str(tmp_path)], run_toy) == 2
    assert "files.a.txt is " in capsys.readouterr().err


def test_training_is_guarded_by_all_that_it_depends_on_and_nothing_else(tmp_path):
    """What is kept of other data, another configuration or seed is not taken over; sampling trains nothing anew."""
    (tmp_path / "a.txt").write_text("1")
    sizes = {"smoke": lambda: groups(4) | {"sampling": {"num_steps": 2}}}
    study = toy_study(sizes=sizes, files=lambda config: ["a.txt"])

    def digest(*arguments, seed=0):
        context = parse(study, ["--workdir", str(tmp_path / "run"), "--data_dir", str(tmp_path), *arguments])
        return SeedRun(context, "toy", seed).host(METHODS["phdme"]).digest

    first = digest()
    assert digest() == first == digest("--config.sampling.num_steps=3")
    assert len({first, digest("--config.model.width=5"), digest(seed=1)}) == 3
    (tmp_path / "a.txt").write_text("2")
    assert digest() != first


def test_a_parser_complains_in_one_sentence(capsys):
    def body():
        parser = CommandParser(prog="fit")
        parser.add_argument("--data", required=True)
        parser.parse_args([])

    assert run_main(body) == 2
    assert capsys.readouterr().err == "error: the following arguments are required: --data; see --help\n"


def test_help_names_sizes_methods_and_configuration_keys(capsys):
    with pytest.raises(SystemExit) as caught:
        main(toy_study(), ["--help"], run_toy)
    text = capsys.readouterr().out
    assert caught.value.code == 0
    for part in ("smoke, laptop", "phdme,diffusion", "--config.model.width=4", "--config.grid.points=(16, 16)"):
        assert part in text
