"""Methods and cases of a run: what a trial leaves out, and what does not fit is refused."""

import dataclasses

from experiments import priors_forecasts, vibrating_string
from experiments.study.command import main, offered_methods, parse


def test_a_trial_runs_the_methods_of_a_trial_unless_others_are_named(tmp_path):
    def methods(*words):
        return parse(vibrating_string.STUDY, [*words, "--workdir", str(tmp_path)]).methods

    full = offered_methods(vibrating_string.STUDY, "laptop")
    assert methods("--size", "smoke") == methods("--size", "demo")
    assert set(full) - set(methods("--size", "smoke")) == {"phdme_oracle", "hnn", "neural_ode", "fno"}
    assert methods("--size", "laptop") == full and "diffusion_physics" not in full
    assert methods("--size", "smoke", "--methods", "hnn") == ("hnn",)


def test_a_method_that_does_not_fit_is_refused_before_anything_is_written(capsys, tmp_path):
    folder = tmp_path / "run"
    assert main(vibrating_string.STUDY, ["--size", "smoke", "--methods", "pidm_me", "--workdir", str(folder)]) == 2
    assert "pidm_me needs residual, which vibrating_string does not offer" in capsys.readouterr().err
    assert not folder.exists()


def test_a_method_of_some_cases_alone_is_refused_where_none_of_them_is_run(capsys, tmp_path):
    study = dataclasses.replace(priors_forecasts.STUDY, check=None)
    arguments = ["--size", "smoke", "--methods", "penalty_linear,fno", "--workdir", str(tmp_path / "run")]
    seen = []
    assert main(study, arguments, lambda _, context: seen.append(context) or []) == 2  # nothing was recorded
    assert [{variant.method for variant in seen[0].entries(case)} for case in study.cases] == [
        {"penalty_linear", "fno"},
        {"fno"},
    ]
    arguments[-1] = str(tmp_path / "other")
    assert main(study, [*arguments, "--cases", "viscous_burgers"]) == 2
    assert "penalty_linear needs linear, which viscous_burgers does not offer" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
