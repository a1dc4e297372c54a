"""The study of priors of fields: what each case is offered, and its rows."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments import priors_fields
from experiments.data.cases import equations_of_case
from experiments.data.equations import FieldSet, draw_set
from experiments.data.prior_fields import options_of_case
from experiments.evaluation.equations import physics_scores, residual_excess
from experiments.evaluation.invariants import invariant_errors
from experiments.evaluation.prior_fields import closeness_scores
from experiments.study.command import main, parse
from phdme_jax.diffusion.dilated import DilatedConfig
from phdme_jax.systems import make_equations

CYCLIC, SQUARE = ("advection", "viscous_burgers"), ("dam_break", "darcy_nodal")


@pytest.mark.slow
def test_study_of_two_methods_writes_what_each_case_is_scored_by(tmp_path):
    study = dataclasses.replace(priors_fields.STUDY, cases=("advection",))
    few = ["--config.data.num_train=16", "--config.data.num_test=8", "--config.stages.diffusion=((1,3,4,1e-3),)"]
    arguments = ["--size", "smoke", "--methods", "diffusion,equivariant", "--workdir", str(tmp_path), *few]
    assert main(study, arguments) == 0
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    plain = {(row["method"], row["metric"]): row["value"] for row in rows if "settings" not in row}
    projected = {(row["method"], row["metric"]): row["value"] for row in rows if "settings" in row}
    assert all(plain[method, "residual_excess"] > 0 for method in ("diffusion", "equivariant"))
    for metric in ("residual_rms", "residual_rms_unseen", "mass_error", "energy_error", "mmse", "spectrum_error"):
        for method in ("reference", "diffusion", "equivariant"):
            assert np.isfinite(plain[method, metric])
    assert plain["reference", "mass_error"] < 1e-12 and plain["diffusion", "mass_error"] > 1e-3
    assert projected["equivariant", "mass_error"] < 1e-6 < 1e-3 < plain["equivariant", "mass_error"]
    assert {name for name, _ in projected} == {"equivariant"}
    assert (tmp_path / "figures" / "samples_concentration.png").exists()


@pytest.mark.parametrize("size", list(priors_fields.STUDY.sizes))
def test_only_cases_on_a_ring_have_a_network_that_commutes(size):
    config = priors_fields.STUDY.get_config(size)
    for case in CYCLIC:
        options = options_of_case(config, case)
        blind, seeing = options["network"], options["symmetric_network"]
        assert seeing["padding"] == ("circular", "edge") and blind["padding"] == ("periodic", "edge")
        assert {**blind, "padding": 0} == {**seeing, "padding": 0}, "they differ in nothing else"
        made = DilatedConfig(**{name: value for name, value in seeing.items() if name != "name"})
        assert made.patches(2) == (1, 4)
        places = equations_of_case(config, case).grid.points[0]
        assert sum(made.dilations) + 2 >= places // 2, "across the ring"
    for case in SQUARE:
        options = options_of_case(config, case)
        assert "symmetric_network" not in options and options["network"]["name"] == "unet"
        assert options["network"]["padding"] == ("edge", "edge")
    assert options_of_case(config, "darcy_nodal")["data"]["kinds"] == ("linear", "log")
    assert set(options_of_case(config, "dam_break")["data"]["kinds"]) == {"linear"}


def test_methods_are_run_where_they_fit():
    found = {}
    for variant in priors_fields.make_variants(priors_fields.STUDY.get_config("laptop")):
        found[variant.method, bool(variant.changes)] = set(variant.cases)
    everywhere, kept = {*CYCLIC, *SQUARE}, {*CYCLIC, "dam_break"}
    assert found == {
        ("diffusion", False): everywhere,
        ("projected", False): kept,
        ("subspace", False): {"advection"},
        ("augmented", False): everywhere - {"dam_break"},
        ("penalty_linear", False): {"advection", "dam_break"},
        ("penalty_multilinear", False): {"viscous_burgers", *SQUARE},
        ("equivariant", False): set(CYCLIC),
        ("priors", False): everywhere,
        ("equivariant", True): set(CYCLIC),
        ("priors", True): kept,
    }


@pytest.mark.slow
def test_every_method_fits_its_cases(tmp_path):
    study = priors_fields.STUDY
    arguments = ["--size", "smoke", "--methods", ",".join(study.methods), "--workdir", str(tmp_path)]
    study.check(parse(study, arguments))


def test_what_is_kept_is_scored_by_its_deviation_from_the_mean_over_frames():
    """Frames 3, 3 and 6 of a constant field have the deviations -1, -1 and 2 of the mass: the root of two."""
    equations = make_equations("advection", num_points=4, num_frames=3, highest_wave=1)
    fields = np.broadcast_to(np.array([3.0, 3.0, 6.0])[:, None], (2, 4, 3, 1))
    found = invariant_errors(equations, FieldSet(fields, fields[..., :0]))
    assert found["mass_error"].value == pytest.approx(np.sqrt(2.0))
    assert found["energy_error"].value == pytest.approx(np.std([4.5, 4.5, 18.0]))
    # one example of three whose frames differ without bound moves the mean alone
    many = np.concatenate([fields[:1], fields[:1], 1e9 * fields[:1]])
    heavy = invariant_errors(equations, FieldSet(many, many[..., :0]))
    assert heavy["mass_error_median"].value == pytest.approx(np.sqrt(2.0)) and heavy["mass_error"].value > 1e8
    assert invariant_errors(make_equations("darcy_nodal"), FieldSet(fields, fields[..., :0])) == {}


@pytest.mark.parametrize(("name", "linear"), [("advection", True), ("viscous_burgers", False)])
def test_an_excess_of_the_residual_is_zero_of_solutions_and_seen_in_blurred_fields(name, linear):
    """Fields without their small waves may have less of a residual than the data, whose scheme is another."""
    equations = make_equations(name, num_points=32, num_frames=32)
    data = draw_set(equations, 4, jax.random.key(0))
    excess = lambda fields: residual_excess(equations, FieldSet(fields, data.condition), data.fields).value  # noqa: E731
    floor = physics_scores(equations, data)["residual_rms"].value
    spectrum = np.fft.rfft(data.fields, axis=1)
    spectrum[:, 8:] = 0.0
    blurred = np.fft.irfft(spectrum, 32, axis=1)
    if linear:
        assert physics_scores(equations, FieldSet(blurred, data.condition))["residual_rms"].value < floor
    assert excess(data.fields) == 0.0 and excess(blurred) > 0.1 * floor
    noise = 1e-3 * np.random.default_rng(0).normal(size=data.fields.shape)
    assert excess(data.fields + 2 * noise) == pytest.approx(
        2 * excess(data.fields + noise), rel=1e-6 if linear else 0.05
    )


@pytest.mark.parametrize(("count", "own", "mean"), [(1, False, True), (2, True, True), (5, False, True)])
def test_distances_of_many_channels_are_means(count, own, mean):
    fields = tuple(f"depth {number}" if count > 4 else f"depth{number}" for number in range(count))
    equations = dataclasses.replace(make_equations("darcy_nodal", num_points=8), fields=fields, units=("1",) * count)
    reference = np.random.default_rng(0).normal(size=(40, 8, 8, count))
    moved = FieldSet(reference + np.arange(count), reference[..., :0])
    rows = closeness_scores(equations, moved, FieldSet(reference, reference[..., :0]))
    assert (f"wasserstein_{fields[0]}" in rows) == own and ("mmse" in rows) == mean
    expected = np.mean(np.arange(count) ** 2.0)
    assert rows["mmse"].value == pytest.approx(expected, rel=0.1, abs=1e-12)
