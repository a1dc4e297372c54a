"""The study of fields that obey known equations: generative models with and without physics, against each other.

A study is one module with the name of its equations; see `experiments.darcy_kle`.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np

from experiments.configs import known_equations
from experiments.data.equations import FieldSet, load_or_make
from experiments.evaluation import equations as equation_scores
from experiments.report import equations as equation_figures
from experiments.study.command import RunContext, Study
from phdme_jax.app.page import Section
from phdme_jax.app.rows import Measurement
from phdme_jax.files import config_digest
from phdme_jax.methods.equations import training as equation_training
from phdme_jax.methods.equations.encoding import check_kinds
from phdme_jax.methods.equations.models import EquationMethod, has_map
from phdme_jax.methods.legacy import EQUATION_METHODS
from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.base import Equations

# where compiling a network takes longer than the rest of a trial: those of two networks
FEW_METHODS = ("diffusion", "pidm_me", "cocogen", "generate_then_solve")


@dataclasses.dataclass(frozen=True)
class EquationProblem:
    """Known equations as their study sees them.

    Attributes:
      name: in the registry and in results.
      title: of the report.
      labels: each field with its unit.
      shifted: arguments of the factory that change for the shifted split; none leaves it out.
      trial_methods: methods of a bare command at the size smoke; all where empty.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    shifted: tuple[tuple[str, Any], ...] = ()
    trial_methods: tuple[str, ...] = ()


def _methods_of(equations: Equations) -> list[EquationMethod]:
    return [method for method in EQUATION_METHODS.values() if method.physics != "map" or has_map(equations)]


def check(problem: EquationProblem, context: RunContext) -> None:
    """Refuse a configuration that cannot be built before anything is written."""
    equations = make_equations(problem.name, **context.config.equations)
    check_kinds(tuple(context.config.data.kinds), len(equations.fields))
    for name in context.methods:
        equation_training.trace_sample(equations, EQUATION_METHODS[name], context.config)


class EquationRun:
    """Everything one seed shares between methods."""

    def __init__(self, problem: EquationProblem, context: RunContext, seed: int) -> None:
        self.problem, self.context, self.seed, self.config = problem, context, seed, context.config
        options = context.config.equations.to_dict()
        self.equations = make_equations(problem.name, **options)
        sources: dict[str, Equations] = {"train": self.equations, "test": self.equations}
        if problem.shifted:
            sources["shifted"] = make_equations(problem.name, **options, **dict(problem.shifted))
        counts = {split: context.config.data[f"num_{split}"] for split in sources}
        self.sets = load_or_make(sources, counts, seed, context.workdir)
        self.codes = equation_training.fit_codes(self.sets["train"], tuple(context.config.data.kinds))
        self.key = jax.random.fold_in(jax.random.key(13), seed)
        self._trained: dict[int, tuple[Any, float]] = {}
        self._drawn: dict[Any, tuple[np.ndarray, float, int]] = {}

    def model(self, method: EquationMethod) -> Any:
        """The method's model."""
        shape = self.sets["train"].fields.shape[1:]
        return equation_training.build_model(self.equations, method, self.config, shape)

    def trained(self, method: EquationMethod) -> tuple[Any, float]:
        """Parameters of the method's network and the seconds they took; methods of one network share them."""
        if method.stream not in self._trained:
            owner = next(one for one in EQUATION_METHODS.values() if one.stream == method.stream)
            folder = self.context.workdir / "training" / f"{owner.name}_{self.seed}"
            self._trained[method.stream] = equation_training.train_model(
                self.model(owner), self.codes, equation_training.encoded(self.codes, self.sets["train"]),
                self.config, jax.random.fold_in(self.key, 100 + method.stream),
                config_digest(self.config.to_dict()), folder,
            )  # fmt: skip
        return self._trained[method.stream]

    def generated(self, method: EquationMethod, split: str) -> tuple[np.ndarray, float, int]:
        """Fields for the conditions of a split, seconds a sample, calls of the network; drawn once a network."""
        owner = (method.stream, method.after == "correct", split)
        if owner not in self._drawn:
            wanted = equation_training.encoded(self.codes, self.sets[split])
            place = list(self.sets).index(split) - 1
            key = jax.random.fold_in(jax.random.fold_in(self.key, 200 + place), method.stream)
            params, _ = self.trained(method)
            self._drawn[owner] = equation_training.generate(
                self.model(method), params, self.codes, wanted, self.config.sampling, key
            )
        fields, seconds, calls = self._drawn[owner]
        if method.after == "resolve":
            fields, more = equation_training.solve_anew(self.equations, fields, self.sets[split].condition)
            seconds += more
        return fields, seconds, calls

    def record(self, method: str, split: str, rows: dict[str, Measurement], count: int) -> None:
        """Write rows of this seed."""
        self.context.results.record(self.problem.name, method, self.seed, split, rows, count)

    def scores(self, generated: FieldSet, split: str) -> dict[str, Measurement]:
        """All scores of generated fields against those of a split."""
        reference = self.sets[split]
        rows = equation_scores.physics_scores(self.equations, generated)
        rows |= equation_scores.distance_scores(self.equations, generated, reference, bool(self.equations.conditions))
        if self.problem.name == "circle":
            rows["angle_divergence"] = equation_scores.angle_divergence(generated.fields)
        if self.problem.name == "topology":
            rows |= equation_scores.body_scores(self.equations, generated, reference)
        return rows


