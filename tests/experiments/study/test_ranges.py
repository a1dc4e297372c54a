"""Every number of every configuration has a range, and text is refused before anything is written."""

import importlib
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from experiments.__main__ import catalogue
from experiments.study.command import main
from experiments.study.study import Study
from phdme_jax.app.overrides import apply_overrides
from phdme_jax.files import InputError, flatten, unflatten
from phdme_jax.forecasting import options
from phdme_jax.methods.ranges import INTERVAL, Range, fault
from phdme_jax.systems.priors import FORMS


def studies() -> Iterator[Study]:
    for name, _ in catalogue():
        module = importlib.import_module(f"experiments.{name}")
        if hasattr(module, "__path__"):
            module = importlib.import_module(f"experiments.{name}.__main__")
        if isinstance(getattr(module, "STUDY", None), Study):
            yield module.STUDY


STUDIES = {study.name: study for study in studies()}
TAKE_ANY = {"centre", "data.start", "test_start", "least_log_likelihood"}
TAKE_ZERO = TAKE_ANY | {
    "pair", "radius", "propagator.depth", "neural_ode.depth", "hnn.depth", "fno.depth", "eno.depth", "network.depth",
    "heads", "residual_weight", "boundary_weight", "ema_decay", "real_fraction", "start_noise", "amplitude_draws",
    "shrinkage", "frame_share", "mean_weight", "sample_weight", "inequality_weight", "objective_weight", "level_share",
    "num_between", "corrections", "noise", "derivative_noise", "data.num_sites", "force", "input_size", "first_frame",
    "start_frame", "rest_scale", "refresh", "share", "matching_share", "stages.distilled", "push", "observation_push",
    "residual_push", "pushed_steps", "imposed_frames", "variance_bound", "langevin_corrections",
    "solver_corrections", "slice_size", "guidance", "resample_every",
    "sensors.num_calls", "sensors.steps", "questions.num_calibration", "questions.num_shifted", "reach", "eno.weight",
    *(f"weights.{form}" for form in FORMS),
}  # fmt: skip


def spelled(default: Any, text: str) -> str:
    """A value whose numbers are all alike, of the shape of the default."""
    if isinstance(default, tuple) and default:
        return f"({','.join(spelled(entry, text) for entry in default)},)"
    return text


def takes(config: Any, ranges: Any, key: str, text: str) -> bool:
    try:
        apply_overrides(config, {key: text}, ranges)
    except InputError as error:
        assert f"--config.{key} expects " in str(error)
        return False
    return True


def is_text(default: Any) -> bool:
    return isinstance(default[0] if isinstance(default, tuple) and default else default, str)


@pytest.mark.parametrize("name", [*STUDIES, "fit"])
def test_zero_one_below_and_no_number_on_every_key(name):
    study = STUDIES.get(name)
    sizes, ranges = (study.sizes, study.ranges) if study else (options.SIZES, options.RANGES)
    for size in sizes:
        defaults = study.get_config(size).to_dict() if study else options.make_options(size)
        for key, default in flatten(defaults).items():
            assert fault(key, default, default, ranges) is None
            if is_text(default):
                continue
            names = {key.split(".", depth)[-1] for depth in range(key.count(".") + 1)}
            zero = isinstance(default, bool) or bool(names & TAKE_ZERO)
            for text, expected in (("0", zero), ("-1", bool(names & TAKE_ANY)), ("nan", False)):
                found = takes(deepcopy(defaults), ranges, key, spelled(default, text))
                assert found == expected, (key, text)


def test_options_from_python_are_checked_alike():
    defaults, fine = options.make_options("smoke"), {("structure.damping", ()), ("training.spread_stage", ())}
    for key in flatten(defaults):
        for wrong in (float("nan"), None, (), (1, "x"), 10**400):
            if (key, wrong) in fine:
                continue
            with pytest.raises(InputError, match=f"the option {key} expects "):
                options.check_options(unflatten(flatten(defaults) | {key: wrong}))


@pytest.mark.parametrize(
    ("value", "default", "allowed", "words"),
    [
        (0.0, 1.0, Range(), "expects a positive number, got 0.0"),
        (1e-40, 1.0, Range(), "expects at least 1e-30, got 1e-40"),
        (1e40, 1.0, Range(), "expects at most 1e+30"),
        (10**10, 1, Range(), "expects at most 1000000000"),
        (2.0, 1, Range(), "expects a whole number such as 1, got 2.0"),
        (True, 1, Range(), "expects a whole number such as 1, got True"),
        (1, True, Range(), "expects true or false, got 1"),
        ((2.0, 1.0), (1.0, 2.0), INTERVAL, "expects numbers in order such as"),
        ((1.0,), (1.0, 2.0), INTERVAL, "expects 2 values such as"),
        ((4, 0.1, 3), (4, 0.1), Range(), "expects 2 values such as"),
        ((4, -0.1), (4, 0.1), Range(), "expects a positive number in a list such as"),
        (("x",), (), Range(empty=True), "expects a whole number such as 1 in a list"),
        ((), (1, 2), Range(), "expects a list that is not empty"),
        ("7", None, Range(), "expects a number or null, got '7'"),
    ],
)
def test_what_is_said_of_a_value_out_of_range(value, default, allowed, words):
    found = fault("group.name", value, default, {"name": allowed})
    assert found is not None and words in found


def test_a_range_is_that_of_the_longest_name():
    ranges = {"depth": Range(0), "system.depth": Range(5)}
    assert fault("network.depth", 0, 1, ranges) is None and fault("depth", 0, 1, ranges) is None
    assert fault("system.depth", 4, 1, ranges) == "expects at least 5, got 4"


def never_runs(study, context):
    raise AssertionError(f"{study.name} ran with {context.config}")


TEXT = {
    "vibrating_string": ("phdme", ("data.family", "data.shifted_family", "rollouts.initial", "system.stress",
                                   "structure.closure", "physics.residual_target", "network.prediction")),
    "driven_pendulum": ("gp_rollout", ("physics.residual_target", "network.prediction")),
    "circle": ("pidm_me,cocogen", ("network.name", "training.predicts", "sampling.sampler", "informed.variance",
                                   "sampling.correction_rule", "data.kinds")),
    "spring": ("gp_rollout", ("data.train", "data.clock", "network.prediction")),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXT)
def test_a_word_that_is_not_known_is_refused_before_anything_is_written(name, tmp_path, capsys):
    methods, keys = TEXT[name]
    arguments = ["--size", "smoke", "--methods", methods, "--data_dir", str(tmp_path)]
    for key in keys:
        word = "nan,nan" if key == "data.kinds" else "nan"
        given = [*arguments, "--workdir", str(tmp_path / "run"), f"--config.{key}={word}"]
        assert main(STUDIES[name], given, never_runs) == 2
        assert "nan" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
