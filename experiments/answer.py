"""Answers to your own question from a trained study: `python -m experiments.answer RUN_FOLDER QUESTION.npz --out DIR`.

    python -m experiments.poisson_2d --size laptop --seeds 1 --methods piddm_search,kriging
    python -m experiments.answer runs/poisson_2d_laptop question.npz --method piddm_search --out answer

QUESTION.npz says what was read where, see `experiments.data.own_question.read_question`. DIR gets answer.npz and, of
fields on two axes, a picture of each. What the method needs and the run has not trained yet is trained first.
"""

import argparse
import dataclasses
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.__main__ import catalogue
from experiments.data.own_question import read_question, same_question
from experiments.data.questions import CALIBRATION
from experiments.report.answers import own_answer_picture
from experiments.study.command import parse
from experiments.study.runner import SeedRun
from experiments.study.study import Context, Study
from phdme_jax.app.command import CommandParser, command_line, folder, run_main, user_input, whole_number
from phdme_jax.app.command import path as file_path
from phdme_jax.app.process import prepare_process
from phdme_jax.files import InputError, RunFailed, atomic_write, claimed_folder, read_json
from phdme_jax.forecasting import bands
from phdme_jax.methods.base import Examples, Fitted, refuse
from phdme_jax.methods.draws import draw_forecasts
from phdme_jax.methods.equations.questions import Question
from phdme_jax.methods.table import METHODS
from phdme_jax.systems.equations.base import Equations

MOST_SAMPLES, LARGEST_SEED = 10**4, 2**31 - 1
FLOOR = 0.01  # of a field's deviation: the least spread of a band


class OwnAnswer(NamedTuple):
    """What a method says of the fields of one question, physical units.

    Attributes:
      samples: (sample, *grid, field).
      lower, upper: edges of the band of all hidden places at once; None where it is not calibrated.
      level: of the band.
    """

    samples: np.ndarray
    lower: np.ndarray | None
    upper: np.ndarray | None
    level: float | None


def restored(config: ConfigDict, kept: Any) -> ConfigDict:
    """A configuration with the values that a run kept as JSON, tuples for its lists."""
    found = config.copy_and_resolve_references()

    def tuples(value: Any) -> Any:
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    def fill(group: ConfigDict, values: dict[str, Any]) -> None:
        for name, value in values.items():
            inner = group.get(name)
            if isinstance(value, dict) and isinstance(inner, ConfigDict):
                fill(inner, value)
            else:
                group[name] = ConfigDict(value) if isinstance(value, dict) else tuples(value)

    with found.unlocked(), found.ignore_type():
        fill(found, kept)
    return found


def opened(workdir: Path, method: str) -> tuple[Study, Context]:
    """The study of a run folder, as it was run, with one method.

    Raises:
      InputError: no run is there, or one of another code or of no study.
    """
    record = read_json(workdir / "config.json")
    name, size = record.get("experiment"), record.get("size")
    if name not in dict(catalogue()) or size is None:
        raise InputError(f"{workdir}: holds no run of a study; expected the folder of a finished one, with config.json")
    study = getattr(importlib.import_module(f"experiments.{name}"), "STUDY", None)
    if not isinstance(study, Study) or size not in study.sizes:
        raise InputError(f"{workdir}: {name} of size {size} asks no questions; expected a run of known equations")
    context = parse(study, ["--size", size, "--workdir", str(workdir), "--methods", method])
    config = restored(study.get_config(size), record["config"])
    return study, dataclasses.replace(context, config=config, validates=bool(record.get("validates")))


def equations_of_run(study: Study, context: Context, case: str | None) -> tuple[str, Equations]:
    """The equations that are asked about, and their name in the study.

    Raises:
      InputError: an unknown case, none of several, or a system of another kind.
    """
    known = study.systems
    if case is None and len(known) > 1:
        raise InputError(f"{study.name} has several cases; choose --case among {', '.join(known)}")
    name = known[0] if case is None else case
    if name not in known:
        raise InputError(f"unknown case {name!r}; {study.name} has {', '.join(known)}")
    problem = study.problem(context.config, name)
    if not isinstance(problem, Equations):
        raise InputError(f"{study.name} is no study of known equations; expected a run of one, such as poisson_2d")
    return name, problem


