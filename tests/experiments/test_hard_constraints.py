"""The study of constraints that hold exactly, and questions that all examples share."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import hard_constraints
from experiments.data.equations import draw_set
from experiments.data.given import equations_of_case, shared_question, with_examples
from experiments.evaluation.equations import shared_moments
from experiments.study.command import main
from experiments.study.study import Variant
from phdme_jax.diffusion.exact import EmpiricalParams
from phdme_jax.methods.base import Fitted, Model
from phdme_jax.methods.equations.encoding import Encoding
from phdme_jax.methods.equations.network import Params
from phdme_jax.systems import make_equations

METHODS = "flow_matching,eci,pcfm"
QUICK = ["--config.answers.times=4", "--config.stages.flow=((1,4,4,1e-3),)"]


def test_study_compares_answers_with_draws_of_the_right_one(tmp_path):
    def variants(config):
        """As published, and then solved."""
        made = hard_constraints.make_variants(config)
        return (one for one in made if {key for key, _ in one.changes} <= {"solved"})

    study = dataclasses.replace(hard_constraints.STUDY, cases=("burgers_ic",), variants=variants)
    assert main(study, ["--size", "smoke", "--methods", METHODS, "--workdir", str(tmp_path), *QUICK]) == 0
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    given = [row for row in rows if row["split"] == "given"]
    found = {(row["method"], row["metric"]): row["value"] for row in given if "settings" not in row}
    for method in ("eci", "pcfm"):
        assert found[method, "constraint_error"] < 1e-6 < 1e-1 < found["flow_matching", "constraint_error"]
    assert found["pcfm", "conserved_error"] < 1e-6 < 1e-2 < found["eci", "conserved_error"]
    assert found["reference", "residual_rms"] < 1e-12 and found["reference", "conserved_error"] < 1e-12
    assert found["reference", "mmse"] < 0.5 < found["flow_matching", "mmse"]
    solved = {(row["method"], row["metric"]): row["value"] for row in given if row.get("settings") == {"solved": True}}
    for method in ("eci", "pcfm"):
        assert solved[method, "constraint_error"] < 1e-6 and solved[method, "residual_rms"] < 1e-6
        assert solved[method, "mmse"] < found[method, "mmse"]
    assert (tmp_path / "figures" / "burgers_ic_velocity.png").exists()


def test_the_ideal_flow_is_told_every_example_in_the_units_of_networks():
    fields = np.random.default_rng(0).normal(1.0, 2.0, (5, 3, 2, 1))
    units = Encoding(jnp.ones(1, "float32"), jnp.full(1, 2.0, "float32"))
    nothing = Params(EmpiricalParams(jnp.zeros((1, 6), "float32")), units, units)
    known = with_examples(fields, ("linear",), Fitted(Model(dict, dict), nothing, {})).params.network.examples
    assert known.dtype == "float32"
    np.testing.assert_allclose(known.reshape(fields.shape), (fields - 1.0) / 2.0, atol=1e-6)


@pytest.mark.slow
def test_the_ideal_flow_of_a_training_set_samples_its_examples(tmp_path):
    def variants(config):
        return [
            Variant("flow_matching", hard_constraints.EMPIRICAL),
            Variant("matched_flow", hard_constraints.EMPIRICAL),
        ]

    study = dataclasses.replace(hard_constraints.STUDY, cases=("burgers_ic",), variants=variants, extras=())
    asked = ["--methods", "flow_matching,matched_flow", "--workdir", str(tmp_path), "--config.data.num_train=16"]
    assert main(study, ["--size", "smoke", *asked, "--config.sampling.flow_steps=40"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    found = {(row["method"], row["metric"]): row["value"] for row in rows if row["split"] == "given"}
    # its samples are examples, which solve the equation; answers are near one of them
    assert found["flow_matching", "residual_rms"] < 1e-2
    assert found["matched_flow", "mmse"] < found["flow_matching", "mmse"]


def test_only_what_can_be_solved_is_solved():
    config = hard_constraints.STUDY.get_config("smoke")
    solved = [one for one in hard_constraints.make_variants(config) if ("solved", True) in one.changes]
    cases = {frozenset(variant.cases) for variant in solved}
    assert cases == {frozenset(("burgers_ic", "heat", "reaction_diffusion", "burgers_bc", "stefan"))}


@pytest.mark.parametrize("case", list(hard_constraints.CASES))
def test_what_is_fixed_determines_what_is_asked_and_nothing_else(case):
    settings = hard_constraints.CASES[case]
    config = hard_constraints.STUDY.get_config("smoke")
    equations = equations_of_case(config, case, **settings["fixed"])
    data = draw_set(equations, 12, jax.random.key(0))
    question = shared_question(*data, settings["seen"])
    assert 14 <= question.mask[0].sum() <= 16
    np.testing.assert_array_equal(question.values, question.mask * data.fields)
    assert np.std(question.values, axis=0).max() < 1e-12, "what is imposed is the same for all"
    rest = (1 - question.mask[0]) * data.fields.std(axis=0)
    assert rest.max() > 0.02 * data.fields.std()


def test_stokes_is_asked_with_its_first_frame_and_with_its_wall():
    """u(y, 0) = 2 exp(-k y) cos(k y), u(0, t) = 2 cos(omega t); the other parameter is drawn."""
    config = hard_constraints.STUDY.get_config("smoke")
    places = np.linspace(0.0, 1.0, 16)
    first, wall = np.zeros((16, 16)), np.zeros((16, 16))
    first[:, 0] = 2 * np.exp(-5 * places) * np.cos(5 * places)
    wall[0] = 2 * np.cos(6 * places)
    for case, expected in (("stokes", first), ("stokes_bc", wall)):
        settings = hard_constraints.CASES[case]
        data = draw_set(equations_of_case(config, case, **settings["fixed"]), 6, jax.random.key(1))
        question = shared_question(*data, settings["seen"])
        np.testing.assert_allclose(question.values[..., 0], np.tile(expected, (6, 1, 1)), atol=1e-14)
        np.testing.assert_array_equal(question.mask[0, ..., 0] > 0, np.abs(expected) > 0)


@pytest.mark.parametrize("case", list(hard_constraints.CASES))
def test_a_network_is_blind_to_places_only_where_the_law_is(case):
    """On a ring whose places are alike to the network, the mean of the family is the same at all of them."""
    equations = equations_of_case(hard_constraints.STUDY.get_config("smoke"), case)
    padding = hard_constraints.CASES[case]["padding"]
    mean = draw_set(equations, 100, jax.random.key(2)).fields.mean(axis=0)
    differs = [np.ptp(mean, axis=axis).max() > 0.5 for axis in range(2)]
    assert not any(differ and mode == "circular" for differ, mode in zip(differs, padding, strict=True))
    if case == "heat":
        # sin(x + phi), phi on half the circle, has the mean 2 / pi cos x at first
        x = 2 * np.pi * np.arange(16) / 16
        np.testing.assert_allclose(mean[:, 0, 0], 2 / np.pi * np.cos(x), atol=0.15)
        assert differs[0] and padding[0] == "periodic"


def test_values_that_differ_are_no_question():
    data = draw_set(make_equations("burgers_ic", num_points=16, num_frames=16), 6, jax.random.key(0))
    with pytest.raises(ValueError, match="expected initial values that all examples share"):
        shared_question(*data, "initial")
    with pytest.raises(ValueError, match="expected values seen at one of"):
        shared_question(*data, "outlet")


def test_errors_are_also_told_in_square_units_of_the_field():
    reference = 3.0 * np.random.default_rng(0).standard_normal((4000, 5, 1))
    moved = shared_moments(1.5 + 2.0 * reference, reference)
    assert moved["mmse"].value == pytest.approx(0.25, rel=0.05)
    assert moved["mmse_absolute"].value == pytest.approx(1.5**2, rel=0.05)
    assert moved["smse_absolute"].value == pytest.approx(9.0, rel=0.05)
