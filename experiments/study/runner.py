"""The one loop: seeds x methods x splits -> rows -> page.

A method is fitted after its teacher, each once a seed; what takes long is kept in the run folder, so that a run that
was killed goes on with the same command.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.study.study import Answer, Bench, Context, Shown, Study, Variant, as_drawn
from phdme_jax.app.page import Section
from phdme_jax.app.progress import shown as shown_progress
from phdme_jax.app.rows import Measurement
from phdme_jax.files import config_digest
from phdme_jax.forecasting import bands
from phdme_jax.methods.base import Fitted, Method, Options, stage_key, unusual_draws
from phdme_jax.methods.draws import Draws, compile_draws, draw_forecasts
from phdme_jax.methods.table import METHODS, lineage
from phdme_jax.training.stages import Trainer

# groups that no training reads: another number of sampling steps does not train anew
UNTRAINED = ("sampling", "costs", "level", "solved", "projected", "questions", "answers", "asked", "hidden")
# keys of what follows a draw: what is fitted and drawn does not depend on them
FINISHING = ("solved", "projected")
Changes = Sequence[tuple[str, Any]]
LEAST_SPREAD = 0.01  # of a field's deviation, in bands
# keys that some methods alone read
OWN = frozenset(key for method in METHODS.values() for key in method.own)


def changed(config: ConfigDict, changes: Changes) -> ConfigDict:
    """A copy of a configuration with other values of some dotted keys; a key that is not there is added."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        for key, value in changes:
            *groups, last = key.split(".")
            group = config
            for name in groups:
                group = group[name]
            group[last] = value
    return config


def _below(key: str, others: Iterable[str]) -> bool:
    return any(key == other or key.startswith(f"{other}.") for other in others)


def _without(groups: Mapping[str, Any], unread: Iterable[str], prefix: str = "") -> dict[str, Any]:
    """Nested groups without some dotted keys."""
    kept = {name: value for name, value in groups.items() if not _below(f"{prefix}{name}", unread)}
    nested = {name: value for name, value in kept.items() if isinstance(value, Mapping)}
    return kept | {name: _without(value, unread, f"{prefix}{name}.") for name, value in nested.items()}


@dataclasses.dataclass
class Kept:
    """What runs that differ in what follows a draw alone have in common: fits, draws, and what was compiled."""

    fitted: dict[str, Fitted] = dataclasses.field(default_factory=dict)
    hosts: dict[str, Trainer] = dataclasses.field(default_factory=dict)
    draws: dict[Any, Draws] = dataclasses.field(default_factory=dict)
    compiled: set[Any] = dataclasses.field(default_factory=set)


