"""Your own question, from a file to an answer with its band; what is wrong with a file is said in one sentence."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments import piddm_ablations, poisson_2d
from experiments.answer import _possible, answer, main
from experiments.data.own_question import far_readings, read_question, refuse_values, same_question
from experiments.study.command import main as study_main
from experiments.study.reopened import restored
from phdme_jax.files import InputError
from phdme_jax.methods.base import Examples, Fitted, Model
from phdme_jax.methods.equations.questions import Question
from phdme_jax.systems import make_equations
from tests.test_readmes import ROOT, block

POISSON = make_equations("poisson_2d", num_points=16)
DARCY = make_equations("darcy_nodal", num_points=16, num_modes=4)
KEY = jax.random.key(1)
SENSORS = {"readings": [0.5, -1.0], "field": [0, 1], "index": [[1, 2], [3, 4]], "noise": [0.1, 0.2]}


def file_of(folder, **arrays):
    np.savez(folder / "question.npz", **arrays)
    return folder / "question.npz"


def test_sensors_are_read_by_index_or_place(tmp_path):
    by_index = read_question(file_of(tmp_path, **SENSORS), POISSON)
    assert by_index.values[1, 2, 0] == 0.5 and by_index.values[3, 4, 1] == -1.0 and by_index.mask.sum() == 2
    np.testing.assert_array_equal(by_index.noise, [0.1, 0.2])
    there = {key: value for key, value in SENSORS.items() if key not in ("index", "noise")}
    by_place = read_question(file_of(tmp_path, **there, position=np.array([[1, 2], [3, 4]]) / 15.0), POISSON)
    np.testing.assert_array_equal(by_place.values, by_index.values)
    np.testing.assert_array_equal(by_place.noise, 0.0)
    whole = {"mask": by_index.mask, "values": by_index.values}
    np.testing.assert_array_equal(read_question(file_of(tmp_path, **whole), POISSON).mask, by_index.mask)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"readings": [np.nan, 1.0]}, "expected finite observations"),
        ({"index": [[np.inf, 2], [3, 4]]}, r"index of sensor 0 is \[inf, 2.0\]; expected whole numbers"),
        ({"field": [0, 2]}, r"field is \[0.0, 2.0\]; expected numbers from 0 to 1 \(solution, source\)"),
        ({"index": [[1, 2], [3, 16]]}, r"index of sensor 1 is \[3.0, 16.0\]; expected whole numbers, the nearest is"),
        ({"index": [[1, 2]]}, r"index has shape \(1, 2\); expected \(2, 2\)"),
        ({"index": None}, "expected the places of the sensors as position or as index, got none"),
        ({"index": None, "position": [[0.0, 0.0], [0.05, 0.0]]}, "expected a place of the grid, the nearest is"),
        ({"field": [0]}, "expected one of each a sensor"),
        ({"noise": [0.1]}, "one noise of at least zero for each of"),
        ({"readings": [], "field": [], "index": np.zeros((0, 2))}, "got an empty mask"),
        ({"field": [1, 1], "index": [[1, 2], [1, 2]]}, "one reading of a field at a place, got 0.5 and -1"),
        ({"mask": np.ones((16, 16, 2))}, "expected one kind of them"),
        ({"readings": None, "field": None, "index": None, "mask": np.ones((8, 8, 2)), "values": np.ones((8, 8, 2))},
         r"expected mask of shape \(16, 16, 2\)"),
        ({"readings": None, "field": None, "index": None, "noise": None}, "none of the keys"),
        ({"field": None}, "has readings, index, noise; expected readings, field and position"),
        ({"readings": None, "field": None, "index": None, "mask": np.ones((16, 16, 2)),
          "values": np.ones((16, 16, 2))}, "reads all fields everywhere"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told_in_one_sentence(tmp_path, changes, words):
    arrays = {key: value for key, value in {**SENSORS, **changes}.items() if value is not None}
    with pytest.raises(InputError, match=words) as error:
        read_question(file_of(tmp_path, **arrays), POISSON)
    assert "question.npz" in str(error.value)


def test_a_file_that_is_no_archive_is_told_the_keys_of_a_question(tmp_path):
    path = tmp_path / "question.npz"
    path.write_text("readings")
    with pytest.raises(InputError, match=r"savez\(path, readings=\.\.\., field=\.\.\.\)"):
        read_question(path, POISSON)


def test_readings_are_what_a_field_can_be(tmp_path):
    good = read_question(file_of(tmp_path, **(SENSORS | {"readings": [-1.0, 0.5]})), DARCY)
    bad = read_question(file_of(tmp_path, **SENSORS), DARCY)
    refuse_values(tmp_path, good, DARCY, ("linear", "log"))
    refuse_values(tmp_path, bad, DARCY, ("linear", "linear"))
    with pytest.raises(InputError, match="readings of permeability are -1 to -1; expected numbers above zero"):
        refuse_values(tmp_path, bad, DARCY, ("linear", "log"))
    with pytest.raises(InputError, match="expected numbers from 0 to 1"):
        refuse_values(tmp_path, bad, DARCY, ("unit", "unit"))
    fields = np.zeros((3, 16, 16, 2))
    fields[..., 1] = np.array([-2.0, 0.0, 2.0])[:, None, None]
    assert far_readings(bad, Examples(fields, fields[..., :0]), DARCY.fields) == ["pressure"]


def test_other_examples_are_asked_the_same_with_the_same_noise(tmp_path):
    """The same places, whatever was read there; noise of a positive field is that of its logarithm."""
    question = read_question(file_of(tmp_path, **(SENSORS | {"readings": [9.0, 9.0]})), DARCY)
    fields = np.exp(np.random.default_rng(0).standard_normal((4000, 16, 16, 2)))
    examples, kinds = Examples(fields, fields[..., :0]), ("linear", "log")
    asked = same_question(question, examples, kinds, KEY)
    np.testing.assert_array_equal(asked.mask, np.broadcast_to(question.mask, fields.shape))
    np.testing.assert_array_equal(asked.values[asked.mask == 0], 0.0)
    np.testing.assert_array_equal(asked.noise, np.broadcast_to([0.1, 0.2], (4000, 2)))
    linear = asked.values[:, 1, 2, 0] - fields[:, 1, 2, 0]
    logarithmic = np.log(asked.values[:, 3, 4, 1] / fields[:, 3, 4, 1])
    for errors, size in ((linear, 0.1), (logarithmic, 0.2)):
        assert abs(errors.mean()) < 4 * size / np.sqrt(4000) and errors.std() == pytest.approx(size, rel=0.05)
    exact = same_question(question._replace(noise=np.zeros(2)), examples, kinds, KEY)
    np.testing.assert_array_equal(exact.values, exact.mask * fields)


def test_a_band_holds_its_share_of_new_examples_whatever_is_said_of_what_was_read():
    """Fields of white noise, and a method that draws such ones but misses what was read by a thousand."""

    def draw(params, question, latent, key):
        del params, key
        return latent + 1000.0 * question.mask

    model = Model(lambda params, question: question, draw, latent=lambda key: jax.random.normal(key, (5, 1)))
    white = np.random.default_rng(0).standard_normal((2199, 5, 1))
    given = white[..., :0]
    bench = SimpleNamespace(
        world={"calibration": (white[:199], given[:199])},
        level=0.9,
        scale=np.ones(1),
        options={"data": {"kinds": ("linear",)}},
    )
    run = SimpleNamespace(fitted=lambda name: Fitted(model, (), {}), bench=bench)
    mask = np.zeros((5, 1))
    mask[2] = 1.0
    found = answer(run, "any", Question(given[0], mask, mask, np.zeros(1)), 64)
    assert found.level == 0.9 and np.isnan(found.lower[2]).all() and np.isnan(found.upper[2]).all()
    hidden = mask[:, 0] == 0
    inside = (found.lower <= white[199:]) & (white[199:] <= found.upper)
    # the share that a band from 199 examples holds is Beta(180, 20), of deviation 0.021
    assert 0.83 < inside[:, hidden].all(axis=(1, 2)).mean() < 0.97
    assert answer(run, "any", Question(given[0], mask, mask, np.zeros(1)), 1).unsaid == "one sample has no spread"


def test_a_band_holds_what_a_field_can_be_alone():
    edge = np.array([[-1.0, -1.0, -1.0], [2.0, 2.0, 2.0], [np.nan, np.nan, np.nan]])
    found = _possible(edge, ("linear", "log", "unit"))
    np.testing.assert_array_equal(found, [[-1.0, 0.0, 0.0], [2.0, 2.0, 1.0], [np.nan] * 3])


def test_a_kept_configuration_is_the_study_s_with_its_changes():
    config = poisson_2d.STUDY.get_config("smoke")
    kept = json.loads(json.dumps(config.to_dict()))
    assert restored(config, kept).to_dict() == config.to_dict()
    kept["answers"]["push"], kept["stages"]["diffusion"] = 7, [[1, 3, 4, 0.1]]
    found = restored(config, kept)
    assert found.answers.push == 7 and found.stages.diffusion == ((1, 3, 4, 0.1),)


@pytest.mark.slow
def test_a_run_answers_a_question_of_one_s_own(tmp_path, monkeypatch, capsys):
    """The question of the README; the band holds nothing that was read, and the samples obey the readings."""
    monkeypatch.chdir(tmp_path)
    few = ["--config.data.num_test=32", "--config.questions.count=2"]
    assert study_main(poisson_2d.STUDY, ["--size", "smoke", "--methods", "kriging", *few]) == 0
    rows = (tmp_path / "runs" / "poisson_2d_smoke" / "results.jsonl").read_bytes()
    exec(block(ROOT / "experiments" / "README.md", "question.npz"), {})
    arguments = ["runs/poisson_2d_smoke", "question.npz", "--method", "kriging"]
    assert main([*arguments, "--samples", "8", "--out", "answer"]) == 0
    found = np.load(tmp_path / "answer" / "answer.npz")
    assert found["samples"].shape == (8, 16, 16, 2) and list(found["fields"]) == ["solution", "source"]
    read = found["mask"] > 0
    assert found["values"].dtype == np.float64 and found["values"][4, 9, 1] == 0.8
    assert read.sum() == 3 and np.isnan(found["lower"][read]).all() and np.isnan(found["upper"][read]).all()
    assert np.abs(found["mean"] - found["values"])[read].max() < 0.1
    hidden = ~read
    assert (found["lower"] < found["mean"])[hidden].all() and (found["mean"] < found["upper"])[hidden].all()
    assert found["level"] == 0.9
    assert (tmp_path / "answer" / "solution.png").exists() and (tmp_path / "answer" / "source.png").exists()
    assert (tmp_path / "runs" / "poisson_2d_smoke" / "results.jsonl").read_bytes() == rows, "the run is as it was"
    assert main([*arguments, "--no_band", "--samples", "2", "--out", "plain"]) == 0
    assert "lower" not in np.load(tmp_path / "plain" / "answer.npz")
    capsys.readouterr()
    for wrong, words in (
        (["nowhere", *arguments[1:]], "holds no run of a study"),
        ([*arguments, "--out", "runs/poisson_2d_smoke/answer"], "lies in the run that is asked"),
        ([*arguments[:3], "piddm"], "answers no questions about fields"),
        ([*arguments, "--case", "darcy"], "unknown case 'darcy'"),
    ):
        assert main(["--out", "wrong", *wrong]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "wrong").exists()
    path = tmp_path / "runs" / "poisson_2d_smoke" / "config.json"
    record = json.loads(path.read_text())
    del record["config"]["answers"]["push"]
    path.write_text(json.dumps(record))
    assert main([*arguments, "--out", "wrong"]) == 2
    assert "holds a run of another configuration (config.answers.push is absent there" in capsys.readouterr().err
    record["config"]["equations"]["sides"] = 3
    path.write_text(json.dumps(record))
    assert main([*arguments, "--out", "wrong"]) == 2
    assert "holds a run of other code" in capsys.readouterr().err


@pytest.mark.slow
def test_a_study_of_several_cases_says_which_and_keeps_its_own_encodings(tmp_path, capsys):
    arguments = ["--size", "smoke", "--methods", "kriging", "--cases", "darcy_nodal"]
    arguments += ["--config.questions.count=2", "--workdir", str(tmp_path / "run")]
    assert study_main(piddm_ablations.STUDY, arguments) == 0
    wrong, right = SENSORS | {"noise": [0.1, 0.0]}, SENSORS | {"readings": [0.01, 2.0], "noise": [0.0, 0.1]}
    given = [str(tmp_path / "run"), str(file_of(tmp_path, **right)), "--method", "kriging", "--samples", "4"]
    given += ["--out", str(tmp_path / "answer")]
    assert main(given) == 2 and "choose --case among poisson_2d, darcy_nodal" in capsys.readouterr().err
    assert main([*given, "--case", "darcy_nodal"]) == 0
    found = np.load(tmp_path / "answer" / "answer.npz")
    assert (found["samples"][..., 1] > 0).all() and np.nanmin(found["lower"][..., 1]) >= 0
    file_of(tmp_path, **wrong)
    assert main([*given, "--case", "darcy_nodal"]) == 2
    assert "readings of permeability are -1 to -1" in capsys.readouterr().err