def evaluate(run: EquationRun, method: EquationMethod) -> np.ndarray:
    """Train, generate for every split, write the rows; returns the fields generated for the test split."""
    _, seconds = run.trained(method)
    run.record(method.name, "train", {"train_seconds": Measurement(seconds, "s")}, len(run.sets["train"].fields))
    kept = None
    for split in run.sets:
        if split == "train":
            continue
        fields, each, calls = run.generated(method, split)
        rows = run.scores(FieldSet(fields, run.sets[split].condition), split)
        rows |= {"seconds_per_sample": Measurement(each, "s"), "nfe": Measurement(float(calls))}
        run.record(method.name, split, rows, len(fields))
        kept = fields if split == "test" else kept
    assert kept is not None
    return kept


def reference_rows(run: EquationRun) -> None:
    """Scores of other examples of the data: the floor that sampling leaves."""
    test = run.sets["test"]
    count = min(len(test.fields), len(run.sets["train"].fields))
    other = FieldSet(*(part[:count] for part in run.sets["train"]))
    rows = equation_scores.physics_scores(run.equations, test)
    rows |= equation_scores.distance_scores(run.equations, other, test)
    if run.problem.name == "circle":
        rows["angle_divergence"] = equation_scores.angle_divergence(test.fields)
    run.record("reference", "test", rows, len(test.fields))


def run_study(problem: EquationProblem, context: RunContext) -> list[Section]:
    """Every seed and method: rows, pictures, sections."""
    sections: list[Section] = []
    for seed in context.seeds:
        run = EquationRun(problem, context, seed)
        reference_rows(run)
        drawn = {}
        for name in context.methods:
            drawn[name] = evaluate(run, EQUATION_METHODS[name])
            print(f"seed {seed}: {name} done", flush=True)
        if seed == context.seeds[0]:
            sections = equation_figures.draw_all(context, run, drawn)
    return [equation_figures.residual_section(context), *sections]


def make_study(problem: EquationProblem) -> Study:
    """The study of known equations.

    Args:
      problem: the equations and their labels.
    Returns:
      what the command line needs.
    """
    return Study(
        name=problem.name,
        title=problem.title,
        get_config=partial(known_equations.get_config, problem.name),
        run=partial(run_study, problem),
        methods=tuple(method.name for method in _methods_of(make_equations(problem.name))),
        sizes=known_equations.sizes(problem.name),
        check=partial(check, problem),
        trial_methods=problem.trial_methods,
    )
