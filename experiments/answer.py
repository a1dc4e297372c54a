"""Answers to your own question from a trained study: `python -m experiments.answer RUN_FOLDER QUESTION.npz --out DIR`.

    python -m experiments.poisson_2d --size laptop --seeds 1 --methods piddm_search,kriging
    python -m experiments.answer runs/poisson_2d_laptop question.npz --method piddm_search --out answer

QUESTION.npz says what was read where, see `experiments.data.own_question.read_question`. DIR gets answer.npz and, of
fields on two axes, a picture of each. What the method needs and the run has not trained yet is trained first.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.data.own_question import RANGES, far_readings, read_question, refuse_values, same_question
from experiments.data.questions import CALIBRATION
from experiments.report.answers import own_answer_picture
from experiments.study.command import run_record
from experiments.study.reopened import equations_of_run, reopened
from experiments.study.runner import LEAST_SPREAD, SeedRun
from phdme_jax.app.command import CommandParser, command_line, folder, run_main, user_input, whole_number
from phdme_jax.app.command import path as file_path
from phdme_jax.app.process import prepare_process
from phdme_jax.files import InputError, RunFailed, atomic_write, claimed_folder, output_file, writing
from phdme_jax.forecasting import bands
from phdme_jax.methods.base import Examples, Fitted, refuse, unusual_draws
from phdme_jax.methods.draws import draw_forecasts
from phdme_jax.methods.equations.questions import Question
from phdme_jax.methods.table import METHODS
from phdme_jax.systems.equations.base import Equations

MOST_SAMPLES, LARGEST_SEED = 10**4, 2**31 - 1


class OwnAnswer(NamedTuple):
    """What a method says of the fields of one question, physical units.

    Attributes:
      samples: (sample, *grid, field).
      lower, upper: edges of the band of all hidden places at once, not numbers where something was read; None without.
      level: of the band; None without.
      unsaid: why there is no band; empty where there is one.
    """

    samples: np.ndarray
    lower: np.ndarray | None = None
    upper: np.ndarray | None = None
    level: float | None = None
    unsaid: str = ""


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
    plain = OwnAnswer(own.samples[0])
    if not calibrates:
        return plain._replace(unsaid="none was asked for")
    world = bench.world if isinstance(bench.world, dict) else {}
    if CALIBRATION not in world or bench.level is None or bench.scale is None:
        return plain._replace(unsaid="this study keeps no examples to calibrate one on")
    if num_samples < 2:
        return plain._replace(unsaid="one sample has no spread")
    examples, kinds = Examples(*world[CALIBRATION]), tuple(bench.options["data"]["kinds"])
    print(f"asks {len(examples.fields)} other examples the same, to calibrate the band", flush=True)
    asked = same_question(question, examples, kinds, jax.random.fold_in(key, 1))
    others = _drawn(fitted, asked, num_samples, jax.random.fold_in(key, 2))
    judged = bands.judged(examples.fields, others, np.asarray(asked.mask) == 0)
    floor = LEAST_SPREAD * np.asarray(bench.scale, np.float64)
    calibration = bands.calibrate(examples.fields, judged, floor, bench.level)
    if not np.isfinite(calibration.quantile):
        failed = int((~others.ok).sum())
        return plain._replace(unsaid=f"{failed} of {len(examples.fields)} examples had no finite answer")
    read = np.asarray(question.mask) > 0
    lower, upper = (_possible(np.where(read, np.nan, edge[0]), kinds) for edge in bands.forecast_band(own, calibration))
    return plain._replace(lower=lower, upper=upper, level=bench.level)


def _possible(edge: np.ndarray, kinds: tuple[str, ...]) -> np.ndarray:
    """An edge of a band with what a field cannot be left out of the band."""
    limits = np.array([RANGES[kind][:2] if kind in RANGES else (-np.inf, np.inf) for kind in kinds])
    return np.clip(edge, *limits.T)


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
    prepare_process()
    context = reopened(options.run, options.method)
    case, problem = equations_of_run(context, options.case)
    if options.method not in METHODS or not METHODS[options.method].questions:
        able = [name for name, method in METHODS.items() if method.questions and method.refusal(problem) is None]
        raise InputError(f"{options.method} answers no questions about fields; choose --method among {', '.join(able)}")
    with user_input():
        refuse(METHODS[options.method], problem)
    question = read_question(options.question, problem)
    _check_out(options.out, options.run)
    with claimed_folder(options.run, {**run_record(context), **unusual_draws()}, "config.json"):
        run = SeedRun(context, case, options.model_seed)
        refuse_values(options.question, question, problem, tuple(run.bench.options["data"]["kinds"]))
        far = far_readings(question, run.bench.task.train(), problem.fields)
        found = answer(run, options.method, question, options.samples, options.seed, not options.no_band)
    written = write_answer(options.out, problem, question, found)
    pictures = own_answer_pictures(options.out, problem, question, found.samples)
    for name in far:
        print(f"note: a reading of {name} is beyond all examples that were learned from; nothing is promised for it")
    kind = f"no band: {found.unsaid}" if found.level is None else f"calibrated {100 * found.level:g} % band"
    print(f"answer: {written} ({len(found.samples)} samples, {kind})")
    for picture in pictures:
        print(f"picture: {picture}")


def _check_out(out: Path, run: Path) -> None:
    """Refuses the run's own folder, and makes the one to write, before anything is computed."""
    if out.resolve().is_relative_to(run.resolve()):
        raise InputError(f"{out}: lies in the run that is asked; choose another --out")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    output_file(out / "answer.npz")


def own_answer_pictures(out: Path, problem: Equations, question: Question, samples: np.ndarray) -> list[Path]:
    """A picture of each field that was not wholly observed; none of fields that are not on two axes; old ones go."""
    if len(problem.grid.points) != 2:
        return []
    paths = []
    for index, name in enumerate(problem.fields):
        path = out / f"{name.replace(' ', '_')}.png"
        path.unlink(missing_ok=True)
        if not np.asarray(question.mask)[..., index].all():
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
