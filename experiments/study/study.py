"""What a study is: data. Problems, methods, scores, sections and sizes; the loop is `experiments.study.runner`.

STUDY = Study("circle", "Points on the unit circle", SIZES, make_bench, scores=(...), sections=(...))
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from phdme_jax.app.page import Section
from phdme_jax.app.rows import Measurement, ResultsWriter
from phdme_jax.files import file_digest
from phdme_jax.forecasting.bands import Calibration, Forecasts
from phdme_jax.methods.base import Fitted, Method, Options, Problem, Task, Times
from phdme_jax.methods.draws import Draws
from phdme_jax.methods.presets import RANGES
from phdme_jax.methods.ranges import Ranges

SIZES = ("smoke", "demo", "laptop", "accelerator")
ONE_SEED = ("smoke", "demo")  # sizes to try a study with, where no spread is asked for


def as_drawn(fields: np.ndarray, times: Times) -> np.ndarray:
    """The observation operator of a study that scores the fields themselves."""
    del times
    return fields


@dataclass(frozen=True, eq=False)
class Split:
    """What methods are asked, and the truth.

    Attributes:
      truth: what was observed, (sample, ...), physical units.
      condition: of each sample, leaves with a leading axis.
      observe: observation operator: (fields (sample, ...) that a model drew, its times) -> what the truth is compared
        with.
      questions: whether the conditions are a `methods.equations.questions.Question`; methods that answer them are asked
        these splits alone, the others all others.
      plain: conditions of methods that answer no questions, where they are asked a split of questions too: what they
        draw without being told; None leaves them out.
      num_samples: of each condition; that of the bench where None.
      calibrated_by: name of the split on which what is answered here is calibrated, if the bench has it.
      counted: where errors decide about the calibrated band, (sample, ...), true or false; everywhere where None.
    """

    truth: np.ndarray
    condition: PyTree
    observe: Callable[[np.ndarray, Times], np.ndarray] = as_drawn
    questions: bool = False
    plain: PyTree | None = None
    num_samples: int | None = None
    calibrated_by: str = "calibration"
    counted: np.ndarray | None = None

    def asks(self, method: Method) -> bool:
        """Whether a method is asked this split."""
        return self.questions == method.questions or (self.questions and self.plain is not None)

    def condition_of(self, method: Method) -> PyTree:
        """What a method is told of each sample."""
        return self.condition if self.questions == method.questions else self.plain


@dataclass(frozen=True, eq=False)
class Bench:
    """One seed of a study: what methods learn from, and what they are asked.

    Attributes:
      task: all that a method may learn from.
      options: groups of options for the methods.
      splits: by name, in order; those that calibrate others come before these and are not scored. A run that
        validates has the split "validation" in the place of the test sets, which are then not made.
      key: root key of the seed.
      sample_key: (split, method) -> key of the samples.
      num_samples: samples of each condition.
      method_key: method -> key of its fit; None leaves it to the method's stream.
      scale: size of each scored field over the observed data (field,); a hundredth of it is the floor of a spread.
      level: of the calibrated band; None without calibration.
      world: the truth behind the data, for scores and pictures alone.
      adapted: (method, what it fitted) -> what is asked in its place, such as with its solution computed anew; None
        changes nothing.
    """

    task: Task
    options: Options
    splits: Mapping[str, Split]
    key: Any
    sample_key: Callable[[str, Method], Any]
    num_samples: int = 1
    method_key: Callable[[Method], Any] | None = None
    scale: np.ndarray | None = None
    level: float | None = None
    world: Any = None
    adapted: Callable[[Method, Fitted], Fitted] | None = None

    def splits_of(self, method: Method) -> list[str]:
        """Names of the splits that a method is asked."""
        return [name for name, split in self.splits.items() if split.asks(method)]

    def scored(self, method: Method) -> list[str]:
        """Those of them that are scored: all that calibrate no others."""
        return [name for name in self.splits_of(method) if name not in self.calibrating]

    @property
    def calibrating(self) -> set[str]:
        """Names of the splits that calibrate others."""
        return {split.calibrated_by for split in self.splits.values()} & set(self.splits)

    def has_band(self, split: str) -> bool:
        """Whether bands of a split are calibrated, or those of others on it."""
        return self.level is not None and bool(self.calibrating & {split, self.splits[split].calibrated_by})


class Run(Protocol):
    """One seed of one case as scores, sections and extras see it; made by `experiments.study.runner`."""

    context: "Context"
    config: ConfigDict
    case: str
    seed: int
    changes: tuple[tuple[str, Any], ...]

    @property
    def bench(self) -> Bench:
        """The seed's data."""

    @property
    def learned(self) -> tuple[str, ...]:
        """Names of the methods fitted so far."""

    def fitted(self, name: str) -> Fitted:
        """A method, fitted once after its teacher."""

    def fit(self, name: str, options: Options) -> Fitted:
        """A method with options that differ from the bench's in groups that no training reads."""

    def drawn(self, name: str, split: str) -> Draws:
        """What a method drew for a split, before it is observed."""

    def answers(self, name: str) -> dict[str, "Answer"]:
        """What a method answers for every split that it is asked."""

    def changed(self, changes: Sequence[tuple[str, Any]]) -> "Run":
        """The same seed with other values of some dotted keys of the configuration."""

    def record(self, method: str, split: str, rows: Mapping[str, Measurement], count: int) -> None:
        """Write rows of this seed."""

    def __hash__(self) -> int:
        """Runs are told apart by identity, so that what is computed of one can be kept."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What one fitted method answered for one split.

    Attributes:
      run: the seed.
      method: its name.
      split: name of the split.
      fitted: the method.
      forecasts: observed as the truth is.
      calibration: on the split that calibrates this one; None without.
      band_scores: of each sample of the split; None without calibration.
    """

    run: Run
    method: str
    split: str
    fitted: Fitted
    forecasts: Forecasts
    calibration: Calibration | None = None
    band_scores: np.ndarray | None = None

    @property
    def bench(self) -> Bench:
        """The seed's data."""
        return self.run.bench

    @property
    def truth(self) -> np.ndarray:
        """What the forecasts are compared with."""
        return self.bench.splits[self.split].truth