class SeedRun:
    """One seed of one case, maybe with changes of the configuration: fits each method once and asks it."""

    def __init__(self, context: Context, case: str, seed: int, changes: Changes = (), kept: Kept | None = None) -> None:
        self.context, self.case, self.seed, self.changes = context, case, seed, tuple(changes)
        self.config = changed(context.config, self.changes)
        self._fitted: dict[str, Fitted] = {}
        self._kept = Kept() if kept is None else kept

    @cached_property
    def bench(self) -> Bench:
        """The seed's data."""
        return self.context.study.bench(self.context, self.config, self.case, self.seed)

    def folder(self, unread: Iterable[str]) -> Path:
        """Where work is kept that does not read some keys; changes of these share it."""
        named = [f"{key}_{value}" for key, value in self.changes if not _below(key, unread)]
        folder = self.context.workdir
        return folder / "variants" / re.sub(r"[^\w.-]+", "_", "_".join(named)) if named else folder

    def digest(self, unread: Iterable[str]) -> str:
        """Of all that work depends on which does not read some keys."""
        record = {"case": self.case, "seed": self.seed, "config": _without(self.config.to_dict(), unread)}
        record |= {"files": self.context.files} | ({"validates": True} if self.context.validates else {})
        return config_digest({**record, **unusual_draws()})

    def host(self, method: Method) -> Trainer:
        """What a fit is handed: trains in a folder of the method's own, keeps in one that methods share."""
        label = f"{self.case}_{method.name}" if self.context.study.cases else method.name
        mine = {key for other in lineage(method.name) for key in other.own}
        unread, shared = (*UNTRAINED, *(OWN - mine)), (*UNTRAINED, *OWN)
        return Trainer(
            self.folder(unread) / "training" / f"{label}_{self.seed}",
            self.digest(unread),
            watch=shown_progress,
            description=method.name,
            shared=self.folder(shared) / "data",
            suffix=f"_{self.case}_{self.seed}" if self.context.study.cases else f"_{self.seed}",
            shared_digest=self.digest(shared),
            slice_size=self.config.get("training", {}).get("slice_size", 0),
        )

    def fitted(self, name: str) -> Fitted:
        """The method, fitted after its teacher."""
        if name not in self._fitted:
            self._fitted[name] = self._adapted(name, self._unadapted(name))
        return self._fitted[name]

    def fit(self, name: str, options: Options) -> Fitted:
        """The method with options that differ from the bench's in groups that no training reads."""
        return self._adapted(name, self._fit(name, options))

    def _adapted(self, name: str, fitted: Fitted) -> Fitted:
        return fitted if self.bench.adapted is None else self.bench.adapted(METHODS[name], fitted)

    def _unadapted(self, name: str) -> Fitted:
        if name not in self._kept.fitted:
            self._kept.fitted[name] = self._fit(name, self.bench.options)
        return self._kept.fitted[name]

    def _fit(self, name: str, options: Options) -> Fitted:
        method, bench = METHODS[name], self.bench
        teacher = self._unadapted(method.teacher) if method.teacher else None
        key = bench.method_key(method) if bench.method_key else stage_key(bench.key, "method", method.stream)
        host = self.host(method)
        fitted = method.fit(bench.task, options, host, teacher, key)
        self._kept.hosts.setdefault(name, host)
        return fitted

    @property
    def learned(self) -> tuple[str, ...]:
        """Names of the methods fitted so far."""
        return tuple(self._kept.fitted)

    def training_costs(self, name: str) -> dict[str, Measurement]:
        """Of a fitted method's own training: seconds an update of its last stage, and the most bytes of any stage."""
        costs = list(self._kept.hosts[name].costs.values())
        memory = max((cost.memory for cost in costs if cost.memory is not None), default=None)
        rows = {"seconds_per_update": Measurement(costs[-1].seconds_per_update, "s")} if costs else {}
        return rows if memory is None else {**rows, "memory": Measurement(memory, "B")}

    def drawn(self, name: str, split: str) -> Draws:
        """What a method drew for a split, before it is observed; methods that draw alike are drawn once."""
        fitted, condition = self.fitted(name), self.bench.splits[split].condition_of(METHODS[name])
        key = self.bench.sample_key(split, METHODS[name])
        label = (fitted.model.draw, id(fitted.params), split, jax.random.key_data(key).tobytes())
        if label not in self._kept.draws:
            count = self.bench.splits[split].num_samples or self.bench.num_samples
            if self.bench.splits[split].questions:
                self._compile(fitted, condition, count, key)
            self._kept.draws[label] = draw_forecasts(fitted, condition, count, key)
        return self._kept.draws[label].finished(fitted.model, condition)

    def _compile(self, fitted: Fitted, condition: Any, count: int, key: Any) -> None:
        """Seconds an answer are those of later ones: once for each method and number of questions."""
        label = (fitted.model.draw, id(fitted.params), len(jax.tree.leaves(condition)[0]), count)
        if label not in self._kept.compiled:
            compile_draws(fitted, condition, count, key)
            self._kept.compiled.add(label)

    def forecasts(self, name: str, split: str) -> bands.Forecasts:
        """A method's forecasts of a split, observed as its truth is."""
        drawn, times, observe = self.drawn(name, split), self.fitted(name).model.times, self.bench.splits[split].observe
        mean, samples = drawn.mean, drawn.samples
        if mean is None and samples is not None and self.bench.has_band(split):
            mean = samples.mean(axis=1)  # what a band lies around
        if observe is not as_drawn:
            mean = None if mean is None else observe(mean, times)
            if samples is not None:
                samples = np.stack([observe(sample, times) for sample in np.moveaxis(samples, 1, 0)], axis=1)
        return bands.Forecasts(mean, samples, drawn.ok, drawn.seconds)  # type: ignore[arg-type]  # maybe no mean

    def answers(self, name: str) -> dict[str, Answer]:
        """What a fitted method answers for every split that is scored."""
        fitted, bench = self.fitted(name), self.bench
        floor, calibrations = self._floor(fitted), dict[str, bands.Calibration]()
        answers, scored = {}, bench.scored(METHODS[name])
        for split in bench.splits_of(METHODS[name]):
            forecasts, asked, scores = self.forecasts(name, split), bench.splits[split], None
            if bench.level is not None and bench.has_band(split):
                assert floor is not None
                judged = bands.judged(asked.truth, forecasts, asked.counted)
                scores = bands.band_scores(asked.truth, judged, floor)
                if split not in scored:
                    calibrations[split] = bands.calibrate(asked.truth, judged, floor, bench.level)
            calibration = calibrations.get(bench.splits[split].calibrated_by)
            answers[split] = Answer(self, name, split, fitted, forecasts, calibration, scores)
        return answers

    def _floor(self, fitted: Fitted) -> np.ndarray | None:
        # a model's floor is one of the fields that it draws
        drawn = all(split.observe is as_drawn for split in self.bench.splits.values())
        if fitted.model.floor is not None and drawn:
            return np.asarray(fitted.model.floor(fitted.params), np.float64)
        return None if self.bench.scale is None else LEAST_SPREAD * np.asarray(self.bench.scale, np.float64)

    def changed(self, changes: Changes) -> "SeedRun":
        """The same seed with other values of some dotted keys; fits and draws too where these only finish draws."""
        kept = self._kept if all(key in FINISHING for key, _ in changes) else None
        return SeedRun(self.context, self.case, self.seed, (*self.changes, *changes), kept)

    def record(self, method: str, split: str, rows: Mapping[str, Measurement], count: int) -> None:
        """Write rows of this seed."""
        self.context.results.record(self.case, method, self.seed, split, rows, count, dict(self.changes))