def answer(
    run: SeedRun, method: str, question: Question, num_samples: int, seed: int = 0, calibrates: bool = True
) -> OwnAnswer:
    """Samples of the answer and, where the run holds examples to calibrate on, a band of what was not observed.

    The same places are read of the examples, with the same noise: the band promises its level for examples like these.

    Args:
      run: one seed of a study.
      method: that answers questions.
      question: what was read.
      num_samples: of the answer.
      seed: of the draws.
      calibrates: whether a band is wanted.
    Returns:
      the answer.
    Raises:
      RunFailed: a sample is not finite.
    """
    fitted, bench, key = run.fitted(method), run.bench, jax.random.key(seed)
    one = jax.tree.map(lambda leaf: np.asarray(leaf)[None], question)
    own = _drawn(fitted, one, num_samples, jax.random.fold_in(key, 0))
    if not own.ok.all():
        raise RunFailed(f"{method} gave no finite answer; try another method, or a larger noise of the readings")
    assert own.samples is not None
    world = bench.world if isinstance(bench.world, dict) and calibrates else {}
    if CALIBRATION not in world or bench.level is None or num_samples < 2 or bench.scale is None:
        return OwnAnswer(own.samples[0], None, None, None)
    print(f"asks {len(world[CALIBRATION].fields)} other examples the same, to calibrate the band", flush=True)
    examples, kinds = Examples(*world[CALIBRATION]), tuple(bench.options["data"]["kinds"])
    asked = same_question(question, examples, kinds, jax.random.fold_in(key, 1))
    others = _drawn(fitted, asked, num_samples, jax.random.fold_in(key, 2))
    judged = bands.judged(examples.fields, others, np.asarray(asked.mask) == 0)
    calibration = bands.calibrate(examples.fields, judged, FLOOR * np.asarray(bench.scale, np.float64), bench.level)
    lower, upper = bands.forecast_band(own, calibration)
    return OwnAnswer(own.samples[0], lower[0], upper[0], bench.level)


def _drawn(fitted: Fitted, questions: Question, num_samples: int, key: Any) -> bands.Forecasts:
    draws = draw_forecasts(fitted, questions, num_samples, key).finished(fitted.model, questions)
    assert draws.samples is not None
    return bands.Forecasts(draws.samples.mean(axis=1), draws.samples, draws.ok, draws.seconds)


def write_answer(out: Path, problem: Equations, question: Question, found: OwnAnswer) -> Path:
    """Writes answer.npz: samples, mean, deviation, maybe lower, upper and level, mask, values and names of the fields.

    Args:
      out: folder, made if missing.
      problem: names the fields.
      question: what was read.
      found: the answer.
    Returns:
      path of the file.
    """
    samples = found.samples
    spread = samples.std(axis=0, ddof=1) if len(samples) > 1 else np.zeros_like(samples[0])
    arrays = {"samples": samples, "mean": samples.mean(axis=0), "deviation": spread, "fields": np.array(problem.fields)}
    arrays |= {"mask": np.asarray(question.mask), "values": np.asarray(question.values)}
    if found.lower is not None and found.upper is not None and found.level is not None:
        arrays |= {"lower": found.lower, "upper": found.upper, "level": np.array(found.level)}
    with atomic_write(out / "answer.npz") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return out / "answer.npz"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code, see `run_main`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return run_main(lambda: _answer(given), command_line("python -m experiments.answer", arguments))


def _answer(arguments: Sequence[str]) -> None:
    options = _parse(arguments)
    if options.method not in METHODS or not METHODS[options.method].questions:
        able = [name for name, method in METHODS.items() if method.questions and "structure" not in method.needs]
        raise InputError(f"{options.method} answers no questions about fields; choose --method among {', '.join(able)}")
    study, context = opened(options.run, options.method)
    case, problem = equations_of_run(study, context, options.case)
    with user_input():
        refuse(METHODS[options.method], problem)
    question = read_question(options.question, problem, tuple(context.config.data.kinds))
    prepare_process()
    with claimed_folder(options.run, read_json(options.run / "config.json"), "config.json"):
        run = SeedRun(context, case, options.model_seed)
        found = answer(run, options.method, question, options.samples, options.seed, not options.no_band)
    written = write_answer(options.out, problem, question, found)
    pictures = own_answer_pictures(options.out, problem, question, found.samples)
    kind = "no band" if found.level is None else f"calibrated {100 * found.level:g} % band"
    print(f"answer: {written} ({len(found.samples)} samples, {kind})")
    for picture in pictures:
        print(f"picture: {picture}")


def own_answer_pictures(out: Path, problem: Equations, question: Question, samples: np.ndarray) -> list[Path]:
    """A picture of each field that was not wholly observed; none of fields that are not on two axes."""
    if len(problem.grid.points) != 2:
        return []
    paths = []
    for index, name in enumerate(problem.fields):
        if not np.asarray(question.mask)[..., index].all():
            path = out / f"{name.replace(' ', '_')}.png"
            paths.append(own_answer_picture(path, problem, question, samples, index))
    return paths


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser(
        prog="python -m experiments.answer", description="Answers to your own question from a trained study."
    )
    parser.add_argument("run", type=folder, metavar="RUN_FOLDER", help="of a study of known equations")
    parser.add_argument("question", type=file_path, metavar="QUESTION.npz", help="see experiments/README.md")
    parser.add_argument("--method", required=True, help="that answers questions, such as matched_flow")
    parser.add_argument("--case", help="of a study of several problems")
    parser.add_argument("--samples", type=whole_number(1, MOST_SAMPLES), default=16, help="of the answer (%(default)s)")
    parser.add_argument("--seed", type=whole_number(0, LARGEST_SEED), default=0, help="of the draws (%(default)s)")
    parser.add_argument(
        "--model_seed", type=whole_number(0, LARGEST_SEED), default=0, help="seed of the run to ask (%(default)s)"
    )
    parser.add_argument("--no_band", action="store_true", help="samples alone, without the examples that calibrate")
    parser.add_argument("--out", type=folder, required=True, metavar="DIR", help="folder to write")
    return parser.parse_args(list(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