@dataclass(frozen=True)
class Variant:
    """A method and changes of the configuration, (dotted key, value), which stand in the rows as settings.

    Attributes:
      method: its name.
      changes: of the configuration.
      cases: that it is run on; none for all.
    """

    method: str
    changes: tuple[tuple[str, Any], ...] = ()
    cases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Context:
    """A run of a study.

    Attributes:
      study: the study.
      size: of the run.
      workdir: the run folder.
      config: the locked configuration with the user's overrides.
      seeds: seeds to run.
      methods: methods to run.
      data_dir: folder of measured data, or None.
      results: where the numbers go.
      validates: whether the run asks the validation split, on which choices are made, and leaves the test sets sealed.
      cases: of the study that are run; all where there are none.
    """

    study: "Study"
    size: str
    workdir: Path
    config: ConfigDict
    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    data_dir: Path | None
    results: ResultsWriter
    validates: bool = False
    cases: tuple[str, ...] = ()

    @property
    def systems(self) -> tuple[str, ...]:
        """Names of the systems that are run."""
        return self.cases or self.study.systems

    @property
    def asked(self) -> str:
        """Name of the split that the run's tables, pictures and headline are of."""
        return "validation" if self.validates else "test"

    @cached_property
    def files(self) -> Mapping[str, str]:
        """Digests of the measured files that the study reads, by their names below `data_dir`."""
        if self.study.files is None or self.data_dir is None:
            return {}
        return {name: file_digest(self.data_dir / name) for name in self.study.files(self.config)}

    def entries(self, case: str) -> list[Variant]:
        """What is run on a case: the methods of the run, or those of the study's variants that are among them."""
        make = self.study.variants
        chosen = [Variant(name) for name in self.methods] if make is None else make(self.config)
        here = (variant for variant in chosen if not variant.cases or case in variant.cases)
        return [variant for variant in here if variant.method in self.methods]

    def figure_path(self, name: str) -> Path:
        """Path of the picture `name`.png in the run folder."""
        return self.workdir / "figures" / f"{name}.png"


@dataclass(frozen=True, eq=False)
class Shown:
    """What the report shows of one case: the first seed and its answers by method and split."""

    context: Context
    run: Run
    answers: Mapping[str, Mapping[str, Answer]]


Score = Callable[[Answer], Mapping[str, Measurement]]
MakeSection = Callable[[Shown], Sequence[Section]]


@dataclass(frozen=True)
class Study:
    """A study as data.

    Attributes:
      name: of the module, and of the experiment in results.
      title: heading of the report.
      sizes: size -> groups of the configuration.
      problem: (configuration, case) -> the problem; decides which methods fit.
      bench: (context, configuration, case, seed) -> the seed's data.
      scores: of every answer.
      sections: of the report.
      metrics: columns of the table that a run ends with, the first one ranks the methods.
      baseline: method that the best one is compared with in the headline; empty for the next best.
      cases: names of the systems in results; the study's own where empty.
      methods: the methods it compares; all that fit the problem where empty.
      trial_methods: those of a bare command at the sizes that only try the study; where empty, those whose scope
        is "always".
      variants: configuration -> methods with changes of it, in place of the plain methods.
      extras: rows beyond those of the methods, written once a seed after them.
      about: configuration -> what is learned from what, the first sentence of the headline.
      default_size: of a bare command.
      ranges: what the numbers of the configuration may be, see `phdme_jax.methods.ranges`.
      num_seeds: of a bare command, but one at the sizes that only try the study.
      check: refuses wrong input before the run folder is made; raises InputError or ValueError.
      files: configuration -> names of the measured files that it reads below the folder of data.
    """

    name: str
    title: str
    sizes: Mapping[str, Callable[[], Mapping[str, Any]]]
    problem: Callable[[ConfigDict, str], Problem]
    bench: Callable[[Context, ConfigDict, str, int], Bench]
    scores: tuple[Score, ...]
    sections: tuple[MakeSection, ...]
    metrics: tuple[str, ...]
    baseline: str = ""
    cases: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    trial_methods: tuple[str, ...] = ()
    variants: Callable[[ConfigDict], Iterable[Variant]] | None = None
    extras: tuple[Callable[[Run], None], ...] = ()
    about: Callable[[ConfigDict], str] | None = None
    default_size: str = "laptop"
    ranges: Ranges = field(default_factory=lambda: RANGES)
    num_seeds: int = 3
    check: Callable[[Context], None] | None = None
    files: Callable[[ConfigDict], Iterable[str]] | None = None

    def get_config(self, size: str) -> ConfigDict:
        """Configuration of one size; its groups are keyword arguments of the factories."""
        return ConfigDict(self.sizes[size]())

    @property
    def systems(self) -> tuple[str, ...]:
        """Names of the systems in results."""
        return self.cases or (self.name,)