def evaluate(run: SeedRun, name: str) -> dict[str, Answer]:
    """Fit a method, ask it, write its rows; returns its answers by split."""
    fitted, bench = run.fitted(name), run.bench
    seconds = dict(fitted.seconds)
    rows = {"fit_seconds": Measurement(seconds.pop("fit"), "s")} if "fit" in seconds else {}
    if seconds:
        rows["train_seconds"] = Measurement(sum(seconds.values()), "s")
    rows |= run.training_costs(name)
    if rows:
        run.record(name, "train", rows, len(bench.task.train().fields))
    answers = run.answers(name)
    for split, answer in answers.items():
        if split in bench.scored(METHODS[name]):
            scored = {metric: value for score in run.context.study.scores for metric, value in score(answer).items()}
            run.record(name, split, scored, len(answer.truth))
    return answers


def _parts(changes: Changes) -> tuple[Changes, Changes]:
    """Changes of what is fitted or drawn, and of what follows."""
    last = tuple(one for one in changes if one[0] in FINISHING)
    return tuple(one for one in changes if one not in last), last


def _is_recorded(context: Context, case: str, seed: int, variant: Variant, splits: Sequence[str]) -> bool:
    settings = dict(variant.changes)
    return all(context.results.has(case, variant.method, seed, split, settings) for split in splits)


def run_study(study: Study, context: Context) -> list[Section]:
    """Every case, seed and method, or variant: rows; then the sections of the report, on the first seed of each case.

    Variants that have all their rows are not repeated.
    """
    sections: list[Section] = []
    for case in context.systems:
        shown = None
        for seed in context.seeds:
            plain = SeedRun(context, case, seed)
            answers: dict[str, dict[str, Answer]] = {}
            drawn_by = {repr(()): plain}
            entries = [(variant, *_parts(variant.changes)) for variant in context.entries(case)]
            for number, (variant, before, after) in enumerate(entries):
                # those are kept that another variant finishes in its own way
                wanted = {repr(()), *(repr(other) for _, other, _ in entries[number:])}
                drawn_by = {changes: run for changes, run in drawn_by.items() if changes in wanted}
                drawn = drawn_by.setdefault(repr(before), SeedRun(context, case, seed, before))
                run = drawn.changed(after) if after else drawn
                splits = run.bench.scored(METHODS[variant.method])
                if study.variants and _is_recorded(context, case, seed, variant, splits):
                    continue
                found = evaluate(run, variant.method)
                if not variant.changes:
                    answers[variant.method] = found
                print(f"{case}, seed {seed}: {_label(variant)} done", flush=True)
            for extra in study.extras:
                extra(plain)
            shown = shown or Shown(context, plain, answers)
        if shown is not None:
            sections += [section for make in study.sections for section in make(shown)]
            sections += _notes(shown)
    return sections


def _notes(shown: Shown) -> list[Section]:
    """What the fits of the first seed have to say."""
    fitted = {name: shown.run.fitted(name) for name in shown.run.learned}
    text = "\n\n".join(f"{name}: {note}." for name, found in fitted.items() for note in found.notes)
    return [Section("Notes", text)] if text else []


def _label(variant: Variant) -> str:
    return ", ".join([variant.method, *(f"{key}={value}" for key, value in variant.changes)])
