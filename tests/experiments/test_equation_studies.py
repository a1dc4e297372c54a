"""Studies of known equations from their command line, and the scores they report."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import circle, darcy_kle, darcy_one_step, topology
from experiments.data.equations import FieldSet, check_equations, draw_set, load_or_make
from experiments.evaluation import equations as equation_scores
from experiments.evaluation.equations import moment_errors, reference_rows
from experiments.study.command import main, offered_methods, parse
from phdme_jax.files import RunFailed
from phdme_jax.numerics import batching
from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.base import Sample

TINY = [
    "--size",
    "smoke",
    "--seeds",
    "1",
    "--config.data.num_train=128",
    "--config.data.num_test=64",
    "--config.network.width=16",
    "--config.sampling.num_steps=10",
    "--config.sampling.corrections=4,2",
]


def rows_of(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def value(rows, method, metric, split="test"):
    (row,) = (r for r in rows if (r["method"], r["metric"], r["split"]) == (method, metric, split))
    return row["value"]


@pytest.mark.slow
def test_study_of_the_circle_compares_methods_that_share_a_network(tmp_path):
    arguments = [*TINY, "--methods", "diffusion,cocogen,generate_then_solve", "--workdir", str(tmp_path)]
    assert main(circle.STUDY, arguments) == 0
    rows = rows_of(tmp_path)
    assert value(rows, "reference", "residual_mae") < 1e-12
    assert value(rows, "generate_then_solve", "residual_mae") < 1e-12
    assert value(rows, "cocogen", "residual_mae") < value(rows, "diffusion", "residual_mae")
    for metric in ("sliced_wasserstein_x", "energy_distance_y", "angle_divergence", "nfe", "seconds_per_sample"):
        assert np.isfinite(value(rows, "diffusion", metric))
    assert {folder.name for folder in (tmp_path / "training").iterdir()} == {"diffusion_0"}
    page = (tmp_path / "report.html").read_text()
    assert "points on the unit circle" in page.lower() and (tmp_path / "figures" / "points.png").exists()
    # the same command goes on from what is there, and changes nothing
    assert main(circle.STUDY, arguments) == 0
    again = rows_of(tmp_path)
    assert value(again[: len(rows)], "diffusion", "residual_mae") == value(rows, "diffusion", "residual_mae")


@pytest.mark.slow
def test_a_flow_is_scored_both_ways_it_may_be_followed(tmp_path):
    assert main(circle.STUDY, [*TINY, "--methods", "flow_matching", "--workdir", str(tmp_path)]) == 0
    found = {
        json.dumps(row.get("settings")): row["value"]
        for row in rows_of(tmp_path)
        if (row["method"], row["metric"], row["split"]) == ("flow_matching", "residual_mae", "test")
    }
    even, accurate = found.pop("null"), found.pop('{"sampling.flow_method": "dpm"}')
    assert not found and even != accurate
    assert {folder.name for folder in (tmp_path / "training").iterdir()} == {"flow_matching_0"}


def test_a_map_is_offered_where_there_are_fields_to_predict_the_solution_from():
    offered = [offered_methods(study, "smoke") for study in (darcy_kle.STUDY, circle.STUDY)]
    assert ["pidm_map" in names for names in offered] == [True, False]


def test_wrong_encodings_are_refused_before_anything_is_written(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(circle.STUDY, [*TINY, "--config.data.kinds=linear", "--workdir", str(folder)]) == 2
    assert "expects 2 values" in capsys.readouterr().err and not folder.exists()
    arguments = ["--size", "smoke", "--methods", "pidm_map", "--config.training.predicts=v", "--workdir", str(folder)]
    assert main(darcy_kle.STUDY, arguments) == 2
    assert "expected predicts='x0'" in capsys.readouterr().err and not folder.exists()


@pytest.mark.parametrize(
    "wrong",
    [
        "equations.num_points=15",
        "equations.num_modes=10000",
        "training.predicts=q",
        "sampling.sampler=fast",
        "sampling.correction_rule=guess",
        "network.name=transformer",
        "sampling.flow_steps=0",
    ],
)
def test_a_configuration_that_cannot_run_is_refused_before_anything_is_written(tmp_path, capsys, wrong):
    folder = tmp_path / "run"
    arguments = ["--size", "smoke", "--methods", "cocogen", f"--config.{wrong}", "--workdir", str(folder)]
    assert main(darcy_kle.STUDY, arguments) == 2
    message = capsys.readouterr().err
    assert "expect" in message and message.count("\n") == 1 and not folder.exists()


@pytest.mark.slow
def test_every_method_that_is_offered_passes_the_check(tmp_path):
    """The least-squares solve wants double precision, the networks are single."""
    methods = ",".join(offered_methods(darcy_kle.STUDY, "smoke"))
    context = parse(darcy_kle.STUDY, ["--size", "smoke", "--methods", methods, "--workdir", str(tmp_path / "a")])
    check_equations(context)


def test_examples_in_turn_are_those_drawn_at_once(monkeypatch):
    """A CPU takes one example after the other, an accelerator many side by side."""
    equations = make_equations("darcy_nodal", num_points=16, num_modes=8)
    turn = draw_set(equations, 5, jax.random.key(0))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    np.testing.assert_allclose(draw_set(equations, 5, jax.random.key(0)).fields, turn.fields, rtol=1e-9, atol=1e-12)


def test_every_thread_has_slices(monkeypatch):
    """Two slices for two threads would leave one idle: the first is taken alone, it compiles."""
    monkeypatch.setattr(batching, "num_workers", lambda: 2)
    assert [batching.thread_slice(count) for count in (1, 12, 64, 4096)] == [1, 1, 8, 32]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert [batching.thread_slice(count) for count in (12, 4096)] == [12, 256]


@pytest.mark.slow
def test_padding_of_a_density_has_no_part_in_distances():
    equations = make_equations("topology", num_squares=6, num_iterations=2)
    data = draw_set(equations, 4, jax.random.key(0))
    fields = data.fields.copy()
    fields[:, -1, :, 2] = fields[:, :, -1, 2] = 9.0
    scores = equation_scores.distance_scores(equations, FieldSet(fields, data.condition), data, paired=True)
    assert scores["sliced_wasserstein_density"].value == 0.0 and scores["spectrum_error_density"].value < 1e-12
    assert abs(scores["energy_distance_density"].value) < 1e-12, "answers to the same tasks are not other examples"
    fields[:, 0, 0, 0] += 1.0
    scores = equation_scores.distance_scores(equations, FieldSet(fields, data.condition), data)
    assert scores["wasserstein_displacement_x"].value > 0.0


@pytest.mark.slow
def test_the_floor_is_of_other_tasks():
    equations = make_equations("topology", num_squares=6, num_iterations=2)
    sets = {"train": draw_set(equations, 6, jax.random.key(1)), "test": draw_set(equations, 6, jax.random.key(0))}
    written = {}
    run = SimpleNamespace(
        context=SimpleNamespace(asked="test"),
        bench=SimpleNamespace(task=SimpleNamespace(problem=equations), world=sets),
        record=lambda method, split, rows, count: written.update(rows),
    )
    reference_rows(run)
    expected = equation_scores.distance_scores(equations, sets["train"], sets["test"])
    assert written["energy_distance_density"] == expected["energy_distance_density"]
    assert written["sliced_wasserstein_density"].value > 0.0


def test_data_are_drawn_once_and_unusable_examples_are_left_out(tmp_path):
    equations = make_equations("circle")

    def half(key):
        sample = equations.draw(key)
        return Sample(sample.fields, sample.condition, sample.fields[0] > -0.9)

    chosen = draw_set(type(equations)(**{**vars(equations), "draw": half}), 50, jax.random.key(0))
    assert chosen.fields.shape == (50, 2) and chosen.fields[:, 0].min() > -0.9
    never = type(equations)(**{**vars(equations), "draw": lambda key: half(key)._replace(ok=jnp.asarray(False))})
    with pytest.raises(RunFailed, match="unusable"):
        draw_set(never, 10, jax.random.key(0))
    first = load_or_make({"train": equations}, {"train": 8}, 0, tmp_path, {"case": "circle"})["train"]
    again = load_or_make({"train": equations}, {"train": 8}, 0, tmp_path, {"case": "circle"})["train"]
    np.testing.assert_array_equal(first.fields, again.fields)
    other = load_or_make({"train": equations}, {"train": 8}, 1, tmp_path, {"case": "circle"})["train"]
    assert np.abs(first.fields - other.fields).max() > 0.1


@pytest.mark.slow
def test_scores_of_the_data_themselves_are_perfect_and_of_worse_fields_are_not():
    equations = make_equations("topology", num_squares=8, num_iterations=10)
    data = draw_set(equations, 6, jax.random.key(0))
    scores = equation_scores.physics_scores(equations, data) | topology.body_scores(equations, data, data)
    assert scores["residual_mae"].value < 1e-10 and scores["resolve_error"].value < 1e-10
    assert abs(scores["compliance_error"].value) < 1e-10
    # whole squares cannot make every fraction
    assert scores["volume_error"].value < 0.5 / 64 / 0.3 and scores["rejection_rate"].value == 0.0
    fields = data.fields.copy()
    fields[..., 2] = 0.0
    fields[:, 0, 0, 2] = fields[:, 6, 6, 2] = 1.0
    worse = topology.body_scores(equations, FieldSet(fields, data.condition), data)
    assert worse["compliance_error"].value > 1.0 and worse["rejection_rate"].value == 1.0
    wrong = equation_scores.physics_scores(equations, FieldSet(1.1 * data.fields, data.condition))
    assert wrong["residual_mae"].value > 1e-3


def test_distances_of_data_from_themselves_vanish_and_of_collapsed_fields_do_not():
    equations = make_equations("poisson_1d", num_points=20, num_waves=3)
    data = draw_set(equations, 64, jax.random.key(0))
    same = equation_scores.distance_scores(equations, data, data)
    assert same["sliced_wasserstein_solution"].value == 0.0 and same["spectrum_error_source"].value < 1e-12
    collapsed = FieldSet(0.01 * data.fields, data.condition)
    far = equation_scores.distance_scores(equations, collapsed, data)
    assert far["sliced_wasserstein_solution"].value > 0.5 and far["energy_distance_source"].value > 0.2


def test_angles_of_uniform_points_diverge_little_and_of_one_point_by_the_logarithm_of_the_bins():
    angle = 2 * np.pi * (np.arange(5000) + 0.5) / 5000
    even = np.stack([np.cos(angle), np.sin(angle)], -1)
    assert circle.angle_divergence(even).value < 1e-9
    one = np.ones((100, 2))
    np.testing.assert_allclose(circle.angle_divergence(one).value, np.log(50))


@pytest.mark.slow
def test_study_of_bodies_runs_through(tmp_path):
    arguments = [
        "--size",
        "smoke",
        "--seeds",
        "1",
        "--workdir",
        str(tmp_path),
        "--config.sampling.num_steps=6",
        "--methods",
        ",".join(offered_methods(topology.STUDY, "smoke")),
    ]
    assert main(topology.STUDY, arguments) == 0
    rows = rows_of(tmp_path)
    assert {row["method"] for row in rows} == {"reference", *offered_methods(topology.STUDY, "smoke")}
    for split in ("test", "shifted"):
        assert value(rows, "generate_then_solve", "residual_mae", split) < 1e-8
        assert 0.0 <= value(rows, "pidm_me", "rejection_rate", split) <= 1.0


@pytest.mark.slow
def test_paper_sized_darcy_flow_runs_through_cut_to_two_steps(tmp_path):
    arguments = [
        "--size",
        "accelerator",
        "--seeds",
        "1",
        "--methods",
        "pidm_me",
        "--workdir",
        str(tmp_path),
        "--config.data.num_train=8",
        "--config.data.num_test=4",
        "--config.sampling.num_steps=2",
        "--config.stages.informed=((1.0,2,4,3e-4),)",
    ]
    assert main(darcy_kle.STUDY, arguments) == 0
    rows = rows_of(tmp_path)
    # the figure of the literature, by the same generator
    assert abs(value(rows, "reference", "residual_mae") - 1.26e-3) < 1e-4
    assert value(rows, "pidm_me", "nfe") == 2 and np.isfinite(value(rows, "pidm_me", "residual_mae"))


@pytest.mark.slow
def test_one_step_models_of_the_published_grid_run_through_cut_to_two_steps(tmp_path):
    arguments = [
        "--size",
        "accelerator",
        "--seeds",
        "1",
        "--methods",
        "flow_matching,piddm",
        "--workdir",
        str(tmp_path),
        "--config.data.num_train=8",
        "--config.data.num_test=4",
        "--config.sampling.flow_steps=2",
        "--config.stages.flow=((1,2,4,3e-4),)",
        "--config.stages.distilled=((0.0,2,4,3e-4),(1.0,2,4,3e-4))",
        "--config.distilled.num_pairs=4",
        "--config.distilled.num_calls=2",
    ]
    assert main(darcy_one_step.STUDY, arguments) == 0
    rows = [row for row in rows_of(tmp_path) if not row.get("settings")]
    assert value(rows, "reference", "residual_rms") < 1e-8
    assert value(rows, "piddm", "nfe") == 1 and np.isfinite(value(rows, "piddm", "residual_rms"))


def test_errors_of_mean_and_deviation_are_in_units_of_the_variance():
    generator = np.random.default_rng(0)
    reference = 3.0 * generator.standard_normal((4000, 5))
    moved = moment_errors(1.5 + 2.0 * reference, reference)
    assert moved["mmse"] == pytest.approx(0.25, rel=0.05) and moved["smse"] == pytest.approx(1.0, rel=0.05)
    again = moment_errors(3.0 * generator.standard_normal((4000, 5)), reference)
    assert again["mmse"] < 3 * 2 / 4000 and again["smse"] < 3 / 4000
    # what shrinks to its mean has no error of the mean, and all of that of the deviation
    collapsed = moment_errors(np.zeros((4000, 5)), reference)
    assert collapsed["mmse"] < 1e-3 and collapsed["smse"] == pytest.approx(1.0, rel=0.05)


def test_a_residual_by_unseen_stencils_is_scored_beside_the_own_one():
    equations = make_equations("poisson_2d", num_points=16)
    rows = equation_scores.physics_scores(equations, draw_set(equations, 3, jax.random.key(2)))
    assert rows["residual_rms"].value < 1e-10 < 1e-3 < rows["residual_rms_unseen"].value
